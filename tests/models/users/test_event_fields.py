"""Codes of events against polars' own calendar, and counts as a reference."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.errors import ConfigError, DataError
from recsys.log.event_log import EventLog
from recsys.models.users.event_fields import FIRST_YEAR, EventFields, count_nll
from recsys.tasks.splits import Split, last_basket, leave_last_out

ALL = ("year", "month", "day", "weekday", "hour")


def log_of(zone: str | None = "America/New_York", **columns: Any) -> EventLog:
    """Two users, an event every 31 hours for two years, across leap days and changes of clocks."""
    times = [datetime(2015, 11, 1) + timedelta(hours=31 * i) for i in range(2 * 280)]
    count = len(times)
    events = pl.DataFrame(
        {
            "user_id": [i % 2 for i in range(count)],
            "item_id": [10 * (i % 3) for i in range(count)],
            "timestamp": pl.Series(times).dt.replace_time_zone("UTC"),
            **columns,
        }
    )
    if zone is not None:
        events = events.with_columns(pl.col("timestamp").dt.convert_time_zone(zone))
    items = pl.DataFrame({"item_id": [0, 10, 20], "kind": ["tea", None, "milk"], "size": [2, 2, 5]})
    return EventLog.from_frames(events, items)


def fields_of(split: Split, attributes: tuple[str, ...] = ("kind",), **options: Any) -> Any:
    fields = EventFields(
        split.num_items, attributes=attributes, num_classes=split.num_classes, **options
    )
    fields.fit(split)
    return fields


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Seoul", "Europe/Berlin", None])
def test_dates_are_local(zone: str | None) -> None:
    split = leave_last_out(log_of(zone))
    fields = fields_of(split, calendar=ALL)
    codes = fields(split.latest)[:, 1:]
    at = split.log.events["timestamp"].dt
    expected = [at.year() - FIRST_YEAR, at.month() - 1, at.day() - 1, at.weekday() - 1, at.hour()]
    assert codes.T.tolist() == [column.to_list() for column in expected]


def test_attributes_are_numbered_in_order_and_null_is_unknown() -> None:
    split = leave_last_out(log_of())
    fields = fields_of(split, ("kind", "item_id", "size"))
    assert fields.sizes == {"kind": 2, "item_id": 3, "size": 2}
    assert fields.item_codes.tolist() == [[1, 0, 0], [2, 1, 0], [0, 2, 1]]
    assert fields.classes["kind"].to_list() == ["milk", "tea"]


def test_another_table_of_items_is_coded_alike() -> None:
    fields = fields_of(leave_last_out(log_of()))
    others = pl.DataFrame({"item_id": [5, 6, 7], "kind": ["milk", "beer", "tea"]})
    assert fields.codes_of(others).tolist() == [[0], [2], [1]]  # beer is unknown
    with pytest.raises(DataError, match="items have no column kind"):
        fields.codes_of(others.drop("kind"))


def test_prices_fall_into_quantiles_of_value_per_unit() -> None:
    value = np.arange(1.0, 561) * 4
    log = log_of(value=value, quantity=np.full(560, 4))
    split = leave_last_out(log)
    fields = fields_of(split, price_buckets=4)
    codes = fields(split.training)[:, 1]
    assert torch.bincount(codes).tolist() == [139] * 4  # four of 560 events are not in training
    assert codes[0] == 0
    lost = log_of(value=[None, *value[1:]])
    split = leave_last_out(lost)
    assert fields_of(split, price_buckets=4)(split.latest)[0, 1] == 4  # unknown


def test_what_training_has_not_seen_is_read_as_unknown() -> None:
    split = leave_last_out(log_of())
    fields = fields_of(split, calendar=("month", "year"))
    codes = torch.tensor([[0, 3, 46], [1, 0, 51]])  # 2016 is there, 2021 is not
    assert fields.as_seen(codes).tolist() == [[0, 3, 46], [1, 0, 100]]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_attribute_has_as_many_classes_as_the_log_has_values(count: int) -> None:
    split = last_basket(log_of())
    fields = EventFields(split.num_items, attributes=["kind"], num_classes={"kind": count})
    with pytest.raises(ConfigError, match=rf"num_classes.kind={count}: log has 2 values of it"):
        fields.fit(split)


def test_mistakes_are_said() -> None:
    split = leave_last_out(log_of())
    with pytest.raises(ConfigError, match=r"items have no column colour \(there are: item_id"):
        fields_of(split, ("colour",))
    with pytest.raises(ConfigError, match="calendar: minute is none of year"):
        fields_of(split, calendar=("minute",))
    with pytest.raises(ConfigError, match="no field of its item"):
        fields_of(split, ())
    with pytest.raises(DataError, match=r"events have no value; set model.product.price_buckets=0"):
        fields_of(split, price_buckets=3)
    order = EventLog.from_frames(
        pl.DataFrame({"user_id": [0] * 5 + [1], "item_id": [1, 2, 3, 4, 5, 1], "timestamp": 1})
    )
    with pytest.raises(DataError, match=r"timestamps are an order.*model.calendar=\[\]"):
        fields_of(last_basket(order), ("item_id",), calendar=("day",))


def test_counts_as_a_reference_by_hand() -> None:
    codes, owners = torch.tensor([0, 0, 2, 1, 3]), torch.tensor([0, 0, 0, 1, 1])  # 3 is unknown
    targets, of = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
    share = np.array([2.5, 1.5, 1.5]) / 5.5
    everybody = count_nll(codes, owners, targets, of, 3, strength=float("inf"))
    np.testing.assert_allclose(everybody, -np.log(share[[0, 1, 1]]))
    user_nll = count_nll(codes, owners, targets, of, 3, strength=2.0)
    expected = [(2 + 2 * share[0]) / 5, (0 + 2 * share[1]) / 5, (1 + 2 * share[1]) / 3]
    np.testing.assert_allclose(user_nll, -np.log(expected))
