"""Sales of a few rows counted by hand, and every error."""

from datetime import date
from typing import Any

import polars as pl
import pytest

from recsys.errors import ConfigError, LeakError
from recsys.log.event_log import EventLog
from recsys.tasks.sales import Origins, Sales, check_leaks, cut, sales_series

SHORT = Origins(horizon=2, context=2, validation=1, test=1)
"""Needs 2 + 2 + 2 + 2 periods."""


def log(**more: Any) -> EventLog:
    """Ten days; `a` sells every day, `b` on the last two alone, `c` on two of the first."""
    day = [f"2024-01-{number:02}" for number in range(1, 11)]
    items = ["a"] * 10 + ["b"] * 2 + ["c"] * 3
    rows = {
        "user_id": [1] * 10 + [2, 2, 1, 2, 2],
        "item_id": items,
        "timestamp": [*day, *day[-2:], day[0], day[0], day[2]],
        "quantity": [*range(1, 11), 7, 7, 5, 6, 4],
        "value": [0.5] * 15,
    }
    kinds = pl.DataFrame({"item_id": ["a", "b", "c"], "kind": ["x", None, "x"]})
    return EventLog.from_frames(pl.DataFrame(rows | more), kinds, name="shop")


def series(options: dict[str, Any], origins: Origins = SHORT) -> Sales:
    return sales_series(log(), origins, **options)


def test_units_of_each_item_a_day() -> None:
    sales = series({"min_sold_share": 0.0})
    assert sales.ids.to_list() == ["a", "c"]  # b is not known at the first origin
    assert sales.table.values.tolist() == [[*range(1, 11)], [11, 0, 4, 0, 0, 0, 0, 0, 0, 0]]
    assert (sales.validation, sales.test) == ([6], [8])
    assert (sales.days[0], sales.end) == (date(2024, 1, 1), date(2024, 1, 11))


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"measure": "value"}, [0.5, 0.5]),
        ({"measure": "buyers", "by": "kind"}, [2, 1]),
        ({"measure": "value", "by": "kind"}, [1.5, 0.5]),
        ({"by": "user_id"}, [6, 2]),
    ],
)
def test_other_measures_and_columns(options: dict[str, Any], first: list[float]) -> None:
    assert series({"min_sold_share": 0.0, **options}).table.values[0, :2].tolist() == first


def test_which_series_there_are_is_chosen_before_the_first_origin() -> None:
    assert series({"min_sold_share": 0.34}).ids.to_list() == ["a"]
    assert series({"min_sold_share": 0.33}).ids.to_list() == ["a", "c"]
    assert series({"min_sold_share": 0.0, "max_series": 1}).ids.to_list() == ["a"]
    assert series({"min_sold_share": 0.0, "max_sold_share": 0.4}).ids.to_list() == ["c"]
    with pytest.raises(ConfigError, match=r"max_sold_share=0.3: no item_id sells in 0.2 to 0.3"):
        series({"max_sold_share": 0.3})


def test_weeks_begin_on_monday_and_are_whole() -> None:
    origins = Origins(horizon=1, context=1, validation=["2024-01-15"], test=["2024-01-22"])
    days = [f"2024-01-{number:02}" for number in (3, 7, 8, 14, 15, 21, 22, 28, 30)]
    rows = {"user_id": [1] * 8 + [2], "item_id": [7] * 9, "timestamp": days}
    with pytest.raises(ConfigError, match=r"need 2 before the first; it has 1 there"):
        sales_series(EventLog.from_frames(pl.DataFrame(rows)), origins, every="week")
    origins = Origins(horizon=1, context=1, validation=["2024-01-15"], test=["2024-01-22"])
    rows["timestamp"][0] = "2024-01-01"
    sales = sales_series(EventLog.from_frames(pl.DataFrame(rows)), origins, every="week")
    assert sales.table.values.tolist() == [[2, 2, 2, 2]]
    assert sales.table.season == 1


def test_closed_days_are_no_periods() -> None:
    sales = series({"closed": ["2024-01-05"]}, Origins(horizon=1, context=2, validation=1, test=1))
    assert date(2024, 1, 5) not in sales.days
    assert sales.table.values[0].tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_days_of_another_time_zone() -> None:
    times = {"timestamp": [f"2024-01-{number:02}T23:30:00" for number in range(1, 11)] * 1}
    rows = {"user_id": [1] * 9 + [2], "item_id": [7] * 10, **times}
    evening = EventLog.from_frames(pl.DataFrame(rows))
    assert sales_series(evening, SHORT, time_zone="Asia/Tokyo").days[0] == date(2024, 1, 2)
    with pytest.raises(ConfigError, match="time_zone=Mars/Base is none"):
        sales_series(evening, SHORT, time_zone="Mars/Base")


