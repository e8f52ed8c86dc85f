"""A user's own log: files of tables as people have them, their columns named by the user.

recsys train data=table data.path=log.csv data.columns.user_id=customer data.time_unit=s

What a file of text says is kept: `007` is not 7, `1e5` not 100000, and a quote in a TSV file is
a letter. A column becomes Int64 where all of its text is plain integers, and another than an id or
a basket Float64 where all of it is plain decimals, no two of which are one number.

Where items have no table of their own, what a row says of its item is an attribute of the item:
its title and text, and every column with one value an item, such as a category or a brand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeAlias

import polars as pl

from recsys.data.sources.files import NoFileError, note, reading
from recsys.data.tables.dialects import OPTIONS, Dialect
from recsys.data.tables.files import Table, name_of, read_table, with_joined
from recsys.data.tables.rows import Rows
from recsys.data.tables.times import ROW, times_of
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import (
    BASKET,
    ITEM,
    QUANTITY,
    REQUIRED,
    TIME,
    USER,
    VALUE,
    WORDS,
    EventLog,
    as_words,
    bad_names,
    is_worded,
)
from recsys.ranges import distinct

_OF_EVENTS = (*REQUIRED, BASKET, QUANTITY, VALUE, "event")
_AS_WRITTEN = (TIME, QUANTITY, VALUE, *WORDS)
MOST = 20
"""Columns that an error lists."""
_IDS = (USER, ITEM, BASKET)
_KEYS = {"items": ITEM, "users": USER}
# Integers of more digits do not fit into a Float64.
_DECIMAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?$"
_WITH_COMMA = r"^-?[0-9]+(,[0-9]+)?$"
_NUMBER = r"^-?[0-9.]+$"
_SAMPLE = 1000
_WORDS = {"::": "colons", ";": "semicolon", "\t": "tab", "|": "pipe"}


Setting: TypeAlias = str | bool | Sequence[str] | Mapping[str, str | None] | None
"""Of a table beside the events: what is said of a file's dialect, or its columns."""


def table(
    path: str,
    *,
    columns: Mapping[str, str | None] | None = None,
    items_path: str | None = None,
    item_columns: Sequence[str] | None = None,
    users_path: str | None = None,
    time_unit: str | None = None,
    date_format: str | Sequence[str] | None = None,
    separator: str | None = None,
    header: bool | None = None,
    names: Sequence[str] | None = None,
    decimal: str = "point",
    encoding: str = "utf-8",
    nulls: Sequence[str | None] | Literal["usual"] = (),
    items: Mapping[str, Setting] | None = None,
    users: Mapping[str, Setting] | None = None,
    join: Mapping[str, Setting] | Sequence[Mapping[str, Setting]] | None = None,
    events: Mapping[str, float] | Sequence[str] | None = None,
    min_value: float | None = None,
    missing: Literal["error", "drop"] = "error",
    negative: Literal["error", "drop", "subtract"] = "error",
    origin: str | None = None,
) -> EventLog:
    """A log named after its file.

    The options are many, and each is one that a file of somebody's asks for; `docs/own_logs.md`
    has a command for each layout.

    Args:
        path: the events, as `recsys.data.tables.files` reads them: a file, a folder, a pattern, or
            an address.
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
            like times are refused. `row`: the rows of the file stand in order, and no column of
            times is read.
        date_format: of timestamps in text, such as `%d.%m.%Y`; of several the first that reads one.
            None is ISO 8601.
        separator, header, names, decimal, encoding, nulls: how files of text are written, see
            `Dialect`.
        items, users: where the file of items, of users, differs from that of the events: `columns`
            of its own, and the options of a `Dialect`. A header and names are each file's own.
        join: tables with what they say of rows of the events, see `with_joined`.
        events, min_value, missing, negative: which rows are events, see `Rows`.
        origin: where the files come from, for the error where one is not there.

    Raises:
        ConfigError: an option that is not what is expected.
        DataError: whatever is wrong with the files, in one line.

    >>> folder = TemporaryDirectory()
    >>> path, days = f"{folder.name}/shop.csv", ["2024-05-01", "2024-05-02"]
    >>> pl.DataFrame({"who": ["Ann", "Ben"], "item_id": [7, 9], "day": days}).write_csv(path)
    >>> log = table(path, columns={"user_id": "who", "timestamp": "day"})
    >>> log.name, log.num_events, log.users["user_id"].to_list()
    ('shop', 2, ['Ann', 'Ben'])
    >>> folder.cleanup()
    """
    dialect = Dialect(separator, header, names, decimal, encoding, nulls)
    rows = Rows(events, min_value, missing, negative)
    distinct(**{"data.item_columns": item_columns})
    others = {"items": (items_path, items), "users": (users_path, users)}
    renames, our = named_columns(columns)
    _check_roles(our)
    if time_unit == ROW:
        if date_format is not None:
            raise ConfigError("data.time_unit=row and data.date_format: give one of them")
        our = {name: theirs for name, theirs in our.items() if name != TIME}
    joined = [join] if isinstance(join, Mapping) else join or ()
    with _published(origin):
        tables = {"events": with_joined(read_table(path, dialect), joined, dialect)}
        for kind, (file, options) in others.items():
            if file is not None:
                tables[kind] = read_table(file, dialect.but_for(_of_dialect(kind, options)))
    of_kinds = {
        kind: _own_names(options) for kind, (_, options) in others.items() if kind in tables
    }
    frames = {kind: of_file.frame for kind, of_file in tables.items()}
    check_names(path, frames, our, of_kinds)
    named = {kind: _named(of, our | of_kinds.get(kind, {})) for kind, of in tables.items()}
    for kind, key in _KEYS.items():
        if kind in named and key not in named[kind].columns:
            raise _no_key(tables[kind], kind, key)
    return _log(path, named, rows, time_unit, date_format, renames, item_columns)


