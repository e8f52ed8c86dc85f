"""What a run of forecasts prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from rich.table import Table
from rich.text import Text

from recsys.evaluation import forecasts
from recsys.evaluation.forecasts import COMPARED, METRICS
from recsys.report.screen import WideTable, literal
from recsys.tasks.sales import Sales


def describe(sales: Sales) -> str:
    """One line: the series, the periods, and when forecasts are asked for."""
    table = sales.table
    zeros = float((table.values == 0).float().mean())
    origins = ", ".join(
        f"{len(places)} of {phase} from {sales.days[places[0]]}"
        for phase, places in (("validation", sales.validation), ("test", sales.test))
    )
    return (
        f"{sales.name}: {len(table):,} series by {sales.by}, {sales.measure} a {sales.every}, "
        f"{len(sales.days)} periods from {sales.days[0]}, {zeros:.0%} of them zero; origins: "
        f"{origins}; {table.horizon} ahead of {table.context}"
    )


def metrics(sales: Sales, models: Mapping[str, pl.DataFrame]) -> Table:
    """A row per model, a column per test metric: means over origins and seeds.

    Then comes how far the first model is ahead of each other in some, with p and the number of
    origins at which it is better.
    """
    first, *others = models
    title = f"{sales.name}, test, means over {len(sales.test)} origins and all seeds"
    table = WideTable(title=literal(title, "table.title"))
    compared = COMPARED if others else ()
    table.add_column("model")
    for column in (*METRICS, *(f"{metric} of {first} minus this" for metric in compared)):
        table.add_column(literal(column), justify="right")
    means = {name: forecasts.means(rows) for name, rows in models.items()}
    best = {metric: np.nanmin([of[metric] for of in means.values()]) for metric in METRICS}
    ahead = {(r["metric"], r["against"]): r for r in forecasts.leads(models).to_dicts()}
    for name, of in means.items():
        bold = {metric: not metric.startswith("coverage") for metric in METRICS}
        cells = [_cell(of[metric], best[metric], bold=bold[metric]) for metric in METRICS]
        leads = [_lead(ahead[m, name]) if name != first else Text("") for m in compared]
        table.add_row(literal(name), *cells, *leads)
    if others:
        table.caption = "series by series, with p (Holm) and at how many origins it is better"
    return table


def _cell(value: float, best: float, *, bold: bool) -> Text:
    if value != value:
        return Text("–")
    shown = f"{value:.3f}" if value < 100 else f"{value:.1f}"
    return Text(shown.removeprefix("0"), "bold" if bold and value == best else "")


def _lead(row: Mapping[str, Any]) -> Text:
    if row["difference"] is None:
        return Text("–")
    p_value = "no p" if row["p_holm"] is None else f"p={row['p_holm']:.3f}"
    return Text.assemble(f"{row['difference']:+.3f} ", (f"{p_value}, {row['origins_won']}", "dim"))
