"""Evaluation against numbers worked by hand, scipy, and plain Python."""

import math
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

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged
from recsys.errors import CatalogueError, RunError
from recsys.evaluation.ranking import ABOUT_USER, Evaluation, Protocol, evaluate
from recsys.evaluation.statistics import bootstrap, compare, holm, with_holm
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
    found = result.per_user
    assert result.top.items.tolist() == [[0, 1, 2], [2, 0, 1], [5, 2, 3]]
    assert found["recall@1"].to_list() == [0, 0, 0]
    assert found["recall@3"].to_list() == pytest.approx([1 / 2, 0, 2 / 3])
    assert found["precision@3"].to_list() == pytest.approx([1 / 3, 0, 2 / 3])
    assert found["phr@3"].to_list() == [1, 0, 1]
    assert found["mrr@3"].to_list() == [1 / 2, 0, 1 / 2]
    second, third = 1 / log2(3), 1 / log2(4)
    ndcg = [second / (1 + second), 0, (second + third) / (1 + second + third)]
    assert found["ndcg@3"].to_list() == pytest.approx(ndcg)
    assert found["map@3"].to_list() == pytest.approx([1 / 2 / 2, 0, (1 / 2 + 2 / 3) / 3])


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
    for found in (result.means, result.intervals(resamples=10)):
        assert "repeat/recall@1" not in found
        assert "recall@1" in found


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
            left = [i for i in range(8) if not (mask_history and i in history)]
            best = sorted(left, key=lambda item: (-scores[row, item], item))[:4]
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
    seen: list[int] = []

    def progress(loader: Loader) -> Iterator[Part]:
        seen.append(len(loader))
        for batch in loader:
            seen.append(len(batch))
            yield batch

    evaluate(Given(SCORES), PART, Protocol(ks=(1,), batch_size=2), progress=progress)
    assert seen == [2, 2, 1]


def test_a_list_longer_than_the_catalogue() -> None:
    with pytest.raises(CatalogueError, match="k=7 exceeds the 6 items"):
        evaluate(Given(SCORES), PART, Protocol(ks=(1, 7)))


@pytest.mark.gpu
def test_users_are_ranked_alike_on_a_gpu(cuda: str) -> None:
    here = rank(Given(SCORES), PART, 3, mask_history=True)
    there = rank(Given(SCORES).to(cuda), PART, 3, mask_history=True)
    assert there.items.equal(here.items)
    assert there.scores.equal(here.scores)


def frame_of(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns)


def test_bootstrap_is_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=80)
    found = bootstrap(frame_of(m=values), 0.9, 5000, 0)["m"]
    scipys = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=5000, method="percentile", rng=2
    ).confidence_interval
    assert found == pytest.approx((scipys.low, scipys.high), rel=0.01)


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    samples = generator.normal(loc=3.0, size=(60, 400))
    # 400 experiments of 60 users at once: a column each.
    intervals = bootstrap(pl.DataFrame(samples), 0.9, 400, 0).values()
    held = np.mean([low <= 3.0 <= high for low, high in intervals])
    assert 0.85 < held < 0.94


def test_an_interval_leaves_nulls_out_and_keeps_columns_together() -> None:
    values = [0.5, None, 1.0, None, 0.0, 0.5] * 10
    frame = frame_of(m=values, same=values, constant=[None, 2.0] * 30, never=[None] * 60)
    found = bootstrap(frame.with_columns(pl.col("never").cast(pl.Float64)), 0.95, 300, 3)
    assert set(found) == {"m", "same", "constant"}
    assert found["constant"] == (2.0, 2.0)
    assert found["m"] == found["same"]
    assert found["m"][0] < 0.5 < found["m"][1]
    assert found == bootstrap(frame.drop("never"), 0.95, 300, 3)


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


def test_comparison_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    first = generator.random((50, 3))
    second = first + generator.normal(loc=[0, 0.02, 0.2], scale=0.1, size=(50, 3))
    names = ["recall@10", "ndcg@10", "repeat/recall@10"]
    ids = pl.Series("user_id", range(50))
    one = pl.DataFrame(first, schema=names).with_columns(ids)
    # The second run lists its users in another order.
    two = pl.DataFrame(second, schema=names).with_columns(ids).sample(fraction=1, shuffle=True)
    table = compare(one, two)
    assert table["metric"].to_list() == names
    for column, row in enumerate(table.iter_rows(named=True)):
        test = stats.ttest_rel(second[:, column], first[:, column])
        bounds = test.confidence_interval(0.95)
        assert row["p_value"] == pytest.approx(test.pvalue)
        assert (row["low"], row["high"]) == pytest.approx((bounds.low, bounds.high))
        assert row["first"] == pytest.approx(first[:, column].mean())
        assert row["second"] == pytest.approx(second[:, column].mean())
        assert row["difference"] == pytest.approx(row["second"] - row["first"])
    assert table["p_holm"].to_numpy() == pytest.approx(holm(table["p_value"].to_numpy()))


def test_comparison_of_chosen_metrics_corrects_for_those_alone() -> None:
    one = frame_of(user_id=[1, 2, 3], **{"recall@5": [0.0, 1, 0], "ndcg@5": [0.1, 0.2, 0.3]})
    two = frame_of(user_id=[1, 2, 3], **{"recall@5": [1.0, 1, 0], "ndcg@5": [0.2, 0.4, 0.3]})
    table = compare(one, two, names=["ndcg@5"])
    assert table["metric"].to_list() == ["ndcg@5"]
    assert table["p_holm"].equals(table["p_value"].rename("p_holm"))


