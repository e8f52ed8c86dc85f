"""The page of a run that asks questions: `report.html`, in the manner of `recsys.report`.

Everything on it is read from the run's folder: `write` can be called on a finished run at any time
and gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys import plots
from recsys.plots import Bar
from recsys.report import check_finished, render
from recsys.run_folder import read_config, reading
from recsys.trials import Trial, compare

TEMPLATE = "suite_report.html.jinja"


def write(folder: Path) -> None:
    """Write `report.html` of a finished run, whole or not at all.

    Args:
        folder: the run's, as `recsys.suite` describes it.

    Raises:
        RunError: the folder holds no finished run.
    """
    check_finished(folder)
    with reading(folder, fault="cannot be shown"):
        render(folder, TEMPLATE, _content(folder))


def _content(folder: Path) -> dict[str, Any]:
    """What the template shows."""
    config = read_config(folder)
    models = {label_of(config["model"]): folder}
    models |= {str(name): folder / "baselines" / str(name) for name in config["baselines"]}
    found = {name: _trials(place / "tables") for name, place in models.items()}
    tables = list(config["task"]["questions"])
    return {
        "model": next(iter(models)),
        "data": label_of(config["data"]),
        "seed": config["seed"],
        "models": list(models),
        "tables": [
            _table(str(table), {m: t[table] for m, t in found.items() if table in t})
            for table in tables
        ],
        "config": (folder / "config.yaml").read_text(),
        "colours": plots.COLOURS,
    }


def _trials(folder: Path) -> dict[str, Trial]:
    """The trials of a model by table."""
    return {place.name: Trial.read(place) for place in sorted(folder.glob("[!.]*"))}


def _table(name: str, trials: Mapping[str, Trial]) -> dict[str, Any]:
    """A table of questions: what each model reached, and the first one's lead."""
    first, *others = trials
    metrics = list(trials[first].means["test"])
    asked = trials[first].predictions.filter(pl.col("part") != "validation")
    return {
        "name": name,
        "metrics": metrics,
        "first": first,
        "users": asked["user_id"].n_unique(),
        "parts": list(trials[first].means),
        "trials": trials,
        "best": {m: max(t.means["test"][m] for t in trials.values()) for m in metrics},
        "leads": {
            other: compare(trials[other].folds, trials[first].folds).to_dicts()
            for other in others
            if trials[other].folds.height == trials[first].folds.height > 0
        },
        "bars": [
            plots.bars(
                f"{name} {metric}",
                [
                    Bar(m, t.means["test"][metric], *t.intervals["test"][metric])
                    for m, t in trials.items()
                ],
                limit=max(t.intervals["test"][metric][1] for t in trials.values()),
            )
            for metric in metrics
        ],
    }


def label_of(config: Any) -> str:
    """The class that a config names; `model` where it has one for each table."""
    return str(config.get("_target_", "model")).rpartition(".")[2]
