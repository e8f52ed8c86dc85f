from datetime import date, datetime
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import EventLog
from recsys.errors import DataError
from recsys.events import BASKET, ITEM, QUANTITY, TIME, USER, runs

GOOD = {USER: [2, 1, 1], ITEM: [10, 10, 11], TIME: [5, 3, 1]}


def log_of(**columns: object) -> EventLog:
    return EventLog.from_frames(pl.DataFrame({**GOOD, **columns}), name="shop")


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(-3, 3)), min_size=2
    ).filter(lambda rows: len({user for user, *_ in rows}) > 1),
    st.booleans(),
)
def test_rows_are_ordered_by_user_and_time_and_ties_by_input(
    rows: list[tuple[int, int, int]], text_ids: bool
) -> None:
    frame = pl.DataFrame(rows, schema=[USER, BASKET, TIME], orient="row").with_row_index(ITEM)
    if text_ids:
        frame = frame.with_columns(pl.col(USER).cast(pl.String))
    ordered = sorted(frame.drop(BASKET).rows(), key=lambda row: (row[1], row[2]))
    log = EventLog.from_frames(frame.drop(BASKET))
    assert log.events.rows() == ordered
    late = sum(a[1] == b[1] and a[0] > b[0] for a, b in pairwise(ordered))
    assert log.out_of_order == late
    # At one time, baskets follow one another in the order in which the user began them.
    basket_of = dict(frame.select(ITEM, BASKET).iter_rows())
    began: dict[tuple[str | int, int], int] = {}
    for place, (item, user, _) in enumerate(ordered):
        began.setdefault((user, basket_of[item]), place)
    expected = sorted(ordered, key=lambda row: (*row[1:], began[row[1], basket_of[row[0]]]))
    assert EventLog.from_frames(frame).events.drop(BASKET).rows() == expected


def test_a_basket_id_that_comes_again_is_no_reason_to_leave_the_order_of_time() -> None:
    columns = {USER: [1, 1, 1, 1, 2], ITEM: [1, 2, 3, 4, 5], TIME: [0, 30, 60, 60, 9]}
    log = EventLog.from_frames(pl.DataFrame({**columns, BASKET: ["a", "b", "b", "a", "a"]}))
    assert log.events[TIME].to_list() == [0, 30, 60, 60, 9]
    assert log.events[ITEM].to_list() == [1, 2, 4, 3, 5]  # a began before b
    assert runs(log.events[USER], log.events[BASKET]).to_list() == [0, 1, 2, 3, 4]


def test_runs_are_rows_side_by_side_that_are_alike() -> None:
    first, second = pl.Series([1, 1, 1, 2, 2, 1]), pl.Series(list("abbbaa"))
    assert runs(first).to_list() == [0, 0, 0, 1, 1, 2]
    assert runs(first, second).to_list() == [0, 1, 1, 2, 3, 4]
    assert runs(first.clear()).to_list() == []


def test_times_too_far_apart_for_one_key_are_sorted_all_the_same() -> None:
    far = 2**62
    log = log_of(user_id=[far, 1, 1], timestamp=[-far, far, -far])
    assert log.events.rows() == [(1, 11, -far), (1, 10, far), (far, 10, -far)]


def test_items_and_users_are_a_row_per_id_in_order() -> None:
    items = pl.DataFrame({ITEM: [99, 11], "title": ["ninety-nine", "eleven"]})
    users = pl.DataFrame({USER: [3, 2], "age": [30, 20]})
    log = EventLog.from_frames(pl.DataFrame(GOOD), items, users)
    assert log.items.rows() == [(10, None), (11, "eleven"), (99, "ninety-nine")]
    assert log.users.rows() == [(1, None), (2, 20)]


