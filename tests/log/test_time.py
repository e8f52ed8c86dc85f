"""Moments on the clock of a log, and days that clocks make longer or leave out."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from recsys.errors import ConfigError
from recsys.log.event_log import EventLog
from recsys.log.time import days_after, just_after, moment, next_day

SKIPPED = [
    ("America/Santiago", "2023-09-03"),
    ("Africa/Cairo", "2023-04-28"),
    ("America/Sao_Paulo", "2017-10-15"),
]
"""Midnights that were not: clocks went on from 23:59 to 1:00."""


def dated(zone: str | None) -> EventLog:
    times = pl.Series([datetime(2017, 1, 1), datetime(2023, 12, 1)]).dt.replace_time_zone(zone)
    return EventLog.from_frames(pl.DataFrame({"user_id": [1, 2], "item_id": 1, "timestamp": times}))


def ordered() -> EventLog:
    return EventLog.from_frames(
        pl.DataFrame({"user_id": [1, 2], "item_id": 1, "timestamp": [3, 4]})
    )


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize(
    "when", ["2023-05-01", date(2023, 5, 1), datetime(2023, 5, 1), "2023-05-01T00:00:00"]
)
def test_a_moment_is_on_the_clock_of_the_log(zone: str | None, when: str | date) -> None:
    when_read = moment(dated(zone), "as_of", when)
    assert when_read.dtype == pl.Datetime("us", zone)
    assert when_read.dt.replace_time_zone(None).to_list() == [datetime(2023, 5, 1)]


def test_a_moment_may_name_its_own_zone() -> None:
    for when in ("2023-05-01T14:00+02:00", datetime(2023, 5, 1, 12, tzinfo=UTC)):
        assert moment(dated(None), "as_of", when).to_list() == [datetime(2023, 5, 1, 12)]
        (hour,) = moment(dated("America/New_York"), "as_of", when).dt.hour()
        assert hour == 8


def test_of_an_hour_that_clocks_show_twice_it_is_the_first() -> None:
    (seconds,) = moment(dated("America/New_York"), "as_of", "2023-11-05T01:30").dt.epoch("s")
    assert seconds == datetime(2023, 11, 5, 5, 30, tzinfo=UTC).timestamp()


def test_in_an_order_a_moment_is_a_place() -> None:
    assert [moment(ordered(), "as_of", when)[0] for when in (7, "7", "-7")] == [7, 7, -7]
    assert moment(ordered(), "as_of", 7).dtype == pl.Int64


@pytest.mark.parametrize("when", ["soon", 3, 20230501, True, "2023-13-01", ""])
def test_what_is_no_time(when: object) -> None:
    with pytest.raises(ConfigError, match=f"test={when!r}: the timestamps of log ask for a time"):
        moment(dated(None), "test", when)  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["soon", "2023-05-01", datetime(2023, 5, 1), True, 2**70])
def test_what_is_no_place(when: object) -> None:
    with pytest.raises(ConfigError, match=r"test=.*: the timestamps of log ask for an integer"):
        moment(ordered(), "test", when)  # type: ignore[arg-type]


@pytest.mark.parametrize(("zone", "day"), SKIPPED)
def test_an_hour_that_clocks_left_out(zone: str, day: str) -> None:
    message = f"test={day}: no such time in {zone}; clocks were put forward, give {day}T01:00"
    with pytest.raises(ConfigError, match=message):
        moment(dated(zone), "test", day)


@pytest.mark.parametrize(("zone", "day"), SKIPPED)
@pytest.mark.parametrize("days", [-28, 1, 28])
def test_days_that_begin_at_an_hour_left_out_begin_when_clocks_go_on(
    zone: str, day: str, days: int
) -> None:
    other = days_after(moment(dated(zone), "", f"{day}T01:00"), -days)
    midnight = other.dt.truncate("1d")
    assert midnight.dt.hour().to_list() == [0]
    assert days_after(midnight, days).to_list() == moment(dated(zone), "", f"{day}T01:00").to_list()


def test_days_keep_the_hour_where_clocks_change() -> None:
    before = moment(dated("America/New_York"), "", "2023-03-11T12:00")
    after = days_after(before, 1)
    assert after.dt.hour().to_list() == [12]
    assert (after - before).dt.total_hours().to_list() == [23]
    assert days_after(after, -1).to_list() == before.to_list()


def test_the_end_of_a_day() -> None:
    zone = "America/Santiago"
    last = moment(dated(zone), "", "2023-09-02T18:30")
    assert next_day(last).dt.replace_time_zone(None).to_list() == [datetime(2023, 9, 3, 1)]
    midnight = pl.Series([datetime(2023, 9, 2)])
    assert next_day(midnight).to_list() == [datetime(2023, 9, 3)]


def test_just_after() -> None:
    assert just_after(pl.Series([5, 7])).to_list() == [6, 8]
    (microseconds,) = just_after(moment(dated("UTC"), "", "2023-05-01")).dt.epoch("us")
    assert microseconds == datetime(2023, 5, 1, tzinfo=UTC).timestamp() * 10**6 + 1
