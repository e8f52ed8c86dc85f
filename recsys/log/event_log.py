"""EventLog: who did what with which item, and when. The form in which every data set enters.

Three polars frames. `events` holds `user_id`, `item_id` and `timestamp`, and, where the log has
them, `basket_id`, `event`, `quantity`, `value` and any further context columns. `items` and `users`
hold a row per id with whatever is known of it; by convention `items.title` is what a person reads
and `items.text` what a language model reads.

Where items have no table of their own, some columns of the events may describe them
(`item_columns`). An item then has the attributes that its events give it. A log that is cut to
fewer events describes its items by the events that are left.

`timestamp` is a `Datetime`, or an integer where a log knows the order of events but not their time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import polars as pl

from recsys.errors import ConfigError, DataError
from recsys.log.frames import AnyFrame, as_polars
from recsys.log.hashing import fingerprint
from recsys.summary import Summarised

USER, ITEM, TIME = "user_id", "item_id", "timestamp"
BASKET, QUANTITY, VALUE = "basket_id", "quantity", "value"
REQUIRED = (USER, ITEM, TIME)
WORDS = ("title", "text")
FIRST_YEAR, LAST_YEAR = 1900, 2200
"""Times of another year are misread ones."""

_TEXT = (pl.String, pl.Categorical, pl.Enum)
_DATE, _CLOCK = "%Y-%m-%d", "%H:%M"
_TIME_FORMS = (
    _DATE,
    *(f"{_DATE}{gap}{_CLOCK}{seconds}" for gap in " T" for seconds in (":%S%.f", "")),
    "%+",
)
_SAMPLE = 1000


@dataclass(frozen=True)
class Whole:
    """A log that ranks read in parts: each has the events of some users, and all items and users.

    Attributes:
        num_ranks: that read it.
        num_events: of all of them.
        fingerprint: of what they read.
    """

    num_ranks: int
    num_events: int
    fingerprint: str


@dataclass(frozen=True, eq=False, repr=False)
class EventLog(Summarised):
    """A validated log: build it with `EventLog.from_frames`.

    Attributes:
        name: what reports call the log.
        events: one row per event, ordered by user, then time, then the order of the input; at one
            time the rows of a basket stand together. A basket is a run of one `basket_id` among a
            user's events: an id that comes again after others is another basket.
        items: one row per item that the events or the given items name, ordered by id.
        users: one row per user that the events name, ordered by id.
        out_of_order: how many rows the input gave after a later event of their user.
        item_columns: columns of the events that describe their item. `items` holds, for each item
            and column, the first value in order of time.
        whole: what this is a rank's part of; None: it is whole.
        memo: results that others computed from the log, by the object that computes them. It lives
            as long as the log; a log that is cut starts with an empty one.
    """

    name: str
    events: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    out_of_order: int = 0
    item_columns: tuple[str, ...] = ()
    whole: Whole | None = None
    memo: dict[Hashable, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        # Items never know more than the events that are left, whoever cuts them.
        if self.item_columns:
            items = described_by_events(self.items, self.events, self.item_columns)
            object.__setattr__(self, "items", items)

    @classmethod
    def from_frames(
        cls,
        events: AnyFrame,
        items: AnyFrame | None = None,
        users: AnyFrame | None = None,
        *,
        name: str = "log",
        item_columns: Sequence[str] = (),
        called: Mapping[str, str] | None = None,
    ) -> EventLog:
        """Check the frames, bring them into order and return them as a log.

        Frames are of polars, lazy too, of pandas, whose index counts where it has a name, or of
        anything that gives Arrow's streams, such as a table of pyarrow or a query of DuckDB.

        Args:
            events: columns `user_id`, `item_id`, `timestamp` and any others. Ids are integers or
                text, and text in all tables where they are text in one. Timestamps are datetimes,
                dates, integers (order only) or ISO 8601 text. `quantity` and `value` become Int64
                or Float64. Columns of objects without fields are left out.
            items: `item_id` and attributes. Items without a row get one of nulls. `title` and
                `text` become text: lists of words are joined.
            users: `user_id` and attributes. Users without an event are left out.
            name: what reports call the log.
            item_columns: of the events, those that describe their item, beside a table of items
                that has none of them.
            called: what errors call columns of the events in place of our names.

        Raises:
            DataError: one message with everything that is wrong: no table, missing columns, nulls,
                unreadable timestamps, years outside 1900 to 2199, impossible quantities, duplicate
                keys, no rows, one user.

        >>> rows = {"user_id": ["ann", "bob", "ann"], "item_id": [7, 9, 8], "timestamp": [2, 1, 1]}
        >>> log = EventLog.from_frames(pl.DataFrame(rows))
        >>> log.events.rows()
        [('ann', 8, 1), ('ann', 7, 2), ('bob', 9, 1)]
        >>> log.items["item_id"].to_list()
        [7, 8, 9]
        """
        tables = {"events": events, "items": items, "users": users}
        given_tables = {
            table: as_polars(frame, f"{name}: {table}")
            for table, frame in tables.items()
            if frame is not None or table == "events"
        }
        check_columns(given_tables, item_columns, name=name, called=called)
        frames = normalised(given_tables)
        of_items, of_users = frames.get("items"), frames.get("users")
        readable, unreadable = readable_times(frames["events"])
        keys = key_problems(of_items, of_users)
        impossible = _impossible_values(frames["events"])
        raise_problems(name, (*unreadable, *impossible, *keys), called)
        ordered, out_of_order = in_time_order(readable)
        return cls(
            name,
            baskets_together(ordered),
            complete(ordered[ITEM].unique(), of_items, keep_unseen=True),
            complete(ordered[USER].set_sorted().unique(), of_users, keep_unseen=False),
            out_of_order,
            tuple(item_columns),
        )

    @property
    def num_events(self) -> int:
        return len(self.events)

    @property
    def by_rank(self) -> bool:
        """Whether other ranks have the events of other users."""
        return self.whole is not None and self.whole.num_ranks > 1

    def summary(self) -> dict[str, object]:
        tables = {"event": self.events, "item": self.items, "user": self.users}
        columns = {f"{name} columns": ", ".join(frame.columns) for name, frame in tables.items()}
        sizes = {"events": self.num_events, "users": len(self.users), "items": len(self.items)}
        first, last = self.events[TIME].min(), self.events[TIME].max()
        return {"name": self.name, **sizes, "from": first, "until": last, **columns}

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same events, items and users, whatever files they were read from."""
        return fingerprint((self.events, self.items, self.users))

    @property
    def has_calendar_time(self) -> bool:
        """Whether timestamps are times, not only an order."""
        return self.events[TIME].dtype.is_temporal()

    def check_whole(self) -> None:
        """See that no rank reads a part of the log by itself.

        Raises:
            ConfigError: one does.
        """
        if self.whole is not None:
            raise ConfigError(
                "data.by_rank=true takes a log as it was prepared; set the filters of recsys data "
                "prepare, or data.by_rank=false"
            )

    def with_events(self, events: pl.DataFrame) -> EventLog:
        """The same log with fewer events, in the same order; items and users follow.

        Raises:
            ConfigError: other ranks have events, too, of which nothing is known here.
        """
        self.check_whole()
        ids = events[ITEM].unique().to_frame(), events[USER].set_sorted().unique().to_frame()
        items = self.items.join(ids[0], on=ITEM, maintain_order="left", how="semi")
        users = self.users.join(ids[1], on=USER, maintain_order="left", how="semi")
        return replace(self, events=events, users=users, items=items)


