"""What a model reaches at several moments: means over windows, and how far these vary."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import stats


def over_windows(table: pl.DataFrame, level: float = 0.95) -> pl.DataFrame:
    """Each model's mean over windows, and what it is ahead of each other.

    Args:
        table: `moment, model, metric, mean`, a row per window, model and metric.
        level: of the intervals: Student's t over the windows, which count alike however many users
            they have. One window has no interval.

    Returns:
        `model, metric, mean, low, high`; and `ahead, ahead_low, ahead_high`: the first model minus
        this one, window by window, null for the first.

    >>> means = {"moment": ["a", "b"], "model": "m", "metric": "r", "mean": [0.1, 0.3]}
    >>> table = pl.DataFrame(means)
    >>> over_windows(table).select(pl.col("mean", "low", "high").round(2)).row(0)
    (0.2, -1.07, 1.47)
    """
    of_windows = table.filter(pl.col("mean").is_not_nan())
    first = table["model"][0]
    lead = of_windows.filter(model=first).select("moment", "metric", of_first="mean")
    joined = of_windows.join(lead, on=["moment", "metric"], how="left", maintain_order="left")
    ahead = pl.when(pl.col("model") != first).then(pl.col("of_first") - pl.col("mean"))
    groups = joined.with_columns(ahead=ahead).group_by("model", "metric", maintain_order=True)
    columns = ("mean", "ahead")
    sums = groups.agg(
        pl.col(columns).mean().name.suffix("/mean"),
        pl.col(columns).std().name.suffix("/std"),
        pl.col(columns).count().name.suffix("/count"),
    )
    of_mean, of_ahead = (_with_ends(sums, column, level) for column in columns)
    names = dict(zip(of_mean.columns, ("ahead", "ahead_low", "ahead_high"), strict=True))
    return pl.concat(
        [sums.select("model", "metric"), of_mean, of_ahead.rename(names)], how="horizontal"
    )


def _with_ends(sums: pl.DataFrame, column: str, level: float) -> pl.DataFrame:
    """`mean, low, high` of a column."""
    count = sums[f"{column}/count"].to_numpy()
    freedom = np.where(count > 1, count - 1, np.nan)
    half = stats.t.ppf((1 + level) / 2, freedom) * sums[f"{column}/std"].to_numpy() / np.sqrt(count)
    mean, half = pl.col(f"{column}/mean"), pl.lit(pl.Series(half)).fill_nan(None)
    return sums.select(mean=mean, low=mean - half, high=mean + half)
