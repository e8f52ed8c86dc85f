from dataclasses import replace
from datetime import date, datetime
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import EventLog
from recsys.errors import DataError
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE, runs

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
        ({QUANTITY: [1, -4, 2]}, "quantity: 1 negative, the first -4 in row 2; leave returns out"),
        ({QUANTITY: [1.0, 2.0, float("nan")]}, "the first nan in row 3"),
        (
            {QUANTITY: [1, 2, None]},
            "quantity: 1 blank or no number, the first in row 3; w",
        ),
        ({QUANTITY: ["1", "two", "6"]}, "quantity: 1 are no numbers, the first 'two' in row 2"),
        ({QUANTITY: [True, True, False]}, "quantity: Boolean is no number"),
        ({VALUE: ["7,50", "2", None]}, "value: 1 are no numbers, the first '7,50' in row 1"),
        ({VALUE: [1.0, 2.0, float("-inf")]}, "value: 1 are infinite, the first -inf in row 3"),
        ({VALUE: [[1], [2], [3]]}, r"value: List\(Int64\) is no number"),
        ({USER: ["a", "", "b"]}, "user_id: 1 null, the first in row 2"),
        ({USER: [None, None, None]}, "user_id: 3 null, the first in row 1"),
        ({USER: [2.0, 1.0, 2.0**60]}, r"user_id: 1.15.*e\+18 is beyond 2\*\*53, where Float64 no"),
        (
            {ITEM: pl.Series([2.0, 1.0, 2.0**30], dtype=pl.Float32)},
            r"item_id: 1073741824.0 is beyond 2\*\*24, where Float32 no longer tells",
        ),
        ({TIME: [None, None, None]}, "timestamp: 3 null, the first in row 1"),
        (
            {TIME: pl.Series([1, 2, 2**64 - 1], dtype=pl.UInt64)},
            "timestamp: 1 unreadable, the first 18446744073709551615 in row 3",
        ),
        ({"text": [{"en": "tea"}] * 3}, r"events: text: Struct\(.*\) is no text; give text"),
        ({"title": [b"tea"] * 3}, "events: title: Binary is no text"),
        ({"*": [1, 2, 3]}, r"events: the column '\*' has the name of a pattern; call it otherwise"),
        ({"^a.*$": [1, 2, 3]}, "has the name of a pattern"),
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
    ],
)
def test_bad_keys_of_a_table(keys: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        EventLog.from_frames(pl.DataFrame(GOOD), pl.DataFrame({ITEM: keys}))


@pytest.mark.parametrize(
    ("times", "year"),
    [
        (pl.Series([0, 2**31 - 1, 0], dtype=pl.Int32).cast(pl.Date), 58815),
        (pl.Series([0, 2**62, 0]).cast(pl.Datetime("ms")), 1461),
        (pl.Series([0, 2**62, 0]).cast(pl.Datetime("us", "UTC")), 1481),
        (["2024-01-01", "0024-01-02", "2024-01-03"], 24),
        (["2024-01-01", "2200-01-01", "2024-01-03"], 2200),
        ([datetime(2024, 1, 1), datetime(1899, 12, 31), datetime(2024, 1, 1)], 1899),
    ],
)
def test_years_of_no_log(times: object, year: int) -> None:
    message = f"1 outside the years 1900 to 2199, the first in row 2, of about the year {year}"
    with pytest.raises(DataError, match=message) as error:
        log_of(timestamp=times)
    assert "null" not in str(error.value)


@pytest.mark.parametrize(
    "numbers",
    [
        pl.Series([2_000_000_000, 2_000_000_000, 1], dtype=pl.Int32),
        pl.Series([2_000_000_000, 2_000_000_000, 1], dtype=pl.UInt64),
        pl.Series([2_000_000_000, 2_000_000_000, 1], dtype=pl.Float32),
        pl.Series(["2000000000", "2000000000", "1"]),
        pl.Series(["2000000000.00", "2000000000", "1"], dtype=pl.Categorical),
        pl.Series(["2000000000.00", "2000000000", "1"]).cast(pl.Decimal(20, 2)),
    ],
)
def test_numbers_are_of_64_bits(numbers: pl.Series) -> None:
    log = log_of(quantity=numbers, value=numbers)
    for column in (QUANTITY, VALUE):
        assert log.events[column].dtype in (pl.Int64, pl.Float64)
        assert log.events[column].sum() == pytest.approx(4_000_000_001, abs=1)


def test_unknown_values_are_no_error() -> None:
    log = log_of(value=[None, 1.5, float("nan")])
    assert log.events[VALUE].is_not_nan().sum() == 1
    assert log_of(value=[None] * 3).events[VALUE].null_count() == 3


def test_ids_are_text_in_all_tables_where_they_are_in_one() -> None:
    items = pl.DataFrame({ITEM: ["10", "POST"], "title": ["ten", "postage"]})
    users = pl.DataFrame({USER: ["1", "guest"], "age": [30, 20]})
    log = EventLog.from_frames(pl.DataFrame(GOOD), items, users)
    assert log.items.rows() == [("10", "ten"), ("11", None), ("POST", "postage")]
    assert log.users.rows() == [("1", 30), ("2", None)]
    assert log.events[ITEM].to_list() == ["11", "10", "10"]


def test_columns_called_as_ours_are_read_as_any_other() -> None:
    names = ["_key", "_row", "row", "place", "key", "as_of", "users", "age", "", "_"]
    rows = {USER: [2, 1, 1, 1], ITEM: [0, 1, 2, 3], TIME: [5, 3, 1, 1], BASKET: [1, 1, 2, 1]}
    more = {name: [f"{name} {n}" for n in range(4)] for name in names}
    log = EventLog.from_frames(pl.DataFrame({**rows, **more}))
    plain = EventLog.from_frames(pl.DataFrame(rows))
    assert log.events.columns == [*plain.events.columns, *names]
    assert log.events.select(plain.events.columns).equals(plain.events)
    for name in names:
        assert log.events[name].to_list() == [f"{name} {item}" for item in plain.events[ITEM]]


def test_words_are_read_from_lists_and_numbers() -> None:
    items = pl.DataFrame({ITEM: [10, 11], "title": [1984, 2001], "text": [["a", "cup"], []]})
    log = EventLog.from_frames(pl.DataFrame({**GOOD, "text": [[1.5], None, [2.5, 3.5]]}), items)
    assert log.items.rows() == [(10, "1984", "a cup"), (11, "2001", "")]
    assert log.events["text"].to_list() == ["2.5 3.5", None, "1.5"]
    arrays = pl.Series([["a", "b"]] * 3, dtype=pl.Array(pl.String, 2))
    assert log_of(text=arrays).events["text"].to_list() == ["a b"] * 3


def test_objects_without_fields_are_left_out() -> None:
    log = log_of(a=[{}] * 3, b=[[{}], [], None], c=[{"x": 1, "y": {}}] * 3, d=[{"x": 1}] * 3)
    assert log.events.columns == [USER, ITEM, TIME, "d"]


def told() -> EventLog:
    events = {
        USER: [1, 1, 2, 2, 2],
        ITEM: [10, 11, 10, 11, 12],
        TIME: [3, 4, 1, 2, 9],
        "brand": ["late", "first", None, None, "other"],
        "shop": [1, 2, 3, 4, 5],
    }
    return EventLog.from_frames(pl.DataFrame(events), item_columns=["brand", "shop"])


def test_items_are_what_their_events_first_say() -> None:
    log = told()
    assert log.items.rows() == [(10, "late", 3), (11, "first", 4), (12, "other", 5)]
    assert log.events.columns == [USER, ITEM, TIME, "brand", "shop"]


def test_a_log_that_is_cut_knows_no_more_than_its_events() -> None:
    log = told()
    early = log.events.filter(pl.col(TIME) < 3)
    assert log.with_events(early).items.rows() == [(10, None, 3), (11, None, 4)]
    cut = replace(log, events=early)
    assert cut.items.rows() == [(10, None, 3), (11, None, 4), (12, None, None)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["brand"], "item_columns: no 'brand' among shop"),
        ([TIME], "item_columns: no 'timestamp' among shop"),
        (["shop"], "item_columns: 'shop' is a column of the items too; leave one out"),
    ],
)
def test_columns_that_cannot_describe_items(columns: list[str], message: str) -> None:
    events = pl.DataFrame({**GOOD, "shop": [1, 1, 1]})
    items = pl.DataFrame({ITEM: [10], "shop": [1]})
    with pytest.raises(DataError, match=message):
        EventLog.from_frames(events, items, item_columns=columns)