def raise_problems(
    name: str, problems: Iterable[str], called: Mapping[str, str] | None = None
) -> None:
    """Raise what is wrong with a log; the columns at the heads of problems as they are called.

    Raises:
        DataError: there is a problem.
    """
    parts = (problem.partition(": ") for problem in problems)
    words = [(called or {}).get(head, head) + colon + rest for head, colon, rest in parts]
    if words:
        raise DataError(f"{name}: {'; '.join(words)}")


def in_time_order(events: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Events by user, then time, then input order, and how many the input had after a later one."""
    place = unused(events.columns)
    ordered = _sorted_by_user_and_time(events.with_row_index(place))
    row, user = ordered[place], ordered[USER]
    late = (row < row.shift()) & (user == user.shift())
    return ordered.drop(place), int(late.sum())


def baskets_together(events: pl.DataFrame) -> pl.DataFrame:
    """Ordered events where a user's baskets of one time follow one another as they begin."""
    if BASKET not in events.columns:
        return events
    moment, basket = runs(events[USER], events[TIME]), events[BASKET]
    mixed = (moment == moment.shift()) & (basket != basket.shift())
    if not mixed.any():
        return events
    of_user = events[USER].is_in(events[USER].filter(mixed).unique().implode())
    keys = events.select(USER, BASKET).filter(of_user)
    keys = keys.with_columns(moment=moment.filter(of_user), place=of_user.arg_true())
    began = pl.col("place").first().over(USER, BASKET)
    ordered = keys.sort(pl.col("moment") * len(events) + began, maintain_order=True)["place"]
    order = pl.int_range(len(events), dtype=pl.UInt32, eager=True)
    return events[order.scatter(keys["place"], ordered)]


def runs(*columns: pl.Series) -> pl.Series:
    """The number of each row's run, from 0: rows side by side over which no column changes.

    A log's baskets are the runs of its events by `user_id` and `basket_id`: an id that comes again
    later, with others in between, is another basket.
    """
    changes = [(column != column.shift()).fill_null(True) for column in columns]
    changed = pl.any_horizontal(changes).cast(pl.Int64)
    return pl.select(changed.cum_sum().alias("run") - 1).to_series()


def _sorted_by_user_and_time(events: pl.DataFrame) -> pl.DataFrame:
    users, times = events[USER], events[TIME].to_physical()
    if not users.dtype.is_integer() or events.is_empty():
        return events.sort(USER, TIME, maintain_order=True)
    first_user, first_time = int(users.min()), int(times.min())  # type: ignore[arg-type]
    unit = 10**6 if (times % 10**6 == 0).all() else 1  # most logs count whole seconds
    span = (int(times.max()) - first_time) // unit + 1  # type: ignore[arg-type]
    if (int(users.max()) - first_user + 1) * span >= 2**63:  # type: ignore[arg-type]
        return events.sort(USER, TIME, maintain_order=True)
    # One packed 64-bit key sorts four times as fast as two columns, and is both of them afterwards.
    key = (users.cast(pl.Int64) - first_user) * span + (times.cast(pl.Int64) - first_time) // unit
    packed = unused(events.columns)
    others = events.drop(USER, TIME).with_columns(key.alias(packed))
    ordered = others.sort(packed, maintain_order=True)
    user = (ordered[packed] // span + first_user).alias(USER)
    time = (ordered[packed] % span * unit + first_time).cast(events[TIME].dtype).alias(TIME)
    return ordered.with_columns(user, time).select(events.columns)


def unused(columns: Sequence[str]) -> str:
    """A name that none of the columns has, for a helper column beside the user's own."""
    return "_" + max(columns, key=len)


def described_by_events(
    items: pl.DataFrame, events: pl.DataFrame, columns: Sequence[str]
) -> pl.DataFrame:
    """Items with the first value, in order of time, that their events have in each column.

    Args:
        items: `item_id`, and other columns, which stay unless they are among the columns.
        events: `item_id`, `timestamp` and the columns. At one time the first row counts.
        columns: of the events. Where no event of an item has a value, it is null.
    """

    def first(column: str) -> pl.Expr:
        value, time = pl.col(column), pl.col(TIME)
        earliest = time.filter(value.is_not_null()).arg_min()
        return value.drop_nulls().get(earliest, null_on_oob=True)

    first_values = events.group_by(ITEM).agg(first(column) for column in columns)
    others = items.drop(columns, strict=False)
    return others.join(first_values, on=ITEM, how="left", maintain_order="left")


def is_worded(column: pl.Series) -> bool:
    """Whether values of a column can be read as words: text, numbers, and lists of them."""
    kind = column.dtype
    of = kind.inner if isinstance(kind, (pl.List, pl.Array)) else kind
    return not (of.is_nested() or of in (pl.Binary, pl.Object))


def as_words(column: pl.Series) -> pl.Series:
    """A column for which `is_worded` holds as text: numbers written out, lists joined by spaces."""
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.String)).list.join(" ")
    return column.cast(pl.String)


