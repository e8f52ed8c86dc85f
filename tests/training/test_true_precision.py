"""Weights in a half: steps, gradients and clipping on master weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.evaluation.ranking import Protocol
from recsys.scoring.recommender import Progress, Recommender
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions
from recsys.training.true_precision import TruePrecision
from recsys.types import Scores

HALVES = ["16-true", "bf16-true"]


class Slope(Recommender):
    """One weight, which starts at 1 and has the same gradient in every step."""

    def __init__(self, gradient: float) -> None:
        super().__init__(learning_rate=1.0, weight_decay=0.0)
        self.gradient = gradient
        self.weight = nn.Parameter(torch.ones(()))
        self.unused = nn.Parameter(torch.ones(()))

    def loss(self, part: Part, progress: Progress) -> Tensor:
        return self.weight.float() * self.gradient

    def score(self, batch: BasketBatch) -> Scores:
        return torch.zeros(len(batch), batch.num_items)

    def optimizer(self, num_steps: int) -> Optimizer:
        return SGD(self.parameters(), lr=self.learning_rate)


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard())


def trained(model: Recommender, split: Split, folder: Path, **options: Any) -> Recommender:
    """After 16 steps."""
    training = TrainingOptions(
        max_epochs=4, batch_size=16, monitor="ndcg@5", evaluate_every=4, device="cpu", **options
    )
    return fit(model, split, training, Protocol(ks=(5,)), folder=folder)  # type: ignore[return-value]


@pytest.mark.parametrize("precision", HALVES)
def test_steps_smaller_than_a_digit_add_up(precision: str, split: Split, tmp_path: Path) -> None:
    """1 - 16 / 2^12: the nearest half to each 1 - 1 / 2^12, a step on, would be 1."""
    model = trained(Slope(2.0**-12), split, tmp_path, precision=precision)
    assert model.weight.dtype == TruePrecision.DTYPES[precision]
    assert model.weight == 1 - 2.0**-8
    assert model.unused == 1


def test_gradients_below_float16_are_scaled(split: Split, tmp_path: Path) -> None:
    model = Slope(2.0**-26)  # half of the smallest number above 0
    model.learning_rate = 2.0**14
    assert trained(model, split, tmp_path, precision="16-true").weight == 1 - 2.0**-8


@pytest.mark.parametrize("precision", TruePrecision.DTYPES)
def test_the_gradient_is_clipped_as_it_is(precision: str, split: Split, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": precision, "gradient_clip": 0.25}
    weight = trained(Slope(8.0), split, tmp_path, **options).weight
    assert weight.item() == pytest.approx(1 - 16 * 0.25, abs=1e-4)
