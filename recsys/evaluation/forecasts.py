"""Metrics of forecasts, as ratios of sums over series and periods.

With y what came, m the forecast's mean, q its median, and s the mean absolute error of the seasonal
naive forecast on what lies before the origin:

    rmse   sqrt(mean (y - m)^2)                 nrmse  rmse / mean |y|
    wape   sum |y - q| / sum |y|                mape   mean |y - q| / |y| where y is not 0
    mase   mean |y - q| / s                     (Hyndman & Koehler, 2006)
    wql    sum of the mean of 2 L_a(y, q_a) over a = .1, .2 … .9, over sum |y|
    crps   mean of the integral of 2 L_a(y, q_a) over a, by the trapezoid rule
    coverage_50, coverage_90                    share of the y within the middle 50% and 90%

L_a(y, q) = (a - [y < q]) (y - q) is the quantile loss (Gneiting & Raftery, 2007). Squared errors
are asked of the mean and absolute ones of the median, which is what each of them is least for.

Shapes: S series, H periods of the horizon, Q levels, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.batch.series import SeriesTable
from recsys.errors import ConfigError, RunError
from recsys.evaluation.statistics import (
    PAIRED,
    bootstrap,
    draws_at_once,
    mean_of_defined,
    paired_t,
    with_holm,
)
from recsys.scoring.forecaster import LEVELS, Forecast, Forecaster

SUMS = (
    "sum/count",
    "sum/total",
    "sum/squared",
    "sum/absolute",
    "sum/relative",
    "sum/nonzero",
    "sum/scaled",
    "sum/scalable",
    "sum/quantile_loss",
    "sum/crps",
    "sum/inside_50",
    "sum/inside_90",
)
"""Of a series at an origin; every metric is a ratio of sums of them."""
METRICS = ("rmse", "nrmse", "wape", "mape", "mase", "wql", "crps", "coverage_50", "coverage_90")
COMPARED = ("rmse", "mase", "crps")
"""Metrics whose differences between models are tested: of a series that sells next to nothing, what
is over the sum of its sales would be any number."""
Refit = Literal["origin", "phase"]
WEIGHTED_LEVELS = tuple(level for level in LEVELS if round(level * 100) % 10 == 0)
"""Of the weighted quantile loss: .1, .2 … .9."""


def quantile_losses(quantiles: Tensor, came: Tensor) -> Tensor:
    """(S, H, Q): twice the quantile loss at each level.

    >>> quantile_losses(torch.full((1, 1, 19), 2.0), torch.tensor([[3.0]]))[0, 0, :2]
    tensor([0.1000, 0.2000])
    """
    levels = torch.tensor(LEVELS, dtype=quantiles.dtype, device=quantiles.device)
    error = came[..., None] - quantiles
    return 2 * torch.maximum(levels * error, (levels - 1) * error)


def crps(quantiles: Tensor, came: Tensor) -> Tensor:
    """(S, H): the continuous ranked probability score, by quantiles at `LEVELS`.

    The loss is 0 at the levels 0 and 1, so the trapezoid rule is the step times the sum.
    """
    return (LEVELS[1] - LEVELS[0]) * quantile_losses(quantiles, came).sum(-1)


def sums(forecast: Forecast, came: Tensor, past: SeriesTable) -> pl.DataFrame:
    """A row per series: what its metrics are ratios of.

    Args:
        forecast: of the horizon.
        came: (S, H) what came.
        past: what was known.

    Raises:
        RunError: the forecast is not finite, or its quantiles do not ascend.
    """
    _check(forecast)
    came = came.double().cpu()
    mean, median, quantiles = (
        x.double().cpu() for x in (forecast.mean, forecast.median, forecast.quantiles)
    )
    missed, positive = (came - median).abs(), came != 0
    naive = naive_error(past).double().cpu()
    scalable = naive > 0
    losses = quantile_losses(quantiles, came)
    weighted = torch.tensor([level in WEIGHTED_LEVELS for level in LEVELS])
    errors = {
        "sum/count": torch.full((len(came),), float(came.shape[1])),
        "sum/total": came.abs().sum(1),
        "sum/squared": (came - mean).square().sum(1),
        "sum/absolute": missed.sum(1),
        "sum/relative": (missed / came.abs()).where(positive, torch.zeros_like(missed)).sum(1),
        "sum/nonzero": positive.sum(1),
        "sum/scaled": (missed.sum(1) / naive).where(scalable, torch.zeros_like(naive)),
        "sum/scalable": scalable * came.shape[1],
        "sum/quantile_loss": losses[..., weighted].mean(-1).sum(1),
        "sum/crps": crps(quantiles, came).sum(1),
        "sum/inside_50": _inside(quantiles, came, 0.25, 0.75),
        "sum/inside_90": _inside(quantiles, came, 0.05, 0.95),
    }
    return pl.DataFrame({name: values.double().numpy() for name, values in errors.items()})


def naive_error(past: SeriesTable) -> Tensor:
    """(S,): mean absolute error of the seasonal naive forecast on what is known."""
    values = past.values
    return (values[:, past.season :] - values[:, : -past.season]).abs().mean(1)


def metrics(summed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every metric of sums (R,); NaN where it is of nothing."""
    count, total, squared, absolute, relative, nonzero, *others = (summed[name] for name in SUMS)
    scaled, scalable, quantile_loss, score, inside_50, inside_90 = others
    with np.errstate(divide="ignore", invalid="ignore"):
        rmse = np.sqrt(squared / count)
        values = (
            rmse,
            rmse / (total / count),
            absolute / total,
            relative / nonzero,
            scaled / scalable,
            quantile_loss / total,
            score / count,
            inside_50 / count,
            inside_90 / count,
        )
    named = zip(METRICS, values, strict=True)
    return {name: np.where(np.isfinite(value), value, np.nan) for name, value in named}


