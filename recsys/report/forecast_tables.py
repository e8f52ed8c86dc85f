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
from recsys.report.tables import plain
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
    """A row per test metric, means over origins and seeds, and a column per model.

    Below stands how far the first model is ahead of each other in some, with p and the number of
    origins at which it is better.
    """
    first, *others = models
    title = f"{sales.name}, test, means over {len(sales.test)} origins and all seeds"
    table = Table(title=plain(title, "table.title"))
    table.add_column("metric")
    for name in models:
        table.add_column(plain(name), justify="right")
    means = [forecasts.means(rows) for rows in models.values()]
    for metric in METRICS:
        best, bold = np.nanmin([of[metric] for of in means]), not metric.startswith("coverage")
        table.add_row(metric, *(_cell(of[metric], best, bold=bold) for of in means))
    if others:
        ahead = {(r["metric"], r["against"]): r for r in forecasts.leads(models).to_dicts()}
        for metric in COMPARED:
            cells = [_lead(ahead[metric, other]) for other in others]
            table.add_row(plain(f"{metric} of {first} minus the other's"), Text(""), *cells)
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
