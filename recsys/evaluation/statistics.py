"""How far chance moves a figure: bootstrap, paired tests, corrections for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import stats

from recsys.errors import RunError

PAIRED = {
    "metric": pl.String,
    **dict.fromkeys(("first", "second", "difference", "low", "high", "p_value"), pl.Float64),
}
"""Columns of a comparison."""


def bootstrap(
    per_user: pl.DataFrame, level: float, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of each column's mean over resampled rows.

    Nulls are left out, and so is a resample that draws nothing else. A column without any value has
    no interval.
    """
    per_user = per_user.select(c.name for c in per_user if c.null_count() < len(c))
    values = per_user.to_numpy().astype(np.float64)
    defined = ~np.isnan(values)
    # Sums and counts in one product.
    summed = np.hstack([np.where(defined, values, 0.0), defined])
    generator = np.random.default_rng(seed)
    users, columns = values.shape
    totals = np.empty((resamples, 2 * columns))
    for total in totals:
        drawn = np.bincount(generator.integers(users, size=users), minlength=users)
        total[:] = drawn.astype(np.float64) @ summed
    counts = totals[:, columns:]
    undefined = np.full(counts.shape, np.nan)
    means = np.divide(totals[:, :columns], counts, out=undefined, where=counts > 0)
    return {name: interval(means[:, c], level) for c, name in enumerate(per_user.columns)}


def interval(resampled: np.ndarray, level: float) -> tuple[float, float]:
    """The percentile interval of a mean (S,) over resamples, those left out that have none."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(
    first: pl.DataFrame, second: pl.DataFrame, *, names: Sequence[str] | None = None
) -> pl.DataFrame:
    """Paired comparison of two per-user frames of the same users.

    A row per metric that both hold: `metric, first, second, difference, low, high, p_value,
    p_holm`, of the users for whom it is defined in both. The difference is second - first with its
    95% interval of Student's t over the paired differences, `p_value` is the paired t-test's and
    `p_holm` Holm's correction over all rows; interval and p-values are null where nothing can be
    tested.

    Args:
        first, second: with a column `user_id` and metrics, as a run's `per_user.parquet`.
        names: metrics to compare; default all that both hold.

    Raises:
        RunError: the frames hold different users, or no common metric.

    >>> first = pl.DataFrame({"user_id": [1, 2, 3], "recall@10": [0.0, 0.5, 0.2]})
    >>> second = pl.DataFrame({"user_id": [1, 2, 3], "recall@10": [0.6, 1.0, 1.0]})
    >>> compare(first, second).select("first", "second", pl.col("p_value").round(3)).rows()
    [(0.2333333333333333, 0.8666666666666667, 0.019)]
    """
    if set(first["user_id"]) != set(second["user_id"]):
        common = len(set(first["user_id"]) & set(second["user_id"]))
        raise RunError(
            f"the runs were evaluated on different users ({len(first)} and {len(second)}, {common} "
            "in common); compare runs of one data set and task"
        )
    shared = [c for c in first.columns if c in second.columns and "@" in c]
    both = first.join(second, on="user_id", suffix="_second")
    pairs = [
        (name, both[name], both[f"{name}_second"])
        for name in shared
        if names is None or name in names
    ]
    rows = [paired_t(*pair) for pair in pairs if (pair[1] + pair[2]).count()]
    if not rows:
        raise RunError("the runs have no metric in common; evaluate both at the same k")
    return with_holm(pl.DataFrame(rows, schema=PAIRED))


def paired_t(
    name: str, first: pl.Series, second: pl.Series, *, overlap: float = 0.0
) -> dict[str, object]:
    """A row of `compare`: Student's t of the differences second - first.

    Pairs of which one is null are left out. One that is no number cannot be left out, since it was
    to be measured: then there is no test. Nor is there of a single pair.

    Args:
        name: of the metric.
        first, second: paired values, each of the two on the same line.
        overlap: what is added to 1 / count in the variance of the mean, where the differences are
            alike because what they were measured with was.
    """
    pairs = pl.DataFrame([first.rename("first"), second.rename("second")])
    pairs = pairs.cast(pl.Float64).drop_nulls()
    known = pairs.filter(pl.all_horizontal(pl.all().is_not_nan()))
    difference = (known["second"] - known["first"]).to_numpy()
    count, mean = len(difference), float(difference.mean()) if len(difference) else None
    row = {"metric": name, **known.mean().row(0, named=True), "difference": mean}
    if mean is None or count < max(len(pairs), 2):
        return row | dict.fromkeys(("low", "high", "p_value"))
    error = float(difference.std(ddof=1)) * math.sqrt(1 / count + overlap)
    # Where all differ alike, it is by nothing, or surely.
    p_value = float(2 * stats.t.sf(abs(mean / error), count - 1)) if error > 0 else float(mean == 0)
    margin = float(stats.t.ppf(0.975, count - 1)) * error
    return row | {"low": mean - margin, "high": mean + margin, "p_value": p_value}


def with_holm(table: pl.DataFrame) -> pl.DataFrame:
    """Comparisons with `p_holm`, Holm's correction of `p_value` over all rows that have one."""
    corrected = holm(table["p_value"].to_numpy())
    return table.with_columns(pl.Series("p_holm", corrected).fill_nan(None))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979): family-wise adjusted p-values, in the input's order.

    What is NaN was not tested and stays so.
    """
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN is sorted last
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p_values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
