"""The page of a run of forecasts, as `recsys.report.page` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation import forecasts
from recsys.evaluation.figures import read_figures
from recsys.evaluation.forecasts import METRICS
from recsys.evaluation.statistics import level_with_best
from recsys.reading import read_json, read_table
from recsys.report import page, plots
from recsys.report.page import name_of
from recsys.report.plots import Bar, Plot

TEMPLATE = "forecast.html.jinja"
SHOWN_BARS = ("rmse", "wape", "mase", "wql")
NUM_SERIES = 6


def write(folder: Path) -> None:
    """Write `report.html` of a finished run, whole or not at all.

    Args:
        folder: the run's, as `recsys.run.forecasting` describes it.

    Raises:
        RunError: the folder holds no finished run.
    """
    page.write(folder, TEMPLATE, _content)


def _content(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    label = name_of(config["model"])
    models = {label: folder}
    places = folder / "baselines"
    models |= {n: places / n for n in map(str, config["baselines"]) if (places / n).is_dir()}
    rows = {name: read_table(place / "per_series.parquet") for name, place in models.items()}
    tests = {name: of.filter(part="test") for name, of in rows.items()}
    figures = {name: read_figures(place) for name, place in models.items()}
    summaries = {name: read_json(place / "spread.json") for name, place in models.items()}
    ahead = forecasts.leads(tests).partition_by("against", as_dict=True)
    means = {name: pair[0] for name, pair in figures.items()}
    return {
        "model_name": label,
        "task": config["task"],
        "num_series": tests[label]["series"].n_unique(),
        "num_origins": tests[label]["origin"].n_unique(),
        "num_seeds": tests[label]["seed"].n_unique(),
        "metrics": METRICS,
        "compared": forecasts.COMPARED,
        "means": means,
        "intervals": {name: pair[1] for name, pair in figures.items()},
        "told": summaries,
        "level": {metric: _level(figures, metric) for metric in METRICS},
        "leads": {str(name): frame.to_dicts() for (name,), frame in ahead.items()},
        "bars": list(_bars(figures)),
        "by_origin": _by_origin(tests),
        "fans": list(_fans(folder)),
    }


def _level(figures: Mapping[str, Any], metric: str) -> set[str]:
    """The models with the least mean, and those whose interval reaches it; of coverage none."""
    if metric.startswith("coverage"):
        return set()
    means = {name: of["test"][metric] for name, (of, _) in figures.items()}
    ends = {name: of["test"][metric] for name, (_, of) in figures.items()}
    return level_with_best(means, ends, less=True)


def _bars(figures: Mapping[str, Any]) -> Iterator[Plot]:
    for metric in SHOWN_BARS:
        bars = [
            Bar(name, means["test"][metric], *ends["test"][metric])
            for name, (means, ends) in figures.items()
            if means["test"][metric] == means["test"][metric]
        ]
        if len(bars) > 1:
            yield plots.bars(metric, bars, limit=float(np.fmax.reduce([b.high for b in bars])))


def _by_origin(tests: Mapping[str, pl.DataFrame]) -> dict[str, list[dict[str, Any]]]:
    """The metrics of each model at each origin, means over seeds."""
    by_origin = {}
    for name, rows in tests.items():
        each = forecasts.by_group(rows, "origin", "seed").group_by("origin").mean().sort("origin")
        by_origin[name] = each.to_dicts()
    return by_origin


def _fans(folder: Path) -> Iterator[Plot]:
    """Series at even places by what they sold: always the same, not chosen for their results."""
    frame = read_table(folder / "forecasts.parquet").filter(part="test")
    sold = frame.group_by("series").agg(pl.col("came").sum()).sort("came", "series")
    places = np.unique(np.linspace(0, len(sold) - 1, NUM_SERIES).round().astype(int))
    for place in places[::-1]:
        of = frame.filter(series=sold["series"][int(place)]).sort("origin", "day")
        yield plots.fan(str(sold["series"][int(place)]), of)
