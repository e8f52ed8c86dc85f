"""EventLog: who did what with which item, and when. The form in which every data set enters.

Three polars frames. `events` holds `user_id`, `item_id` and `timestamp`, and, where the log has
them, `basket_id`, `event`, `quantity`, `value` and any further context columns. `items` and `users`
hold a row per id with whatever is known of it; by convention `items.title` is what a person reads
and `items.text` what a language model reads.

`timestamp` is a `Datetime`, or an integer where a log knows the order of events but not their time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import polars as pl

from recsys.errors import DataError
from recsys.fingerprint import fingerprint

USER, ITEM, TIME = "user_id", "item_id", "timestamp"
BASKET, QUANTITY, VALUE = "basket_id", "quantity", "value"
REQUIRED = (USER, ITEM, TIME)

_TEXT = (pl.String, pl.Categorical, pl.Enum)
_DATE, _CLOCK = "%Y-%m-%d", "%H:%M"
_TIME_FORMS = (
    _DATE,
    *(f"{_DATE}{gap}{_CLOCK}{seconds}" for gap in " T" for seconds in (":%S%.f", "")),
    "%+",
)


@dataclass(frozen=True, eq=False)
class EventLog:
    """A validated log: build it with `EventLog.from_frames`.

    Attributes:
        name: what reports call the log.
        events: one row per event, ordered by user, then time, then the order of the input.
            Rows of one basket stand together.
        items: one row per item that the events or the given items name, ordered by id.
        users: one row per user that the events name, ordered by id.
        out_of_order: how many rows the input gave after a later event of their user.
    """

    name: str
    events: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    out_of_order: int = 0

    @classmethod
    def from_frames(
        cls,
        events: pl.DataFrame,
        items: pl.DataFrame | None = None,
        users: pl.DataFrame | None = None,
        *,
        name: str = "log",
    ) -> EventLog:
        """Check the frames, bring them into order and return them as a log.

        Args:
            events: columns `user_id`, `item_id`, `timestamp` and any others. Ids are integers or
                text. Timestamps are datetimes, dates, integers (order only) or ISO 8601 text.
            items: `item_id` and attributes. Items without a row get one of nulls.
            users: `user_id` and attributes. Users without an event are left out.
            name: what reports call the log.

        Raises:
            DataError: one message with everything that is wrong: missing columns, nulls,
                unreadable timestamps, impossible quantities, duplicate keys, no rows, one user.
        """
        for checks in (_missing_columns(events, items, users), _bad_ids(events, items, users)):
            _raise(name, checks)
        events = _normalised_ids(events, USER, ITEM)
        items = None if items is None else _normalised_ids(items, ITEM)
        users = None if users is None else _normalised_ids(users, USER)
        readable, unreadable = _readable_times(events)
        keys = (*_bad_keys("items", items, events[ITEM]), *_bad_keys("users", users, events[USER]))
        _raise(name, (*unreadable, *_impossible_values(events), *keys))
        ordered, out_of_order = _in_time_order(readable)
        return cls(
            name,
            _baskets_together(ordered),
            _complete(ordered[ITEM].unique(), items, keep_unseen=True),
            _complete(ordered[USER].set_sorted().unique(), users, keep_unseen=False),
            out_of_order,
        )

    @property
    def num_events(self) -> int:
        return len(self.events)

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same events, items and users, whatever files they were read from."""
        return fingerprint((self.events, self.items, self.users))

    @property
    def has_calendar_time(self) -> bool:
        """Whether timestamps are times, not only an order."""
        return self.events[TIME].dtype.is_temporal()

    def with_events(self, events: pl.DataFrame) -> EventLog:
        """The same log with fewer events, in the same order; items and users follow."""
        seen = events[ITEM].unique().to_frame(), events[USER].set_sorted().unique().to_frame()
        items = self.items.join(seen[0], on=ITEM, maintain_order="left", how="semi")
        users = self.users.join(seen[1], on=USER, maintain_order="left", how="semi")
        return replace(self, events=events, users=users, items=items)


