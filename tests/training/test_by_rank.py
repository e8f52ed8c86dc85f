"""Ranks that read partitions of their own compute what a process does that reads all of them."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recsys import ranks
from recsys.data.preparation import by_rank, manifest
from recsys.data.preparation.events import large_table
from recsys.data.preparation.manifest import File, Manifest
from recsys.data.preparation.prepare import prepare
from recsys.data.sources.prepared import prepared
from recsys.errors import ConfigError
from recsys.log.filters import filtered
from recsys.models import EASE
from recsys.reading import read_json
from recsys.scoring.kinds import check_by_rank
from recsys.scoring.saved_model import load
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard

from . import on_partitions
from .test_ranks import TORCHRUN, weights

pytestmark = pytest.mark.xdist_group("partitions")  # what they share is made once


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared log of five partitions, with an item that nobody has had."""
    folder, log = tmp_path_factory.mktemp("two"), checkerboard()
    unseen = log.items.tail(1).with_columns(item_id=pl.lit(7_000, pl.Int64))
    tables = {"log": log.events, "items": pl.concat([log.items, unseen]), "users": log.users}
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    paths = {f"{name}_path": str(folder / f"{name}.parquet") for name in ("items", "users")}
    prepare(
        large_table(str(folder / "log.parquet"), **paths), folder / "prepared", num_partitions=5
    )
    return folder


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    return last_basket(prepared(str(folder / "prepared")))


@pytest.fixture(scope="module")
def two(folder: Path) -> Path:
    """What `on_partitions.py` wrote: one start of two processes for all tests."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    program = [*TORCHRUN, on_partitions.__file__, folder]
    ended = subprocess.run(program, env=environment, timeout=600, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    (folder / "err.txt").write_text(ended.stderr)
    return folder


@pytest.fixture(scope="module")
def one(split: Split, two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by this process alone, of the log that it reads whole."""
    folder = tmp_path_factory.mktemp("one")
    for name in on_partitions.SIZES:
        on_partitions.train(name, split, folder / name)
    on_partitions.train("whole", split, folder / "divided", precision="32-true")
    on_partitions.ask(split.log, folder)
    on_partitions.count(split, folder)
    shutil.copytree(two / "begun", folder / "begun")
    on_partitions.train("sampled", split, folder / "begun")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", on_partitions.SIZES)
def test_two_ranks_compute_what_one_does(name: str, one: Path, two: Path) -> None:
    shared = weights(two / name)
    for key, weight in weights(one / name).items():
        assert (weight - shared[key]).abs().max() < 1e-12, key
    curves = [pl.read_csv(folder / name / "train.csv") for folder in (one, two)]
    assert len(curves[0]) == 12
    torch.testing.assert_close(*(c.to_torch() for c in curves), rtol=0, atol=1e-12)
    frames = [pl.read_parquet(folder / name / "per_user.parquet") for folder in (one, two)]
    assert frames[0].equals(frames[1])


@pytest.mark.slow
def test_a_killed_run_goes_on_with_two_ranks_or_one(one: Path, two: Path) -> None:
    resumed, alone = weights(two / "resumed"), weights(one / "begun")
    for key, weight in weights(two / "sampled").items():
        assert resumed[key].equal(weight), key
        assert (weight - alone[key]).abs().max() < 1e-12, key