Tables = Mapping[str, pl.DataFrame]
"""The frames of a log that are given, by the names of its attributes."""


def bad_names(tables: Tables) -> Iterator[str]:
    """An error message for each column whose name polars would read as a pattern."""
    for table, frame in tables.items():
        for name in frame.columns:
            if name == "*" or (name.startswith("^") and name.endswith("$")):
                yield f"{table}: the column {name!r} has the name of a pattern; call it otherwise"


def check_columns(
    tables: Tables,
    item_columns: Sequence[str],
    *,
    name: str,
    called: Mapping[str, str] | None = None,
) -> None:
    """See that frames have the columns of a log, of types that can be.

    Args:
        tables: some of which may be without rows.
        item_columns, name, called: as for `EventLog.from_frames`.

    Raises:
        DataError: they have not.
    """
    for check in (bad_names, _missing_columns, _bad_columns):
        raise_problems(name, check(tables), called)
    problems = _bad_item_columns(tables["events"], tables.get("items"), item_columns)
    raise_problems(name, problems, called)


def _missing_columns(tables: Tables) -> Iterator[str]:
    required = {"events": REQUIRED, "items": (ITEM,), "users": (USER,)}
    for table, frame in tables.items():
        if missing := [column for column in required[table] if column not in frame.columns]:
            there = ", ".join(frame.columns) or "none"
            yield f"{table}: no column {', '.join(missing)} (there are: {there})"


