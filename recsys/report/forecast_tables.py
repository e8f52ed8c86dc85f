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
    """A row per model: test metrics, means over origins and seeds, and the first model's lead."""
    first, *others = models
    title = f"{sales.name}, test, means over {len(sales.test)} origins and all seeds"
    if others:
        title += f"; {first} minus the others, series by series, with p (Holm) and origins won"
    table = Table(title=plain(title, "table.title"))
    table.add_column("model")
    for name in METRICS:
        table.add_column(name, justify="right")
    for name in COMPARED if others else ():
        table.add_column(f"Δ {name}", justify="right")
    means = {name: forecasts.means(rows) for name, rows in models.items()}
    best = {m: np.nanmin([of[m] for of in means.values()]) for m in METRICS}
    ahead = forecasts.leads(models)
    for name, of in means.items():
        cells = [_cell(of[m], best[m], bold=not m.startswith("coverage")) for m in METRICS]
        cells += [_lead(row) for row in ahead.filter(against=name).iter_rows(named=True)]
        table.add_row(plain(name), *cells)
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
