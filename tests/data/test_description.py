from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from recsys import EventLog
from recsys.data import audit, describe, statistics
from recsys.data.description import Spread
from recsys.data.sources import amazon_sequences, online_retail
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE

NOW = datetime.now(UTC).replace(tzinfo=None, microsecond=0)


def findings(log: EventLog) -> dict[str, tuple[int, int]]:
    rows = audit(log).select("finding", "count", "of").rows()
    assert len({name for name, *_ in rows}) == len(rows)
    return {name: (count, total) for name, count, total in rows}


def log_of(rows: list[tuple], items: pl.DataFrame | None = None, **columns: list) -> EventLog:
    frame = pl.DataFrame(rows, schema=[USER, ITEM, TIME], orient="row")
    more = [pl.Series(name, values) for name, values in columns.items()]
    return EventLog.from_frames(frame.with_columns(more), items)


def test_neighbours_in_ascending_order_of_every_key() -> None:
    items = pl.DataFrame(
        {ITEM: [1, 2, 3], "asin": ["C", "B", "A"], "brand": ["x", "x", "y"], "title": list("abc")}
    )
    # User 1: 1 2 2 3; user 2: 3 1. Equal neighbours and other users' items make no pair.
    rows = [(1, 1, 0), (1, 2, 1), (1, 2, 2), (1, 3, 3), (2, 3, 0), (2, 1, 1)]
    answers = findings(log_of(rows, items))
    assert answers["neighbours in ascending item_id order"] == (2, 3)
    assert answers["neighbours in ascending asin order"] == (1, 3)
    assert not any("brand" in name or "title" in name for name in answers)


def test_users_with_a_single_timestamp_and_few_events() -> None:
    answers = findings(log_of([(1, 1, 7), (1, 2, 7), (1, 3, 7), (2, 1, 1), (2, 2, 2), (3, 1, 1)]))
    assert answers["users with a single timestamp"] == (2, 3)
    assert answers["users with fewer than 3 events"] == (2, 3)


def test_rows_that_came_after_a_later_one() -> None:
    answers = findings(log_of([(1, 1, 5), (2, 1, 9), (1, 2, 4), (2, 1, 9), (1, 3, 6)]))
    assert answers["rows after a later event of their user"] == (1, 5)
    assert answers["rows that repeat their user_id, item_id, timestamp"] == (1, 5)


def test_times_that_cannot_be_and_the_longest_gap() -> None:
    day = timedelta(days=1)
    times = [datetime(1970, 1, 1), NOW - 2 * day, NOW - day, NOW + day]
    answers = findings(log_of([(user, 1, time) for user in (1, 2) for time in times]))
    assert answers["events in the future"] == (2, 8)
    assert answers["events before 1990"] == (2, 8)
    hours = (NOW - 2 * day - datetime(1970, 1, 1)) // timedelta(hours=1)
    assert answers["hours of the longest stretch without an event"] == (hours, hours + 72)


def test_the_gap_is_told_in_local_time() -> None:
    times = pl.Series(TIME, ["2024-01-01T12:00", "2024-01-02T12:30", "2024-01-02T13:00"])
    times = times.str.to_datetime(time_unit="us", time_zone="America/New_York")
    frame = pl.DataFrame({USER: [1, 2, 1], ITEM: [1, 1, 1], TIME: times})
    gap = audit(EventLog.from_frames(frame)).filter(pl.col("finding").str.contains("stretch"))
    assert gap.select("count", "of", "note").row(0) == (
        24,
        25,
        "2024-01-01 12:00 to 2024-01-02 12:30",
    )


def test_an_order_without_times_asks_nothing_of_times() -> None:
    answers = findings(log_of([(1, 1, 0), (2, 1, 0)]))
    assert not any("future" in name or "stretch" in name for name in answers)


def test_targets_that_the_history_holds() -> None:
    # User 3 has no history and is not asked.
    rows = [(1, 1, 0), (1, 2, 1), (1, 1, 2), (2, 1, 0), (2, 2, 1), (3, 1, 0)]
    answers = findings(log_of(rows))
    assert answers["items of the last event that the history holds"] == (1, 2)
    baskets = findings(log_of(rows, **{BASKET: [0, 1, 1, 0, 0, 0]}))
    assert baskets["items of the last basket that the history holds"] == (1, 2)


def test_baskets_whose_id_comes_again_and_that_are_long() -> None:
    """User 1: a until the 2nd, then b, and a again in February; user 2: a for two days, then b."""
    day = datetime(2024, 1, 1)
    rows = [(1, 1, 0), (1, 2, 1), (1, 3, 1), (1, 1, 31), (2, 1, 0), (2, 2, 2), (2, 3, 9)]
    rows = [(user, item, day + timedelta(days=at)) for user, item, at in rows]
    log = log_of(rows, **{BASKET: ["a", "b", "a", "a", "a", "a", "b"]})
    answers = findings(log)
    assert answers["baskets whose basket_id their user had before"] == (1, 5)
    assert answers["baskets that span more than a day"] == (1, 5)
    # Item 1, which user 1 took on the 1st and in February.
    assert answers["items of the last basket that the history holds"] == (1, 2)
    facts = statistics(log)
    assert facts["baskets"] == 5
    assert facts["baskets a user"].mean == 2.5
    assert facts["rows a basket"] == Spread(7 / 5, (1, 1, 1, 2, 2))
    ordered = findings(
        log_of([(1, 1, 0), (1, 1, 1), (1, 1, 2), (2, 1, 0)], **{BASKET: [0, 1, 0, 0]})
    )
    assert ordered["baskets whose basket_id their user had before"] == (1, 4)
    assert not any("span" in name for name in ordered)