def by_group(rows: pl.DataFrame, *group: str) -> pl.DataFrame:
    """The metrics of each group of rows of sums, a row per group, in order."""
    summed = rows.group_by(group).agg(pl.col(SUMS).sum()).sort(group)
    values = metrics({name: summed[name].to_numpy() for name in SUMS})
    return summed.select(group).with_columns(pl.Series(n, v) for n, v in values.items())


def means(rows: pl.DataFrame) -> dict[str, float]:
    """The mean of each metric over origins and seeds.

    Args:
        rows: `origin`, `seed` and the sums, a row per series.
    """
    each = by_group(rows, "origin", "seed").select(pl.col(METRICS).fill_nan(None))
    return each.mean().fill_null(np.nan).row(0, named=True)


def intervals(
    rows: pl.DataFrame, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, list[float]]:
    """Bootstrap intervals of `means`, series drawn with replacement.

    Args:
        rows: as in `means`, with `series`.
    """
    ordered = rows.sort("origin", "seed", "series")
    num_series = ordered["series"].n_unique()
    blocks = {name: ordered[name].to_numpy().reshape(-1, num_series) for name in SUMS}

    def measure(drawn: np.ndarray) -> np.ndarray:
        each = metrics({name: drawn @ block.T for name, block in blocks.items()})
        return np.stack([mean_of_defined(each[name].T) for name in METRICS], axis=1)

    ends = bootstrap(measure, draws_at_once(num_series, resamples, seed), level=level)
    return {name: list(pair) for name, pair in zip(METRICS, ends, strict=True)}


