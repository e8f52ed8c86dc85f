"""The page of a run that asks questions, as `recsys.report.page` writes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation.prediction import Trial, best, leads
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
    found = {name: _trials(place / "tables") for name, place in models.items()}
    by_table = {
        str(table): {m: t[table] for m, t in found.items() if table in t}
        for table in config["task"]["questions"]
    }
    ahead = leads(by_table)
    return {
        "model_name": next(iter(models)),
        "data": name_of(config["data"]),
        "models": list(models),
        "tables": [_table(name, of, ahead.filter(table=name)) for name, of in by_table.items()],
        "num_comparisons": ahead["p_holm"].count(),
    }


def _trials(folder: Path) -> dict[str, Trial]:
    """The trials of a model by table."""
    return {place.name: Trial.read(place) for place in sorted(folder.glob("[!.]*"))}


def _table(name: str, trials: Mapping[str, Trial], ahead: pl.DataFrame) -> dict[str, Any]:
    """A table of questions: what each model reached, and the first one's lead."""
    first, *others = trials
    metrics = list(trials[first].means["test"])
    asked = trials[first].predictions.filter(pl.col("part") != "validation")
    by_model = ahead.partition_by("against", as_dict=True)
    return {
        "name": name,
        "metrics": metrics,
        "first": first,
        "users": asked["user_id"].n_unique(),
        "parts": list(trials[first].means),
        "trials": trials,
        "best": best(trials),
        "leads": {o: by_model[o,].to_dicts() for o in others if (o,) in by_model},
        "bars": [plot for metric in metrics for plot in _bars(name, metric, trials)],
    }


def _bars(name: str, metric: str, trials: Mapping[str, Trial]) -> Iterator[Plot]:
    """A plot of the models that have a figure; none where no model has."""
    found = [
        Bar(model, mean, *trial.intervals["test"][metric])
        for model, trial in trials.items()
        if not math.isnan(mean := trial.means["test"][metric])
    ]
    if found:
        limit = float(np.fmax.reduce([bar.high for bar in found]))
        yield plots.bars(f"{name} {metric}", found, limit=limit)


def label_of(model: Mapping[str, Any]) -> str:
    """The class that a model's config names; `model` where it has one for each table."""
    return name_of(model) if "_target_" in model else "model"
