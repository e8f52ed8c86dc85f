"""Which rows of a table are events."""

import logging
import random
from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest

from recsys.data.cache import cached
from recsys.data.sources.table import table
from recsys.data.tables.rows import Rows, net_of_returns
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM, QUANTITY, TIME, USER, VALUE

HEAD = "user_id,item_id,timestamp"


def written(folder: Path, content: str) -> str:
    (folder / "log.csv").write_text(content)
    return str(folder / "log.csv")


def test_rows_that_lack_something(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = f"{HEAD},quantity\n1,a,1,1\n,a,1,1\n2,,2,2\n2,b,,3\n,,,\n2,b,3,\n2,b,4,5\n"
    path = written(tmp_path, content)
    remedy = "leave such rows out; .*; data.missing=drop leaves out rows that lack something$"
    with pytest.raises(DataError, match=remedy):
        table(path)
    log = table(path, missing="drop")
    assert log.events.rows() == [(1, "a", 1, 1), (2, "b", 4, 5)]
    counts = "user_id in 1, item_id in 1, timestamp in 1, quantity in 1"
    assert caplog.messages == [f"log: 4 of 6 rows left out: nothing in {counts}"]


def test_what_was_left_out_is_told_of_again_from_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path, f"{HEAD}\n1,a,1\n,a,1\n2,b,2\n")
    for _ in range(2):
        cached(table, path=path, missing="drop")
    notes = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert notes == ["log: 1 of 3 rows left out: nothing in user_id in 1"] * 2


def test_floats_of_parquet_that_are_no_number(tmp_path: Path) -> None:
    frame = pl.DataFrame({USER: [1.0, float("nan"), 2.0], ITEM: ["a", "a", ""], TIME: [1, 2, 3]})
    frame = pl.concat([frame, frame.with_columns(pl.lit("b").alias(ITEM))])
    frame.write_parquet(tmp_path / "log.parquet")
    log = table(str(tmp_path / "log.parquet"), missing="drop")
    assert log.events.rows() == [(1, "a", 1), (1, "b", 1), (2, "b", 3)]


def test_kinds_of_events(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEAD},event\n1,a,1,view\n1,a,2,buy\n2,b,3,view\n2,b,4,cart\n")
    log = table(path, events={"view": 1, "buy": 5})
    assert log.events["event", VALUE].rows() == [("view", 1.0), ("buy", 5.0), ("view", 1.0)]
    only = table(path, events=["view"])
    assert only.events.columns == [USER, ITEM, TIME, "event"]
    assert only.num_events == 2
    with pytest.raises(DataError, match="no event is called 'bought'; there is buy, cart, view"):
        table(path, events=["bought"])
    with pytest.raises(DataError, match=r"data.events is about event, .*; set data.columns.event"):
        table(path, events=["view"], columns={"kind": "event"})
    with pytest.raises(DataError, match="gives kinds a weight, which is the value of an event"):
        table(path, events={"view": 1}, columns={"value": "timestamp"})
    with pytest.raises(ConfigError, match=r"data.events names no kind of event"):
        Rows(events={})


def test_ratings_from_a_value_on(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEAD},stars\n1,a,1,4.5\n1,b,2,3\n2,b,3,\n2,a,4,4\n")
    log = table(path, columns={"value": "stars"}, min_value=4)
    assert log.events[VALUE].to_list() == [4.5, 4.0]
    with pytest.raises(DataError, match=r"data.min_value is about value, and there is no such col"):
        table(path, min_value=4)


RETURNS = f"{HEAD},quantity,value\n1,a,1,2,20\n1,a,2,3,30\n1,b,3,1,9\n1,a,4,-4,-40\n2,a,1,1,10\n"


def test_returns(tmp_path: Path) -> None:
    path = written(tmp_path, RETURNS)
    with pytest.raises(DataError, match=r"1 negative, the first -4 .*; data.negative=drop or subt"):
        table(path)
    columns = [ITEM, TIME, QUANTITY, VALUE]
    dropped = table(path, negative="drop").events.select(columns).rows()
    assert dropped == [("a", 1, 2, 20), ("a", 2, 3, 30), ("b", 3, 1, 9), ("a", 1, 1, 10)]
    net = table(path, negative="subtract").events.select(columns).rows()
    assert net == [("a", 1, 1, 10.0), ("b", 3, 1, 9.0), ("a", 1, 1, 10.0)]


def by_hand(rows: list[tuple[int, int, int, int]]) -> list[int]:
    """What is left of each row: returns take from the end of a list of purchases."""
    left, bought = [0] * len(rows), defaultdict(list)
    for row in sorted(range(len(rows)), key=lambda row: (rows[row][2], row)):
        user, item, _, quantity = rows[row]
        left[row] = max(quantity, 0)
        if quantity > 0:
            bought[user, item].append(row)
        while quantity < 0 and bought[user, item]:
            last = bought[user, item][-1]
            taken = min(left[last], -quantity)
            left[last] -= taken
            quantity += taken
            if not left[last]:
                bought[user, item].pop()
    return left


@pytest.mark.parametrize("kind", [pl.Int64, pl.Float64])
def test_returns_are_those_of_a_loop_over_rows(kind: pl.DataType) -> None:
    chance = random.Random(0)
    rows = [
        (chance.randrange(3), chance.randrange(2), chance.randrange(30), chance.randrange(-3, 4))
        for _ in range(400)
    ]
    schema = [USER, ITEM, TIME, QUANTITY]
    events = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.col(QUANTITY).cast(kind)
    )
    left = by_hand(rows)
    stays = [amount > 0 or row[3] == 0 for amount, row in zip(left, rows, strict=True)]
    net = net_of_returns(events)
    assert net[QUANTITY].to_list() == [a for a, stay in zip(left, stays, strict=True) if stay]
    assert net.schema == events.schema


def test_what_sums_of_floats_leave_behind_is_nothing() -> None:
    frame = {USER: [1] * 4, ITEM: [1] * 4, TIME: range(4), QUANTITY: [0.1, 0.2, -0.3, 5.0]}
    assert net_of_returns(pl.DataFrame(frame))[QUANTITY].to_list() == [5.0]