def _log(
    path: str,
    frames: Mapping[str, pl.DataFrame],
    rows: Rows,
    time_unit: str | None,
    date_format: str | Sequence[str] | None,
    renames: Mapping[str, str],
    item_columns: Sequence[str] | None,
) -> EventLog:
    """The log of frames by our names."""
    name, events = name_of(path), frames["events"]
    with reading(path):
        if time_unit == ROW:
            times = pl.int_range(len(events), eager=True).alias(TIME)
        else:
            times = times_of(events[TIME], time_unit, date_format)
        events, notes = rows.of(events.with_columns(times))
        for words in notes:
            note(f"{name}: {words}")
        of_items: Sequence[str] = ()
        if "items" not in frames:
            constant = partial(_constant, events)
            of_items = columns_of_items(events.columns, renames, item_columns, constant)
        try:
            return EventLog.from_frames(
                events,
                frames.get("items"),
                frames.get("users"),
                name=name,
                item_columns=of_items,
                called=called_columns(renames),
            )
        except DataError as error:
            remedies = "; ".join(rows.remedies(events))
            raise DataError(f"{error}; {remedies}" if remedies else str(error)) from error


@contextmanager
def _published(origin: str | None) -> Iterator[None]:
    """Says of a published file that is not there where it comes from."""
    try:
        yield
    except NoFileError as error:
        if origin is None:
            raise
        raise NoFileError(
            f"{error}; get it from {origin}, put it there or set RECSYS_DATA to the folder that "
            "holds it"
        ) from error