def _bad_columns(tables: Tables) -> Iterator[str]:
    """Ids and words of a type that is none."""
    for table, frame in tables.items():
        for ids in (frame[c] for c in (USER, ITEM) if c in frame.columns):
            if ids.dtype.is_float():
                yield from _bad_float_ids(ids)
            elif not (ids.dtype.is_integer() or ids.dtype in (*_TEXT, pl.Null)):
                yield f"{ids.name}: {ids.dtype} is no id; ids are integers or text"
        for words in (frame[c] for c in WORDS if c in frame.columns):
            if not is_worded(words):
                kind = f"{table}: {words.name}: {words.dtype} is no text"
                yield f"{kind}; give text, numbers, or lists of them"


def _bad_float_ids(ids: pl.Series) -> Iterator[str]:
    broken = ids.filter(ids.is_finite() & (ids != ids.round()))
    if len(broken):
        yield f"{ids.name}: {broken[0]} is no id; ids are integers or text"
    digits = 53 if ids.dtype == pl.Float64 else 24 if ids.dtype == pl.Float32 else 11
    large = ids.filter(ids.is_not_nan() & (ids.abs() > 2**digits))
    if len(large):
        yield (
            f"{ids.name}: {large[0]} is beyond 2**{digits}, where {ids.dtype} no longer tells "
            "integers apart; store ids as integers or text"
        )


def _bad_item_columns(
    events: pl.DataFrame, items: pl.DataFrame | None, columns: Sequence[str]
) -> Iterator[str]:
    ours = (*REQUIRED, BASKET, QUANTITY, VALUE)
    others = dict.fromkeys(column for column in events.columns if column not in ours)
    for column in columns:
        if column not in others:
            yield f"item_columns: no {column!r} among {', '.join(others) or 'none'}"
        elif items is not None and column in items.columns:
            yield f"item_columns: {column!r} is a column of the items too; leave one out"


def normalised(tables: Tables) -> Tables:
    """Every column in a form that the rest can rely on, see `EventLog.from_frames`."""
    return _with_one_type_of_ids({table: _normalised(frame) for table, frame in tables.items()})


def _normalised(frame: pl.DataFrame) -> pl.DataFrame:
    columns = (c for c in frame.iter_columns() if not _has_no_fields(c.dtype))
    return pl.DataFrame({column.name: _normal(column) for column in columns})


