"""What a command prints: lines and tables as they are, of which no word is cut."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from rich import box, get_console
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from recsys.errors import visible

console = get_console()
"""That of the bar of a training, above which lines then stand."""
WIDEST = 10_000
"""Columns of a table that a terminal would not show."""


def say(*lines: str) -> None:
    """Print lines as they are: what they quote from a log is no markup."""
    for line in lines:
        console.print(literal(line), soft_wrap=True)


def show(table: Table) -> None:
    """Print a table of which no word is cut.

    One that is too wide for the terminal has no lines between its columns; where that is not
    enough, it is wider.
    """
    if _least_width(table) > console.width:
        table.box, table.show_edge, table.pad_edge = box.SIMPLE_HEAD, False, False
        table.padding = (0, 0, 0, 0)
    if (least := _least_width(table)) > console.width:
        table.width = least
    console.print(table, crop=False)


def _least_width(table: Table) -> int:
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).minimum


def literal(words: object, style: str = "") -> Text:
    """Words as they are, line by line: no markup, and control characters in sight."""
    return Text("\n".join(map(visible, str(words).split("\n"))), style)


def short(value: float) -> str:
    """A figure to four digits, without the zero before the point."""
    return f"{value:.4f}".removeprefix("0") if value < 1 else f"{value:.4f}"


def table_of(frame: pl.DataFrame, *, title: str | None = None, kind: type[Table] = Table) -> Table:
    """A polars frame as a table, numbers to four digits and – where there is none.

    Args:
        kind: `WideTable` for columns of numbers, which read badly where they are cut.
    """
    table = kind(title=None if title is None else literal(title, "table.title"))
    for name, dtype in frame.schema.items():
        table.add_column(literal(name), justify="right" if dtype.is_numeric() else "left")
    none = ["–" if dtype.is_numeric() else "" for dtype in frame.dtypes]
    for row in frame.iter_rows():
        values = (n if value is None else value for n, value in zip(none, row, strict=True))
        table.add_row(*(literal(f"{v:.4f}" if isinstance(v, float) else v) for v in values))
    return table


class WideTable(Table):
    """A table that stays readable on a narrow screen.

    Columns that do not fit beside the others stand in a further table below, with the first column
    again; no cell is cut.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._parts(console, options)
        if self.caption:
            yield Text(str(self.caption), "dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        parts = [Measurement.get(console, options, p) for p in self._parts(console, options)]
        return Measurement(max(p.minimum for p in parts), max(p.maximum for p in parts))

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        title = self.title
        for columns in self._that_fit(console, options):
            part = Table(title=title)
            for column in columns:
                part.add_column(column.header, justify=column.justify)
            for cells in zip(*(column.cells for column in columns), strict=True):
                part.add_row(*cells)
            yield part
            title = None

    def _that_fit(self, console: Console, options: ConsoleOptions) -> list[list[Column]]:
        """The columns in groups that fit, the first column in each."""
        label, *others = self.columns
        groups = [[label]]
        for column in others:
            parts = [[part.header, *part.cells] for part in (*groups[-1], column)]
            widths = [max(Measurement.get(console, options, c).maximum for c in p) for p in parts]
            if len(parts) > 2 and sum(widths) + 3 * len(parts) + 1 > options.max_width:
                groups.append([label])
            groups[-1].append(column)
        return groups
