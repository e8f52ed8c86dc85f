"""What `recsys search` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from recsys.evaluation.ranking import Protocol
from recsys.report.screen import WideTable, literal

Figures = tuple[dict[str, Any], dict[str, Any]]
"""Means and intervals, by part and metric."""


def line(trial: Any) -> str:
    """A trial in a line."""
    value = "–" if trial.value is None else f"{trial.value:.4f}"
    options = ", ".join(f"{short(n)}={value_text(v)}" for n, v in trial.options.items())
    why = f" ({trial.error})" if trial.error else ""
    return f"trial {trial.number} {trial.state}, {value}, {trial.seconds:.1f} s: {options}{why}"


def short(name: str) -> str:
    """The name of an option without the section that most are of."""
    return name.removeprefix("model.")


def value_text(value: Any) -> str:
    """A value of an option, floats to four digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown(monitor: str, protocol: Protocol) -> str:
    """The metric of users that stands for what was monitored."""
    return monitor if "@" in monitor else f"{monitor}@{protocol.ks[0]}"


def settings(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row per option that was tried: its space, its default, what was chosen, its importance."""
    of_several = len(summaries) > 1
    table = Table(title=None if of_several else literal(_budget(next(iter(summaries.values())))))
    for name in ["model"] * of_several + ["option", "tried"]:
        table.add_column(name)
    for name in ("default", "chosen", "importance"):
        table.add_column(name, justify="right")
    for model, of in summaries.items():
        for n, (name, value) in enumerate(of["best"]["options"].items()):
            default = value_text(of["defaults"]["options"][name])
            chosen, weight = value_text(value), of["importances"].get(name)
            cells = [literal(model if n == 0 else "")] * of_several
            table.add_row(
                *cells,
                literal(short(name)),
                literal(of["spaces"][name].replace(",", ", ")[1:-1]),
                default,
                Text(chosen, "" if chosen == default else "bold"),
                "–" if weight is None else f"{weight:.2f}",
            )
        table.add_section()
    return table


def _budget(of: Mapping[str, Any]) -> str:
    words = [
        f"{of['states'][state]} {state}" for state in ("pruned", "failed") if of["states"][state]
    ]
    which = f" ({', '.join(words)})" if words else ""
    return f"{of['model']}: {of['trials']} trials{which} in {of['seconds']:.0f} s"


def reached(
    summaries: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Figures],
    leads: pl.DataFrame | None,
    log: str,
    protocol: Protocol,
) -> Table:
    """A row per model: the defaults and the best on the validation users, the best on the test's.

    Args:
        summaries: what `search.json` holds, by model.
        figures: of the chosen setting's run.
        leads: paired differences to the best model; None for one model alone.
        log: its name.
        protocol: by which k is chosen.
    """
    first = next(iter(summaries.values()))
    metric = shown(first["monitor"], protocol)
    title = f"{log}: {first['monitor']} on the validation users, {metric} on the test users"
    table = WideTable(title=literal(title, "table.title"))
    table.add_column("model")
    columns = ["trials", "seconds", "defaults", "chosen", "test"]
    if leads is not None:
        columns.append(f"minus {leads['against'][0]}")
    for name in columns:
        table.add_column(literal(name), justify="right")
    for name, of in summaries.items():
        means, intervals = (part["test"] for part in figures[name])
        low, high = intervals[metric]
        cells: list[str | Text] = [
            f"{of['trials']}",
            f"{of['seconds']:.0f}",
            _number(of["defaults"]["value"]),
            _number(of["best"]["value"]),
            Text.assemble(_number(means[metric]), (f" {_number(low)}–{_number(high)}", "dim")),
        ]
        if leads is not None:
            cells.append(_lead(leads.filter(model=name)))
        table.add_row(literal(name), *cells)
    return table


def _lead(rows: pl.DataFrame) -> Text:
    if rows.is_empty():
        return Text("")
    row = rows.row(0, named=True)
    if row["p_holm"] is None:
        return Text(f"{row['difference']:+.4f} no p")
    p_value = "p<.001" if row["p_holm"] < 0.001 else f"p={row['p_holm']:.3f}"
    ends = f" {row['low']:+.4f} to {row['high']:+.4f}, {p_value}"
    return Text.assemble(f"{row['difference']:+.4f}", (ends, "dim"))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}".removeprefix("0")
