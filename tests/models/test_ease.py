"""EASE."""

from typing import Any

import numpy as np
import pytest

from recsys.batch.histories import BasketBatch
from recsys.data.sources.movielens import ml100k
from recsys.errors import ConfigError, DataError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.log.filters import filtered
from recsys.models import EASE
from recsys.models.factors.ease import ridge_weights
from recsys.models.neighbours._item_rows import held_items
from recsys.tasks.splits import Split, leave_last_out

# Items 0 and 1 often together, 2 frequent and alone: the weights are far from symmetric.
BASKETS = [[[0, 1]], [[0, 1, 2]], [[0], [1, 3]], [[2, 3]], [[2], [2]], [[2, 0, 4]], [[4, 1]]]
NUM_ITEMS = 5


@pytest.fixture
def split(split_of: Any) -> Split:
    return split_of(BASKETS, NUM_ITEMS)


def held(baskets: list[list[list[int]]]) -> np.ndarray:
    matrix = np.zeros((len(baskets), NUM_ITEMS))
    for user, history in enumerate(baskets):
        matrix[user, [item for basket in history for item in basket]] = 1
    return matrix


def regressions(x: np.ndarray, l2: float) -> np.ndarray:
    """The weights by n ridge regressions, each of one item on all others."""
    weights = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for j in range(NUM_ITEMS):
        others = [i for i in range(NUM_ITEMS) if i != j]
        design = np.vstack([x[:, others], np.sqrt(l2) * np.eye(len(others))])
        target = np.append(x[:, j], np.zeros(len(others)))
        weights[others, j] = np.linalg.lstsq(design, target, rcond=None)[0]
    return weights


def test_weights_are_the_ridge_regressions(split: Split) -> None:
    weights = EASE(l2=2.0).fit(split).item_weights.numpy()
    expected = regressions(held(BASKETS), 2.0)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert np.abs(weights - expected.T).max() > 0.05


def test_recommends_what_the_product_ranks_first(split: Split) -> None:
    histories = [[[0]], [[2], [4]], [[3, 1], [3]]]
    scores = held(histories) @ regressions(held(BASKETS), 2.0)
    batch = BasketBatch.from_lists(histories, NUM_ITEMS)
    top = EASE(l2=2.0).fit(split).top_k(batch, NUM_ITEMS)
    assert top.items.tolist() == np.argsort(-scores, axis=1, kind="stable").tolist()
    np.testing.assert_allclose(top.scores, -np.sort(-scores, axis=1), atol=1e-6)


def test_an_item_taken_twice_counts_once(split: Split) -> None:
    model = EASE().fit(split)
    batch = BasketBatch.from_lists([[[0], [0], [3]], [[0, 3]]], NUM_ITEMS)
    once, twice = model.score(batch)
    assert once.equal(twice)


@pytest.mark.parametrize("l2", [0.0, -1.0])
def test_l2_must_be_positive(l2: float) -> None:
    with pytest.raises(ConfigError, match=f"l2={l2}"):
        EASE(l2=l2)


def test_a_catalogue_that_memory_would_not_hold(
    split_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_of([[[0], [1]]], 7000)
    monkeypatch.setattr("recsys.memory.available_memory", lambda: 2**30)
    message = r"EASE on 7,000 items would take 1 GiB of memory, and 1.0 GiB are free; choose a spar"
    with pytest.raises(DataError, match=message):
        EASE().fit(split)
    with pytest.raises(DataError, match=message):
        ridge_weights(held_items(split.training), 1.0)
    monkeypatch.setattr("recsys.memory.available_memory", lambda: 2**31)
    EASE().check_size(split)


@pytest.mark.data
def test_reference_on_ml100k(public_data: Any) -> None:
    split = leave_last_out(filtered(ml100k(), first_only=True, min_user_events=3))
    model = EASE(l2=250.0).fit(split)
    protocol = Protocol(ks=(10,), mask_history=True)
    for part, recall, ndcg in ((split.validation, 0.1633, 0.0821), (split.test, 0.1400, 0.0718)):
        means = evaluate(model, part, protocol).means
        assert means["recall@10"] == pytest.approx(recall, abs=5e-5)
        assert means["ndcg@10"] == pytest.approx(ndcg, abs=5e-5)
