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

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.batch.series import SeriesTable
from recsys.errors import RunError
from recsys.evaluation.statistics import bootstrap, draws_at_once
from recsys.scoring.forecaster import LEVELS, Forecast

SUMS = (
    "count",
    "total",
    "squared",
    "absolute",
    "relative",
    "nonzero",
    "scaled",
    "scalable",
    "quantile_loss",
    "crps",
    "inside_50",
    "inside_90",
)
"""Of a series at an origin; every metric is a ratio of sums of them."""
METRICS = ("rmse", "nrmse", "wape", "mape", "mase", "wql", "crps", "coverage_50", "coverage_90")
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
    found = {
        "count": torch.full((len(came),), float(came.shape[1])),
        "total": came.abs().sum(1),
        "squared": (came - mean).square().sum(1),
        "absolute": missed.sum(1),
        "relative": (missed / came.abs()).where(positive, torch.zeros_like(missed)).sum(1),
        "nonzero": positive.sum(1),
        "scaled": (missed.sum(1) / naive).where(scalable, torch.zeros_like(naive)),
        "scalable": scalable * came.shape[1],
        "quantile_loss": losses[..., weighted].mean(-1).sum(1),
        "crps": crps(quantiles, came).sum(1),
        "inside_50": _inside(quantiles, came, 0.25, 0.75),
        "inside_90": _inside(quantiles, came, 0.05, 0.95),
    }
    return pl.DataFrame({name: values.double().numpy() for name, values in found.items()})


def naive_error(past: SeriesTable) -> Tensor:
    """(S,): mean absolute error of the seasonal naive forecast on what is known."""
    values = past.values
    return (values[:, past.season :] - values[:, : -past.season]).abs().mean(1)


def metrics(summed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every metric of sums (R,); NaN where it is of nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        s = summed
        rmse = np.sqrt(s["squared"] / s["count"])
        values = {
            "rmse": rmse,
            "nrmse": rmse / (s["total"] / s["count"]),
            "wape": s["absolute"] / s["total"],
            "mape": s["relative"] / s["nonzero"],
            "mase": s["scaled"] / s["scalable"],
            "wql": s["quantile_loss"] / s["total"],
            "crps": s["crps"] / s["count"],
            "coverage_50": s["inside_50"] / s["count"],
            "coverage_90": s["inside_90"] / s["count"],
        }
    return {name: np.where(np.isfinite(value), value, np.nan) for name, value in values.items()}


def by_group(rows: pl.DataFrame, *group: str) -> pl.DataFrame:
    """The metrics of each group of rows of sums, a row per group, in order."""
    summed = rows.group_by(group).agg(pl.col(SUMS).sum()).sort(group)
    found = metrics({name: summed[name].to_numpy() for name in SUMS})
    return summed.select(group).with_columns(pl.Series(n, v) for n, v in found.items())


def means(rows: pl.DataFrame) -> dict[str, float]:
    """The mean of each metric over origins and seeds.

    Args:
        rows: `origin`, `seed` and the sums, a row per series.
    """
    return by_group(rows, "origin", "seed").select(METRICS).mean().fill_null(np.nan).row(0, named=True)


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
        return np.stack([np.nanmean(each[name], axis=1) for name in METRICS], axis=1)

    ends = bootstrap(measure, draws_at_once(num_series, resamples, seed), level=level)
    return {name: list(pair) for name, pair in zip(METRICS, ends, strict=True)}


def spread(rows: pl.DataFrame) -> dict[str, dict[str, float]]:
    """The standard deviation of each metric over origins (means over seeds) and over seeds."""
    every = by_group(rows, "origin", "seed")
    found = {}
    for name in ("origin", "seed"):
        of = every.group_by(name).agg(pl.col(METRICS).mean()).select(METRICS)
        found[f"over_{name}s"] = {n: v or 0.0 for n, v in of.select(pl.all().std()).row(0, named=True).items()}
    return found


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
