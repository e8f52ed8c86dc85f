"""What completes a basket: by hand, and on a log where items come in pairs."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.log.event_log import EventLog
from recsys.models import Popularity
from recsys.scoring import Calibrated, Companions, Completing, calibrate, half_known
from recsys.scoring.completion import SMOOTH, fit_basket_weight, without_last
from recsys.tasks.splits import Split, last_basket


def pairs(num_users: int = 60, num_items: int = 20) -> Split:
    """Baskets of two pairs each: item 2 n and item 2 n + 1 are always together."""
    generator = np.random.default_rng(0)
    rows = [
        (user, 2 * int(pair) + half, basket, user * 5 + basket)
        for user in range(num_users)
        for basket in range(5)
        for pair in generator.choice(num_items // 2, 2, replace=False)
        for half in (0, 1)
    ]
    schema = ["user_id", "item_id", "timestamp", "basket_id"]
    return last_basket(EventLog.from_frames(pl.DataFrame(rows, schema=schema, orient="row")))


def test_evidence_by_hand() -> None:
    histories = BasketBatch.from_lists([[[0, 1], [0, 1, 2]], [[0], [3, 3]]], num_items=5)
    evidence = Companions.of(histories).evidence(Ragged.from_lists([[0], [1, 2], [], [4]]))

    def term(both: int, count: int) -> float:
        return math.log1p(both / count * 4 / SMOOTH)

    assert evidence[0].tolist() == pytest.approx([term(3, 3), term(2, 2), term(1, 1), 0, 0])
    of_two = [term(2, 3) + term(1, 3), term(2, 2) + term(1, 2), 2 * term(1, 1), 0, 0]
    assert evidence[1].tolist() == pytest.approx([of / math.sqrt(2) for of in of_two])
    assert not evidence[2:].any()


def test_half_of_each_basket_is_known_and_the_other_half_is_asked() -> None:
    split = pairs()
    test, half = split.test, half_known(split.test, seed=3)
    before, given = without_last(half.history)
    assert before.items.equal(test.history.items)
    assert given.lengths.tolist() == half.target.lengths.tolist() == [2] * len(test)
    both = torch.cat([given.dense(20).int()[None], half.target.dense(20).int()[None]]).sum(0)
    assert both.equal(test.target.dense(20).int())
    assert not half_known(split.test, seed=4).target.values.equal(half.target.values)
    last = half.history.times[half.history.offsets[1:] - 1]
    assert last.equal(test.history.times[test.history.offsets[1:] - 1])


def test_the_other_of_a_pair_is_found() -> None:
    split = pairs()
    model = Popularity().fit(split)
    companions = Companions.of(split.training)
    alone = Calibrated(model, calibrate(model, split.validation))
    fitted = fit_basket_weight(alone, companions, split.validation)
    assert fitted.basket_weight is not None
    assert fitted.basket_weight > 1
    batch = BasketBatch.from_lists([[[2], [6]], [[13]]], num_items=20)
    completing = Completing(Calibrated(model, fitted), companions)
    assert completing.top_k(batch, 1).items.tolist() == [[7], [12]]
    assert 6 not in completing.top_k(batch, 20).items[0]
    some = completing.top_k(batch, 1, exclude=Ragged.from_lists([[7], []]))
    assert some.items[0].item() not in (6, 7)
    # Nothing goes together: the model's own order is left.
    nothing = Completing(alone, companions).top_k(batch, 19).items[0].tolist()
    order = [item for item in model.top_k(batch, 20).items[0].tolist() if item != 6]
    assert nothing == order


def test_a_log_of_single_items_has_no_weight() -> None:
    rows = {"user_id": [1, 2, 3] * 4, "item_id": [5, 6, 7, 8] * 3, "timestamp": range(12)}
    split = last_basket(EventLog.from_frames(pl.DataFrame(rows)))
    model = Popularity().fit(split)
    likely = Calibrated(model, calibrate(model, split.validation))
    fitted = fit_basket_weight(likely, Companions.of(split.training), split.validation)
    assert fitted.basket_weight is None
