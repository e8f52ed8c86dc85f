"""Logs from the tables that people have in memory: the same log, whoever made the frame."""

from typing import Any

import polars as pl
import pytest

from recsys.errors import DataError
from recsys.log.event_log import EventLog
from recsys.log.frames import as_polars

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
ROWS = {
    "user_id": ["ann", "bob", "ann"],
    "item_id": [7, 9, 8],
    "timestamp": pl.Series(["2024-05-02", "2024-05-01", "2024-05-01"]).str.to_datetime(),
    "price": [1.5, None, 2.0],
}
EVENTS = pl.DataFrame(ROWS)


class OfAnotherLibrary:
    """No more than Arrow's interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return EVENTS.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "frame",
    [
        EVENTS.lazy(),
        EVENTS.to_pandas(),
        EVENTS.to_pandas().astype({"user_id": "category", "item_id": "Int64"}),
        EVENTS.to_pandas().set_index("user_id"),
        EVENTS.to_pandas().set_index(pd.Index([5, 3, 4])),
        EVENTS.to_arrow(),
        EVENTS.to_arrow().to_batches()[0],
        OfAnotherLibrary(),
    ],
    ids=["lazy", "pandas", "types", "named index", "index", "arrow", "batch", "stream"],
)
def test_a_log_is_the_same_from_any_frame(frame: Any) -> None:
    log, expected = EventLog.from_frames(frame), EventLog.from_frames(EVENTS)
    assert log.events.select(EVENTS.columns).equals(expected.events)
    assert set(log.events.columns) == set(EVENTS.columns)


def test_tables_of_items_and_users_may_be_of_another_kind() -> None:
    items = pd.DataFrame({"item_id": [7, 8, 9], "title": ["tea", None, "milk"]})
    users = pa.table({"user_id": ["ann", "bob"], "age": [3, 4]})
    log = EventLog.from_frames(EVENTS, items, users)
    assert log.items["title"].to_list() == ["tea", None, "milk"]
    assert log.users["age"].to_list() == [3, 4]


@pytest.mark.parametrize("table", [[1, 2], {"user_id": [1]}, "log.csv"])
def test_what_is_no_table_is_refused(table: Any) -> None:
    with pytest.raises(DataError, match=f"shop: events: {type(table).__name__} is no table; give"):
        as_polars(table, "shop: events")


def test_a_column_of_several_types_is_refused() -> None:
    mixed = pd.DataFrame({"user_id": pd.Series([1, "two", object()], dtype=object)})
    with pytest.raises(DataError, match=r"^frame: cannot be read as columns: "):
        as_polars(mixed)