def test_a_log_of_single_baskets_has_no_such_target() -> None:
    table = audit(log_of([(1, 1, 0), (2, 1, 0)], **{BASKET: [0, 0]}))
    row = table.row(by_predicate=pl.col("finding").str.starts_with("items of the last"), named=True)
    assert (row["count"], row["of"], row["share"]) == (0, 0, None)


def test_items_without_words_are_those_with_an_event() -> None:
    items = pl.DataFrame(
        {ITEM: [1, 2, 3, 4], "title": ["Tea", None, " ", None], "text": [None, "x", "", None]}
    )
    rows = [(1, 1, 0), (1, 2, 1), (2, 3, 0)]
    assert findings(log_of(rows, items))["items without words"] == (1, 3)
    assert findings(log_of(rows))["items without words"] == (3, 3)


def test_quantities_in_another_unit() -> None:
    rows = [(user, 1, 0) for user in range(6)]
    answers = findings(log_of(rows, **{QUANTITY: [1, 2, 2, 2, 0, 10_000]}))
    assert answers["quantities above 100 medians"] == (1, 6)
    assert answers["quantities of 0"] == (1, 6)


def test_statistics_by_hand() -> None:
    rows = [(1, 1, 0), (1, 1, 1), (1, 2, 2), (2, 1, 5)]
    items = pl.DataFrame({ITEM: [1, 2, 9], "title": ["Tea", None, None]})
    columns = {BASKET: [0, 1, 1, 0], QUANTITY: [1, 2, 3, 4], VALUE: [0.5, 1.0, 1.0, 1.0]}
    facts = statistics(log_of(rows, items, **columns))
    assert facts == {
        "events": 4,
        "users": 2,
        "items": 2,
        "items without an event": 1,
        "events a user": Spread(2.0, (1, 1, 1, 1, 3)),
        "events an item": Spread(2.0, (1, 1, 1, 1, 3)),
        "density": 3 / 4,
        "repeats": 1 / 4,
        "first event": 0,
        "last event": 5,
        "baskets": 3,
        "baskets a user": Spread(1.5, (1, 1, 1, 1, 2)),
        "rows a basket": Spread(4 / 3, (1, 1, 1, 1, 2)),
        "items with title": 0.5,
        "quantity in all": 10,
        "value in all": 3.5,
    }


def test_description_is_text() -> None:
    times = [datetime(2024, 1, 1), datetime(2024, 1, 2, 3, 4, 5)]
    frame = describe(log_of([(1, 1, times[0]), (2, 1, times[1])] * 1000))
    value_of = dict(frame.iter_rows())
    assert value_of["events"] == "2,000"
    assert value_of["events a user"] == "mean 1,000; quartiles 1,000 1,000 1,000 1,000 1,000"
    assert value_of["last event"] == "2024-01-02 03:04:05"
    assert value_of["repeats"] == "0.999"


@pytest.mark.data
def test_known_oddities_of_public_logs(public_data) -> None:
    count, total = findings(amazon_sequences.beauty())["neighbours in ascending asin order"]
    assert count / total == pytest.approx(0.6937, abs=5e-5)
    assert findings(online_retail.invoices())["users with a single timestamp"] == (20_683, 20_725)


def test_last_events_at_the_time_of_those_before() -> None:
    # Users 1 and 2 tie, 3 does not, and 4 has nothing before.
    rows = [(1, 1, 5), (1, 2, 5), (2, 1, 3), (2, 2, 7), (2, 3, 7), (3, 1, 5), (3, 2, 6), (4, 1, 1)]
    name = "users whose last event has the time of the event before"
    assert findings(log_of(rows))[name] == (2, 3)
    table = audit(log_of(rows)).filter(pl.col("finding") == name)
    assert "task=next_basket" in table["note"][0]
    # Of baskets only those of user 2 tie: that of user 1 holds all.
    baskets = findings(log_of(rows, **{BASKET: [1, 1, 1, 2, 3, 1, 2, 1]}))
    assert baskets["users whose last basket has the time of the event before"] == (1, 2)


def test_sums_of_small_integers_are_right() -> None:
    values = pl.Series(VALUE, [2_000_000_000] * 2, dtype=pl.Int32)
    frame = pl.DataFrame({USER: [1, 2], ITEM: [1, 1], TIME: [1, 2]}).with_columns(values)
    assert statistics(EventLog.from_frames(frame))["value in all"] == 4_000_000_000
