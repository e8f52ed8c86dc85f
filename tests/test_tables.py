"""The lines that a run ends with."""

import polars as pl
import pytest

from recsys import EventLog
from recsys.events import BASKET, ITEM, TIME, USER
from recsys.splits import last_basket, leave_last_out
from recsys.tables import ties, unread


def log_of(times: dict[int, list[int]], **columns: object) -> EventLog:
    """Users with an event at each of their times, of a new item each."""
    rows = [(user, item, time) for user, of in times.items() for item, time in enumerate(of)]
    frame = pl.DataFrame(rows, schema=[USER, ITEM, TIME], orient="row")
    return EventLog.from_frames(frame.with_columns(**columns))


TIMES = {1: [1, 2, 3, 3], 2: [1, 2, 3, 4], 3: [5, 5, 5], 4: [7, 7]}


def test_targets_that_tie_with_the_event_before() -> None:
    # Users 1 and 3 of those three that are asked.
    (line,) = ties(leave_last_out(log_of(TIMES)))
    assert line.startswith("67% of the 3 test users have a target with the timestamp of the event")
    assert "task=next_basket data.columns.basket_id=COLUMN asks for whole baskets" in line
    assert not list(ties(leave_last_out(log_of({1: [1, 2, 3, 4], 2: [3, 4, 5]}))))


def test_of_a_log_with_baskets_the_task_is_named_alone() -> None:
    days = {1: [1, 1, 2, 2, 3, 3], 2: [1, 2, 3, 4]}
    log = log_of(days, **{BASKET: pl.col(TIME)})
    (line,) = ties(leave_last_out(log))
    assert "50% of the 2" in line
    assert "task=next_basket asks for" in line
    assert not list(ties(last_basket(log)))
    two = {1: [1, 1, 2, 3, 3], 2: [1, 2, 3, 4]}
    numbers = {BASKET: pl.Series([1, 1, 2, 3, 4, 1, 2, 3, 4])}
    (line,) = ties(last_basket(log_of(two, **numbers)))
    assert line.endswith("their order is the file's")


def test_a_tie_in_thousands_is_chance() -> None:
    times = {user: [1, 2, 3, 4 if user else 3] for user in range(200)}
    assert not list(ties(leave_last_out(log_of(times))))


def test_seconds_are_compared_to_their_fractions() -> None:
    log = log_of(TIMES)
    parts = pl.int_range(pl.len()) + 1
    apart = log.events.with_columns((pl.col(TIME) * 10**6 + parts).cast(pl.Datetime("us")))
    assert not list(ties(leave_last_out(EventLog.from_frames(apart))))


def test_columns_that_nothing_reads() -> None:
    frame = {USER: [1, 2], ITEM: [1, 1], TIME: [1, 2], "rating": [1, 2], "brand": ["a", "a"]}
    frame |= {"event": ["view", "buy"], "text": ["good", "bad"], "quantity": [1, 1], "": [1, 2]}
    items = pl.DataFrame({ITEM: [1], "title": ["Tea"], "kind": ["drink"]})
    log = EventLog.from_frames(pl.DataFrame(frame), items)
    (line,) = unread(log, {"brand", "kind", "unheard"})
    assert line == (
        "columns that nothing here reads: rating, event, text (varies within an item; "
        "data.columns.text=text takes an item's first), the one without a name"
    )
    assert not list(unread(log, {*log.events.columns, "kind"}))


@pytest.mark.parametrize(("count", "more"), [(20, ""), (1234, " and 1,214 more")])
def test_many_columns_are_not_all_named(count: int, more: str) -> None:
    frame = {USER: [1, 2], ITEM: [1, 1], TIME: [1, 2]} | {f"c{n}": [1, 2] for n in range(count)}
    (line,) = unread(EventLog.from_frames(pl.DataFrame(frame)), set())
    assert line.endswith(f"c18, c19{more}")
