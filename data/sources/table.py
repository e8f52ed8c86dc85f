"""A user's own log: a CSV, TSV, JSON Lines or Parquet file, its columns named by the user.

recsys train data=table data.path=log.csv data.columns.user_id=customer data.time_unit=s

Where items have no table of their own, what a row says of its item is an attribute of the item:
its title and text, and every column with one value an item, such as a category or a brand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from recsys.data.sources.files import found, reading
from recsys.errors import DataError
from recsys.events import BASKET, ITEM, QUANTITY, REQUIRED, TIME, USER, VALUE, EventLog

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6}
_ITEM_TEXT = ("title", "text")
_OF_EVENTS = (*REQUIRED, BASKET, QUANTITY, VALUE, "event")


def table(
    path: str,
    *,
    columns: Mapping[str, str | None] | None = None,
    items_path: str | None = None,
    item_columns: Sequence[str] | None = None,
    users_path: str | None = None,
    time_unit: str | None = None,
) -> EventLog:
    """A log named after its file.

    Args:
        path: the events: `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet`.
        columns: our name -> the file's, for `user_id`, `item_id`, `timestamp`, where there are such
            columns `basket_id`, `event`, `quantity`, `value`, `title`, `text`, and any other that
            should be called something else. Without an entry a column keeps its name.
        items_path: a table with a row per item, read with the same `columns`. Without it an
            attribute of an item is the first value that its events have; `title` and `text` are
            then no longer columns of the events, others stay.
        item_columns: which columns of the events are such attributes beside `title` and `text`.
            None is those that never differ within an item and that some item has twice, but for
            what an event itself is: when, how much, in which basket. Not read with `items_path`.
        users_path: likewise, a row per user.
        time_unit: `s`, `ms` or `us`, of timestamps counted from 1970. Without it integers are an
            order.

    Raises:
        DataError: whatever is wrong with the files, in one line.
    """
    names = {ours: theirs for ours, theirs in (columns or {}).items() if theirs is not None}
    events_file = found(path)
    events = _read(events_file, names)
    items = None if items_path is None else _read(found(items_path), names)
    users = None if users_path is None else _read(found(users_path), names)
    given = [frame for frame in (events, items, users) if frame is not None]
    for ours in dict.fromkeys([*REQUIRED, *names]):
        frames = [events] if ours in REQUIRED else given
        if not any(names.get(ours, ours) in frame.columns for frame in frames):
            raise _no_column(events_file, ours, names.get(ours, ours), events.columns)
    events = _named(events, names)
    items = None if items is None else _named(items, names)
    users = None if users is None else _named(users, names)
    if time_unit is not None:
        events = events.with_columns(_from_epoch(events[TIME], time_unit))
    text = [column for column in _ITEM_TEXT if column in events.columns]
    if items is None:
        told = events.drop(*text, *_OF_EVENTS, strict=False).columns
        if missing := [column for column in item_columns or () if column not in told]:
            raise DataError(f"item_columns: no {missing[0]!r} among {', '.join(told) or 'none'}")
        first = pl.col([*text, *told]).drop_nulls().first()
        items = events.drop_nulls(ITEM).group_by(ITEM).agg(first)
        others = _of_items(events, items, told) if item_columns is None else item_columns
        items, events = items.select(ITEM, *text, *others), events.drop(text)
    return EventLog.from_frames(events, items, users, name=events_file.stem)


def _read(path: Path, names: Mapping[str, str]) -> pl.DataFrame:
    with reading(path):
        match path.suffix.lower():
            case ".parquet":
                return pl.read_parquet(path, glob=False)
            case ".jsonl" | ".ndjson":
                with path.open("rb") as file:  # a path would be read as a pattern
                    return pl.read_ndjson(file, infer_schema_length=None)
            case ".csv" | ".tsv" as suffix:
                separator = "\t" if suffix == ".tsv" else ","
                # Ten times as fast as to have types inferred from all rows.
                text = pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
                ids = {names.get(ours, ours) for ours in (USER, ITEM)}
                return text.with_columns(_typed(c, is_id=c.name in ids) for c in text)
    raise DataError(
        f"{path}: {path.suffix or 'a name without an ending'} is no kind of table that is read; "
        "give .csv, .tsv, .jsonl, .ndjson or .parquet"
    )


def _of_items(events: pl.DataFrame, items: pl.DataFrame, columns: list[str]) -> list[str]:
    """Those of the columns that never differ within an item, and that some item has twice."""
    numbered = items.select(ITEM).with_row_index("_row")
    row = events.select(ITEM).join(numbered, on=ITEM, how="left", maintain_order="left")["_row"]
    return [
        name
        for name in columns
        if not events.schema[name].is_nested()
        and events[name].count() > items[name].count()
        and (events[name] == items[name].gather(row)).all()
    ]


def _typed(text: pl.Series, *, is_id: bool) -> pl.Series:
    """Integers or floats where all of the text is; an id such as 007 stays as it is written."""
    for dtype in (pl.Int64,) if is_id else (pl.Int64, pl.Float64):
        numbers = text.cast(dtype, strict=False)
        if numbers.null_count() == text.null_count():
            same = not is_id or (numbers.cast(pl.String) == text).all()
            return numbers if same else text
    return text


def _named(frame: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """The frame with our names; a column that bears one of them by chance makes way."""
    ours = {ours: theirs for ours, theirs in names.items() if theirs in frame.columns}
    taken = {*ours, *ours.values()}
    others = [column for column in frame.columns if column not in taken]
    return frame.select(*(pl.col(theirs).alias(name) for name, theirs in ours.items()), *others)


def _no_column(path: Path, ours: str, theirs: str, there: list[str]) -> DataError:
    near = get_close_matches(theirs, there, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return DataError(
        f"{path}: no column {theirs!r}; {hint}set data.columns.{ours}=NAME "
        f"(there are: {', '.join(there)})"
    )


def _from_epoch(times: pl.Series, unit: str) -> pl.Series:
    if unit not in _PER_SECOND:
        raise DataError(f"time_unit={unit}: expected {', '.join(_PER_SECOND)}")
    if not times.dtype.is_numeric():
        raise DataError(f"time_unit={unit} is for timestamps in numbers; {TIME} is {times.dtype}")
    microseconds = (times * (10**6 // _PER_SECOND[unit])).cast(pl.Int64, strict=False)
    return microseconds.cast(pl.Datetime("us")).alias(TIME)
