"""Weights from a file that somebody else may have made."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from recsys.batch.bounds import check_index
from recsys.batch.histories import BasketBatch
from recsys.nn.buffers import Keeper
from recsys.scoring.weights import loaded

HISTORIES = BasketBatch.from_lists([[[1], [3]]], 5)


class Model(Keeper):
    """A table, another that is the same one, and indices of the log."""

    index: Tensor

    def __init__(self, rows: int = 4, layers: int = 1) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, 2)
        self.tied = nn.Linear(2, rows, bias=False)
        self.tied.weight = self.table.weight
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(layers))

    def check_kept(self, histories: BasketBatch) -> None:
        check_index("index", self.index, histories.num_items)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model = Model()
    model.keep("index", torch.tensor([0, 4, 4]))
    save_model(model, str(tmp_path / "weights.safetensors"))
    return tmp_path / "weights.safetensors"


def test_what_was_saved_comes_back(path: Path) -> None:
    model = loaded(Model, path, HISTORIES)
    assert not model.training
    assert model.index.tolist() == [0, 4, 4]
    assert model.tied.weight is model.table.weight
    assert model.table.weight.equal(load_file(path)["table.weight"])


CHANGES: list[tuple[Callable[[dict[str, Tensor]], Any], str]] = [
    (lambda t: t.update(index=torch.tensor([0, 5])), "index holds 5; expected 0 .. 4"),
    (lambda t: t.pop("index"), "no attribute 'index'"),
    (lambda t: t.pop("table.weight"), "table.weight is missing|tied.weight is missing"),
    (lambda t: t.pop("layers.0.bias"), "layers.0.bias is missing"),
    (lambda t: t.update({"table.weight": torch.zeros(3, 2)}), r"is \(3, 2\); expected \(4, 2\)"),
    (lambda t: t.update({"layers.0.bias": torch.zeros(2, 1)}), r"is \(2, 1\); expected \(2,\)"),
    (lambda t: t.update(more=torch.zeros(1)), 'Unexpected key.* "more"'),
    (lambda t: t.update(check_kept=torch.zeros(1)), 'Unexpected key.* "check_kept"'),
    (lambda t: t.update({"layers.index": torch.zeros(1)}), 'Unexpected key.* "layers.index"'),
    (lambda t: t["table.weight"].fill_(torch.nan), "weight holds NaN or infinity"),
    (lambda t: t["layers.0.bias"][0].fill_(-torch.inf), "layers.0.bias holds NaN or infinity"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_other_tensors(change: Callable[[dict[str, Tensor]], Any], words: str, path: Path) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises((ValueError, RuntimeError, AttributeError), match=words):
        loaded(Model, path, HISTORIES)


def test_no_memory_is_taken_for_a_size_that_the_file_has_not(path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for rows in (10**8, 10**12):
        with pytest.raises(ValueError, match=rf"is \(4, 2\); expected \({rows}, 2\)"):
            loaded(lambda rows=rows: Model(rows), path, HISTORIES)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_model_that_is_deeper_than_its_file(path: Path) -> None:
    with pytest.raises(ValueError, match="the config asks for more than 80 modules"):
        loaded(lambda: Model(layers=10**9), path, HISTORIES)
    Model(layers=200)  # elsewhere it may be


def test_building_twice_draws_as_once(path: Path) -> None:
    torch.manual_seed(0)
    loaded(Model, path, HISTORIES)
    numbers = torch.rand(3)
    torch.manual_seed(0)
    Model()
    assert torch.rand(3).equal(numbers)