@pytest.mark.slow
def test_a_divided_table_is_trained_on_partitions_too(one: Path, two: Path) -> None:
    losses = [pl.read_csv(f / "divided/train.csv")["train/loss"].to_torch() for f in (one, two)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_every_step_of_users_and_what_is_beyond_accuracy(one: Path, two: Path) -> None:
    frames = [pl.read_parquet(folder / "steps.parquet") for folder in (one, two)]
    assert frames[0].equals(frames[1])
    assert "miscalibration/colour@5" in frames[0].columns
    assert read_json(one / "catalogue.json") == read_json(two / "catalogue.json")
    lists = [torch.load(folder / "lists.pt") for folder in (one, two)]
    assert lists[0][0].equal(lists[1][0])
    torch.testing.assert_close(lists[0][1], lists[1][1])


@pytest.mark.slow
def test_counts_are_added_up(one: Path, two: Path) -> None:
    counts = [torch.load(folder / "counts.pt") for folder in (one, two)]
    torch.testing.assert_close(*counts, rtol=1e-6, atol=1e-6)
    assert counts[0][1].all()


@pytest.mark.slow
def test_a_run_leaves_the_files_of_one(two: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run(*on_partitions.command(two, "alone"))
    assert (code, err) == (0, "")
    alone, together = two / "alone", two / "run"
    files = [sorted(str(p.relative_to(f)) for p in f.rglob("*")) for f in (alone, together)]
    assert files[0] == files[1]
    for name in ("metrics.json", "intervals.json", "log.json"):
        assert read_json(alone / name) == read_json(together / name)
    histories = [load_file(f / "model/histories.safetensors") for f in (alone, together)]
    for name in histories[0].keys() - {"log_rows"}:
        torch.testing.assert_close(histories[0][name], histories[1][name], equal_nan=True)
    users = list(range(60))
    lists = [load(f, device="cpu").recommend(users, k=3)["item_id"] for f in (alone, together)]
    assert lists[0].equals(lists[1])
    # It goes on alone: how many do the work is not what the work is.
    code, again, err = run(*on_partitions.command(two, "run"))
    assert (code, err) == (0, "")
    described = [line for line in out.splitlines() if "asked:" in line]
    assert described
    assert described[0] in again


@pytest.mark.slow
def test_what_is_refused_before_it_begins(two: Path) -> None:
    said = (two / "err.txt").read_text()
    assert "data.by_rank=true: Popularity reads the events of all users at once; set" in said
    assert "data.by_rank=true takes a log as it was prepared; set the filters of" in said
    assert not list((two / "baseline").glob("*"))


def manifest_of(*rows: int, item_columns: tuple[str, ...] = ()) -> Manifest:
    files = tuple(File(number, 1, 0, 1, "") for number in rows)
    return Manifest("log", item_columns, {}, files, files[0], files[0])


def test_partitions_are_dealt_out_by_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "world", lambda: 3)
    about, dealt = manifest_of(9, 1, 5, 4, 4, 100), []
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        dealt.append(by_rank.own([0, 1, 2, 3, 4], about))
    assert dealt == [[0], [1, 2], [3, 4]]
    with pytest.raises(ConfigError, match=r"2 partitions are too few for 3 ranks; .*partitions=3"):
        by_rank.own([0, 1], about)
    with pytest.raises(ConfigError, match="by_rank=true: price of an item is what all its events"):
        by_rank.own([0, 1, 2], manifest_of(1, 1, 1, item_columns=("price",)))


def test_a_process_alone_has_all_partitions(folder: Path, split: Split) -> None:
    log = prepared(str(folder / "prepared"), by_rank=True)
    assert not log.by_rank
    assert log.events.equals(split.log.events)
    assert len(split.log.items) == 41 == len(log.items) + 1
    assert last_basket(log).items.ids.equals(split.items.ids)
    with pytest.raises(ConfigError, match="takes a log as it was prepared; set the filters of"):
        filtered(log, min_user_events=2)
    with pytest.raises(ConfigError, match="takes a log as it was prepared"):
        filtered(log, first_only=True)


def test_who_is_known_by_the_manifest(folder: Path) -> None:
    path = str(folder / "prepared")
    all_of, some = (prepared(path, by_rank=True, partitions=p).whole for p in (None, [0, 1, 2, 3]))
    assert all_of
    assert some
    assert all_of.num_events == manifest.read(Path(path)).num_events > some.num_events
    assert all_of.fingerprint != some.fingerprint


def test_models_that_read_all_users_at_once() -> None:
    with pytest.raises(ConfigError, match=r"by_rank=true: EASE reads .*; set data.by_rank=false"):
        check_by_rank(EASE)
