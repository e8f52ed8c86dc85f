"""What a run of several windows prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from recsys.report.screen import WideTable, literal, short
from recsys.report.tables import SHOWN


def windows(log: str, model: str, table: pl.DataFrame, means: pl.DataFrame, k: int) -> Table:
    """A row per window of a model, and the mean over them.

    Args:
        log: its name.
        model: whose windows.
        table: a row per window, model and metric.
        means: of `recsys.evaluation.rolling.over_windows`.
        k: the length of list of the metrics that are shown.
    """
    metrics = [f"{name}@{k}" for name in SHOWN]
    of_model = table.filter(model=model)
    count = of_model["moment"].n_unique()
    title = f"{log}, {model} at {count} moments: test metrics of the window after each"
    shown = WideTable(title=literal(title, "table.title"))
    for name in ("from", "to", "users", *metrics):
        shown.add_column(literal(name), justify="left" if name in ("from", "to") else "right")
    for rows in of_model.partition_by("moment", maintain_order=True):
        about = rows.row(0, named=True)
        cells = [_cell(figures) for figures in _figures(rows, metrics)]
        shown.add_row(about["moment"], about["until"], f"{about['users']:,}", *cells)
    over = means.filter(model=model)
    cells = [_cell(figures) for figures in _figures(over, metrics)]
    shown.add_row("mean", "over windows", "", *cells)
    if over["ahead"].count():
        lead = [_cell(figures, "ahead", "ahead_") for figures in _figures(over, metrics)]
        shown.add_row("lead of", str(means["model"][0]), "", *lead)
    shown.caption = (
        "95% intervals: of a window by bootstrap over its users, of the mean by Student's t over "
        "the windows"
    )
    return shown


def _figures(rows: pl.DataFrame, metrics: list[str]) -> Iterator[Mapping[str, Any] | None]:
    by_metric = {row["metric"]: row for row in rows.iter_rows(named=True)}
    return (by_metric.get(metric) for metric in metrics)


def _cell(row: Mapping[str, Any] | None, mean: str = "mean", ends: str = "") -> Text:
    if row is None or row[mean] is None:
        return Text("–")
    low, high = row[f"{ends}low"], row[f"{ends}high"]
    if low is None:
        return Text(short(row[mean]))
    return Text.assemble(short(row[mean]), " ", (f"{short(low)} to {short(high)}", "dim"))
