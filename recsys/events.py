"""EventLog: who did what with which item, and when. The form in which every data set enters.

Three polars frames. `events` holds `user_id`, `item_id` and `timestamp`, and, where the log has
them, `basket_id`, `event`, `quantity`, `value` and any further context columns. `items` and `users`
hold a row per id with whatever is known of it; by convention `items.title` is what a person reads
and `items.text` what a language model reads.

`timestamp` is a `Datetime`, or an integer where a log knows the order of events but not their time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from recsys.errors import DataError

USER, ITEM, TIME = "user_id", "item_id", "timestamp"
BASKET, QUANTITY, VALUE = "basket_id", "quantity", "value"
REQUIRED = (USER, ITEM, TIME)


@dataclass(frozen=True, eq=False)
class EventLog:
    """A validated log: build it with `EventLog.from_frames`.

    Attributes:
        name: what reports call the log.
        events: one row per event, ordered by user, then time, then the order of the input.
            Rows of one basket stand together.
        items: one row per item that the events or the given items name, ordered by id.
        users: one row per user that the events name, ordered by id.
    """

    name: str
    events: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame

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
        problems = list(_missing_columns(events, items, users))
        if problems:
            raise DataError(f"{name}: " + "; ".join(problems))
        events = _normalised_ids(events, USER, ITEM)
        items = None if items is None else _normalised_ids(items, ITEM)
        users = None if users is None else _normalised_ids(users, USER)
        readable, unreadable = _readable_times(events)
        problems += [*unreadable, *_impossible_values(events)]
        problems += [*_bad_keys("items", items, ITEM), *_bad_keys("users", users, USER)]
        if problems:
            raise DataError(f"{name}: " + "; ".join(problems))
        events = in_order(readable)
        return cls(
            name,
            events,
            _complete(events[ITEM], items, keep_unseen=True),
            _complete(events[USER], users, keep_unseen=False),
        )

    @property
    def num_events(self) -> int:
        return len(self.events)

    @property
    def has_calendar_time(self) -> bool:
        """Whether timestamps are times, not only an order."""
        return self.events[TIME].dtype.is_temporal()

    def with_events(self, events: pl.DataFrame) -> EventLog:
        """The same log with fewer events, in the same order; items and users follow."""
        users = self.users.join(
            events.select(USER).unique(), on=USER, maintain_order="left", how="semi"
        )
        items = self.items.join(
            events.select(ITEM).unique(), on=ITEM, maintain_order="left", how="semi"
        )
        return replace(self, events=events, users=users, items=items)


def in_order(events: pl.DataFrame) -> pl.DataFrame:
    """Events by user, then time, then input order, with the rows of a basket side by side.

    A basket's time is that of its first event.
    """
    if BASKET not in events.columns:
        return _sorted_by_user_and_time(events)
    row = pl.int_range(pl.len(), dtype=pl.UInt32)
    basket = [USER, BASKET]
    started = events.with_columns(
        pl.col(TIME).min().over(basket).alias("_started"), row.min().over(basket).alias("_first")
    )
    keys = [USER, "_started", "_first", TIME]
    return started.sort(keys, maintain_order=True).drop("_started", "_first")


def _sorted_by_user_and_time(events: pl.DataFrame) -> pl.DataFrame:
    users, times = events[USER], events[TIME].to_physical()
    if not users.dtype.is_integer() or events.is_empty():
        return events.sort(USER, TIME, maintain_order=True)
    first_user, first_time = int(users.min()), int(times.min())  # type: ignore[arg-type]
    span = int(times.max()) - first_time + 1  # type: ignore[arg-type]
    if (int(users.max()) - first_user + 1) * span >= 2**63:  # type: ignore[arg-type]
        return events.sort(USER, TIME, maintain_order=True)
    # One packed 64-bit key sorts four times as fast as two columns.
    key = (users.cast(pl.Int64) - first_user) * span + (times.cast(pl.Int64) - first_time)
    return events.with_columns(key.alias("_key")).sort("_key", maintain_order=True).drop("_key")


def _missing_columns(
    events: pl.DataFrame, items: pl.DataFrame | None, users: pl.DataFrame | None
) -> Iterator[str]:
    wanted = [("events", events, REQUIRED), ("items", items, (ITEM,)), ("users", users, (USER,))]
    for table, frame, columns in wanted:
        missing = [column for column in columns if frame is not None and column not in frame]
        if frame is not None and missing:
            there = ", ".join(frame.columns) or "none"
            yield f"{table}: no column {', '.join(missing)} (there are: {there})"


def _normalised_ids(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Ids as Int64 where they are integers and as String otherwise."""
    casts = {c: pl.Int64 if frame[c].dtype.is_integer() else pl.String for c in columns}
    return frame.with_columns(pl.col(c).cast(dtype) for c, dtype in casts.items())


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
    numbers = times.cast(pl.Int64, strict=False)
    if numbers.null_count() == times.null_count():
        return numbers
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"):
        parsed = times.str.to_datetime(form, time_unit="us", strict=False)
        if parsed.null_count() < len(times):
            return parsed
    return times.str.to_datetime("%+", time_unit="us", strict=False)


def _impossible_values(events: pl.DataFrame) -> Iterator[str]:
    if events.is_empty():
        yield "no events: the log has no rows"
        return
    for column in REQUIRED:
        nulls = events[column].is_null()
        if nulls.any():
            yield f"{column}: {nulls.sum()} null, the first in row {nulls.arg_true()[0] + 1}"
    for column in {QUANTITY}.intersection(events.columns):
        if not events[column].dtype.is_numeric():
            yield f"{column}: {events[column].dtype} is no number"
            continue
        bad = (
            (events[column] < 0)
            | events[column].is_null()
            | ~events[column].cast(float).is_finite()
        )
        if bad.any():
            value, row = events[column].filter(bad)[0], bad.arg_true()[0]
            yield (
                f"{column}: {bad.sum()} negative or not a number, the first {value} in row "
                f"{row + 1}; drop returns or give them an event column"
            )
    if events[USER].n_unique() < 2:
        yield "user_id: one user only; a recommender learns from at least two"


def _bad_keys(table: str, frame: pl.DataFrame | None, key: str) -> Iterator[str]:
    if frame is None:
        return
    if frame[key].null_count():
        yield f"{table}: {frame[key].null_count()} rows without {key}"
    repeated = frame[key].filter(frame[key].is_duplicated()).unique().sort()
    if len(repeated):
        yield f"{table}: {len(repeated)} {key} more than once, the first {repeated[0]!r}"


def _complete(
    ids: pl.Series, attributes: pl.DataFrame | None, *, keep_unseen: bool
) -> pl.DataFrame:
    """A row per id, ordered by id, with the attributes where they are known."""
    seen = ids.unique().to_frame()
    if attributes is None:
        return seen.sort(ids.name)
    if attributes[ids.name].dtype != ids.dtype:
        raise DataError(
            f"{ids.name}: {ids.dtype} in the events but {attributes[ids.name].dtype} in its table; "
            "make both integers or both text"
        )
    how = "full" if keep_unseen else "left"
    return seen.join(attributes, on=ids.name, how=how, coalesce=True).sort(ids.name)  # type: ignore[arg-type]
