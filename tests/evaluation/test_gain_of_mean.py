"""What several domains gain together, user by user."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.evaluation import compare, gain_of_mean

METRIC = "ndcg@10"


def frame(domain: str, values: np.ndarray, first_user: int = 0) -> pl.DataFrame:
    users = np.arange(first_user, first_user + len(values))
    return pl.DataFrame({"user_id": users, METRIC: values}).with_columns(domain=pl.lit(domain))


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(0.1, 1.0, (2, 2, 40))


def test_of_one_domain_it_is_the_paired_t_test(values: np.ndarray) -> None:
    first, second = frame("a", values[0, 0]), frame("a", values[1, 0])
    expected = compare(first, second).row(0, named=True)
    row = gain_of_mean(first, second, METRIC)
    assert row == pytest.approx({name: expected[name] for name in row})


def test_who_is_in_two_domains_is_one_user(values: np.ndarray) -> None:
    """The same differences once more in another domain are no new evidence."""
    first, second = (frame("a", of[0]) for of in values)
    of_two = [pl.concat([frame("a", of[0]), frame("b", of[0])]) for of in values]
    expected = gain_of_mean(first, second, METRIC)
    assert gain_of_mean(of_two[0], of_two[1], METRIC) == pytest.approx(expected)


def test_domains_count_alike_however_many_users_they_have(values: np.ndarray) -> None:
    few = values[:, 1, :10]
    first, second = (
        pl.concat([frame("a", values[side, 0]), frame("b", few[side], first_user=40)])
        for side in range(2)
    )
    row = gain_of_mean(first, second, METRIC)
    differences = [values[1, 0] - values[0, 0], few[1] - few[0]]
    assert row["difference"] == pytest.approx(np.mean([of.mean() for of in differences]))
    variance = sum(of.var() / len(of) for of in differences) / 4
    half = (row["high"] - row["low"]) / 2
    assert half == pytest.approx(2.0096 * np.sqrt(variance * 50 / 49), rel=1e-4)  # t of 49


def test_no_difference_is_no_evidence(values: np.ndarray) -> None:
    of = frame("a", values[0, 0])
    row = gain_of_mean(of, of, METRIC)
    assert (row["difference"], row["p_value"]) == (0.0, 1.0)


def test_other_users(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="other users or domains"):
        gain_of_mean(frame("a", values[0, 0]), frame("a", values[1, 0], first_user=1), METRIC)