def spread(rows: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Standard deviations of each metric over origins, means over seeds, and over seeds."""
    every = by_group(rows, "origin", "seed")
    deviations = {}
    for name in ("origin", "seed"):
        of = every.group_by(name).agg(pl.col(METRICS).fill_nan(None).mean()).select(METRICS)
        row = of.select(pl.all().std()).row(0, named=True)
        deviations[f"over_{name}s"] = {metric: value or 0.0 for metric, value in row.items()}
    return deviations


def leads(models: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """How far the first model is ahead of each other, series by series.

    A series' figure is of all its origins and seeds together, since its origins are alike; beside
    the test stands at how many origins, over all series, the first model is the better one.

    Args:
        models: rows of the test, as in `intervals`.

    Returns:
        a row per other model and metric of `COMPARED`: `against`, the columns of
        `recsys.evaluation.statistics.compare`, whose `second` is the first model and where less is
        better, `origins_won` and `p_holm`, Holm's correction over all rows.

    Raises:
        RunError: two models forecast other series, or at other origins.
    """
    first, *others = models
    columns = {"against": pl.String, **PAIRED, "origins_won": pl.Int64}
    frames = [pl.DataFrame(schema=columns)]
    for other in others:
        if not _asked(models[first]).equals(_asked(models[other])):
            raise RunError(f"{first} and {other} forecast other series or origins; compare alike")
        frames.append(
            _lead(models[first], models[other]).insert_column(0, pl.lit(other).alias("against"))
        )
    return with_holm(pl.concat([frame.select(*columns) for frame in frames]))


def _asked(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("series", "origin").unique().sort("series", "origin")


def _lead(first: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    theirs, ours = by_group(other, "series"), by_group(first, "series")
    tests = [paired_t(m, theirs[m].fill_nan(None), ours[m].fill_nan(None)) for m in COMPARED]
    at_origins = [
        by_group(rows, "origin", "seed")
        .group_by("origin")
        .agg(pl.col(COMPARED).mean())
        .sort("origin")
        for rows in (other, first)
    ]
    won = [int((at_origins[1][m] < at_origins[0][m]).sum()) for m in COMPARED]
    return pl.DataFrame(tests, schema=PAIRED).with_columns(
        origins_won=pl.Series(won, dtype=pl.Int64)
    )


@dataclass(frozen=True, eq=False)
class Backtest:
    """What a forecaster reached at some origins.

    Attributes:
        rows: a row per origin and series: `origin`, `series` (its number), the sums and metrics.
        forecasts: a row per origin, series and period: `came`, `mean`, `q05` … `q95`.
        seconds: of all fits, and of all forecasts.
    """

    rows: pl.DataFrame
    forecasts: pl.DataFrame
    seconds: tuple[float, float]


def backtest(
    table: SeriesTable,
    origins: Sequence[int],
    build: Callable[[], Forecaster],
    refit: Refit = "phase",
) -> Backtest:
    """Ask a forecaster at origins, each time with what lies before it.

    Args:
        table: the series, with what came.
        origins: periods, ascending.
        build: makes the forecaster anew, unfitted.
        refit: whether one is fitted at each `origin`, or one at the first for all, a `phase`.

    Raises:
        ConfigError: the series before an origin are shorter than a window and its horizon.
        RunError: a forecast is not finite.
    """
    rows, forecasts, seconds = [], [], np.zeros(2)
    for number, origin in enumerate(origins):
        past = table.before(origin)
        if past.starts < 1:
            raise ConfigError(
                f"the origin {origin} leaves {past.num_periods} periods, and a window and its "
                f"horizon take {past.width}; ask later, or lower context or horizon"
            )
        began = perf_counter()
        if refit == "origin" or number == 0:
            forecaster = build().fit(past)
        fitted = perf_counter()
        forecast = forecaster.forecast(past)
        seconds += fitted - began, perf_counter() - fitted
        came = table.after(origin)
        about = pl.lit(origin).alias("origin")
        rows.append(_with_metrics(sums(forecast, came, past)).with_columns(about))
        forecasts.append(_frame(forecast, came).with_columns(about))
    return Backtest(pl.concat(rows), pl.concat(forecasts), (float(seconds[0]), float(seconds[1])))


def _with_metrics(summed: pl.DataFrame) -> pl.DataFrame:
    values = metrics({name: summed[name].to_numpy() for name in SUMS})
    columns = [pl.Series(name, value) for name, value in values.items()]
    return summed.with_columns(columns).with_row_index("series")


def _frame(forecast: Forecast, came: Tensor) -> pl.DataFrame:
    """A row per series and period of the horizon."""
    num_series, horizon = came.shape
    quantiles = forecast.quantiles.float().cpu().flatten(0, 1).numpy()
    return pl.DataFrame(
        {
            "series": np.repeat(np.arange(num_series, dtype=np.uint32), horizon),
            "ahead": np.tile(np.arange(horizon, dtype=np.int32), num_series),
            "came": came.float().cpu().flatten().numpy(),
            "mean": forecast.mean.float().cpu().flatten().numpy(),
            **{f"q{100 * level:02.0f}": quantiles[:, n] for n, level in enumerate(LEVELS)},
        }
    )


def _inside(quantiles: Tensor, came: Tensor, low: float, high: float) -> Tensor:
    ends = (quantiles[..., LEVELS.index(level)] for level in (low, high))
    return ((came >= next(ends)) & (came <= next(ends))).sum(1)


def _check(forecast: Forecast) -> None:
    finite = forecast.mean.isfinite().all(1) & forecast.quantiles.isfinite().all(-1).all(1)
    if not finite.all():
        raise RunError(
            f"the forecast of series {int((~finite).nonzero()[0])} is not finite; if the model was "
            "trained it diverged: lower its learning_rate"
        )
    if bool((forecast.quantiles.diff(dim=-1) < 0).any()):
        raise RunError("a forecast's quantiles do not ascend; sort them")
