"""One weight that every batch moves up by one: when training stops, and which weight is kept."""

import math
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from recsys.errors import DataError
from recsys.models import FineTuned
from recsys.scoring.predictor import Steps
from recsys.training.minimise import Minimiser

TRAIN, HELD_OUT = torch.arange(10), torch.arange(10, 14).split(3)
"""Rows; the ten are one batch, the four are scored in parts of three and one."""


class Climb:
    """The loss of rows trained on falls with the weight; that of the others is lowest at `best`."""

    def __init__(self, best: float, slope: float = 1.0) -> None:
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        self.best, self.slope = best, slope
        self.trained: list[list[int]] = []
        self.modes: list[bool] = []

    @property
    def weight(self) -> float:
        return self.network.weight.item()

    def loss(self, rows: Tensor) -> Tensor:
        self.modes.append(self.network.training)
        if rows.min() < 10:
            self.trained.append(rows.tolist())
            return -self.slope * self.network.weight.sum()
        # The mean of all held out is the distance, of which each part tells another share.
        return (self.network.weight - self.best).abs().sum() * (rows.double().mean() / 11.5)

    def minimiser(self, *, clip: float | None = None, **steps: int) -> Minimiser:
        optimiser = torch.optim.SGD(self.network.parameters(), lr=1.0)
        options = {"batch_size": 10, **steps}
        predictor = FineTuned(run="none")
        return Minimiser(predictor, self.network, optimiser, self.loss, Steps(**options), clip)


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_it_stops_and_keeps_the_best_weights(patience: int) -> None:
    climb = Climb(best=3.0)
    minimiser = climb.minimiser(patience=patience, max_epochs=50)
    assert minimiser.until_lowest(TRAIN, HELD_OUT, untrained=True) == 3
    assert climb.weight == 3
    assert len(climb.trained) == 3 + patience
    assert not climb.network.training


def test_it_stops_after_the_last_epoch() -> None:
    climb = Climb(best=30.0)
    assert climb.minimiser(max_epochs=4).until_lowest(TRAIN, HELD_OUT, untrained=True) == 4
    assert (climb.weight, len(climb.trained)) == (4, 4)


@pytest.mark.parametrize(("untrained", "passes"), [(True, 0), (False, 1)])
def test_no_training_may_be_the_best(untrained: bool, passes: int) -> None:
    climb = Climb(best=-1.0)
    minimiser = climb.minimiser(patience=2)
    assert minimiser.until_lowest(TRAIN, HELD_OUT, untrained=untrained) == passes
    assert climb.weight == passes


def test_a_pass_takes_every_row_once_in_an_order_of_its_own() -> None:
    climb = Climb(best=0.0)
    minimiser = climb.minimiser(batch_size=4)
    minimiser.one_pass(TRAIN)
    minimiser.one_pass(TRAIN)
    assert [len(batch) for batch in climb.trained] == [4, 4, 2] * 2
    first, second = (list(chain(*part)) for part in (climb.trained[:3], climb.trained[3:]))
    assert sorted(first) == sorted(second) == TRAIN.tolist()
    assert first != second
    assert all(climb.modes)


def test_the_loss_held_out_is_a_mean_over_rows_without_dropout() -> None:
    climb = Climb(best=3.0)
    assert climb.minimiser().held_out_loss(HELD_OUT) == pytest.approx(3.0)
    assert not any(climb.modes)


@pytest.mark.parametrize(("clip", "weight"), [(None, 8.0), (0.5, 0.5)])
def test_the_gradient_is_clipped(clip: float | None, weight: float) -> None:
    climb = Climb(best=0.0, slope=8.0)
    climb.minimiser(clip=clip).one_pass(TRAIN)
    assert climb.weight == pytest.approx(weight)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_training_that_diverges_is_an_error(wrong: float) -> None:
    minimiser = Climb(best=wrong).minimiser()
    with pytest.raises(DataError, match=f"FineTuned: the loss on the rows held out is {wrong}"):
        minimiser.until_lowest(TRAIN, HELD_OUT, untrained=False)
