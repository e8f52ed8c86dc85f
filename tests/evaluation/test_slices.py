"""Metrics by what is known of users, against scipy and numbers by hand."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from recsys.evaluation.slices import by_value, largest_gaps
from recsys.evaluation.statistics import detectable_errors, holm

METRICS = ["recall@10", "ndcg@10"]


def drawn() -> tuple[pl.DataFrame, pl.Series]:
    generator = np.random.default_rng(0)
    values = np.repeat(["a", "b", "c"], [40, 60, 20])
    figures = generator.random((120, 2)) * [1.0, 0.5]
    figures[values == "b", 0] += 0.4
    order = generator.permutation(120)
    return pl.DataFrame(figures[order], METRICS), pl.Series("letter", values[order])


def test_every_value_has_its_mean_and_interval() -> None:
    per_user, letters = drawn()
    table = by_value(per_user, letters, METRICS)
    assert table.select("value", "users", "metric").rows()[:3] == [
        ("a", 40, "recall@10"),
        ("a", 40, "ndcg@10"),
        ("b", 60, "recall@10"),
    ]
    for row in table.iter_rows(named=True):
        users = per_user.filter(letters == row["value"])[row["metric"]].to_numpy()
        assert row["mean"] == pytest.approx(users.mean())
        error = users.std(ddof=1) / len(users) ** 0.5
        assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_the_largest_gap_is_tested_as_one_of_all_pairs() -> None:
    per_user, letters = drawn()
    table = largest_gaps(per_user, letters, METRICS)
    tests = {
        (metric, pair): stats.ttest_ind(
            *(per_user.filter(letters == v)[metric].to_numpy() for v in pair), equal_var=False
        )
        for metric in METRICS
        for pair in combinations("abc", 2)
    }
    corrected = dict(
        zip(tests, holm(np.array([test.pvalue for test in tests.values()])), strict=True)
    )
    assert table["metric"].to_list() == METRICS
    for row in table.iter_rows(named=True):
        means = {v: per_user.filter(letters == v)[row["metric"]].to_numpy().mean() for v in "abc"}
        order = sorted(means, key=lambda value: means[value])
        assert (row["lower"], row["higher"]) == (order[0], order[-1])
        assert row["gap"] == pytest.approx(means[row["higher"]] - means[row["lower"]])
        key = row["metric"], tuple(sorted((row["higher"], row["lower"])))
        test = tests[key]
        assert row["p_value"] == pytest.approx(test.pvalue)
        assert row["p_holm"] == pytest.approx(corrected[key])
        low, high = test.confidence_interval(0.95)
        ends = sorted((row["low"], row["high"]))
        assert ends == pytest.approx([low, high] if test.statistic > 0 else [-high, -low])
        error = row["gap"] / abs(test.statistic)
        expected = detectable_errors(test.df, 0.05 / 6) * error
        assert row["detectable_holm"] == pytest.approx(expected)


def test_users_without_a_value_are_shown_and_not_compared() -> None:
    per_user = pl.DataFrame({"recall@10": [0.0, 0.5, 1.0, 1.0, 1.0]})
    values = pl.Series([1, 1, 2, None, None])
    table = by_value(per_user, values, ["recall@10"])
    assert table.select("value", "users").rows() == [("1", 2), ("2", 1), (None, 2)]
    assert largest_gaps(per_user, values, ["recall@10"]).is_empty()


def test_without_spread_there_is_no_test() -> None:
    per_user = pl.DataFrame({"recall@10": [0.0, 0.0, 1.0, 1.0]})
    row = largest_gaps(per_user, pl.Series(["a", "a", "b", "b"]), ["recall@10"]).row(0, named=True)
    assert (row["higher"], row["gap"]) == ("b", 1.0)
    assert row["p_holm"] is row["detectable_holm"] is row["low"] is None


def test_a_metric_that_some_users_do_not_have() -> None:
    per_user = pl.DataFrame({"repeat/recall@10": [0.0, None, 1.0, 0.5, 0.5, 0.25]})
    values = pl.Series(["a", "a", "a", "b", "b", "b"])
    row = largest_gaps(per_user, values, ["repeat/recall@10"]).row(0, named=True)
    test = stats.ttest_ind([0.0, 1.0], [0.5, 0.5, 0.25], equal_var=False)
    assert row["p_value"] == pytest.approx(test.pvalue)
