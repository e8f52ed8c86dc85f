"""Metrics by what is known of users: whether a model serves some of them worse than others.

A column of the users divides them by its values. Of each value stands the mean with its interval,
and of each metric the largest gap between two values, tested: Welch's t-test, which lets variances
differ, of every pair of values, with Holm's correction over all pairs and metrics of the column,
for the largest gap is the one that chance has had the most tries at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from recsys.evaluation.statistics import LEVEL, detectable_errors, holm, mean_intervals

MOST_VALUES = 30
"""How many values a column may have: pairs grow with their square, and groups shrink."""
VALUES = {
    "value": pl.String,
    "users": pl.Int64,
    "metric": pl.String,
    **dict.fromkeys(("mean", "low", "high"), pl.Float64),
}
"""Columns of a table of values."""
GAP = {
    "metric": pl.String,
    "higher": pl.String,
    "lower": pl.String,
    **dict.fromkeys(("gap", "low", "high", "p_value", "p_holm", "detectable_holm"), pl.Float64),
}
"""Columns of a table of gaps."""


def by_value(per_user: pl.DataFrame, values: pl.Series, metrics: Sequence[str]) -> pl.DataFrame:
    """Means by value, with 95% bootstrap intervals over its users.

    Args:
        per_user: a row per user, with the metrics as columns.
        values: of each of these users; null where it is not known.
        metrics: which.

    Returns:
        a row per value, in their order, and metric: `value, users, metric, mean, low, high`; users
        are those with the value.

    >>> users = pl.DataFrame({"recall@1": [1.0, 0.0, 1.0]})
    >>> table = by_value(users, pl.Series(["m", "w", "m"]), ["recall@1"])
    >>> table.select("value", "users", "mean").rows()
    [('m', 2, 1.0), ('w', 1, 0.0)]
    """
    rows = [
        (value, len(users), metric, users[metric].mean(), *interval)
        for value, users in _groups(per_user, values, metrics)
        for metric, interval in mean_intervals(users, 0.95, 1000, 0).items()
    ]
    return pl.DataFrame(rows, VALUES, orient="row").fill_nan(None)


def largest_gaps(per_user: pl.DataFrame, values: pl.Series, metrics: Sequence[str]) -> pl.DataFrame:
    """The largest gap of each metric between two values, tested.

    Args:
        per_user, values, metrics: as of `by_value`; users without a value are left out, and so are
            values with a single user.

    Returns:
        a row per metric: `metric, higher, lower`, the two values, `gap` with its 95% interval `low,
        high`, `p_value` of Welch's t-test, `p_holm` corrected over all pairs of values and all the
        metrics, and `detectable_holm`, the smallest true gap that this test finds with 80% power at
        5% / the number of all tests (`recsys.evaluation.compare`). Tests are null where neither
        value has any spread. No row where fewer than two values can be compared.
    """
    groups = {
        value: users
        for value, users in _groups(per_user, values, metrics)
        if value is not None and len(users) > 1
    }
    rows = [
        row
        for metric in metrics
        for pair in combinations(groups, 2)
        if (row := _welch(metric, *pair, groups)) is not None
    ]
    p_values = np.array([row["p_value"] for row in rows], dtype=np.float64)
    tests = max(int(np.count_nonzero(~np.isnan(p_values))), 1)
    for row, corrected in zip(rows, holm(p_values), strict=True):
        row["p_holm"] = None if math.isnan(corrected) else float(corrected)
    largest = [_largest(metric, rows) for metric in metrics]
    gaps = [row for row in largest if row is not None]
    for row in gaps:
        error, freedom = row.pop("error"), row.pop("freedom")
        detects = detectable_errors(freedom, LEVEL / tests) * error if error else None
        row["detectable_holm"] = detects
    return pl.DataFrame(gaps, schema=GAP)


def _largest(metric: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    of_metric = [row for row in rows if row["metric"] == metric]
    return max(of_metric, key=lambda row: row["gap"], default=None)


def _groups(
    per_user: pl.DataFrame, values: pl.Series, metrics: Sequence[str]
) -> Iterator[tuple[str | None, pl.DataFrame]]:
    """The metrics of the users with each value, the values in order; those without one last."""
    frame = per_user.select(metrics).with_columns(values.alias("value"))
    parts = frame.sort("value", nulls_last=True, maintain_order=True).partition_by(
        "value", maintain_order=True, as_dict=True, include_key=False
    )
    for (value,), users in parts.items():
        yield (None if value is None else str(value)), users


def _welch(
    metric: str, one: str, other: str, groups: dict[str, pl.DataFrame]
) -> dict[str, Any] | None:
    """Welch's t-test of the higher minus the lower; None where one has fewer than two figures."""
    samples = {value: groups[value][metric].drop_nulls().to_numpy() for value in (one, other)}
    if min(map(len, samples.values())) < 2:
        return None
    higher, lower = sorted(samples, key=lambda value: -samples[value].mean())
    parts = {v: sample.var(ddof=1) / len(sample) for v, sample in samples.items()}
    gap = float(samples[higher].mean() - samples[lower].mean())
    error = math.sqrt(sum(parts.values()))
    row = {"metric": metric, "higher": higher, "lower": lower, "gap": gap, "error": error}
    if not error:
        return row | dict.fromkeys(("low", "high", "p_value", "freedom"))
    # Welch–Satterthwaite.
    freedom = error**4 / sum(part**2 / (len(samples[v]) - 1) for v, part in parts.items())
    margin = float(stats.t.isf(LEVEL / 2, freedom)) * error
    return row | {
        "low": gap - margin,
        "high": gap + margin,
        "p_value": float(2 * stats.t.sf(gap / error, freedom)),
        "freedom": float(freedom),
    }
