"""The page of a run of label tables, as `recsys.report.page` writes it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl

from recsys.evaluation.prediction import TableResult, leads, level
from recsys.reading import read_config
from recsys.report import label_plots, page, plots
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
        "vectors": list(_vectors(folder, config)),
    }


def _vectors(folder: Path, config: Mapping[str, Any]) -> Iterator[dict[str, str | None]]:
    """The runs whose vectors the predictors read: `model`, `place`, and a `link` to the report.

    A run is looked for in the folder first, where pre-training is, and then where the command ran.
    """
    runs = dict.fromkeys(_runs_in([config["model"], config["baselines"]]))
    for run in runs:
        place = next((p for p in (folder / run, Path(run)) if p.is_dir()), None)
        about = place is not None and (place / "config.yaml").is_file()
        model = label_of(read_config(place)["model"]) if about else "a model"  # type: ignore[arg-type]
        report = place / "report.html" if place is not None else None
        link = None
        if report is not None and report.is_file():
            link = quote(os.path.relpath(report, folder).replace(os.sep, "/"))
        yield {"model": model, "place": PurePath(run).name, "link": link}


def _runs_in(options: Any) -> Iterator[str]:
    """Folders of runs that features or predictors name, anywhere in the options."""
    if isinstance(options, Mapping):
        if "_target_" in options and isinstance(options.get("run"), str):
            yield options["run"]
        options = list(options.values())
    if isinstance(options, list):
        for inner in options:
            yield from _runs_in(inner)


def _results(folder: Path) -> dict[str, TableResult]:
    """The results of a model by table."""
    return {place.name: TableResult.read(place) for place in sorted(folder.glob("[!.]*"))}


def _table(name: str, results: Mapping[str, TableResult], ahead: pl.DataFrame) -> dict[str, Any]:
    """A label table: what each model reached, and the first one's lead."""
    first, *others = results
    metrics = list(results[first].means["test"])
    rows = results[first].predictions.filter(pl.col("part") != "validation")
    chance = label_plots.by_chance(results[first])
    by_model = ahead.partition_by("against", as_dict=True)
    return {
        "name": name,
        "metrics": metrics,
        "first": first,
        "users": rows["user_id"].n_unique(),
        "parts": list(results[first].means),
        "results": results,
        "chance": chance,
        "level": {metric: level(results, metric) for metric in metrics},
        "leads": {o: by_model[o,].to_dicts() for o in others if (o,) in by_model},
        "bars": [plot for m in metrics for plot in _bars(name, m, results, chance.get(m))],
        "curves": list(label_plots.curves(name, results)),
        "weights": dict(label_plots.largest_weights(results)),
    }


def _bars(
    name: str, metric: str, results: Mapping[str, TableResult], chance: float | None
) -> Iterator[Plot]:
    """A plot of the models that have a figure, if there are two."""
    bars = [
        Bar(model, mean, *result.intervals["test"][metric])
        for model, result in results.items()
        if not math.isnan(mean := result.means["test"][metric])
    ]
    if len(bars) > 1:
        limit = float(np.fmax.reduce([bar.high for bar in bars]))
        yield plots.bars(f"{name} {metric}", bars, limit=limit, chance=chance)


def label_of(model: Mapping[str, Any]) -> str:
    """The class that a model's config names; `model` where it has one for each table."""
    return name_of(model) if "_target_" in model else "model"
