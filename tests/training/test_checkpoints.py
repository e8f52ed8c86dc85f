"""Checkpoints of which each rank writes its rows: read by any number of ranks, whole or not."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.utils import _pytree as pytree

from recsys import ranks
from recsys.checkpoints import SavedRows, _digest, read_checkpoint, remove_others
from recsys.errors import RunError
from recsys.files import facts_of
from recsys.nn.embedding import _own_rows, like

from . import rows_on_ranks


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks have written, of which one was killed at the end."""
    folder = tmp_path_factory.mktemp("written")
    script = [sys.executable, rows_on_ranks.__file__, str(folder)]
    both = [subprocess.Popen([*script, str(rank)], stderr=subprocess.PIPE) for rank in range(2)]
    errors = [process.communicate(timeout=120)[1].decode() for process in both]
    assert both[1].returncode == 9, errors[1]
    assert re.search(r"Connection (closed|reset) by peer", errors[0]), errors[0]
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """The small one, to be damaged."""
    for path in written.glob("last.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / "last.ckpt"


def files_of(index: Path) -> list[str]:
    return sorted(read_index(index)["files"])


def rows_beside(index: Path) -> list[str]:
    return sorted(path.name for path in index.parent.glob(f"{index.stem}.*.safetensors"))


def read_index(path: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads(path.read_text())
    return index


def test_what_ranks_have_written_is_that_of_one(written: Path) -> None:
    """To the last bit, and that of the write before the one that was killed."""
    alone = rows_on_ranks.state_after_a_step(rows_on_ranks.SIZES["small"], divided=False)
    together = read_checkpoint(written / "last.ckpt")
    assert together["epoch"] == 3
    assert together["callbacks"] == alone["callbacks"]
    groups = [of["optimizer_states"][0]["param_groups"] for of in (alone, together)]
    assert groups[1] == [{**groups[0][0], "betas": [0.8, 0.9]}]
    for name in ("state_dict", "optimizer_states"):
        of_one, of_ranks = (
            dict(pytree.tree_flatten_with_path(of[name])[0]) for of in (alone, together)
        )
        tensors = {key: value for key, value in of_one.items() if isinstance(value, torch.Tensor)}
        assert len(tensors) in (4, 6)
        for key, tensor in tensors.items():
            assert of_ranks[key].equal(tensor), key
            assert of_ranks[key].dtype == tensor.dtype


def test_each_rank_has_a_file_of_its_rows(written: Path) -> None:
    index = read_index(written / "last.ckpt")
    weight = index["tensors"]["/state_dict/items.weight"]
    assert weight["shape"] == [41, 8]
    assert weight["dtype"] == "float32"
    assert [part["rows"] for part in weight["parts"]] == [[0, 21], [21, 41]]
    first, second = (written / part["file"] for part in weight["parts"])
    assert (first.name[-18:], second.name[-18:]) == ("0-of-2.safetensors", "1-of-2.safetensors")
    # Weights and two moments, and what is tied once; rank 0 has what nobody divides.
    assert 3 * 20 * 8 * 4 < second.stat().st_size < 3 * 21 * 8 * 4 + 500
    assert "/state_dict/tied" not in index["tensors"]


def test_no_rank_makes_room_for_a_table(written: Path) -> None:
    """Of 26 MB, and three of that with its moments: nothing to write it, to read it its rows."""
    table = 100_001 * 64 * 4
    for rank in range(2):
        grown = json.loads((written / f"grown.{rank}.json").read_text())
        assert grown["write"] < table / 8, grown
        assert grown["read"] < 1.25 * table, grown  # twice its rows: from the file, and a copy


def test_a_killed_write_leaves_the_checkpoint_before_it(copied: Path) -> None:
    here = sorted(path.name for path in copied.parent.glob("last.*.safetensors"))
    assert set(here) > set(files_of(copied))  # rank 0 had written its rows
    remove_others(copied, files_of(copied))
    assert sorted(path.name for path in copied.parent.glob("last.*.safetensors")) == files_of(
        copied
    )
    assert read_checkpoint(copied)["epoch"] == 3


@pytest.mark.parametrize("world", [1, 2, 3, 5, 50])
def test_any_number_of_ranks_reads_its_rows(
    world: int, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = read_checkpoint(written / "last.ckpt", whole=False)["state_dict"]["items.weight"]
    assert isinstance(saved, SavedRows)
    whole = saved.whole()
    chunks = [*whole.chunk(world), *[whole[:0]] * world]
    monkeypatch.setattr(ranks, "world", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        assert saved.rows(*_own_rows(41)).equal(chunks[rank])
    assert like(saved, torch.empty(3)).equal(whole)


def with_index(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """An index that was changed by one who knows of its digest."""
    index = read_index(path)
    del index["sha256"]
    change(index)
    path.write_text(json.dumps(index | {"sha256": _digest(index)}))


def weight_of(index: dict[str, Any]) -> dict[str, Any]:
    of: dict[str, Any] = index["tensors"]["/state_dict/items.weight"]
    return of


def of_elsewhere(index: dict[str, Any]) -> None:
    weight_of(index)["parts"][1]["file"] = "../other.safetensors"


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "lacks rows": lambda index: weight_of(index)["parts"].pop(),
    "or has some twice": lambda index: weight_of(index)["parts"][1].update(rows=[20, 41]),
    "another shape": lambda index: weight_of(index).update(shape=[41, 8_000_000_000]),
    "Invalid name '../other.safetensors'": of_elsewhere,
    "is torch.float32 in": lambda index: weight_of(index).update(dtype="float64"),
    "is of no type": lambda index: weight_of(index).update(dtype="load"),
    "no state of a model": lambda index: index["checkpoint"].pop("state_dict"),
    "is not the file": lambda index: index["files"][min(index["files"])].update(bytes=7),
}


@pytest.mark.parametrize("message", CHANGES)
def test_an_index_that_somebody_has_changed(message: str, copied: Path) -> None:
    (copied.parent.parent / "other.safetensors").write_bytes(b"")
    with_index(copied, CHANGES[message])
    with pytest.raises(
        RunError, match=rf"last\.ckpt is damaged .*{message}.*; remove checkpoints/"
    ):
        read_checkpoint(copied)


def test_files_that_are_not_as_they_were_written(copied: Path) -> None:
    text = copied.read_text()
    copied.write_text(text.replace('"epoch": 3', '"epoch": 4'))
    with pytest.raises(RunError, match=r"last\.ckpt is damaged \(not as it was written\)"):
        read_checkpoint(copied)
    copied.write_text(text)
    rows = copied.with_name(files_of(copied)[1])
    data = bytearray(rows.read_bytes())
    data[-5] ^= 1
    rows.write_bytes(data)
    with pytest.raises(RunError, match=r"1-of-2.safetensors is not the file that was written"):
        read_checkpoint(copied)
    rows.unlink()
    with pytest.raises(RunError, match=r"1-of-2.safetensors is missing"):
        read_checkpoint(copied)


def test_rows_of_another_shape_in_a_file(copied: Path) -> None:
    name = files_of(copied)[1]
    save_file({"/state_dict/items.weight": torch.zeros(20, 7)}, copied.with_name(name))
    facts = facts_of(copied.with_name(name))
    with_index(copied, lambda index: index["files"].update({name: facts}))
    with pytest.raises(RunError, match=r"items\.weight has another shape in"):
        read_checkpoint(copied)
