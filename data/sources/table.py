"""A user's own log: a CSV, TSV, JSON Lines or Parquet file, its columns named by the user.

recsys train data=table data.path=log.csv data.columns.user_id=customer data.time_unit=s

What a CSV or TSV file says is kept: `007` is not 7, `1e5` not 100000, and a quote in a TSV file is
a letter. A column becomes Int64 where all of its text is plain integers, and another than an id or
a basket Float64 where all of it is plain decimals, no two of which are one number.

Where items have no table of their own, what a row says of its item is an attribute of the item:
its title and text, and every column with one value an item, such as a category or a brand.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TypeVar

import polars as pl

from recsys.data.sources.files import existing_file, reading
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
    EventLog,
    as_numbers,
    as_words,
    bad_names,
    is_worded,
)
from recsys.ranges import distinct

ORDER = "order"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_USUAL_YEARS = (1990, 2100)
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_OF_EVENTS = (*REQUIRED, BASKET, QUANTITY, VALUE, "event")
_AS_WRITTEN = (TIME, QUANTITY, VALUE, *WORDS)
_IDS = (USER, ITEM, BASKET)
# Integers of more digits do not fit into a Float64.
_DECIMAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?$"
_NUMBER = r"^-?[0-9.]+$"
_SAMPLE = 1000


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
            attribute of an item is the first value that its events have in order of time, and
            remains a column of the events.
        item_columns: which columns of the events are such attributes, beside `title` and `text`
            where `columns` name them or they never differ within an item. None is those that never
            differ within an item and that some item has twice, but for what an event itself is:
            when, how much, in which basket. Not read with `items_path`.
        users_path: likewise, a row per user.
        time_unit: `s`, `ms`, `us` or `ns`, of timestamps counted from 1970, or `order`: integers
            only tell what came first. Without it integers are an order too, and those that look
            like times are refused.

    Raises:
        DataError: whatever is wrong with the files, in one line.

    >>> folder = TemporaryDirectory()
    >>> path, days = f"{folder.name}/shop.csv", ["2024-05-01", "2024-05-02"]
    >>> pl.DataFrame({"who": ["Ann", "Ben"], "item_id": [7, 9], "day": days}).write_csv(path)
    >>> log = table(path, columns={"user_id": "who", "timestamp": "day"})
    >>> log.name, log.num_events, log.users["user_id"].to_list()
    ('shop', 2, ['Ann', 'Ben'])
    >>> folder.cleanup()
    """
    renames, names = named_columns(columns)
    paths = {"events": path, "items": items_path, "users": users_path}
    files = {kind: existing_file(file) for kind, file in paths.items() if file is not None}
    frames = {kind: read_file(file) for kind, file in files.items()}
    check_names(files["events"], frames, names)
    for kind, frame in frames.items():
        text = files[kind].suffix.lower() in _SEPARATORS
        frames[kind] = _named(frame, names, text=text)
    events = frames.pop("events")
    distinct(**{"data.item_columns": item_columns})
    with reading(files["events"]):
        events = events.with_columns(timed_by(events[TIME], time_unit))
        of_items: Sequence[str] = ()
        if "items" not in frames:
            constant = partial(_constant, events)
            of_items = columns_of_items(events.columns, renames, item_columns, constant)
        return EventLog.from_frames(
            events,
            frames.get("items"),
            frames.get("users"),
            name=files["events"].stem,
            item_columns=of_items,
            called=called_columns(renames),
        )


def named_columns(
    columns: Mapping[str, str | None] | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Our name -> the file's, of the columns that are named, and with those that have to be there.

    >>> named_columns({"user_id": "who", "basket_id": None})[1]
    {'user_id': 'who', 'item_id': 'item_id', 'timestamp': 'timestamp'}
    """
    renames = {ours: theirs for ours, theirs in (columns or {}).items() if theirs is not None}
    return renames, {ours: ours for ours in REQUIRED} | renames


def called_columns(renames: Mapping[str, str]) -> dict[str, str]:
    """What errors call columns: as the user named them, and by which option."""
    columns = {ours: f"data.columns.{ours}={theirs}" for ours, theirs in renames.items()}
    return {**columns, "item_columns": "data.item_columns"}


def typed_table(path: str) -> pl.DataFrame:
    """Any table of one of these kinds; what is text in the file becomes numbers as in a log.

    Raises:
        DataError: it cannot be read.
    """
    file = existing_file(path)
    return _named(read_file(file), {}, text=file.suffix.lower() in _SEPARATORS)


def read_file(path: Path) -> pl.DataFrame:
    """The table as it is; of a CSV or TSV file everything as text, without blank lines."""
    with reading(path):
        match path.suffix.lower():
            case ".parquet":
                return pl.read_parquet(path, glob=False)
            case ".jsonl" | ".ndjson":
                with path.open("rb") as file:  # a path would be read as a pattern
                    return pl.read_ndjson(file, infer_schema_length=None)
            case ".csv" | ".tsv" as suffix:
                return _without_blanks(_read_text(path, suffix))
    raise DataError(
        f"{path}: {path.suffix or 'a name without an ending'} is no kind of table that is read; "
        "give .csv, .tsv, .jsonl, .ndjson or .parquet"
    )


def _read_text(path: Path, suffix: str) -> pl.DataFrame:
    try:
        return pl.read_csv(
            path,
            separator=_SEPARATORS[suffix],
            quote_char=None if suffix == ".tsv" else '"',
            infer_schema=False,
            null_values=[""],
            glob=False,
        )
    except pl.exceptions.ComputeError as error:
        if "more fields" not in str(error):
            raise
        raise DataError(f"{path}: {_longer_row(path, suffix)}") from error


def _longer_row(path: Path, suffix: str) -> str:
    """Which row has more fields than the header, in words; the reader does not say."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(
            file,
            delimiter=_SEPARATORS[suffix],
            quoting=csv.QUOTE_NONE if suffix == ".tsv" else csv.QUOTE_MINIMAL,
        )
        most = len(next(rows))
        longer = ((number, len(row)) for number, row in enumerate(rows, 1) if len(row) > most)
        number, fields = next(longer, (0, 0))
    row = f"row {number} has {fields}" if number else "a row has more"
    return f"{row} fields, and the header {most}; quote fields that hold a separator"


