"""Intervals, paired tests and corrections against scipy, other formulas and numbers by hand."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys.errors import RunError
from recsys.evaluation.ranking import evaluate
from recsys.evaluation.statistics import (
    bootstrap,
    compare,
    compare_folds,
    detectable_errors,
    draws_at_once,
    draws_of_users,
    holm,
    mean_intervals,
    with_holm,
)
from recsys.models import EASE, Popularity
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard


def frame_of(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns)


@pytest.mark.parametrize("draws", [draws_of_users, draws_at_once])
def test_draws_are_with_replacement(draws: Callable[[int, int, int], Iterable[Any]]) -> None:
    """A user is drawn as often as any other: once on average, with the variance of a binomial."""
    weights = np.concatenate(list(draws(50, 4000, 0)))
    assert weights.shape == (4000, 50)
    assert (weights.sum(1) == 50).all()
    assert weights.mean(0) == pytest.approx(np.ones(50), abs=0.08)
    assert weights.var() == pytest.approx(49 / 50, rel=0.02)
    assert np.concatenate(list(draws(50, 4000, 0))).tolist() == weights.tolist()


def test_bootstrap_of_a_metric_that_is_no_mean_is_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=80)

    def deviation(weights: np.ndarray) -> np.ndarray:
        mean = weights @ values / 80
        return np.sqrt(weights @ values**2 / 80 - mean**2)[:, None]

    (interval,) = bootstrap(deviation, draws_at_once(80, 5000, 0), level=0.9)
    scipys = stats.bootstrap(
        (values,), np.std, confidence_level=0.9, n_resamples=5000, method="percentile", rng=2
    ).confidence_interval
    assert interval == pytest.approx((scipys.low, scipys.high), rel=0.02)


def test_bootstrap_leaves_out_where_a_metric_is_undefined() -> None:
    """Of 101 resamples, in two parts, the first metric has 100 figures, the second none."""
    draws = [np.arange(100)[:, None], np.array([[100]])]

    def measure(weights: np.ndarray) -> np.ndarray:
        halves = np.where(weights == 50, math.nan, weights / 2)
        return np.hstack([halves, np.full_like(halves, math.nan)])

    first, second = bootstrap(measure, draws, level=0.5)
    defined = [n / 2 for n in range(101) if n != 50]
    assert first == pytest.approx(tuple(np.quantile(defined, [0.25, 0.75])))
    assert all(map(math.isnan, second))


def test_intervals_of_means_are_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=80)
    interval = mean_intervals(frame_of(m=values), 0.9, 5000, 0)["m"]
    scipys = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=5000, method="percentile", rng=2
    ).confidence_interval
    assert interval == pytest.approx((scipys.low, scipys.high), rel=0.01)


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    samples = generator.normal(loc=3.0, size=(60, 400))
    # 400 experiments of 60 users at once: a column each.
    intervals = mean_intervals(pl.DataFrame(samples), 0.9, 400, 0).values()
    coverage = np.mean([low <= 3.0 <= high for low, high in intervals])
    assert 0.85 < coverage < 0.94


def test_an_interval_leaves_nulls_out_and_keeps_columns_together() -> None:
    values = [0.5, None, 1.0, None, 0.0, 0.5] * 10
    frame = frame_of(m=values, same=values, constant=[None, 2.0] * 30, never=[None] * 60)
    intervals = mean_intervals(frame.with_columns(pl.col("never").cast(pl.Float64)), 0.95, 300, 3)
    assert set(intervals) == {"m", "same", "constant"}
    assert intervals["constant"] == (2.0, 2.0)
    assert intervals["m"] == intervals["same"]
    assert intervals["m"][0] < 0.5 < intervals["m"][1]
    assert intervals == mean_intervals(frame.drop("never"), 0.95, 300, 3)


def test_a_resample_without_a_user_for_whom_it_is_defined_does_not_count() -> None:
    """It has no mean; at zero it would pull the interval down."""
    frame = frame_of(m=[0.5] + [None] * 29)
    assert mean_intervals(frame, 0.95, 300, 0)["m"] == (0.5, 0.5)
    few = frame_of(m=[0.2, 0.6] + [None] * 28)
    generator = np.random.default_rng(0)
    resamples = [generator.integers(30, size=30) for _ in range(300)]
    means = [np.array([0.2, 0.6])[rows[rows < 2]] for rows in resamples]
    expected = np.quantile([m.mean() for m in means if len(m)], [0.025, 0.975])
    assert mean_intervals(few, 0.95, 300, 0)["m"] == pytest.approx(expected)


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


@pytest.mark.parametrize(
    ("pairs", "level", "in_deviations"),
    [
        (5, 0.05, 1.6819970833232674),
        (10, 0.05, 0.9960019107624178),
        (10, 0.0125, 1.2842966050271774),
        (300, 0.05, 0.16227121662192304),
        (5000, 0.0125, 0.047240082613675884),
    ],
)
def test_the_detectable_difference_is_that_of_statsmodels(
    pairs: int, level: float, in_deviations: float
) -> None:
    """`TTestPower().solve_power(nobs=pairs, alpha=level, power=0.8)` of statsmodels 0.14."""
    errors = detectable_errors(pairs - 1, level)
    assert errors / math.sqrt(pairs) == pytest.approx(in_deviations, rel=1e-5)


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(0)
    pairs, deviation = 12, 0.3
    for level in (0.05, 0.05 / 4):
        difference = detectable_errors(pairs - 1, level) * deviation / math.sqrt(pairs)
        samples = generator.normal(difference, deviation, (20_000, pairs))
        found = np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < level)
        assert found == pytest.approx(0.8, abs=0.01)


def test_a_comparison_tells_what_it_could_have_seen() -> None:
    generator = np.random.default_rng(0)
    names = ["recall@10", "ndcg@10"]
    first, second = generator.random((2, 40, 2))
    ids = pl.Series("user_id", range(40))
    one, two = (pl.DataFrame(v, schema=names).with_columns(ids) for v in (first, second))
    table = compare(one, two)
    errors = (second - first).std(0, ddof=1) / math.sqrt(40)
    assert table["pairs"].to_list() == [40, 40]
    assert table["detectable"].to_numpy() == pytest.approx(detectable_errors(39) * errors)
    expected = detectable_errors(39, 0.025) * errors
    assert table["detectable_holm"].to_numpy() == pytest.approx(expected)
    alone = compare(one, two, names=names[:1])
    assert alone["detectable_holm"].item() == pytest.approx(alone["detectable"].item())


def test_evaluations_are_compared_as_their_users_are() -> None:
    split = last_basket(checkerboard())
    first, second = (evaluate(m.fit(split), split.test) for m in (Popularity(), EASE()))
    frames = [result.per_user.rename({"user": "user_id"}) for result in (first, second)]
    assert compare(first, second).equals(compare(*frames))
    assert compare(first, second).filter(metric="recall@10")["difference"].item() > 0


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
    assert row["detectable"] is row["detectable_holm"] is None


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
    assert (row["detectable"], row["detectable_holm"]) == (None, None)


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


def folds_of(values: Sequence[float], test: int = 20) -> pl.DataFrame:
    count = len(values)
    about = {"repeat": [0] * count, "fold": range(count), "train": [80] * count}
    return pl.DataFrame({**about, "test": [test] * count, "auroc": values})


def test_the_corrected_resampled_t_test_of_nadeau_and_bengio() -> None:
    first, second = [0.6, 0.7, 0.65, 0.62, 0.68], [0.63, 0.71, 0.7, 0.62, 0.72]
    row = compare_folds(folds_of(first), folds_of(second)).row(0, named=True)
    difference = np.subtract(second, first)
    error = math.sqrt((1 / 5 + 20 / 80) * difference.var(ddof=1))
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(difference.mean() / error, 4))
    assert row["high"] - row["low"] == pytest.approx(2 * stats.t.ppf(0.975, 4) * error)
    plain = stats.ttest_rel(second, first).pvalue
    assert row["p_value"] > plain


def timed(num_users: int, moments: int, num_folds: int) -> pl.DataFrame:
    """Folds of a table whose users have rows at some moments in training, and one in the test."""
    held_out = [num_users // num_folds + (f < num_users % num_folds) for f in range(num_folds)]
    generator = np.random.default_rng(num_users)
    return pl.DataFrame(
        {
            "repeat": [r for r in range(2) for _ in held_out],
            "fold": [*range(num_folds)] * 2,
            "train": [moments * (num_users - n) for n in held_out] * 2,
            "test": held_out * 2,
            "auroc": generator.random(2 * num_folds),
        }
    )


@pytest.mark.parametrize("moments", [1, 4, 9])
@pytest.mark.parametrize("num_folds", [2, 5, 10])
def test_the_ratio_is_of_training_rows_however_often_users_are_asked(
    moments: int, num_folds: int
) -> None:
    first = timed(100, moments, num_folds)
    second = first.with_columns(pl.col("auroc") + pl.Series(np.linspace(0, 0.1, 2 * num_folds)))
    row = compare_folds(first, second).row(0, named=True)
    difference = np.linspace(0, 0.1, 2 * num_folds)
    error = math.sqrt((1 / len(difference) + 1 / (num_folds - 1)) * difference.var(ddof=1))
    expected = 2 * stats.t.sf(difference.mean() / error, len(difference) - 1)
    assert row["p_value"] == pytest.approx(expected)


def test_the_ratio_where_no_row_is_trained_on() -> None:
    first = timed(100, 1, 5).with_columns(train=0)
    second = first.with_columns(pl.col("auroc") + pl.Series(np.linspace(0, 0.1, 10)))
    again = [frame.with_columns(train=80) for frame in (first, second)]
    assert compare_folds(first, second).equals(compare_folds(*again))


def test_a_fold_without_a_figure_gives_no_p_value() -> None:
    """In which all users are of one class."""
    whole, part = [0.6, 0.7, 0.65], [0.7, math.nan, 0.85]
    for first, second in ((whole, part), (part, whole), (part, part)):
        row = compare_folds(folds_of(first), folds_of(second)).row(0, named=True)
        assert (row["low"], row["high"], row["p_value"]) == (None, None, None)
    row = compare_folds(folds_of(whole), folds_of(part)).row(0, named=True)
    assert row["difference"] == pytest.approx(0.15)
    assert (row["first"], row["second"]) == (pytest.approx(0.625), pytest.approx(0.775))


def test_results_that_are_the_same_do_not_differ() -> None:
    row = compare_folds(folds_of([0.6, 0.7]), folds_of([0.6, 0.7])).row(0, named=True)
    assert (row["difference"], row["p_value"]) == (0, 1)


def test_results_of_other_folds_are_not_compared() -> None:
    with pytest.raises(RunError, match="the results are of other folds"):
        compare_folds(folds_of([0.6, 0.7]), folds_of([0.6, 0.7], test=21))


def test_holms_correction_is_over_what_was_tested() -> None:
    adjusted = holm(np.array([math.nan, 0.01, 0.04, math.nan, 0.03]))
    assert adjusted == pytest.approx([math.nan, 0.03, 0.06, math.nan, 0.06], nan_ok=True)
    assert holm(np.array([math.nan])) == pytest.approx([math.nan], nan_ok=True)
    assert holm(np.array([])).tolist() == []
    table = with_holm(frame_of(p_value=[0.01, None, 0.04]))
    assert table["p_holm"].to_list() == [0.02, None, 0.04]


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
