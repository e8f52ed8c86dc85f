"""How far chance moves a figure: bootstrap, paired tests, corrections for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl
from scipy import optimize, stats

from recsys.errors import RunError

PAIRED = {
    "metric": pl.String,
    **dict.fromkeys(("first", "second", "difference", "low", "high", "p_value"), pl.Float64),
    "pairs": pl.Int64,
    "detectable": pl.Float64,
}
"""Columns of a comparison."""
LEVEL, POWER = 0.05, 0.8
"""How often a test may find a difference where there is none, and is to find the smallest one that
is called detectable (Cohen's conventions)."""
FOLD = ("repeat", "fold", "train", "test")
"""Columns of a frame of folds that are no metrics."""
WITHOUT_LENGTH = ("log_likelihood",)
"""Metrics of users that have no list length in their names."""


def bootstrap(
    measure: Callable[[np.ndarray], np.ndarray], draws: Iterable[np.ndarray], *, level: float = 0.95
) -> list[tuple[float, float]]:
    """Percentile bootstrap intervals of M metrics over S resamples of U users.

    A resample in which a metric is undefined does not count for it.

    Args:
        measure: the metrics (s, M) of some resamples (s, U); NaN is undefined.
        draws: the resamples, in parts (s, U): how often each user is drawn.
        level: the share of the resamples' metrics that lies within an interval.
    """
    resampled = np.concatenate([measure(weights) for weights in draws])
    return [interval(values, level) for values in resampled.T]


def draws_of_users(num_users: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Draws with replacement, a resample (1, U) at a time: of many users all would be too large."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        users = generator.integers(num_users, size=num_users)
        yield np.bincount(users, minlength=num_users)[None]


def draws_at_once(num_users: int, resamples: int, seed: int) -> list[np.ndarray]:
    """Draws with replacement, all resamples (S, U) at once: for metrics that sort before they sum.

    They are others than those of `draws_of_users`.
    """
    generator = np.random.default_rng(seed)
    share = np.full(num_users, 1 / num_users)
    return [generator.multinomial(num_users, share, size=resamples)]


def mean_intervals(
    per_user: pl.DataFrame, level: float, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """The bootstrap interval of each column's mean over users, nulls left out.

    A column without any value has no interval.
    """
    per_user = per_user.select(c.name for c in per_user if c.null_count() < len(c))
    values = per_user.to_numpy().astype(np.float64)
    defined = ~np.isnan(values)
    # Sums and counts in one product.
    summed = np.hstack([np.where(defined, values, 0.0), defined])

    def means(weights: np.ndarray) -> np.ndarray:
        return ratio(*np.split(weights.astype(np.float64) @ summed, 2, axis=1))

    intervals = bootstrap(means, draws_of_users(len(values), resamples, seed), level=level)
    return dict(zip(per_user.columns, intervals, strict=True))


def ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """A mean; NaN where it is of nothing."""
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean of (N, …) over the rows that are numbers; NaN where none is."""
    defined = ~np.isnan(values)
    return ratio(np.asarray(np.where(defined, values, 0).sum(0)), np.asarray(defined.sum(0)))


def interval(resampled: np.ndarray, level: float) -> tuple[float, float]:
    """The percentile interval of a mean (S,) over the resamples in which it is defined."""
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def level_with_best(
    means: Mapping[str, float], intervals: Mapping[str, Sequence[float]], *, less: bool = False
) -> set[str]:
    """Which models a table marks: the best mean, and every one whose interval reaches it.

    Args:
        means: by model; NaN is no mean.
        intervals: of these, `[low, high]`.
        less: whether less is better.

    Returns:
        Names of models; none where only one has a mean.

    >>> means = {"a": 0.3, "b": 0.29, "c": 0.2}
    >>> sorted(level_with_best(means, {"a": (0.28, 0.32), "b": (0.27, 0.31), "c": (0.1, 0.25)}))
    ['a', 'b']
    """
    known = {name: mean for name, mean in means.items() if mean == mean}
    if len(known) < 2:
        return set()
    best = min(known.values()) if less else max(known.values())
    reached = {n for n in known if (intervals[n][0] <= best if less else intervals[n][1] >= best)}
    return reached | {name for name, mean in known.items() if mean == best}


@runtime_checkable
class PerUser(Protocol):
    """What holds a row of metrics per user, such as an `Evaluation`."""

    @property
    def per_user(self) -> pl.DataFrame:
        """By the column `user`."""


def compare(
    first: pl.DataFrame | PerUser,
    second: pl.DataFrame | PerUser,
    *,
    names: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Paired comparison of two evaluations, or per-user frames, of the same users.

    A row per metric that both hold: `metric, first, second, difference, low, high, p_value, pairs,
    detectable, p_holm, detectable_holm`, of the users for whom it is defined in both. The
    difference is second - first with its 95% interval of Student's t over the paired differences,
    `p_value` is the paired t-test's and `p_holm` Holm's correction over all rows. `detectable` is
    the smallest true difference, either way, that the t-test of so many `pairs` of users finds at
    5% with a probability of 80% where differences spread as they do here: below it "no difference"
    means little. `detectable_holm` is the same after the correction, at 5% / the number of rows,
    which is the strictest level that Holm asks of any row. All but the means are null where nothing
    can be tested.

    Args:
        first, second: what `evaluate` returns, of one split; or frames with a column `user_id` and
            metrics, as a run's `per_user.parquet`.
        names: metrics to compare; default all that both hold.

    Raises:
        RunError: the frames hold different users, or no common metric.

    >>> first = pl.DataFrame({"user_id": [1, 2, 3], "recall@10": [0.0, 0.5, 0.2]})
    >>> second = pl.DataFrame({"user_id": [1, 2, 3], "recall@10": [0.6, 1.0, 1.0]})
    >>> compare(first, second).select("first", "second", pl.col("p_value").round(3)).rows()
    [(0.2333333333333333, 0.8666666666666667, 0.019)]
    """
    return _compared(_by_user_id(first), _by_user_id(second), names)


def _by_user_id(result: pl.DataFrame | PerUser) -> pl.DataFrame:
    if isinstance(result, pl.DataFrame):
        return result
    return result.per_user.rename({"user": "user_id"})


def _compared(
    first: pl.DataFrame, second: pl.DataFrame, names: Sequence[str] | None
) -> pl.DataFrame:
    if set(first["user_id"]) != set(second["user_id"]):
        common = len(set(first["user_id"]) & set(second["user_id"]))
        raise RunError(
            f"the runs were evaluated on different users ({len(first)} and {len(second)}, {common} "
            "in common); compare runs of one data set and task"
        )
    shared = [c for c in first.columns if c in second.columns]
    shared = [c for c in shared if "@" in c or c in WITHOUT_LENGTH]
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


def compare_folds(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Paired comparison of two results over the same folds: corrected resampled t-test.

    A row per metric: `metric, first, second, difference, low, high, p_value, pairs, detectable`, as
    in `compare`; interval, p-value and what is detectable are null where a fold has no figure.

    Args:
        first, second: `TableResult.folds`.

    Raises:
        RunError: they are of different folds.
    """
    if not same_folds(first, second):
        raise RunError("the results are of other folds; compare results on one table")
    names = [name for name in first.columns if name not in FOLD]
    test_train_ratio = held_out_ratio(first)
    rows = [paired_t(n, first[n], second[n], test_train_ratio=test_train_ratio) for n in names]
    return pl.DataFrame(rows, schema=PAIRED)


def same_folds(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Whether two results can be compared: both were measured on folds, and on the same ones."""
    return not first.is_empty() and first.select(FOLD).equals(second.select(FOLD))


def held_out_ratio(folds: pl.DataFrame) -> float:
    """Training rows that a fold holds out over those it trains on.

    A row is in the training rows of all folds but one. So their sum is the number of all rows times
    the number of the other folds.
    """
    others = pl.len().over("repeat") - 1
    all_rows = pl.col("train").sum().over("repeat") / others
    # Without any the users are divided all the same.
    ratio = ((all_rows - pl.col("train")) / pl.col("train")).fill_nan(1 / others)
    return float(folds.select(ratio.mean()).item())


def paired_t(
    name: str, first: pl.Series, second: pl.Series, *, test_train_ratio: float = 0.0
) -> dict[str, object]:
    """A row of `compare` or `compare_folds`: Student's t of the differences second - first.

    A pair with a null is left out. A pair with NaN should have been measured and cannot be left
    out: then there is no test. A single pair has no test either.

    Args:
        name: of the metric.
        first, second: paired values, each of the two on the same line.
        test_train_ratio: test rows over training rows where a pair is a fold. Folds share training
            rows, which makes their differences alike: Nadeau & Bengio (2003, eq. 14) add the ratio
            to 1 / count in the variance of the mean.
    """
    pairs = pl.DataFrame([first.rename("first"), second.rename("second")])
    pairs = pairs.cast(pl.Float64).drop_nulls()
    defined = pairs.filter(pl.all_horizontal(pl.all().is_not_nan()))
    difference = (defined["second"] - defined["first"]).to_numpy()
    count, mean = len(difference), float(difference.mean()) if len(difference) else None
    means = defined.mean().row(0, named=True)
    row = {"metric": name, **means, "difference": mean, "pairs": count}
    if mean is None or count < max(len(pairs), 2):
        return row | dict.fromkeys(("low", "high", "p_value", "detectable"))
    error = float(difference.std(ddof=1)) * math.sqrt(1 / count + test_train_ratio)
    # Where all differ alike, it is by nothing, or surely.
    p_value = float(2 * stats.t.sf(abs(mean / error), count - 1)) if error > 0 else float(mean == 0)
    margin = float(stats.t.isf(LEVEL / 2, count - 1)) * error
    # Without any spread nothing tells how far chance moves a difference.
    detectable = detectable_errors(count - 1) * error or None
    return row | {
        "low": mean - margin,
        "high": mean + margin,
        "p_value": p_value,
        "detectable": detectable,
    }


def with_holm(table: pl.DataFrame) -> pl.DataFrame:
    """Comparisons with Holm's correction over all rows that have a `p_value`.

    It is `p_holm`; and `detectable_holm`, where the table has `pairs` and `detectable`, is what a
    row's test detects at the strictest level of the correction, 5% / the number of tests. A row
    with a larger true difference is found that often at least, whatever the other rows say.
    """
    corrected = holm(table["p_value"].to_numpy())
    table = table.with_columns(pl.Series("p_holm", corrected).fill_nan(None))
    if not {"pairs", "detectable"} <= {*table.columns}:
        return table
    level = LEVEL / max(table["p_value"].count(), 1)
    detectable = [
        None if d is None else d * detectable_errors(n - 1, level) / detectable_errors(n - 1)
        for n, d in table.select("pairs", "detectable").iter_rows()
    ]
    return table.with_columns(pl.Series("detectable_holm", detectable, pl.Float64))


def detectable_errors(freedom: int | float, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest difference that a two-sided t-test detects, in standard errors of the mean.

    The noncentrality at which Student's t is beyond the critical value with the probability
    `power`: exact under normal differences (Cohen 1988, section 2), and the sum of two normal
    quantiles where there are many. That t is beyond it on the other side is below 1e-6 and left
    out.

    >>> round(detectable_errors(9), 3), round(detectable_errors(100_000), 3)
    (3.15, 2.802)
    """
    critical = float(stats.t.isf(level / 2, freedom))

    def missing(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, freedom, noncentrality)) - power

    highest = critical + 1
    while missing(highest) < 0:
        highest *= 2
    return float(optimize.brentq(missing, 0.0, highest))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979): family-wise adjusted p-values, in the input's order.

    What is NaN was not tested and stays so.
    """
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN is sorted last
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p_values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
