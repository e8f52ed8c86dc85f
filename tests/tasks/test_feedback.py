"""Tables of labelled items: what is in them, counted by hand, and what is refused."""

from typing import Any

import polars as pl
import pytest

from recsys.errors import ConfigError, DataError, LeakError
from recsys.log import EventLog
from recsys.tasks import FeedbackTable, bought, feedback_table, rated

PHASES = {"validation": "2024-01-04", "test": "2024-01-06"}


def shop() -> EventLog:
    """Two users in two shops: a basket a day, of one or two items."""
    rows = [
        (1, 5, 1, "a", "north"),
        (1, 6, 1, "a", "north"),
        (1, 5, 4, "b", "south"),
        (2, 6, 2, "c", "north"),
        (2, 7, 6, "d", "north"),
        (1, 6, 7, "e", "north"),
    ]
    columns = ["user_id", "item_id", "day", "basket_id", "store_id"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    time = pl.datetime(2024, 1, pl.col("day"), 9).alias("timestamp")
    return EventLog.from_frames(frame.with_columns(time).drop("day"), name="shop")


def labelled(log: EventLog, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """User, item, day and label, at noon."""
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "day", "label"], orient="row")
    time = pl.datetime(2024, 1, pl.col("day"), 9).cast(log.events["timestamp"].dtype)
    return frame.with_columns(time.alias("as_of")).drop("day")


ROWS = [(1, 5, 2, 1), (1, 6, 2, 0), (2, 6, 4, 1), (1, 7, 6, 0)]


def exposures(log: EventLog, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    columns = ["item_id", "store_id", "from", "to"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    kind = log.events["timestamp"].dtype
    start, end = (pl.datetime(2024, 1, pl.col(c)).cast(kind) for c in ("from", "to"))
    return frame.select("item_id", "store_id", start.alias("start"), end.alias("end"))


def listed(table: FeedbackTable) -> list[tuple[Any, ...]]:
    frame = table.frame()
    return frame.select("user_id", pl.col("as_of").dt.day(), "item_id", "label", "phase").rows()


def test_items_of_one_user_and_moment_are_a_list() -> None:
    log = shop()
    table = feedback_table(log, "seen", labelled(log, ROWS), **PHASES)
    assert listed(table) == [(1, 2, 5, 1, 0), (1, 2, 6, 0, 0), (1, 6, 7, 0, 2), (2, 4, 6, 1, 1)]
    assert table.shown.lengths.tolist() == [2, 1, 1]
    assert table.labels_of(0).tolist() == [True, False]


def test_a_history_ends_before_the_moment() -> None:
    log = shop()
    table = feedback_table(log, "seen", labelled(log, [*ROWS, (1, 5, 4, 0)]), **PHASES)
    starts, ends = table.spans()
    days = table.rows["as_of"].dt.day().to_list()
    # User 1 has two events on day 1; the one at the very moment of day 4 is not known then.
    assert dict(zip(days[:3], (ends - starts).tolist()[:3], strict=True)) == {2: 2, 4: 2, 6: 3}


def test_what_a_shop_showed_and_what_was_bought_there() -> None:
    log = shop()
    shown = exposures(log, [(5, "north", 1, 3), (6, "north", 1, 9), (7, "south", 1, 9)])
    table = bought(log, "mailer", shown, by=["store_id"], **PHASES)
    assert listed(table) == [
        (1, 1, 5, 1, 0),
        (1, 1, 6, 1, 0),
        (1, 4, 7, 0, 1),
        (1, 7, 6, 1, 2),
        (2, 2, 5, 0, 0),
        (2, 2, 6, 1, 0),
        (2, 6, 6, 0, 2),
    ]


def test_items_that_were_had_before() -> None:
    log = shop()
    shown = exposures(log, [(5, "north", 1, 9), (6, "north", 1, 9), (5, "south", 1, 9)])
    later = {"validation": "2024-01-07", "test": "2024-01-07T05:00"}
    with pytest.raises(DataError, match=r"mailer: no label is of validation"):
        bought(log, "mailer", shown, by=["store_id"], known=True, **later)
    some = exposures(log, [(5, "south", 1, 9), (6, "north", 1, 9)])
    early = {"validation": "2024-01-06", "test": "2024-01-07"}
    with pytest.raises(DataError, match=r"all 1 items of training are taken up"):
        bought(log, "mailer", some, by=["store_id"], known=True, **early)


def test_ratings_between_say_nothing() -> None:
    days = [f"2024-01-0{day}" for day in range(1, 8)]
    rows = {"user_id": [1] * 6 + [2], "item_id": range(7), "timestamp": days}
    values = [5.0, 3, 1, 4, 2, 3, 4]
    log = EventLog.from_frames(pl.DataFrame(rows | {"value": values}), name="films")
    table = rated(log, "likes", **PHASES)
    assert [row[1:4] for row in listed(table)] == [
        (1, 0, 1),
        (3, 2, 0),
        (4, 3, 1),
        (5, 4, 0),
        (7, 6, 1),
    ]
    with pytest.raises(ConfigError, match=r"likes: down=4 is not below up=4"):
        rated(log, "likes", down=4.0, **PHASES)


def test_drawn_lists_are_as_many_as_asked_for_and_the_same_again() -> None:
    log = shop()
    rows = labelled(log, [*ROWS, (2, 5, 2, 1), (2, 7, 2, 0)])
    tables = [feedback_table(log, "t", rows, max_lists={"train": 1}, **PHASES) for _ in range(2)]
    assert len(tables[0].phase(0)) == 1
    assert tables[0].fingerprint == tables[1].fingerprint


def test_a_label_that_is_known_too_late_is_a_leak() -> None:
    log = shop()
    rows = labelled(log, ROWS)
    late = rows.with_columns(until=pl.col("as_of").dt.offset_by("3d"))
    with pytest.raises(LeakError, match=r"seen: 1 rows are known only at 2024-01-05"):
        feedback_table(log, "seen", late, **PHASES)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((1, 5, 3, 2), "label 2 is neither 0 nor 1"),
        ((1, 5, 3, None), "label None is neither 0 nor 1"),
        ((9, 5, 3, 1), "user_id 9 is not in the log"),
        ((1, 8, 3, 1), "item_id 8 is not in the log"),
        ((1, 5, 9, 1), "a label is of 2024-01-09 09:00:00, and shop lasts from 2024-01-01"),
        ((1, 5, 2, 0), "user 1 has item 5 twice at 2024-01-02"),
    ],
)
def test_rows_that_cannot_be(row: tuple[Any, ...], words: str) -> None:
    log = shop()
    with pytest.raises(DataError, match=words):
        feedback_table(log, "seen", labelled(log, [*ROWS, row]), **PHASES)