def test_what_is_known_ahead() -> None:
    calendar = {"calendar": ["weekday"], "holidays": ["2024-01-11"]}
    known = series({"min_sold_share": 0.0, **calendar}).table.known
    assert known.shape == (12, 7 + 4)
    assert known[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]  # a Monday
    assert known[:, 7].nonzero().flatten().tolist() == [10]
    assert known[:, 8].nonzero().flatten().tolist() == [9]
    assert known[:, 10].nonzero().flatten().tolist() == [7]


def test_a_log_that_ends_at_the_origin_has_the_same_series() -> None:
    sales = series({"min_sold_share": 0.0})
    before = cut(log(), date(2024, 1, 9))
    assert before.num_events == 11
    options: dict[str, Any] = {"min_sold_share": 0.0, "end": sales.end.isoformat()}
    check_leaks(sales, sales_series(before, SHORT, **options), 8)
    others = sales_series(before, SHORT, **options, measure="value")
    with pytest.raises(LeakError, match="the series before 2024-01-09 change"):
        check_leaks(sales, others, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "colour"}, "by=colour: shop has no such column; it has user_id, item_id"),
        ({"min_sold_share": 2.0}, "min_sold_share=2.0"),
        ({"end": "soon"}, "series.end: soon is no date"),
        ({"every": "week", "closed": ["2024-01-05"]}, "goes with every=day"),
        ({"start": "2024-01-04"}, "shop has 7 periods, .* need 4 before the first; it has 3"),
        ({"start": "2024-01-09", "end": "2024-01-10"}, "shop has 1 periods"),
    ],
)
def test_errors_of_series(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        series(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 100}, "of test, each of 100, need 102"),
        ({"test": 4}, "4 of test"),
        ({"test": ["2024-02-01"]}, "2024-02-01 is no period's first day; they start 2024-01-01"),
        ({"validation": ["2024-01-08"]}, "reaches into the test"),
        ({"test": ["2024-01-10"], "horizon": 3}, "3 periods, ends 2 behind the 10 of"),
    ],
)
def test_origins_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    origins = {"horizon": 2, "context": 2, "validation": 1, "test": 1, **options}
    with pytest.raises(ConfigError, match=message):
        series({}, Origins(**origins))


def test_origins_that_are_none() -> None:
    with pytest.raises(ConfigError, match=r"task.origins.test=\[\] asks at no origin"):
        Origins(test=[])


def test_series_that_sell_nothing_before_the_first_origin() -> None:
    days = pl.DataFrame({"timestamp": [f"2024-01-{n:02}" for n in (1, 9, 10)]})
    rows = days.with_columns(user_id=pl.Series([1, 1, 2]), item_id=pl.Series(["n", "b", "b"]))
    kinds = pl.DataFrame({"item_id": ["b", "n"], "kind": ["x", None]})
    quiet = EventLog.from_frames(rows, kinds)
    with pytest.raises(ConfigError, match="nothing is sold of any kind in the"):
        sales_series(quiet, SHORT, by="kind", min_sold_share=0.0)


def test_logs_without_times_or_values() -> None:
    rows = {"user_id": [1, 2], "item_id": [7, 7], "timestamp": [1, 2]}
    with pytest.raises(ConfigError, match="knows no time but an order"):
        sales_series(EventLog.from_frames(pl.DataFrame(rows)), SHORT)
    with pytest.raises(ConfigError, match="has no column value"):
        sales_series(EventLog.from_frames(log().events.drop("value")), SHORT, measure="value")


ONE = Origins(horizon=1, context=1, validation=1, test=1)
ROWS = {"user_id": [1, 2] * 3, "item_id": [7] * 6}


def test_a_value_that_is_no_number_is_unknown() -> None:
    days = [f"2024-01-0{day}" for day in (1, 1, 2, 3, 4, 5)]
    frame = ROWS | {"timestamp": days, "value": [2.0, float("nan"), 3.0, 4.0, 5.0, 6.0]}
    series = sales_series(EventLog.from_frames(pl.DataFrame(frame)), ONE, measure="value")
    assert series.table.values.tolist() == [[2, 3, 4, 5, 6]]


def test_a_column_of_which_nothing_is_sold() -> None:
    days = [f"2024-01-0{day}" for day in range(1, 7)]
    frame = ROWS | {"timestamp": days, "quantity": [0] * 6}
    with pytest.raises(ConfigError, match=r"^task\.series\.by=item_id: nothing is sold of any"):
        sales_series(EventLog.from_frames(pl.DataFrame(frame)), ONE)