def _without_blanks(text: pl.DataFrame) -> pl.DataFrame:
    if not text.to_series(0).null_count():
        return text
    return text.filter(~pl.all_horizontal(pl.all().is_null()))


def check_names(
    events_file: Path | str, frames: Mapping[str, pl.DataFrame], names: Mapping[str, str]
) -> None:
    """Raise a `DataError` where a named column is not there, or there twice, or is no name."""
    for problem in bad_names(frames):
        raise DataError(f"{events_file}: {problem}")
    columns_of = {kind: set(frame.columns) for kind, frame in frames.items()}
    for ours, theirs in names.items():
        tables = ["events"] if ours in REQUIRED else list(columns_of)
        if not any(theirs in columns_of[kind] for kind in tables):
            raise _no_column(events_file, ours, theirs, frames["events"].columns)
        # What polars calls the second of two.
        if any(f"{theirs}_duplicated_0" in columns_of[kind] for kind in tables):
            raise DataError(f"{events_file}: more than one column {theirs!r}; leave one in")


def _no_column(path: Path | str, ours: str, theirs: str, columns: list[str]) -> DataError:
    if len(columns) == 1 and (other := next((s for s in ";\t|" if s in columns[0]), None)):
        return DataError(
            f"{path}: one column, {columns[0]!r}, with {other!r} between its parts; save it with "
            "commas as .csv, or with tabs as .tsv"
        )
    near = get_close_matches(theirs, columns, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return DataError(
        f"{path}: no column {theirs!r}; {hint}set data.columns.{ours}=NAME "
        f"(there are: {', '.join(columns)})"
    )


def _named(frame: pl.DataFrame, names: Mapping[str, str], *, text: bool) -> pl.DataFrame:
    """The columns by our names, typed; one that bears such a name by chance makes way.

    Args:
        frame: as it is in the file.
        names: our name -> the file's, of which some may be another file's.
        text: whether all columns are text, of which some may be numbers.
    """
    every = (frame[theirs].alias(ours) for ours, theirs in our_names(frame.columns, names).items())
    return pl.DataFrame({c.name: _typed(c) if text else c for c in every})


def our_names(columns: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """Our name -> the file's of every column; one that bears such a name by chance makes way.

    Args:
        columns: of the file.
        names: our name -> the file's, of which some may be another file's.

    >>> our_names(["who", "user_id", "price"], {"user_id": "who", "title": "name"})
    {'user_id': 'who', 'price': 'price'}
    """
    renamed = {ours: theirs for ours, theirs in names.items() if theirs in set(columns)}
    in_use = {*renamed, *renamed.values()}
    return renamed | {column: column for column in columns if column not in in_use}


def _typed(text: pl.Series) -> pl.Series:
    """Numbers where nothing of the text is lost by it."""
    some = text.head(_SAMPLE)
    if text.name in _AS_WRITTEN or not some.str.contains(_NUMBER).all():
        return text
    integers = text.cast(pl.Int64, strict=False)
    if integers.null_count() == text.null_count():
        return integers if (integers.cast(pl.String) == text).all() else text
    each = text.unique().drop_nulls()
    if text.name in _IDS or not each.str.contains(_DECIMAL).all():
        return text
    return text.cast(pl.Float64) if each.cast(pl.Float64).n_unique() == len(each) else text


def timed_by(times: pl.Series, unit: str | None) -> pl.Series:
    """Times counted from 1970 as Datetime; others as they are.

    Raises:
        DataError: a unit that is none or not that of the times, or times that look like counted
            ones without a unit.
    """
    if unit not in (None, ORDER, *PER_SECOND):
        raise DataError(f"data.time_unit={unit}: expected {', '.join(PER_SECOND)} or {ORDER}")
    numbers = as_numbers(times)
    if not numbers.dtype.is_numeric():
        if unit is not None:
            raise DataError(
                f"data.time_unit={unit} is for timestamps in numbers; {_no_number(times)}; leave "
                "it out for dates"
            )
        return times
    likely = _likely_unit(numbers)
    if likely is not None and unit not in (likely, ORDER):
        raise DataError(
            f"timestamps such as {numbers.drop_nulls()[0]} look like {_UNITS[likely]} since 1970; "
            f"set data.time_unit={likely}, or data.time_unit={ORDER} if they only are in order"
        )
    if unit in (None, ORDER):
        return numbers if numbers.dtype.is_integer() else times
    _refuse_coarse(times)
    return _from_epoch(numbers, unit)


def _refuse_coarse(times: pl.Series) -> None:
    """Raise a `DataError` where floats are too short to tell neighbouring times apart."""
    if times.dtype not in (pl.Float32, pl.Float16):
        return
    digits = 24 if times.dtype == pl.Float32 else 11
    far = times.filter(times.abs() > 2**digits)
    if len(far):
        raise DataError(
            f"timestamps such as {far[0]:.0f} are beyond 2**{digits}, where {times.dtype} no "
            "longer tells neighbours apart; store them as integers"
        )


def _no_number(times: pl.Series) -> str:
    if times.dtype != pl.String:
        return f"{TIME} is {times.dtype}"
    broken = times.is_not_null() & times.cast(pl.Float64, strict=False).is_null()
    row = broken.arg_true()[0]
    return f"{times[row]!r} in row {row + 1} is none"


def _seconds(year: int) -> int:
    """From 1970 to the year."""
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


def _likely_unit(numbers: pl.Series) -> str | None:
    """The unit in which the median lies in the years of which logs are; None if in none."""
    middle = numbers.median()
    first, end = map(_seconds, _USUAL_YEARS)
    for unit, count in PER_SECOND.items():
        if middle is not None and first * count <= middle < end * count:  # type: ignore[operator]
            return unit
    return None


def _from_epoch(numbers: pl.Series, unit: str) -> pl.Series:
    count = PER_SECOND[unit]
    first, end = _seconds(FIRST_YEAR) * count, _seconds(LAST_YEAR) * count
    outside = (numbers < first) | (numbers >= end)
    if outside.any():
        row = outside.arg_true()[0]
        raise DataError(
            f"data.time_unit={unit}: {outside.sum()} timestamps outside the years {FIRST_YEAR} to "
            f"{LAST_YEAR - 1}, the first {numbers[row]} in row {row + 1}; choose the unit that "
            f"fits, {', '.join(PER_SECOND)}, or leave such rows out"
        )
    return microseconds(numbers, count, is_float=numbers.dtype.is_float())


Numbers = TypeVar("Numbers", pl.Series, pl.Expr)


def microseconds(numbers: Numbers, per_second: int, *, is_float: bool) -> Numbers:
    """Times that are counted from 1970, so many a second, as Datetime."""
    if is_float:
        counted = (numbers * (10**6 / per_second)).round()
    elif per_second > 10**6:
        counted = numbers // (per_second // 10**6)
    else:
        counted = numbers * (10**6 // per_second)
    return counted.cast(pl.Int64, strict=False).cast(pl.Datetime("us"))


def columns_of_items(
    columns: Sequence[str],
    renames: Mapping[str, str],
    item_columns: Sequence[str] | None,
    constant_of: Callable[[Sequence[str]], Mapping[str, bool]],
) -> list[str]:
    """The columns of the events that describe their item.

    Args:
        columns: of the events, by our names.
        renames: our name -> the file's, where the user named the column.
        item_columns: as for `table`.
        constant_of: of columns, those that never differ within an item, and whether some item has
            it twice.
    """
    others = [column for column in columns if column not in (*WORDS, *_OF_EVENTS)]
    words = [column for column in WORDS if column in columns]
    constant = constant_of([*words, *(others if item_columns is None else ())])
    chosen_names = {*renames, *constant, *(item_columns or ())}
    if item_columns is None:
        item_columns = [column for column in others if constant.get(column)]
    words = [column for column in words if column in chosen_names]
    return [*words, *(column for column in item_columns if column not in words)]


def _constant(events: pl.DataFrame, columns: Sequence[str]) -> dict[str, bool]:
    """Those of the columns that never differ within an item, and whether some item has it twice."""
    if events[ITEM].dtype.is_nested():
        return {}
    flat = [events[c] for c in columns if is_worded(events[c])]
    flat = [as_words(column) if column.name in WORDS else column for column in flat]
    flat = [column for column in flat if not column.dtype.is_nested()]
    frame = pl.DataFrame({column.name: column for column in (events[ITEM], *flat)})
    firsts = frame.group_by(ITEM).agg(pl.all().drop_nulls().first())
    numbered = firsts.select(ITEM).with_row_index("row")
    row = frame.select(ITEM).join(numbered, on=ITEM, how="left", maintain_order="left")["row"]
    pairs = zip(flat, firsts.drop(ITEM).iter_columns(), strict=True)
    return {
        column.name: column.count() > first.count()
        for column, first in pairs
        if (column == first.gather(row)).all()
    }