def _has_no_fields(kind: Any) -> bool:  # a type of polars
    """Whether a type has objects without fields in it: no file can hold them."""
    if isinstance(kind, pl.Struct):
        return not kind.fields or any(_has_no_fields(field.dtype) for field in kind.fields)
    return isinstance(kind, (pl.List, pl.Array)) and _has_no_fields(kind.inner)


def _normal(column: pl.Series) -> pl.Series:
    if column.name in (USER, ITEM):
        return _id(column)
    if column.name in (QUANTITY, VALUE):
        return as_numbers(column)
    return as_words(column) if column.name in WORDS else column


def _id(ids: pl.Series) -> pl.Series:
    """Int64 where all are whole numbers that fit, else text; "" is no id."""
    if ids.dtype.is_float():  # pandas turns integers beside a missing one into floats
        return ids.cast(pl.Int64, strict=False)
    if ids.dtype.is_integer():
        fits = ids.cast(pl.Int64, strict=False)
        return fits if fits.null_count() == ids.null_count() else ids.cast(pl.String)
    text = ids.cast(pl.String)
    empty = text == ""
    return text.set(empty, None) if empty.any() else text


def as_numbers(column: pl.Series) -> pl.Series:
    """Int64 or Float64, so that sums fit, whatever they are kept in; else as they are."""
    kind = column.dtype
    if not (kind.is_numeric() or kind in (*_TEXT, pl.Null)):
        return column
    is_whole = not (kind.is_float() or kind.is_decimal())
    values = column.cast(pl.String) if kind in _TEXT else column
    for number in (pl.Int64, pl.Float64) if is_whole else (pl.Float64,):
        numbers = values.cast(number, strict=False)
        if numbers.null_count() == values.null_count():
            return numbers
    return column


def _with_one_type_of_ids(tables: Tables) -> Tables:
    """Ids are text in both tables where they are text in one: an integer is written in one way."""
    frames = dict(tables)
    for key, table in ((ITEM, "items"), (USER, "users")):
        if table in frames and frames[table][key].dtype != frames["events"][key].dtype:
            for name in ("events", table):
                frames[name] = frames[name].with_columns(pl.col(key).cast(pl.String))
    return frames


