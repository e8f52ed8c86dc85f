"""The page of a run of label tables, as `recsys.report.page` writes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation.prediction import TableResult, best, leads
from recsys.report import page, plots
from recsys.report.page import name_of
from recsys.report.plots import Bar, Plot

TEMPLATE = "prediction.html.jinja"


def write(folder: Path) -> None:
    """Write `report.html` of a finished run, whole or not at all.

    Args:
        folder: the run's, as `recsys.run.prediction` describes it.

    Raises:
        RunError: the folder holds no finished run.
    """
    page.write(folder, TEMPLATE, _content)


def _content(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    models = {label_of(config["model"]): folder}
    models |= {str(name): folder / "baselines" / str(name) for name in config["baselines"]}
    results = {name: _results(place / "tables") for name, place in models.items()}
    by_table = {
        str(table): {model: of[table] for model, of in results.items() if table in of}
        for table in config["task"]["labels"]
    }
    ahead = leads(by_table)
    return {
        "model_name": next(iter(models)),
        "models": list(models),
        "tables": [_table(name, of, ahead.filter(table=name)) for name, of in by_table.items()],
        "num_comparisons": ahead["p_holm"].count(),
    }


def _results(folder: Path) -> dict[str, TableResult]:
    """The results of a model by table."""
    return {place.name: TableResult.read(place) for place in sorted(folder.glob("[!.]*"))}


def _table(name: str, results: Mapping[str, TableResult], ahead: pl.DataFrame) -> dict[str, Any]:
    """A label table: what each model reached, and the first one's lead."""
    first, *others = results
    metrics = list(results[first].means["test"])
    rows = results[first].predictions.filter(pl.col("part") != "validation")
    by_model = ahead.partition_by("against", as_dict=True)
    return {
        "name": name,
        "metrics": metrics,
        "first": first,
        "users": rows["user_id"].n_unique(),
        "parts": list(results[first].means),
        "results": results,
        "best": best(results),
        "leads": {o: by_model[o,].to_dicts() for o in others if (o,) in by_model},
        "bars": [plot for metric in metrics for plot in _bars(name, metric, results)],
    }


def _bars(name: str, metric: str, results: Mapping[str, TableResult]) -> Iterator[Plot]:
    """A plot of the models that have a figure; none where no model has."""
    bars = [
        Bar(model, mean, *result.intervals["test"][metric])
        for model, result in results.items()
        if not math.isnan(mean := result.means["test"][metric])
    ]
    if bars:
        limit = float(np.fmax.reduce([bar.high for bar in bars]))
        yield plots.bars(f"{name} {metric}", bars, limit=limit)


def label_of(model: Mapping[str, Any]) -> str:
    """The class that a model's config names; `model` where it has one for each table."""
    return name_of(model) if "_target_" in model else "model"
