"""What `recsys transfer` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from recsys.evaluation.ranking import Protocol
from recsys.evaluation.transfer import ALL, ALONE, PAIR
from recsys.report.screen import literal
from recsys.report.tables import history_rule

LEVEL = 0.05
"""Of what is called a difference, after Holm's correction."""


def describe(
    log: str, facts: Mapping[str, Mapping[str, int]], num_trainings: int, protocol: Protocol
) -> Iterator[str]:
    """The log in a line, and a line for each domain."""
    yield f"{log}: {len(facts)} domains, {num_trainings} trainings; {history_rule(protocol)}"
    for name, of in facts.items():
        yield (
            f"  {name}: {of['items']:,} items, {of['training_events']:,} training events "
            f"of {of['training_users']:,} users; asked: {of['test_users']:,} users, "
            f"{of['test_users_new_to_it']:,} of them new to it"
        )


def verdict(row: Mapping[str, Any]) -> str:
    """What the others do to a domain, where it is more than chance."""
    if row["p_holm"] is None or row["p_holm"] >= LEVEL:
        return "–"
    return "helps" if row["difference"] > 0 else "hurts"


def gains_of_all(log: str, metric: str, gains: pl.DataFrame, means: Mapping[str, float]) -> Table:
    """A row per domain: alone, with all others, and the difference.

    Args:
        log: its name.
        metric: of which metric.
        gains: of `recsys.evaluation.transfer.gains`.
        means: by domain and metric, as `metrics.json` has them.
    """
    title = f"{log}, {metric}: trained on all domains, and on the one alone"
    table = Table(title=literal(title, "table.title"))
    for name in ("domain", "users", ALONE, ALL, "difference", "mixing", "all, over every item"):
        table.add_column(name, justify="left" if name == "domain" else "right")
    for row in gains.filter(metric=metric, training=ALL).iter_rows(named=True):
        over_all = means[f"{row['domain']}/everything/{metric}"]
        figures = (f"{row['alone']:.4f}", f"{row['together']:.4f}")
        table.add_row(
            literal(row["domain"]),
            f"{row['users']:,}",
            *figures,
            _difference(row),
            verdict(row),
            f"{over_all:.4f}",
        )
    return table


def gains_of_pairs(metric: str, gains: pl.DataFrame) -> Table:
    """What the domain of a column gains from the domain of a row alone; * where p < .05 (Holm)."""
    title = f"{metric}: what a column's domain gains from a row's"
    table = Table(title=literal(title, "table.title"))
    table.add_column("beside it")
    cells = cells_of_pairs(metric, gains)
    for name in cells:
        table.add_column(literal(name), justify="right")
    for name in cells:
        table.add_row(literal(name), *(_cell(cells[column].get(name)) for column in cells))
    return table


def cells_of_pairs(metric: str, gains: pl.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows of the gains by the domain that is asked, and by the one beside it."""
    cells: dict[str, dict[str, dict[str, Any]]] = {
        name: {} for name in gains["domain"].unique(maintain_order=True)
    }
    for row in gains.filter(metric=metric, training=PAIR).iter_rows(named=True):
        cells[row["domain"]][row["beside"]] = row
    return cells


def short(row: Mapping[str, Any]) -> str:
    """A difference, with a star where it is more than chance."""
    return f"{row['difference']:+.4f}{'' if verdict(row) == '–' else '*'}"


def _cell(row: Mapping[str, Any] | None) -> Text:
    return Text("" if row is None else short(row))


def _difference(row: Mapping[str, Any]) -> Text:
    if row["p_holm"] is None:
        return Text(f"{row['difference']:+.4f} no p")
    p_value = "p<.001" if row["p_holm"] < 0.001 else f"p={row['p_holm']:.3f}"
    ends = f" {row['low']:+.4f} to {row['high']:+.4f}, {p_value}"
    return Text.assemble(f"{row['difference']:+.4f}", (ends, "dim"))