def _raise(name: str, problems: Iterable[str]) -> None:
    if found := "; ".join(problems):
        raise DataError(f"{name}: {found}")


def _in_time_order(events: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Events by user, then time, then input order, and how many the input had after a later one."""
    ordered = _sorted_by_user_and_time(events.with_row_index("_row"))
    row, user = ordered["_row"], ordered[USER]
    late = (row < row.shift()) & (user == user.shift())
    return ordered.drop("_row"), int(late.sum())


def _baskets_together(events: pl.DataFrame) -> pl.DataFrame:
    """The rows of a basket side by side; a basket stands where its first event does."""
    if BASKET not in events.columns:
        return events
    same = (pl.col(c) == pl.col(c).shift() for c in (USER, BASKET))
    stretches, baskets = events.select(
        (~pl.all_horizontal(same).fill_null(False)).sum().alias("stretches"),
        pl.struct(USER, BASKET).n_unique().alias("baskets"),
    ).row(0)
    if stretches == baskets:
        return events
    first = pl.col("_row").first().over(USER, BASKET)
    placed = events.with_row_index("_row").with_columns(first)
    return placed.sort("_row", maintain_order=True).drop("_row")


def _sorted_by_user_and_time(events: pl.DataFrame) -> pl.DataFrame:
    users, times = events[USER], events[TIME].to_physical()
    if not users.dtype.is_integer() or events.is_empty():
        return events.sort(USER, TIME, maintain_order=True)
    first_user, first_time = int(users.min()), int(times.min())  # type: ignore[arg-type]
    span = int(times.max()) - first_time + 1  # type: ignore[arg-type]
    if (int(users.max()) - first_user + 1) * span >= 2**63:  # type: ignore[arg-type]
        return events.sort(USER, TIME, maintain_order=True)
    # One packed 64-bit key sorts four times as fast as two columns, and is both of them afterwards.
    key = (users.cast(pl.Int64) - first_user) * span + (times.cast(pl.Int64) - first_time)
    others = events.drop(USER, TIME).with_columns(key.alias("_key"))
    ordered = others.sort("_key", maintain_order=True)
    user = (ordered["_key"] // span + first_user).alias(USER)
    time = (ordered["_key"] % span + first_time).cast(events[TIME].dtype).alias(TIME)
    return ordered.with_columns(user, time).select(events.columns)


def _missing_columns(
    events: pl.DataFrame, items: pl.DataFrame | None, users: pl.DataFrame | None
) -> Iterator[str]:
    wanted = [("events", events, REQUIRED), ("items", items, (ITEM,)), ("users", users, (USER,))]
    for table, frame, columns in wanted:
        missing = [column for column in columns if frame is not None and column not in frame]
        if frame is not None and missing:
            there = ", ".join(frame.columns) or "none"
            yield f"{table}: no column {', '.join(missing)} (there are: {there})"


def _bad_ids(
    events: pl.DataFrame, items: pl.DataFrame | None, users: pl.DataFrame | None
) -> Iterator[str]:
    columns = [events[USER], events[ITEM]]
    columns += [frame[key] for frame, key in ((items, ITEM), (users, USER)) if frame is not None]
    for ids in columns:
        if ids.dtype.is_float():
            broken = ids.filter(ids.is_finite() & (ids != ids.round()))
            if len(broken):
                yield f"{ids.name}: {broken[0]} is no id; ids are integers or text"
        elif not (ids.dtype.is_integer() or ids.dtype in _TEXT):
            yield f"{ids.name}: {ids.dtype} is no id; ids are integers or text"


def _normalised_ids(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Ids as Int64 where they are whole numbers that fit and as String otherwise."""
    return frame.with_columns(_normalised(frame[column]) for column in columns)


def _normalised(ids: pl.Series) -> pl.Series:
    if ids.dtype.is_float():  # pandas turns integers beside a missing one into floats
        return ids.cast(pl.Int64, strict=False)
    if ids.dtype.is_integer():
        fits = ids.cast(pl.Int64, strict=False)
        return fits if fits.null_count() == ids.null_count() else ids.cast(pl.String)
    return ids.cast(pl.String)


def _readable_times(events: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Events with timestamps as Datetime or Int64, and what could not be read."""
    times = events[TIME]
    if times.dtype.is_integer():
        parsed = times.cast(pl.Int64)
    elif times.dtype == pl.String:
        parsed = _parsed(times)
    elif times.dtype in (pl.Datetime, pl.Date):
        parsed = times.cast(pl.Datetime("us", getattr(times.dtype, "time_zone", None)))
    else:
        return events, [f"timestamp: {times.dtype} is no time; give a datetime or an integer"]
    lost = parsed.is_null() & times.is_not_null()
    problems = []
    if lost.any():
        value, row = times.filter(lost)[0], lost.arg_true()[0]
        problems.append(f"timestamp: {lost.sum()} unreadable, the first {value!r} in row {row + 1}")
    return events.with_columns(parsed.alias(TIME)), problems


def _parsed(times: pl.Series) -> pl.Series:
    """Integers, or the form of ISO 8601 that reads most of the texts."""
    wanted = len(times) - times.null_count()
    best = times.cast(pl.Int64, strict=False)
    for form in _TIME_FORMS:
        if len(best) - best.null_count() == wanted:
            break
        parsed = times.str.to_datetime(form, time_unit="us", strict=False)
        best = min(best, parsed, key=pl.Series.null_count)
    return best


def _impossible_values(events: pl.DataFrame) -> Iterator[str]:
    if events.is_empty():
        yield "no events: the log has no rows"
        return
    for column in [c for c in (*REQUIRED, BASKET) if c in events.columns]:
        nulls = events[column].is_null()
        if nulls.any():
            yield f"{column}: {nulls.sum()} null, the first in row {nulls.arg_true()[0] + 1}"
    if QUANTITY in events.columns:
        yield from _bad_quantities(events[QUANTITY])
    first, last = events[USER].min(), events[USER].max()
    if first is not None and first == last:
        yield "user_id: one user only; a recommender learns from at least two"


def _bad_quantities(quantity: pl.Series) -> Iterator[str]:
    if not quantity.dtype.is_numeric():
        yield f"{QUANTITY}: {quantity.dtype} is no number"
        return
    bad = (quantity < 0) | quantity.is_null() | ~quantity.cast(pl.Float64).is_finite()
    if bad.any():
        yield (
            f"{QUANTITY}: {bad.sum()} negative or not a number, the first "
            f"{quantity.filter(bad)[0]} in row {bad.arg_true()[0] + 1}; leave returns out"
        )


def _bad_keys(table: str, frame: pl.DataFrame | None, ids: pl.Series) -> Iterator[str]:
    if frame is None:
        return
    keys = frame[ids.name]
    if keys.null_count():
        yield f"{table}: {keys.null_count()} rows without {ids.name}"
    repeated = keys.filter(keys.is_duplicated()).drop_nulls().unique().sort()
    if len(repeated):
        yield f"{table}: {len(repeated)} {ids.name} more than once, the first {repeated[0]!r}"
    if keys.dtype != ids.dtype:
        yield (
            f"{table}: {ids.name} is {keys.dtype} but {ids.dtype} in the events; make both "
            "integers or both text"
        )


def _complete(
    seen: pl.Series, attributes: pl.DataFrame | None, *, keep_unseen: bool
) -> pl.DataFrame:
    """A row per id, ordered by id, with the attributes where they are known."""
    if attributes is None:
        return seen.sort().to_frame()
    how: Literal["full", "left"] = "full" if keep_unseen else "left"
    return seen.to_frame().join(attributes, on=seen.name, how=how, coalesce=True).sort(seen.name)
