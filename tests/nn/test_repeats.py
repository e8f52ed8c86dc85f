"""A learnt weight of what a history holds: by hand, and in the lists of a model that has one."""

import math

import pytest
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.models import SASRec
from recsys.models.sequences import Ranking
from recsys.nn import RepeatWeight
from recsys.retrieval.lists import top_k

N = 7
HISTORIES = [[0, 2, 2, 5], [], [6], [0, 1, 2, 3, 4, 5, 6], [4, 3]]


def weight(value: float) -> RepeatWeight:
    """One whose value is this."""
    repeats = RepeatWeight().double()
    with torch.no_grad():
        repeats.raw.fill_(math.log(math.expm1(-value)) / 10)
    assert repeats.value.item() == pytest.approx(value)
    return repeats


@torch.no_grad()
def test_what_a_history_holds_gets_the_weight_once() -> None:
    scores = torch.arange(8.0, dtype=torch.float64).view(2, 4)
    changed = weight(-3.0)(scores, Ragged.from_lists([[1, 1, 3], []]))
    assert (changed - scores).round(decimals=9).tolist() == [[0, -3, 0, -3], [0, 0, 0, 0]]


@torch.no_grad()
def test_of_candidates_alone() -> None:
    candidates, histories = torch.tensor([1, 3, 6]), Ragged.from_lists([[6, 0, 1], [2, 4], [3, 3]])
    scores = torch.zeros(3, 3, dtype=torch.float64)
    changed = weight(-2.0).of_candidates(scores, candidates, histories)
    assert changed.round(decimals=9).tolist() == [[-2, 0, -2], [0, 0, 0], [0, -2, 0]]


def test_it_is_learnt_and_stays_below_zero() -> None:
    repeats = RepeatWeight()
    repeats(torch.zeros(1, 2), Ragged.from_lists([[0]])).sum().backward()
    assert repeats.raw.grad is not None
    assert repeats.raw.grad < 0
    for raw in (-50.0, 0.0, 50.0):
        with torch.no_grad():
            repeats.raw.fill_(raw)
        assert repeats.value <= 0


@torch.no_grad()
@pytest.mark.parametrize("value", [-0.05, -1.0, -500.0])
@pytest.mark.parametrize("k", [1, 3, N])
def test_lists_by_vectors_are_those_of_the_scores(value: float, k: int) -> None:
    torch.manual_seed(0)
    model = SASRec(N, embedding_dim=4, ranking=Ranking(repeats=True)).double().eval()
    model.items.id.weight.normal_()
    model.repeats = weight(value)
    batch = BasketBatch.from_lists([[[item] for item in row] for row in HISTORIES], num_items=N)
    scores: Tensor = model.score(batch)
    has_history = batch.lengths() > 0
    expected, index = top_k(scores, k), model.item_index()
    for lists in (model.top_k(batch, k), model.top_k(batch, k, index=index)):
        assert lists.items[has_history].equal(expected.items[has_history])
        torch.testing.assert_close(
            lists.scores[has_history].double(), expected.scores[has_history], rtol=1e-5, atol=1e-5
        )
    if k < N - 4 and value == -500.0:
        rows = [list(row) for row in expected.items.tolist()]
        assert not set(rows[0]) & {0, 2, 5}


@pytest.mark.parametrize("mask_history", [False, True])
def test_lists_of_some_candidates_hold_the_weight(mask_history: bool) -> None:
    torch.manual_seed(0)
    model = SASRec(N, embedding_dim=4, ranking=Ranking(repeats=True)).double().eval()
    model.repeats = weight(-3.0)
    sequences = [[[0], [2], [4]], [[1], [2]], [[5]], []]
    batch = BasketBatch.from_lists(sequences, num_items=N)
    candidates = torch.zeros(N, dtype=torch.bool)
    candidates[[0, 2, 3, 4, 5]] = True
    with torch.no_grad():
        scores = model.score(batch).masked_fill(~candidates, -torch.inf)
        lists = model.top_k(batch, 4, mask_history=mask_history, candidates=candidates)
    if mask_history:
        for row, sequence in enumerate(sequences):
            scores[row, [item for basket in sequence for item in basket]] = -torch.inf
    best = scores.topk(4, dim=1)
    expected = torch.where(best.values.isfinite(), best.indices, -1)
    assert lists.items[:3].tolist() == expected[:3].tolist()
