"""Evaluation against numbers worked by hand, scipy, and plain Python."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from math import log2
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from recsys.batch.examples import Part, Prefixes
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged
from recsys.errors import CatalogueError
from recsys.evaluation.ranking import ABOUT_USER, Evaluation, Protocol, evaluate
from recsys.retrieval.index import ExactIndex
from recsys.retrieval.lists import TopK
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.scorer import Scorer
from recsys.types import ItemVectors, Scores, UserVectors


class Given(Scorer):
    """Scores users by a table (U, n)."""

    def __init__(self, scores: Any) -> None:
        super().__init__()
        self.register_buffer("table", torch.as_tensor(scores))

    def score(self, batch: BasketBatch) -> Scores:
        return self.table[batch.users]


class GivenVectors(VectorScorer, Given):
    def encode_users(self, batch: BasketBatch) -> UserVectors:
        return self.table[batch.users]

    def encode_items(self) -> ItemVectors:
        return torch.eye(self.table.shape[1])


def part_of(histories: list[list[int]], targets: list[list[int]], num_items: int) -> Part:
    history = BasketBatch.from_lists([[[item] for item in h] for h in histories], num_items)
    history = replace(history, users=torch.arange(len(histories)))
    return Part("test", history, Ragged.from_lists(targets))


# Three users, six items; item 5 is nobody's.
HISTORIES = [[0, 1, 1], [2], []]
TARGETS = [[1, 3], [4], [0, 2, 3]]
SCORES = [
    [0.9, 0.8, 0.7, 0.6, 0.0, 0.0],  # 0 1 2 3 4 5
    [0.1, 0.1, 0.5, 0.1, 0.1, 0.1],  # 2 0 1 3 4 5: ties by index
    [0.0, 0.2, 0.4, 0.3, 0.0, 0.5],  # 5 2 3 1 0 4
]
PART = part_of(HISTORIES, TARGETS, 6)


def test_metrics_of_three_users_worked_by_hand() -> None:
    result = evaluate(Given(SCORES), PART, Protocol(ks=(1, 3)))
    per_user = result.per_user
    assert result.top.items.tolist() == [[0, 1, 2], [2, 0, 1], [5, 2, 3]]
    assert per_user["recall@1"].to_list() == [0, 0, 0]
    assert per_user["recall@3"].to_list() == pytest.approx([1 / 2, 0, 2 / 3])
    assert per_user["precision@3"].to_list() == pytest.approx([1 / 3, 0, 2 / 3])
    assert per_user["phr@3"].to_list() == [1, 0, 1]
    assert per_user["mrr@3"].to_list() == [1 / 2, 0, 1 / 2]
    second, third = 1 / log2(3), 1 / log2(4)
    ndcg = [second / (1 + second), 0, (second + third) / (1 + second + third)]
    assert per_user["ndcg@3"].to_list() == pytest.approx(ndcg)
    assert per_user["map@3"].to_list() == pytest.approx([1 / 2 / 2, 0, (1 / 2 + 2 / 3) / 3])


def test_a_masked_history_is_no_candidate() -> None:
    result = evaluate(Given(SCORES), PART, Protocol(ks=(3,), mask_history=True))
    assert result.top.items.tolist() == [[2, 3, 4], [0, 1, 3], [5, 2, 3]]
    # Target 1 of user 0 can no longer be reached, and counts as missed.
    assert result.per_user["recall@3"].to_list() == pytest.approx([1 / 2, 0, 2 / 3])


def test_what_is_said_of_each_user() -> None:
    popularity = torch.tensor([4, 3, 2, 1, 0, 0])
    about = evaluate(Given(SCORES), PART, Protocol(ks=(3,)), popularity=popularity).per_user
    assert about.columns[:5] == list(ABOUT_USER)
    assert about["user"].to_list() == [0, 1, 2]
    assert about["history_length"].to_list() == [3, 1, 0]
    assert about["num_targets"].to_list() == [2, 1, 3]
    assert about["repeat_share"].to_list() == [1 / 2, 0, 0]
    assert about["target_popularity"].to_list() == pytest.approx([0.2, 0.0, 0.7 / 3])


def test_repeated_and_new_targets_are_counted_apart() -> None:
    result = evaluate(Given(SCORES), PART, Protocol(ks=(3,)))
    # User 0 has had item 1 and not item 3; the others have had none of their targets.
    assert result.per_user["repeat/recall@3"].to_list() == [1.0, None, None]
    assert result.per_user["explore/recall@3"].to_list() == pytest.approx([0, 0, 2 / 3])
    assert result.means["repeat/recall@3"] == 1.0
    assert result.means["explore/recall@3"] == pytest.approx(2 / 9)


def test_a_metric_that_no_user_has_is_left_out() -> None:
    part = part_of([[], []], [[0], [1]], 3)
    result = evaluate(Given([[1.0, 0, 0]] * 2), part, Protocol(ks=(1,)))
    assert result.per_user["repeat/recall@1"].to_list() == [None, None]
    for figures in (result.means, result.intervals(resamples=10)):
        assert "repeat/recall@1" not in figures
        assert "recall@1" in figures


def test_means_are_of_users_and_of_all_lists_together() -> None:
    popularity = torch.tensor([4, 2, 1, 1, 0, 0])
    result = evaluate(Given(SCORES), PART, Protocol(ks=(1, 3)), popularity=popularity)
    assert result.means["recall@3"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert result.means["coverage@1"] == pytest.approx(3 / 6)  # 0, 2, 5
    assert result.means["coverage@3"] == pytest.approx(5 / 6)  # 0, 1, 2, 3, 5
    # -log2 of 4/8, 1/8 and, for an item without events, 1/8.
    assert result.means["novelty@1"] == pytest.approx((1 + 3 + 3) / 3)
    assert set(result.means) == {*result.metrics, *result.catalogue}
    without = evaluate(Given(SCORES), PART, Protocol(ks=(1,)))
    assert "novelty@1" not in without.means


@settings(max_examples=40)
@given(st.integers(1, 7), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_batches_change_nothing(
    num_users: int, batch_size: int, mask_history: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    # Few distinct scores: many ties.
    scores = generator.integers(0, 3, (num_users, 8)).astype(np.float32)
    histories = [generator.integers(0, 8, generator.integers(0, 4)).tolist() for _ in scores]
    targets = [sorted({*generator.integers(0, 8, 3).tolist()}) for _ in scores]
    part = part_of(histories, targets, 8)
    protocol = Protocol(ks=(2, 4), mask_history=mask_history, batch_size=batch_size)
    for model in (Given(scores), GivenVectors(scores)):
        result = evaluate(model, part, protocol)
        whole = evaluate(model, part, replace(protocol, batch_size=100))
        assert result.per_user.equals(whole.per_user)
        for row, history in enumerate(histories):
            candidates = [i for i in range(8) if not (mask_history and i in history)]
            best = sorted(candidates, key=lambda item: (-scores[row, item], item))[:4]
            assert result.top.items[row].tolist() == best


def test_an_index_finds_what_scores_find() -> None:
    torch.manual_seed(0)
    part = part_of([[0], [1, 2], []], [[1], [3], [4]], 6)
    model = GivenVectors(torch.randn(3, 6))
    for masked in (False, True):
        protocol = Protocol(ks=(3,), mask_history=masked)
        by_index = evaluate(model, part, protocol, build_index=ExactIndex)
        by_scores = evaluate(model, part, protocol)
        assert by_index.per_user.equals(by_scores.per_user)


def test_the_index_is_built_once_and_only_where_there_are_vectors() -> None:
    built: list[Tensor] = []

    def build(vectors: Tensor) -> ExactIndex:
        built.append(vectors)
        return ExactIndex(vectors)

    protocol = Protocol(ks=(1,), batch_size=1)
    evaluate(Given(SCORES), PART, protocol, build_index=build)
    assert built == []
    evaluate(GivenVectors(SCORES), PART, protocol, build_index=build)
    assert len(built) == 1


def test_dropout_is_off_and_the_model_goes_on_training() -> None:
    class Noisy(Given):
        def score(self, batch: BasketBatch) -> Scores:
            assert not self.training
            return super().score(batch)

    model = Noisy(SCORES).train()
    evaluate(model, PART, Protocol(ks=(1,)))
    assert model.training
    evaluate(model.eval(), PART, Protocol(ks=(1,)))
    assert not model.training


def test_progress_sees_every_batch() -> None:
    sizes: list[int] = []

    def progress(loader: Loader) -> Iterator[Part]:
        sizes.append(len(loader))
        for batch in loader:
            sizes.append(len(batch))
            yield batch

    evaluate(Given(SCORES), PART, Protocol(ks=(1,), batch_size=2), progress=progress)
    assert sizes == [2, 2, 1]


def test_a_list_longer_than_the_catalogue() -> None:
    with pytest.raises(CatalogueError, match="k=7 exceeds the 6 items"):
        evaluate(Given(SCORES), PART, Protocol(ks=(1, 7)))


@pytest.mark.gpu
def test_users_are_ranked_alike_on_a_gpu(cuda: str) -> None:
    here = rank(Given(SCORES), PART, 3, mask_history=True)
    there = rank(Given(SCORES).to(cuda), PART, 3, mask_history=True)
    assert there.items.equal(here.items)
    assert there.scores.equal(here.scores)


def test_slices_are_users_by_quantile() -> None:
    lengths = [5, 1, 2, 8, 7, 3, 6, 4]
    result = evaluated(history_length=lengths, **{"recall@5": [0.0, 1, 0, 1, 1, 0, 0, 0.5]})
    table = result.slices("history_length", "recall@5", num_groups=2)
    assert table.columns == ["from", "to", "users", "recall@5", "standard_error"]
    assert table.select("from", "to", "users", "recall@5").rows() == [
        (1, 4, 4, pytest.approx(1.5 / 4)),
        (5, 8, 4, pytest.approx(2 / 4)),
    ]
    spread = [stats.sem([1, 0, 0, 0.5]), stats.sem([0, 0, 1, 1])]
    assert table["standard_error"].to_list() == pytest.approx(spread)


def test_slices_leave_users_without_the_metric_out_of_the_mean() -> None:
    columns = {"repeat/recall@5": [0.0, None, 1.0, 1.0, None, 0.5]}
    result = evaluated(repeat_share=[0.1, 0.2, 0.3, 0.7, 0.8, 0.9], **columns)
    table = result.slices("repeat_share", "repeat/recall@5", num_groups=2)
    assert table["users"].to_list() == [3, 3]
    assert table["repeat/recall@5"].to_list() == [0.5, 0.75]
    assert table["standard_error"].to_list() == pytest.approx([0.5, 0.25])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 6))
def test_slices_are_a_partition_whatever_the_ties(lengths: list[int], num_groups: int) -> None:
    result = evaluated(history_length=lengths, **{"recall@5": [1.0] * len(lengths)})
    table = result.slices("history_length", "recall@5", num_groups=num_groups)
    assert 1 <= len(table) <= num_groups
    assert table["users"].sum() == len(lengths)
    bounds = table.select("from", "to").rows()
    assert all(low <= high for low, high in bounds)
    assert all(before[1] < after[0] for before, after in pairwise(bounds))


def evaluated(**columns: Any) -> Evaluation:
    top = TopK(torch.empty(0, 1, dtype=torch.int64), torch.empty(0, 1))
    return Evaluation(pl.DataFrame(columns), {}, top)


def test_of_one_user() -> None:
    evaluation = evaluated(**{"recall@5": [0.5], "ndcg@5": [0.25], "history_length": [3]})
    assert evaluation.intervals()["recall@5"] == (0.5, 0.5)
    assert evaluation.slices("history_length", "recall@5")["standard_error"].to_list() == [None]


def test_rows_of_one_user_are_its_mean() -> None:
    history = BasketBatch.from_lists([[[0], [1], [2], [3]], [[5], [4]]], 6)
    history = replace(history, users=torch.tensor([0, 2]))
    is_target = torch.tensor([False, True, True, True, False, True])
    steps = Prefixes.of_events("test", history, is_target)
    result = evaluate(Given(SCORES), steps, Protocol(ks=(2,)))
    # User 0 gets 0 and 1 at every step and wants 1, 2 and 3; the other wants 4.
    assert result.per_user["user"].to_list() == [0, 2]
    assert result.per_user["num_targets"].to_list() == [3, 1]
    assert result.per_user["recall@2"][0] == pytest.approx(1 / 3)
    assert result.per_user["history_length"].to_list() == [3, 1]
    assert result.per_user["repeat/recall@2"].to_list() == [None, None]
    assert result.top.items.shape == (2, 2)
    rows = evaluate(Given(SCORES), steps.rows(torch.arange(4)), Protocol(ks=(2,)))
    assert rows.per_user["recall@2"].to_list()[:3] == [1, 0, 0]
    assert rows.catalogue == result.catalogue