def test_fewer_events_leave_their_items_and_users() -> None:
    log = log_of()
    fewer = log.with_events(log.events.filter(pl.col(TIME) != 1))
    assert fewer.items[ITEM].to_list() == [10]
    assert fewer.users[USER].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pl.Series([2, 1, 1], dtype=pl.UInt8), [1, 1, 2]),
        (pl.Series([2.0, 1.0, 1.0]), [1, 1, 2]),
        (pl.Series(["b", "a", "a"], dtype=pl.Categorical), ["a", "a", "b"]),
        (pl.Series([2**64 - 1, 1, 1], dtype=pl.UInt64), ["1", "1", str(2**64 - 1)]),
    ],
)
def test_ids_become_integers_or_text(ids: pl.Series, expected: list) -> None:
    assert log_of(user_id=ids).events[USER].to_list() == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["2024-01-02", "2024-01-03", "2024-01-01"], datetime(2024, 1, 2)),
        (
            ["2024-01-02 10:30", "2024-01-03 00:00", "2024-01-01 00:00"],
            datetime(2024, 1, 2, 10, 30),
        ),
        (["2024-01-02T10:30:01.5"] * 3, datetime(2024, 1, 2, 10, 30, 1, 500_000)),
        ([date(2024, 1, 2)] * 3, datetime(2024, 1, 2)),
        (["5", "3", "1"], 5),
    ],
)
def test_times_are_read_from_text_and_dates(times: list, expected: datetime | int) -> None:
    assert log_of(timestamp=times).events.filter(pl.col(USER) == 2)[TIME].to_list() == [expected]


def test_a_zone_in_the_text_is_kept() -> None:
    log = log_of(
        timestamp=["2024-01-02T10:30:00Z", "2024-01-02T10:30:00+02:00"]
        + [None] * 0
        + ["2024-01-01T00:00:00Z"]
    )
    assert log.events[TIME].dtype == pl.Datetime("us", "UTC")
    assert log.events[TIME].dt.hour().to_list() == [0, 8, 10]
    assert log.has_calendar_time
    assert not log_of().has_calendar_time


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({USER: [2, None, 1]}, "user_id: 1 null, the first in row 2"),
        ({ITEM: [None, 10, None]}, "item_id: 2 null, the first in row 1"),
        ({TIME: [None, 3, 1]}, "timestamp: 1 null, the first in row 1"),
        ({BASKET: [1, 1, None]}, "basket_id: 1 null, the first in row 3"),
        ({USER: [1, 1, 1]}, "user_id: one user only"),
        ({USER: [1.5, 1.0, 2.0]}, "user_id: 1.5 is no id; ids are integers or text"),
        ({ITEM: [[1], [2], [3]]}, r"item_id: List\(Int64\) is no id"),
        (
            {TIME: ["2024-01-01", "2024-01-02", "soon"]},
            "timestamp: 1 unreadable, the first 'soon' in",
        ),
        ({TIME: ["3", "soon", "1"]}, "timestamp: 1 unreadable, the first 'soon' in row 2"),
        ({TIME: [1.5, 2.0, 3.0]}, "timestamp: Float64 is no time"),
        ({QUANTITY: [1, -4, 2]}, "quantity: 1 negative or not a number, the first -4 in row 2"),
        ({QUANTITY: [1.0, 2.0, float("nan")]}, "the first nan in row 3"),
        ({QUANTITY: ["one", "two", "six"]}, "quantity: String is no number"),
    ],
)
def test_impossible_columns_are_named(columns: dict, message: str) -> None:
    with pytest.raises(DataError, match=f"^shop: .*{message}"):
        log_of(**columns)


def test_one_error_names_everything() -> None:
    with pytest.raises(DataError) as error:
        log_of(timestamp=["a", "b", "c"], quantity=[-1, 1, 1], item_id=[None, 1, 1])
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in ("unreadable", "negative", "item_id: 1 null"))


def test_missing_columns_are_named_with_those_there() -> None:
    with pytest.raises(
        DataError, match=r"events: no column item_id, timestamp \(there are: user_id\)"
    ):
        EventLog.from_frames(pl.DataFrame({USER: [1]}))
    with pytest.raises(DataError, match=r"items: no column item_id \(there are: none\)"):
        EventLog.from_frames(pl.DataFrame(GOOD), pl.DataFrame())


def test_no_rows() -> None:
    with pytest.raises(DataError, match="no events: the log has no rows"):
        EventLog.from_frames(pl.DataFrame(GOOD).clear())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([10, 11, 11], "items: 1 item_id more than once, the first 11"),
        ([10, 11, None], "items: 1 rows without item_id"),
        (["10", "11", "12"], "items: item_id is String but Int64 in the events; make both"),
    ],
)
def test_bad_keys_of_a_table(keys: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        EventLog.from_frames(pl.DataFrame(GOOD), pl.DataFrame({ITEM: keys}))