def _of_dialect(kind: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of a file's dialect among its own.

    Raises:
        ConfigError: one that no file has.
    """
    given = {name: value for name, value in (options or {}).items() if name != "columns"}
    if unknown := [name for name in given if name not in OPTIONS]:
        raise ConfigError(
            f"data.{kind}.{unknown[0]}: no such option; there is columns, {', '.join(OPTIONS)}"
        )
    return given


def _own_names(options: Mapping[str, Any] | None) -> dict[str, str]:
    columns = (options or {}).get("columns") or {}
    return {ours: theirs for ours, theirs in columns.items() if theirs is not None}


def _no_key(table: Table, kind: str, key: str) -> DataError:
    there = ", ".join(table.frame.columns)
    return DataError(
        f"{table.file}: {kind}: no column {key} (there are: {there}); set "
        f"data.{kind}.columns.{key}=NAME"
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


def _check_roles(our: Mapping[str, str]) -> None:
    """Refuse a column that is to be two of what every event has."""
    for one, other in combinations(REQUIRED, 2):
        if one in our and our.get(other) == our[one]:
            raise ConfigError(
                f"data.columns.{one} and data.columns.{other} are both {our[one]!r}; name two"
            )


def called_columns(renames: Mapping[str, str]) -> dict[str, str]:
    """What errors call columns: as the user named them, and by which option."""
    columns = {ours: f"data.columns.{ours}={theirs}" for ours, theirs in renames.items()}
    return {**columns, "item_columns": "data.item_columns"}


def typed_table(path: str) -> pl.DataFrame:
    """Any table of one of these kinds; what is text in the file becomes numbers as in a log.

    Raises:
        DataError: it cannot be read.
    """
    return _named(read_table(path), {})


def check_names(
    events_file: Path | str,
    frames: Mapping[str, pl.DataFrame],
    names: Mapping[str, str],
    of_kinds: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Raise a `DataError` where a named column is not there, or there twice, or is no name.

    Args:
        events_file: for the errors.
        frames: of the events, the items and the users.
        names: our name -> the files'.
        of_kinds: names that hold in one of the frames alone.
    """
    for problem in bad_names(frames):
        raise DataError(f"{events_file}: {problem}")
    columns_of = {kind: set(frame.columns) for kind, frame in frames.items()}
    for ours, theirs in names.items():
        tables = ["events"] if ours in REQUIRED else list(columns_of)
        own = [kind for kind, its in (of_kinds or {}).items() if ours in its]
        if not own and not any(theirs in columns_of[kind] for kind in tables):
            raise _no_column(events_file, "columns", ours, theirs, frames["events"].columns)
        # What polars calls the second of two.
        if any(f"{theirs}_duplicated_0" in columns_of[kind] for kind in tables):
            raise DataError(f"{events_file}: more than one column {theirs!r}; leave one in")
    for kind, own_names in (of_kinds or {}).items():
        for ours, theirs in own_names.items():
            if theirs not in columns_of[kind]:
                columns = frames[kind].columns
                raise _no_column(f"file of {kind}", f"{kind}.columns", ours, theirs, columns)


def _no_column(
    path: Path | str, option: str, ours: str, theirs: str, columns: list[str]
) -> DataError:
    if len(columns) == 1 and (other := next((s for s in _WORDS if s in columns[0]), None)):
        return DataError(
            f"{path}: one column, {columns[0]!r}, with {other!r} between its parts; set "
            f"data.separator={_WORDS[other]}"
        )
    near = get_close_matches(theirs, columns, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    untimed = f", or data.time_unit={ROW} where rows stand in order of time"
    there = ", ".join([*columns[:MOST], *["…"] * (len(columns) > MOST)])
    return DataError(
        f"{path}: no column {theirs!r}; {hint}set data.{option}.{ours}=NAME"
        f"{untimed if ours == TIME else ''} (there are: {there})"
    )


def _named(table: Table, names: Mapping[str, str]) -> pl.DataFrame:
    """The columns by our names, typed; one that bears such a name by chance makes way.

    Args:
        table: as it is in the file.
        names: our name -> the file's, of which some may be another file's.
    """
    return pl.DataFrame(
        {
            ours: _typed(table.frame[theirs].alias(ours), table.decimal)
            if theirs in table.text
            else table.frame[theirs].alias(ours)
            for ours, theirs in our_names(table.frame.columns, names).items()
        }
    )


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


def _typed(text: pl.Series, decimal: str = ".") -> pl.Series:
    """Numbers where nothing of the text is lost by it."""
    if decimal == "," and text.name not in (*_IDS, *WORDS) and _all_match(text, _WITH_COMMA):
        text = text.str.replace(",", ".", literal=True)
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


def _all_match(text: pl.Series, pattern: str) -> bool:
    return bool(text.str.contains(pattern).all())


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
