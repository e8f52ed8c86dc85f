"""The page of a run of several windows, as `recsys.report.page` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from recsys.evaluation.ranking import Protocol
from recsys.evaluation.rolling import over_windows
from recsys.reading import read_table
from recsys.report import page, plots
from recsys.report.page import name_of
from recsys.report.plots import Plot
from recsys.report.tables import SHOWN, history_rule

TEMPLATE = "rolling.html.jinja"
COLUMNS = ("moment", "until", "users", "model", "metric", "mean", "low", "high")


def write(folder: Path) -> None:
    """Write `report.html` of a finished run, whole or not at all.

    Args:
        folder: the run's, as `recsys.run.rolling` describes it.

    Raises:
        RunError: the folder holds no finished run.
    """
    page.write(folder, TEMPLATE, _content)


def _content(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    task = config["task"]
    table = read_table(folder / "windows.parquet", *COLUMNS)
    means = over_windows(table)
    metrics = [f"{name}@{task['ks'][0]}" for name in SHOWN]
    models = table["model"].unique(maintain_order=True).to_list()
    moments = table["moment"].unique(maintain_order=True).to_list()
    return {
        "model_name": name_of(config["model"]),
        "history_rule": history_rule(Protocol(mask_history=task["mask_history"])),
        "days": task["days"],
        "metrics": metrics,
        "models": models,
        "moments": moments,
        "about": {row["moment"]: row for row in table.iter_rows(named=True)},
        "cells": _by(table, "model", "moment", "metric"),
        "means": _by(means, "model", "metric"),
        "every": table["metric"].unique(maintain_order=True).to_list(),
        "plots_of_windows": list(_plots(table, metrics, models)),
    }


def _by(table: pl.DataFrame, *names: str) -> dict[Any, dict[str, Any]]:
    """The rows of a table by the values of columns."""
    return {tuple(row[name] for name in names): row for row in table.iter_rows(named=True)}


def _plots(table: pl.DataFrame, metrics: list[str], models: list[str]) -> Iterator[Plot]:
    for metric in metrics:
        rows = table.filter(metric=metric)
        if len(rows):
            moments = rows["moment"].unique(maintain_order=True).to_list()
            frames = {model: rows.filter(model=model) for model in models}
            yield plots.by_place(metric, frames, moments, "test from", "moment")
