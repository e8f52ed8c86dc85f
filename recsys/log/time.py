"""Moments: a date or time in words as a log's timestamps count, and days before and after it.

A moment is a series of one value, of the type of the log's timestamps. Words without a time zone
are read on the clock of the log, and days are days of that clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import cast

import polars as pl

from recsys.errors import ConfigError, DataError
from recsys.log.event_log import FIRST_YEAR, LAST_YEAR, TIME, EventLog, readable_times

Moment = datetime | date | str | int
"""A time, or ISO 8601 text; an integer for a log that knows only an order."""

MOST_DAYS = (LAST_YEAR - FIRST_YEAR) * 366
"""From one end of what logs may hold to the other; beyond it are years that cannot be shown."""


def moment(log: EventLog, name: str, when: Moment) -> pl.Series:
    """A moment of a log; of an hour that clocks show twice, the first.

    Args:
        log: in whose time zone words without one are read; a log without one is in UTC.
        name: of the option, for the error.
        when: the moment.

    Raises:
        ConfigError: not a moment of the log's kind, or one that a change of clocks left out.

    >>> rows = {"user_id": [1, 2], "item_id": [7, 7], "timestamp": ["2024-05-01", "2024-05-03"]}
    >>> log = EventLog.from_frames(pl.DataFrame(rows))
    >>> moment(log, "test_start", "2024-05-02")[0]
    datetime.datetime(2024, 5, 2, 0, 0)
    """
    kind = log.events[TIME].dtype
    form = "a time, such as 2017-12-04" if log.has_calendar_time else "an integer"
    wrong = ConfigError(f"{name}={when!r}: the timestamps of {log.name} ask for {form}")
    try:
        if not isinstance(kind, pl.Datetime):
            return pl.Series([int(str(when))], dtype=kind)
        if isinstance(when, int):
            raise wrong
        time = datetime.fromisoformat(str(when))
        in_utc = None if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        raise wrong from None
    zone = kind.time_zone
    if in_utc is not None:
        utc = pl.Series([in_utc], dtype=pl.Datetime("us", "UTC"))
        local = utc.dt.replace_time_zone(None) if zone is None else utc.dt.convert_time_zone(zone)
        return local.cast(kind)
    clock = pl.Series([time], dtype=pl.Datetime("us"))
    local = _on_clock(clock, zone)
    if local.null_count():
        raise ConfigError(
            f"{name}={when}: no such time in {zone}; clocks were put forward, "
            f"give {_put_forward(clock, zone)[0]:%Y-%m-%dT%H:%M}"
        )
    return local.cast(kind)


def moments(log: EventLog, name: str, times: pl.Series) -> pl.Series:
    """A column of moments as a log's timestamps count.

    Args:
        log: in whose time zone times without one are read.
        name: of the column, for the error.
        times: datetimes, dates, ISO 8601 text, or integers for a log that knows only an order.

    Raises:
        DataError: a time that cannot be read, is not of the log's kind, or is missing.
    """
    frame, problems = readable_times(pl.DataFrame({TIME: times}))
    kind, parsed = log.events[TIME].dtype, frame[TIME]
    if problems:
        raise DataError(f"{name}: {problems[0].removeprefix(f'{TIME}: ')}")
    if parsed.null_count():
        row = parsed.is_null().arg_true()[0] + 1
        raise DataError(f"{name}: row {row} has no time; leave such rows out")
    if parsed.dtype.is_temporal() != log.has_calendar_time:
        has = "times" if parsed.dtype.is_temporal() else "integers"
        wants = "times" if log.has_calendar_time else "integers, an order"
        raise DataError(f"{name}: holds {has}, and the timestamps of {log.name} are {wants}")
    if not isinstance(kind, pl.Datetime):
        return parsed
    zone = getattr(parsed.dtype, "time_zone", None)
    if zone is None:
        local = _on_clock(parsed, kind.time_zone)
        return local.fill_null(_put_forward(parsed, kind.time_zone)).cast(kind)
    utc = parsed.dt.convert_time_zone(kind.time_zone or "UTC")
    return (utc if kind.time_zone else utc.dt.replace_time_zone(None)).cast(kind)


def at_shares(log: EventLog, shares: Sequence[float]) -> list[str]:
    """The moments at which shares of a log's time are over, as options name them: whole days.

    >>> rows = {"user_id": [1, 2], "item_id": [1, 1], "timestamp": ["2024-01-01", "2024-01-11"]}
    >>> at_shares(EventLog.from_frames(pl.DataFrame(rows)), [0.5, 1.0])
    ['2024-01-06', '2024-01-11']
    """
    times = log.events[TIME]
    first, last = times.to_physical().min(), times.to_physical().max()
    assert isinstance(first, int)
    assert isinstance(last, int)
    counts = [first + round((last - first) * share) for share in shares]
    at = pl.Series(counts, dtype=pl.Int64).cast(times.dtype)
    return [f"{when:%Y-%m-%d}" if isinstance(when, date) else str(when) for when in at]


def days_after(when: pl.Series, days: int) -> pl.Series:
    """Moments so many days later, or earlier where `days` is negative, at the same hour.

    Where clocks are put forward over that hour, it is as much later as they are.

    Raises:
        ConfigError: so many days that no log could hold them.
    """
    if abs(days) > MOST_DAYS:
        raise ConfigError(
            f"{abs(days)} days from {when[0]} are more than any log holds; give at most {MOST_DAYS}"
        )
    return _from_clock(_clock(when).dt.offset_by(f"{days}d"), when)


def next_day(when: pl.Series) -> pl.Series:
    """When the days end that moments lie in."""
    return _from_clock(_clock(when).dt.truncate("1d").dt.offset_by("1d"), when)


def just_after(when: pl.Series) -> pl.Series:
    """The first moments of the series' type that are later."""
    return (when.to_physical() + 1).cast(when.dtype)


def _clock(when: pl.Series) -> pl.Series:
    """What a clock of their time zone shows at moments."""
    return when.dt.replace_time_zone(None)


def _from_clock(clock: pl.Series, like: pl.Series) -> pl.Series:
    """Moments by what a clock shows, in the time zone of others."""
    zone = cast(pl.Datetime, like.dtype).time_zone
    return _on_clock(clock, zone).fill_null(_put_forward(clock, zone))


def _on_clock(clock: pl.Series, zone: str | None) -> pl.Series:
    """Local times in a zone; null where it has no such time."""
    return clock.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")


def _put_forward(clock: pl.Series, zone: str | None) -> pl.Series:
    """Local times that a zone has not, as much later as its clocks were put forward."""
    return _on_clock(clock.dt.offset_by("-1d"), zone).dt.offset_by("24h")