def test_users_without_the_metric_are_left_out_of_the_test() -> None:
    name = "repeat/recall@5"
    one = frame_of(user_id=[1, 2, 3, 4], **{name: [0.0, None, 0.5, 1.0]})
    two = frame_of(user_id=[1, 2, 3, 4], **{name: [0.5, None, 1.0, 0.0]})
    (row,) = compare(one, two).iter_rows(named=True)
    assert row["p_value"] == pytest.approx(stats.ttest_rel([0.5, 1, 0], [0, 0.5, 1]).pvalue)
    nobody = one.with_columns(pl.lit(None, pl.Float64).alias(name), pl.lit(1.0).alias("mrr@5"))
    assert compare(nobody, nobody)["metric"].to_list() == ["mrr@5"]


@pytest.mark.parametrize(("difference", "p_value"), [([0.0, 0, 0], 1), ([0.25, 0.25, 0.25], 0)])
def test_differences_without_spread(difference: list[float], p_value: float) -> None:
    ids = range(len(difference))
    one = frame_of(user_id=ids, **{"recall@5": [0.5] * len(difference)})
    two = one.with_columns(pl.col("recall@5") + pl.Series(difference))
    (row,) = compare(one, two).iter_rows(named=True)
    assert row["p_value"] == p_value
    assert row["low"] == row["high"] == row["difference"] == difference[0]


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ([0.5], [0.75], 0.25),
        ([0.5, None], [0.75, 1.0], 0.25),
        ([0.5, math.nan, 0.5], [0.75, 0.5, 1.0], 0.375),
        ([0.5, 0.25, 0.5], [math.nan] * 3, None),
    ],
)
def test_without_a_test_there_is_no_p_value(
    first: list[float | None], second: list[float | None], difference: float | None
) -> None:
    """Of one pair, or where a figure that was to be measured is no number."""
    one, two = (
        frame_of(
            user_id=range(len(v)), **{"recall@5": v, "ndcg@5": [0.1 * n for n in range(len(v))]}
        )
        for v in (first, second)
    )
    row = compare(one, two).row(0, named=True)
    assert row["difference"] == difference
    assert (row["low"], row["high"], row["p_value"], row["p_holm"]) == (None,) * 4


def test_holms_correction_is_over_what_was_tested() -> None:
    found = holm(np.array([math.nan, 0.01, 0.04, math.nan, 0.03]))
    assert found == pytest.approx([math.nan, 0.03, 0.06, math.nan, 0.06], nan_ok=True)
    assert holm(np.array([math.nan])) == pytest.approx([math.nan], nan_ok=True)
    assert holm(np.array([])).tolist() == []
    table = with_holm(frame_of(p_value=[0.01, None, 0.04]))
    assert table["p_holm"].to_list() == [0.02, None, 0.04]


def test_a_resample_without_a_user_for_whom_it_is_defined_does_not_count() -> None:
    """It has no mean; at zero it would pull the interval down."""
    frame = frame_of(m=[0.5] + [None] * 29)
    assert bootstrap(frame, 0.95, 300, 0)["m"] == (0.5, 0.5)
    few = frame_of(m=[0.2, 0.6] + [None] * 28)
    generator = np.random.default_rng(0)
    drawn = [generator.integers(30, size=30) for _ in range(300)]
    means = [np.array([0.2, 0.6])[rows[rows < 2]] for rows in drawn]
    expected = np.quantile([m.mean() for m in means if len(m)], [0.025, 0.975])
    assert bootstrap(few, 0.95, 300, 0)["m"] == pytest.approx(expected)


def test_of_one_user() -> None:
    found = evaluated(**{"recall@5": [0.5], "ndcg@5": [0.25], "history_length": [3]})
    assert found.intervals()["recall@5"] == (0.5, 0.5)
    assert found.slices("history_length", "recall@5")["standard_error"].to_list() == [None]


def test_runs_of_different_users_are_not_compared() -> None:
    one = frame_of(user_id=[1, 2, 3], **{"recall@5": [0.0, 1, 0]})
    two = frame_of(user_id=[2, 3, 4], **{"recall@5": [0.0, 1, 0]})
    with pytest.raises(RunError, match=r"different users \(3 and 3, 2 in common\)"):
        compare(one, two)


def test_runs_without_a_common_metric_are_not_compared() -> None:
    one = frame_of(user_id=[1, 2], history_length=[1, 2], **{"recall@5": [0.0, 1]})
    two = frame_of(user_id=[1, 2], history_length=[1, 2], **{"recall@6": [0.0, 1]})
    for names in (None, ["recall@5"]):
        with pytest.raises(RunError, match="no metric in common"):
            compare(one, two, names=names)


def test_holms_correction_worked_by_hand() -> None:
    """Sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04; the last may not fall below .06."""
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]


@given(st.lists(st.sampled_from([0.001, 0.01, 0.02, 0.04, 0.5]), min_size=1, max_size=8))
def test_holm_rejects_step_by_step(p_values: list[float]) -> None:
    """As the procedure is told: from the smallest on, until one is above its share of alpha."""
    adjusted = holm(np.array(p_values))
    for alpha in (0.01, 0.05, 0.2):
        rejected = np.zeros(len(p_values), dtype=bool)
        for step, row in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[row] > alpha / (len(p_values) - step):
                break
            rejected[row] = True
        near = np.isclose(adjusted, alpha)
        assert ((adjusted <= alpha) == rejected)[~near].all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_p_value_and_bonferronis(p_values: list[float]) -> None:
    p = np.array(p_values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(p * len(p), 1)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