def readable_times(events: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Events with timestamps as Datetime or Int64, and what could not be read."""
    times = events[TIME]
    problems = []
    if times.dtype.is_integer() or times.dtype == pl.Null:
        parsed = times.cast(pl.Int64, strict=False)
    elif times.dtype in _TEXT:
        parsed = _parsed(times.cast(pl.String))
    elif times.dtype in (pl.Datetime, pl.Date):
        parsed = times
    else:
        return events, [f"timestamp: {times.dtype} is no time; give a datetime or an integer"]
    lost = parsed.is_null() & times.is_not_null()
    if lost.any():
        value, row = times.filter(lost)[0], lost.arg_true()[0]
        problems.append(
            f"timestamp: {lost.sum()} unreadable, the first {value!r} in row {row + 1}; write all "
            "in one form of ISO 8601, such as 2024-01-31 or 2024-01-31 18:05:00"
        )
    if parsed.dtype.is_temporal():
        problems += (years := list(_impossible_years(parsed)))
        zone = getattr(parsed.dtype, "time_zone", None)
        # Times far off are beyond what polars can convert or show.
        parsed = parsed.to_physical() if years else parsed.cast(pl.Datetime("us", zone))
    return events.with_columns(parsed.alias(TIME)), problems


def _parsed(times: pl.Series) -> pl.Series:
    """Integers, or the form of ISO 8601 that reads most of the texts."""
    num_values = len(times) - times.null_count()
    best = times.cast(pl.Int64, strict=False)
    some = times.drop_nulls().head(_SAMPLE)
    # What reads the first rows most likely reads all of them.
    for form in sorted(_TIME_FORMS, key=lambda form: _in_form(some, form).null_count()):
        if len(best) - best.null_count() == num_values:
            break
        best = min(best, _in_form(times, form), key=pl.Series.null_count)
    return best


def _in_form(times: pl.Series, form: str) -> pl.Series:
    return times.str.to_datetime(form, time_unit="us", strict=False)


def _impossible_years(times: pl.Series) -> Iterator[str]:
    kind = times.dtype
    plain = pl.Datetime(kind.time_unit) if isinstance(kind, pl.Datetime) else kind
    bounds = pl.Series([datetime(year, 1, 1) for year in (FIRST_YEAR, LAST_YEAR)]).cast(plain)
    first, end = bounds.to_physical()
    ticks = times.to_physical()
    outside = (ticks < first) | (ticks >= end)
    if outside.any():
        row = outside.arg_true()[0]
        year = FIRST_YEAR + (ticks[row] - first) * (LAST_YEAR - FIRST_YEAR) // (end - first)
        yield (
            f"timestamp: {outside.sum()} outside the years {FIRST_YEAR} to {LAST_YEAR - 1}, the "
            f"first in row {row + 1}, of about the year {year}"
        )


def _impossible_values(events: pl.DataFrame) -> Iterator[str]:
    if events.is_empty():
        yield "no events: the log has no rows"
        return
    for column in [c for c in (*REQUIRED, BASKET) if c in events.columns]:
        nulls = events[column].is_null()
        if nulls.any():
            first = nulls.arg_true()[0] + 1
            yield f"{column}: {nulls.sum()} null, the first in row {first}; leave such rows out"
    if QUANTITY in events.columns:
        yield from _bad_quantities(events[QUANTITY])
    if VALUE in events.columns:
        yield from _bad_numbers(events[VALUE])
    first, last = events[USER].min(), events[USER].max()
    if first is not None and first == last:
        yield "user_id: one user only; a recommender learns from at least two"


def _bad_quantities(quantity: pl.Series) -> Iterator[str]:
    if not quantity.dtype.is_numeric():
        yield from _bad_numbers(quantity)
        return
    numbers = quantity.cast(pl.Float64)
    lost = quantity.is_null() | ~numbers.is_finite()
    for words, bad, remedy in (
        ("blank or no number", lost, "write how many, or leave such rows out"),
        ("negative", ~lost & (numbers < 0), "leave returns out"),
    ):
        if bad.any():
            row = bad.arg_true()[0]
            first = "" if quantity[row] is None else f" {quantity[row]}"
            yield f"{QUANTITY}: {bad.sum()} {words}, the first{first} in row {row + 1}; {remedy}"


def _bad_numbers(numbers: pl.Series) -> Iterator[str]:
    """Text that is no number, and infinities; nulls and NaN are unknown."""
    if numbers.dtype in _TEXT:
        text = numbers.cast(pl.String)
        bad = text.is_not_null() & text.cast(pl.Float64, strict=False).is_null()
        of = "are no numbers"
    elif numbers.dtype.is_numeric():
        bad, of = numbers.is_infinite(), "are infinite"
    else:
        yield f"{numbers.name}: {numbers.dtype} is no number"
        return
    if bad.any():
        value, row = numbers.filter(bad)[0], bad.arg_true()[0]
        yield (
            f"{numbers.name}: {bad.sum()} {of}, the first {value!r} in row {row + 1}; write plain "
            "numbers, such as 2 or 1.50, or leave such rows out"
        )


def key_problems(items: pl.DataFrame | None, users: pl.DataFrame | None) -> Iterator[str]:
    """What is wrong with the ids of the tables of items and users."""
    yield from _bad_keys("items", items, ITEM)
    yield from _bad_keys("users", users, USER)


def _bad_keys(table: str, frame: pl.DataFrame | None, key: str) -> Iterator[str]:
    if frame is None:
        return
    keys = frame[key]
    if keys.null_count():
        yield f"{table}: {keys.null_count()} rows without {key}"
    repeated = keys.filter(keys.is_duplicated()).drop_nulls().unique().sort()
    if len(repeated):
        yield f"{table}: {len(repeated)} {key} more than once, the first {repeated[0]!r}"


def complete(ids: pl.Series, attributes: pl.DataFrame | None, *, keep_unseen: bool) -> pl.DataFrame:
    """A row per id, ordered by id, with the attributes where they are known."""
    if attributes is None:
        return ids.sort().to_frame()
    how: Literal["full", "left"] = "full" if keep_unseen else "left"
    return ids.to_frame().join(attributes, on=ids.name, how=how, coalesce=True).sort(ids.name)
