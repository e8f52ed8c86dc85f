"""What a run of return times prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from recsys.evaluation.return_times import ReturnTimesResult
from recsys.evaluation.statistics import level_with_best
from recsys.report.screen import WideTable, literal
from recsys.tasks.phases import PHASES
from recsys.tasks.return_times import ReturnTimes


def describe(table: ReturnTimes) -> Iterator[str]:
    """The table in a line, and its phases: rows, how many were seen to come back, and when."""
    yield (
        f"{table.name}: {len(table.users):,} users; {table.unit} until they are back, followed for "
        f"{table.horizon:g}"
    )
    for number, phase in enumerate(PHASES):
        rows = table.phase(number)
        if len(rows):
            observed = table.observed[rows]
            yield (
                f"  {phase}: {len(rows):,} rows, {1 - observed.float().mean():.1%} censored, "
                f"median duration {table.durations[rows].median():.1f}"
            )


def is_better_when_less(metric: str) -> bool:
    """Whether a metric is an error."""
    return metric == "ibs" or metric.startswith("calibration")


def level(results: Mapping[str, ReturnTimesResult], metric: str) -> set[str]:
    """The models with the best mean of the test, and those whose interval reaches it."""
    means = {name: of.means["test"][metric] for name, of in results.items()}
    intervals = {name: of.intervals["test"][metric] for name, of in results.items()}
    return level_with_best(means, intervals, less=is_better_when_less(metric))


def metrics(
    table: ReturnTimes, results: Mapping[str, ReturnTimesResult], leads: pl.DataFrame
) -> Table:
    """A row per model, a column per test metric, and the first model's lead in likelihood.

    Args:
        table: that was predicted.
        results: by model.
        leads: of `recsys.evaluation.return_times.likelihood_leads`.
    """
    first, *others = results
    shown = WideTable(title=literal(f"{table.name}, test", "table.title"))
    shown.add_column("model")
    if others:
        shown.add_column(literal(f"likelihood of {first}\nabove the model's"), justify="right")
    names = list(results[first].means["test"])
    for name in names:
        less = "\n(less is better)" if is_better_when_less(name) else ""
        shown.add_column(literal(name + less), justify="right")
    by_model = {row["against"]: row for row in leads.iter_rows(named=True)}
    for model, of in results.items():
        means, ends = of.means["test"], of.intervals["test"]
        lead = [_lead(by_model[model]) if model in by_model else Text("")] if others else []
        cells = [
            _cell(means[name], ends[name], bold=model in level(results, name)) for name in names
        ]
        shown.add_row(literal(model), *lead, *cells)
    return shown


def _cell(mean: float, ends: list[float], *, bold: bool) -> Text:
    if mean != mean:
        return Text("–")
    low, high = (f"{end:.3f}" for end in ends)
    return Text.assemble((f"{mean:.4f}", "bold" if bold else ""), " ", (f"{low} to {high}", "dim"))


def _lead(row: Mapping[str, Any]) -> Text:
    if row["difference"] is None:
        return Text("–")
    p_value = "no p" if row["p_holm"] is None else f"p={row['p_holm']:.3f}"
    return Text.assemble(f"{row['difference']:+.4f} ", (p_value, "dim"))
