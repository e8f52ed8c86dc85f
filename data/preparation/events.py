"""A table that need not fit into memory: Parquet files as polars scans them, as `table` reads one.

What is read comes out as it does from `table`, or it is refused. Refused are therefore types of
which only a look at every row says what they become, such as times in text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from glob import glob
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.sources.files import reading
from recsys.data.sources.table import (
    called_columns,
    check_names,
    columns_of_items,
    named_columns,
    our_names,
    typed_table,
)
from recsys.data.tables.files import name_of
from recsys.data.tables.times import PER_SECOND, microseconds, timed_by
from recsys.errors import DataError
from recsys.log.event_log import (
    BASKET,
    FIRST_YEAR,
    ITEM,
    LAST_YEAR,
    QUANTITY,
    REQUIRED,
    TIME,
    USER,
    VALUE,
    WORDS,
    as_words,
    check_columns,
    is_worded,
    key_problems,
    normalised,
    raise_problems,
    readable_times,
    unused,
)
from recsys.ranges import distinct

FIRST_ROWS = 100_000
"""By which the unit of times is guessed."""
_YEARS = tuple(datetime(year, 1, 1) for year in (FIRST_YEAR, LAST_YEAR))


@dataclass(frozen=True)
class LargeEvents:
    """Events in Parquet files, by our names and types; what cannot be read is null.

    Attributes:
        paths: of the files, in the order of their rows.
        columns: our name -> the files'.
        kinds: our name -> the type in a log.
        per_second: how often a second timestamps in numbers count from 1970; None: they are an
            order, or datetimes.
    """

    paths: tuple[str, ...]
    columns: Mapping[str, str]
    kinds: Mapping[str, Any]
    per_second: int | None = None

    def scan(self) -> pl.LazyFrame:
        """All rows."""
        return _scan(self.paths).select(self._columns())

    def count(self) -> int:
        """How many rows there are, by what the files say of themselves."""
        return int(_scan(self.paths).select(pl.len()).collect(engine="streaming").item())

    def parts(self, count: int) -> list[LargeEvents]:
        """The events in at most so many pieces of whole files, in their order."""
        size = -(-len(self.paths) // min(count, len(self.paths)))
        starts = range(0, len(self.paths), size)
        return [replace(self, paths=self.paths[start : start + size]) for start in starts]

    def _columns(self) -> list[pl.Expr]:
        kinds = _scan(self.paths[:1]).collect_schema()
        return [self._column(ours, kinds[theirs]) for ours, theirs in self.columns.items()]

    def _column(self, ours: str, of_file: Any) -> pl.Expr:
        column, kind = pl.col(self.columns[ours]), self.kinds[ours]
        if ours == TIME:
            return self._time(column, of_file).alias(ours)
        if ours in (USER, ITEM):
            ids = column.cast(kind, strict=False)
            return (ids.replace("", None) if kind == pl.String else ids).alias(ours)
        if ours in WORDS:
            column = column.arr.to_list() if isinstance(of_file, pl.Array) else column
            if isinstance(of_file, pl.Array | pl.List):
                return column.cast(pl.List(pl.String)).list.join(" ").alias(ours)
        return column.cast(kind).alias(ours)

    def _time(self, column: pl.Expr, of_file: Any) -> pl.Expr:
        if not self.kinds[TIME].is_temporal():
            return column.cast(pl.Int64)
        if self.per_second is not None:
            years = [(time - datetime(1970, 1, 1)).total_seconds() for time in _YEARS]
            first, end = (int(seconds) * self.per_second for seconds in years)
            times = microseconds(column, self.per_second, is_float=of_file.is_float())
            return pl.when((column >= first) & (column < end)).then(times)
        plain = pl.Datetime(of_file.time_unit) if of_file == pl.Datetime else of_file
        first, end = pl.Series(_YEARS).cast(plain).to_physical()
        ticks = column.to_physical()
        return pl.when((ticks >= first) & (ticks < end)).then(column.cast(self.kinds[TIME]))

    def problems(self) -> list[str]:
        """What is wrong with rows, each with the first of them: a pass over all files."""
        row = unused(_scan(self.paths[:1]).collect_schema().names())
        raw = {ours: pl.col(theirs) for ours, theirs in self.columns.items()}
        read = dict(zip(self.columns, self._columns(), strict=True))
        checks = list(_checks(raw, read))
        facts = [
            pl.struct(
                count=is_bad.sum(),
                row=pl.col(row).filter(is_bad).first(),
                value=raw[ours].filter(is_bad).first().cast(pl.String)
                if "{value" in words
                else pl.lit(""),
            ).alias(str(number))
            for number, (ours, is_bad, words) in enumerate(checks)
        ]
        frame = _scan(self.paths).with_row_index(row).select(facts).collect(engine="streaming")
        seen = [frame[str(number)][0] for number in range(len(checks))]
        return [
            f"{ours}: "
            + words.format(count=fact["count"], row=fact["row"] + 1, value=fact["value"])
            for (ours, _, words), fact in zip(checks, seen, strict=True)
            if fact["count"]
        ]


def _checks(
    raw: Mapping[str, pl.Expr], read: Mapping[str, pl.Expr]
) -> Iterator[tuple[str, pl.Expr, str]]:
    """Column, which rows are bad, and what is said of them."""
    for ours in (c for c in (*REQUIRED, BASKET) if c in raw):
        is_null = raw[ours].is_null()
        yield ours, is_null, "{count} null, the first in row {row}; leave such rows out"
    for ours in REQUIRED:
        reason = f"outside the years {FIRST_YEAR} to {LAST_YEAR - 1}" if ours == TIME else "no id"
        words = f"{{count}} {reason}, the first {{value!r}} in row {{row}}; leave such rows out"
        yield ours, raw[ours].is_not_null() & read[ours].is_null(), words
    if QUANTITY in raw:
        number = raw[QUANTITY].cast(pl.Float64)
        is_lost = number.is_null() | ~number.is_finite()
        words = "{count} blank or no number, the first in row {row}; write how many, or leave "
        yield QUANTITY, is_lost, words + "such rows out"
        words = "{count} negative, the first {value} in row {row}; leave returns out"
        yield QUANTITY, ~is_lost & (number < 0), words
    if VALUE in raw:
        words = "{count} are infinite, the first {value} in row {row}; leave such rows out"
        yield VALUE, raw[VALUE].cast(pl.Float64).is_infinite(), words


@dataclass(frozen=True, eq=False)
class LargeTable:
    """A log whose events are not in memory; its items and users are.

    Attributes:
        name: what reports call the log.
        events: its events.
        items, users: tables of them, where there are such.
        item_columns: columns of the events that describe their item.
        called: what errors call columns.
    """

    name: str
    events: LargeEvents
    items: pl.DataFrame | None
    users: pl.DataFrame | None
    item_columns: tuple[str, ...]
    called: Mapping[str, str]


def large_table(
    path: str,
    *,
    columns: Mapping[str, str | None] | None = None,
    items_path: str | None = None,
    item_columns: Sequence[str] | None = None,
    users_path: str | None = None,
    time_unit: str | None = None,
) -> LargeTable:
    """A log by its files; the options are those of `table`.

    Args:
        path: a Parquet file, or a pattern of several, such as `log/*.parquet`, which are read in
            the order of their names; also far away: `s3://`, `gs://`, `hf://`, …
        columns, items_path, item_columns, users_path, time_unit: as for `table`.

    Raises:
        DataError: no such file, or columns that are none of a log's.
    """
    renames, names = named_columns(columns)
    distinct(**{"data.item_columns": item_columns})
    paths, called = _paths(path), called_columns(renames)
    with reading(path):
        schema = _scan(paths).collect_schema()
    tables = {
        kind: _our_table(file, names)
        for kind, file in (("items", items_path), ("users", users_path))
        if file is not None
    }
    check_names(path, {"events": pl.DataFrame(schema=schema), **tables}, names)
    ours = our_names(schema.names(), names)
    empty = pl.DataFrame(schema={name: schema[theirs] for name, theirs in ours.items()})
    log_name = name_of(path)
    check_columns({"events": empty, **tables}, item_columns or (), name=log_name, called=called)
    raise_problems(log_name, _bad_kinds(empty), called)
    untyped = LargeEvents(paths, ours, {})
    events, frames = _typed(untyped, empty, tables, time_unit, log_name, path)
    items, users = frames.get("items"), frames.get("users")
    raise_problems(log_name, key_problems(items, users), called)
    of_items: Sequence[str] = ()
    if items is None:
        of_items = columns_of_items(
            list(events.kinds), renames, item_columns, lambda some: _constant(events, some)
        )
    return LargeTable(log_name, events, items, users, tuple(of_items), called)


def _typed(
    events: LargeEvents,
    empty: pl.DataFrame,
    tables: Mapping[str, pl.DataFrame],
    time_unit: str | None,
    name: str,
    path: str,
) -> tuple[LargeEvents, Mapping[str, pl.DataFrame]]:
    """Events that know their types, and the tables of items and users."""
    with reading(path):
        first = _scan(events.paths).select(events.columns[TIME]).head(FIRST_ROWS).collect()
        times = first.to_series().rename(TIME)
        timed = timed_by(times, time_unit)
    readable, problems = readable_times(pl.DataFrame({TIME: timed}))
    raise_problems(name, [p for p in problems if " is no time" in p])
    is_counted = timed.dtype.is_temporal() and times.dtype.is_numeric()
    frames = normalised({"events": empty, **tables})
    kinds = dict(frames["events"].schema) | {TIME: readable.schema[TIME]}
    if not is_counted and times.dtype.is_temporal():  # whatever the years of the first rows
        kinds[TIME] = pl.Datetime("us", getattr(times.dtype, "time_zone", None))
    events = replace(
        events,
        columns={name: theirs for name, theirs in events.columns.items() if name in kinds},
        kinds=kinds,
        per_second=PER_SECOND[str(time_unit)] if is_counted else None,
    )
    return events, {table: frame for table, frame in frames.items() if table != "events"}


def _bad_kinds(events: pl.DataFrame) -> Iterator[str]:
    """Types that `table` reads by a look at all rows."""
    for ids in (events[USER], events[ITEM]):
        if ids.dtype.is_float():
            yield f"{ids.name}: {ids.dtype} is no id here; store ids as integers or text"
    for column in (events[c] for c in (QUANTITY, VALUE) if c in events.columns):
        kind = column.dtype
        if not kind.is_numeric() or kind in (pl.UInt64, pl.Int128, pl.UInt128):
            yield f"{column.name}: {kind} is no number here; store it as Int64 or Float64"
    kind = events[TIME].dtype
    if kind in (pl.String, pl.Categorical, pl.Enum, pl.Null, pl.Float32, pl.Float16, pl.UInt64):
        yield f"{TIME}: {kind} is no time here; store datetimes, or integers with data.time_unit"


def _our_table(path: str, names: Mapping[str, str]) -> pl.DataFrame:
    """A table of items or users by our names."""
    frame = typed_table(path)
    columns = our_names(frame.columns, names)
    return pl.DataFrame({ours: frame[theirs] for ours, theirs in columns.items()})


def _paths(path: str) -> tuple[str, ...]:
    """The files that a path names; one far away is left to polars.

    Raises:
        DataError: none, a folder, or no Parquet.
    """
    if "://" in path:
        return (path,)
    place = Path(path).expanduser().absolute()
    if place.is_dir():
        raise DataError(f"{place} is a folder; name its files, such as {place}/*.parquet")
    files = [str(place)] if place.is_file() else sorted(glob(str(place), recursive=True))
    if not files:
        raise DataError(f"no file {place}")
    if others := [file for file in files if not file.lower().endswith(".parquet")]:
        raise DataError(
            f"{others[0]}: logs are prepared from .parquet; write it as such first, by polars: "
            "pl.scan_csv(FILE).sink_parquet(FILE)"
        )
    return tuple(files)


def _scan(paths: Sequence[str]) -> pl.LazyFrame:
    """What is in files; a name that is there is no pattern."""
    is_far = any("://" in path for path in paths)
    return pl.scan_parquet(list(paths), hive_partitioning=False, glob=is_far)


def _constant(events: LargeEvents, columns: Sequence[str]) -> dict[str, bool]:
    """Those of the columns that never differ within an item, and whether some item has it twice."""
    empty = pl.DataFrame(schema=events.kinds)
    flat = [
        name
        for name in columns
        if is_worded(empty[name])
        and not (as_words(empty[name]) if name in WORDS else empty[name]).dtype.is_nested()
    ]
    if not flat:
        return {}
    values = {name: _comparable(pl.col(name), events.kinds[name]) for name in flat}
    of_items = (
        events.scan()
        .group_by(ITEM)
        .agg(
            **{f"{name}_least": value.min() for name, value in values.items()},
            **{f"{name}_most": value.max() for name, value in values.items()},
            **{f"{name}_count": value.count() for name, value in values.items()},
        )
    )
    facts = of_items.select(
        **{f"{n}_one": (pl.col(f"{n}_least") == pl.col(f"{n}_most")).all() for n in flat},
        **{f"{n}_twice": (pl.col(f"{n}_count") > 1).any() for n in flat},
    ).collect(engine="streaming")
    return {name: facts[f"{name}_twice"][0] for name in flat if facts[f"{name}_one"][0]}


def _comparable(column: pl.Expr, kind: Any) -> pl.Expr:
    """Values of which the least and the most are one where all are: text in place of NaN, too."""
    is_text = kind.is_float() or kind in (pl.Categorical, pl.Enum)
    return column.cast(pl.String) if is_text else column
