"""The page of a run of return times, as `recsys.report.page` writes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys.evaluation.return_times import ReturnTimesResult, likelihood_leads
from recsys.report import page, plots
from recsys.report.page import name_of
from recsys.report.plots import Bar, Plot
from recsys.report.return_times_tables import level

TEMPLATE = "return_times.html.jinja"


def write(folder: Path) -> None:
    """Write `report.html` of a finished run, whole or not at all.

    Args:
        folder: the run's, as `recsys.run.return_times` describes it.

    Raises:
        RunError: the folder holds no finished run.
    """
    page.write(folder, TEMPLATE, _content)


def _content(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    models = {name_of(config["model"]): folder}
    models |= {
        str(name): place
        for name in config["baselines"]
        if (place := folder / "baselines" / str(name)).is_dir()
    }
    results = {name: ReturnTimesResult.read(place) for name, place in models.items()}
    first = next(iter(results))
    metrics = list(results[first].means["test"])
    leads = likelihood_leads(results)
    test = results[first].predictions.filter(part="test")
    unit = config["task"]["returns"].get("unit", "days")
    return {
        "model_name": first,
        "unit": unit,
        "followed": f"{config['task']['returns']['horizon']:g}",
        "rows": len(test),
        "users": test["user_id"].n_unique(),
        "censored": 1 - float(test["observed"].cast(pl.Float64).mean() or 0.0),  # type: ignore[arg-type]
        "results": results,
        "metrics": metrics,
        "parts": list(results[first].means),
        "level": {metric: level(results, metric) for metric in metrics},
        "leads": {row["against"]: row for row in leads.iter_rows(named=True)},
        "curves": _curves(results, unit),
        "bars": list(_bars("concordance", results)),
        "calibration": list(_calibration(results, unit)),
        "by_horizon": list(_by_horizon(results, unit)),
    }


def _curves(results: Mapping[str, ReturnTimesResult], unit: str) -> list[Plot]:
    first = next(iter(results))
    frames = {name: result.curves for name, result in results.items()}
    return [
        plots.survival_means(frames, unit),
        plots.survival_quartiles(first, frames[first], unit),
    ]


def _bars(metric: str, results: Mapping[str, ReturnTimesResult]) -> Iterator[Plot]:
    bars = [
        Bar(name, result.means["test"][metric], *result.intervals["test"][metric])
        for name, result in results.items()
    ]
    if len(bars) > 1:
        yield plots.bars(metric, bars, limit=max(bar.high for bar in bars), chance=0.5)


def _calibration(results: Mapping[str, ReturnTimesResult], unit: str) -> Iterator[Plot]:
    """A plot for each horizon."""
    first = next(iter(results.values())).calibration
    for horizon in first["horizon"].unique().sort():
        groups = {name: of.calibration.filter(horizon=horizon) for name, of in results.items()}
        yield plots.calibration(f"{horizon:g} {unit}", groups)


def _by_horizon(results: Mapping[str, ReturnTimesResult], unit: str) -> Iterator[Plot]:
    """The AUC of each model by horizon; none where there is no horizon within what was followed."""
    first = next(iter(results.values()))
    names = [name for name in first.means["test"] if name.startswith("auc@")]
    names = [n for n in names if not math.isnan(first.means["test"][n])]
    if names:
        horizons = [float(name.partition("@")[2]) for name in names]
        frames = {
            model: pl.DataFrame(
                [
                    (h, of.means["test"][n], *of.intervals["test"][n])
                    for h, n in zip(horizons, names, strict=True)
                ],
                schema=["horizon", "mean", "low", "high"],
                orient="row",
            )
            for model, of in results.items()
        }
        yield plots.by_horizon("AUC", frames, unit)
