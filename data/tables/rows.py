"""Which rows of a file are events: kinds, ratings, rows that lack something, and returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from recsys.errors import ConfigError, DataError
from recsys.log.event_log import (
    BASKET,
    ITEM,
    QUANTITY,
    REQUIRED,
    TIME,
    USER,
    VALUE,
    as_numbers,
)

EVENT = "event"
_LEAST = 1e-9
"""Of a quantity: less than this is what sums of floats leave behind."""


@dataclass(frozen=True)
class Rows:
    """Which rows of a table are events, in this order: kinds, least values, whole rows, returns.

    Attributes:
        events: the kinds of `event` that count, a list; or `{kind: weight}`, and then an event's
            `value` is the weight of its kind.
        min_value: of events with a `value` below it, or without one, nothing is read.
        missing: rows without a user, an item or a time, or without a basket or a quantity where
            the table has such a column: an `error`, or `drop` them.
        negative: rows of a quantity below 0, returns: an `error`; `drop` leaves them out;
            `subtract` takes each, in order of time, off what its user bought of the item before,
            the latest purchase first. Of a purchase that is returned in part the rest is left,
            with as large a share of its value; what was not bought before is left out.

    Raises:
        ConfigError: no kind, or a kind without a weight among others.
    """

    events: Mapping[str, float] | Sequence[str] | None = None
    min_value: float | None = None
    missing: Literal["error", "drop"] = "error"
    negative: Literal["error", "drop", "subtract"] = "error"

    def __post_init__(self) -> None:
        if self.events is not None and not self.events:
            raise ConfigError("data.events names no kind of event; name one, or leave it out")

    def of(self, table: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
        """The events of a table, and how many rows were left out for which reason, in words.

        Args:
            table: columns by our names, times as a log's.

        Raises:
            DataError: a column that an option is about is not there, or a kind that no row has.
        """
        notes = []
        for step in (self._kinds, self._least, self._whole, self._without_returns):
            before = len(table)
            table, why = step(table)
            if len(table) < before:
                notes.append(f"{before - len(table):,} of {before:,} rows left out: {why}")
        return table, notes

    def remedies(self, table: pl.DataFrame) -> Iterator[str]:
        """Options for what a log is refused for, as the ends of a sentence."""
        if self.missing == "error" and table.select(_lacks(table).any()).item():
            yield "data.missing=drop leaves out rows that lack something"
        if self.negative == "error" and QUANTITY in table.columns:
            quantity = as_numbers(table[QUANTITY])
            if quantity.dtype.is_numeric() and (quantity < 0).any():
                yield "data.negative=drop or subtract says what returns are"

    def _kinds(self, table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
        if self.events is None:
            return table, ""
        kind = self._column(table, EVENT, "data.events").cast(pl.String)
        wanted = [str(name) for name in self.events]
        there = kind.unique().drop_nulls().sort().to_list()
        if missing := [name for name in wanted if name not in there]:
            raise DataError(
                f"data.events: no event is called {missing[0]!r}; there is {', '.join(there[:20])}"
            )
        if isinstance(self.events, Mapping):
            if VALUE in table.columns:
                raise DataError(
                    "data.events gives kinds a weight, which is the value of an event, and the log "
                    "has a value; leave out data.columns.value, or give the kinds as a list"
                )
            of_kinds = dict(zip(wanted, self.events.values(), strict=True))
            weights = kind.replace_strict(of_kinds, default=None, return_dtype=pl.Float64)
            table = table.with_columns(weights.alias(VALUE))
        return table.filter(kind.is_in(wanted)), f"other events than {', '.join(wanted)}"

    def _least(self, table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
        if self.min_value is None:
            return table, ""
        value = as_numbers(self._column(table, VALUE, "data.min_value"))
        if not value.dtype.is_numeric():
            raise DataError(f"data.min_value: {VALUE} is {value.dtype}, no number")
        return table.filter(value >= self.min_value), f"{VALUE} below {self.min_value:g}"

    def _whole(self, table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
        if self.missing == "error":
            return table, ""
        counts = table.select(_is_missing(table, column).sum() for column in _needed(table))
        lacking = [f"{column} in {n:,}" for column, n in counts.row(0, named=True).items() if n]
        return table.filter(~_lacks(table)), f"nothing in {', '.join(lacking)}"

    def _without_returns(self, table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
        if self.negative == "error":
            return table, ""
        quantity = as_numbers(self._column(table, QUANTITY, f"data.negative={self.negative}"))
        if not quantity.dtype.is_numeric() or quantity.null_count():
            return table, ""  # a log is refused for that, in better words
        table = table.with_columns(quantity)
        if self.negative == "drop":
            return table.filter(pl.col(QUANTITY) >= 0), f"{QUANTITY} below 0"
        return net_of_returns(table), "returns, and purchases that were returned"

    def _column(self, table: pl.DataFrame, column: str, option: str) -> pl.Series:
        if column not in table.columns:
            raise DataError(
                f"{option} is about {column}, and there is no such column; set "
                f"data.columns.{column}=NAME (there are: {', '.join(table.columns)})"
            )
        return table[column]


def _needed(table: pl.DataFrame) -> list[str]:
    return [c for c in (*REQUIRED, BASKET, QUANTITY) if c in table.columns]


def _is_missing(table: pl.DataFrame, column: str) -> pl.Expr:
    kind, value = table.schema[column], pl.col(column)
    if kind == pl.String:
        return value.is_null() | (value == "")
    return value.is_null() | value.is_nan() if kind.is_float() else value.is_null()


def _lacks(table: pl.DataFrame) -> pl.Expr:
    return pl.any_horizontal(_is_missing(table, column) for column in _needed(table))


def net_of_returns(events: pl.DataFrame) -> pl.DataFrame:
    """Purchases less what of them was returned, see `Rows`; in the order of the rows.

    What a user holds of an item grows by a purchase, S_i = S_(i-1) + q_i, and shrinks by a return,
    down to 0. Where the last that came goes back first, of a purchase is left what of it the
    stock never again falls below: min over t >= i of S_t, less S_(i-1).

    Args:
        events: `user_id, item_id, timestamp, quantity`, quantities of numbers.

    >>> rows = {"user_id": [1] * 4, "item_id": [7] * 4, "timestamp": range(4)}
    >>> net_of_returns(pl.DataFrame(rows | {"quantity": [2, 3, -4, 1]}))["quantity"].to_list()
    [1, 1]
    """
    if not (events[QUANTITY] < 0).any():
        return events
    left = _left_of_purchases(events)
    quantity = events[QUANTITY]
    kept = ((quantity > 0) & (left > _LEAST * quantity)) | (quantity == 0)
    columns = [left.cast(quantity.dtype).alias(QUANTITY)]
    value = as_numbers(events[VALUE]) if VALUE in events.columns else None
    if value is not None and value.dtype.is_numeric():
        columns.append((value * (left / quantity).fill_nan(1)).alias(VALUE))
    return events.with_columns(columns).filter(kept)


def _left_of_purchases(events: pl.DataFrame) -> pl.Series:
    """Of each row what is left in the end; nothing of a return."""
    rows = events.select(USER, ITEM, TIME, q=QUANTITY).with_row_index("row").sort(TIME, "row")
    keys = [USER, ITEM]
    rows = rows.with_columns(sum=pl.col("q").cum_sum().over(keys))
    lowest = pl.col("sum").cum_min().clip(upper_bound=0).over(keys)
    rows = rows.with_columns(stock=pl.col("sum") - lowest)
    rows = rows.with_columns(
        before=pl.col("stock").shift(fill_value=0).over(keys),
        after=pl.col("stock").cum_min(reverse=True).over(keys),
    )
    left = (pl.col("after") - pl.col("before")).clip(lower_bound=0)
    of_purchase = pl.when(pl.col("q") > 0).then(left).otherwise(0)
    return rows.with_columns(left=of_purchase).sort("row")["left"]
