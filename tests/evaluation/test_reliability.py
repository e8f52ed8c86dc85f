"""Probabilities of items against what came: each figure against scikit-learn or by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from recsys.batch.histories import BasketBatch
from recsys.evaluation import reliability
from recsys.models import EASE
from recsys.scoring import Calibrated, Scorer, calibrate
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard
from recsys.types import Scores

SPLIT = last_basket(checkerboard())
MODEL = EASE().fit(SPLIT)
LIKELY = Calibrated(MODEL, calibrate(MODEL, SPLIT.validation))


def test_brier_score_and_log_loss_are_those_of_scikit_learn() -> None:
    result = reliability(LIKELY, SPLIT.test)
    probabilities = LIKELY.score(SPLIT.test.history).sigmoid().flatten().numpy()
    labels = SPLIT.test.target.dense(SPLIT.num_items).flatten().numpy()
    of_pair = {name: mean / SPLIT.num_items for name, mean in result.means.items()}
    assert of_pair["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    assert of_pair["log_loss"] == pytest.approx(log_loss(labels, probabilities))
    low, high = result.intervals()["brier"]
    assert low < result.means["brier"] < high


def test_groups_hold_every_pair_and_as_many_expected_items() -> None:
    result = reliability(LIKELY, SPLIT.test)
    groups = result.groups
    assert groups["pairs"].sum() == len(SPLIT.test) * SPLIT.num_items
    assert groups["came"].sum() == len(SPLIT.test.target.values)
    assert groups["expected"].sum() == pytest.approx(result.per_user["size"].sum())
    share = groups["expected"] / groups["expected"].sum()
    assert share.to_list() == pytest.approx([0.1] * 10, abs=0.02)
    assert (groups["predicted"].diff().drop_nulls() > 0).all()
    came = groups["came"].to_numpy()
    error = np.abs(groups["expected"].to_numpy() - came).sum() / came.sum()
    assert result.means["calibration_error"] == pytest.approx(error)


class TwiceAsSure(Scorer):
    def score(self, batch: BasketBatch) -> Scores:
        return LIKELY.score(batch) + np.log(2)


def test_probabilities_that_are_too_high_are_found_out() -> None:
    right, wrong = (reliability(model, SPLIT.test).means for model in (LIKELY, TwiceAsSure()))
    assert wrong["calibration_error"] > 0.6 > 3 * right["calibration_error"]
    assert wrong["log_loss"] > right["log_loss"]
    assert wrong["size_error"] > right["size_error"]


def test_items_of_the_history_may_be_left_out() -> None:
    whole, rest = (reliability(LIKELY, SPLIT.test, mask_history=masked) for masked in (False, True))
    history = SPLIT.test.history.ragged.dense(SPLIT.num_items)
    assert rest.groups["pairs"].sum() == int((~history).sum())
    labels = SPLIT.test.target.dense(SPLIT.num_items)
    assert rest.groups["came"].sum() == int((labels & ~history).sum())
    assert rest.per_user["size"].sum() < whole.per_user["size"].sum()


def test_f1_is_of_the_basket_that_is_made() -> None:
    result = reliability(LIKELY, SPLIT.test)
    chances = LIKELY.score(SPLIT.test.history).sigmoid()
    best, items = chances[0].sort(descending=True)
    expected = [float(best[:k].sum() / (k + chances[0].sum())) for k in range(1, 41)]
    length = int(np.argmax(expected)) + 1
    targets = set(SPLIT.test.target.rows(torch.tensor([0])).values.tolist())
    right = len(targets & set(items[:length].tolist()))
    assert result.per_user["f1"][0] == pytest.approx(2 * right / (length + len(targets)))