def test_ids_of_another_type() -> None:
    log = shop()
    rows = labelled(log, ROWS).with_columns(pl.col("item_id").cast(pl.String))
    with pytest.raises(DataError, match=r"item_id is String, and the log's is Int64"):
        feedback_table(log, "seen", rows, **PHASES)


def test_nothing_to_tell_apart() -> None:
    log = shop()
    rows = labelled(log, [(1, 5, 2, 0), *ROWS[1:]])
    with pytest.raises(DataError, match=r"all 2 items of training are turned down"):
        feedback_table(log, "seen", rows, **PHASES)


def test_moments_in_order_and_phases_that_are() -> None:
    log = shop()
    rows = labelled(log, ROWS)
    with pytest.raises(ConfigError, match=r"test=2024-01-03 is not later than validation"):
        feedback_table(log, "seen", rows, validation="2024-01-04", test="2024-01-03")
    with pytest.raises(ConfigError, match=r"max_lists.holdout is no phase; there is train"):
        feedback_table(log, "seen", rows, max_lists={"holdout": 3}, **PHASES)


def test_columns_that_exposures_or_events_have_not() -> None:
    log = shop()
    shown = exposures(log, [(5, "north", 1, 3)])
    with pytest.raises(DataError, match=r"by=town: the events of shop have no such column"):
        bought(log, "mailer", shown, by=["town"], **PHASES)
    with pytest.raises(DataError, match=r"nothing was shown on any trip"):
        bought(log, "mailer", exposures(log, [(5, "west", 1, 3)]), by=["store_id"], **PHASES)
