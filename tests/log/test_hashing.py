"""Fingerprints: alike for what is alike however it was read, and for nothing else."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.log import hashing as module
from recsys.log.event_log import EventLog
from recsys.log.hashing import fingerprint

COLUMNS = {
    "integer": pl.Series([3, None, 1], dtype=pl.Int16),
    "wide": pl.Series([2**100, None, 1], dtype=pl.Int128),
    "float": pl.Series([1.5, None, float("nan")]),
    "text": pl.Series(["x", None, "é,"]),
    "true": pl.Series([True, None, False]),
    "day": pl.Series([date(2024, 1, 1), None, date(2025, 1, 1)]),
    "when": pl.Series([datetime(2024, 1, 1), None, datetime(2025, 1, 1)]),
    "zoned": pl.Series([datetime(2024, 1, 1), None, datetime(2025, 1, 1)]).dt.replace_time_zone(
        "Europe/Berlin"
    ),
    "clock": pl.Series([time(1), None, time(2)]),
    "span": pl.Series([timedelta(1), None, timedelta(2)]),
    "exact": pl.Series([Decimal("1.5"), None, Decimal("3.0")]),
    "bytes": pl.Series([b"a\xff", None, b""]),
    "category": pl.Series(["u", None, "v"], dtype=pl.Categorical),
    "list": pl.Series([["a", None], [], ["b"]]),
    "array": pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int64, 2)),
    "struct": pl.Series([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "nothing": pl.Series([None, None, None]),
}
FRAME = pl.DataFrame(COLUMNS)


def test_chunks_and_files_change_nothing(tmp_path: Path) -> None:
    expected = fingerprint([FRAME])
    pieces = [FRAME[:1], FRAME[1:2], FRAME[2:]]
    assert fingerprint([pl.concat(pieces, rechunk=False)]) == expected
    FRAME.write_parquet(tmp_path / "x.parquet", row_group_size=1)
    assert fingerprint([pl.read_parquet(tmp_path / "x.parquet")]) == expected


def test_blocks_of_rows_change_nothing_within_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    long = pl.concat([FRAME.select("integer", "float", "text", "list")] * 5)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 4)
    first = fingerprint([long])
    assert fingerprint([pl.concat([long[:7], long[7:]], rechunk=False)]) == first


def test_what_stands_under_a_null_does_not_count() -> None:
    some = pl.Series("x", [1, 2, 3])
    masked = pl.select(pl.when(pl.Series([True, False, True])).then(some)).to_series()
    assert fingerprint([masked.to_frame()]) == fingerprint([pl.DataFrame({"x": [1, None, 3]})])


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - {"nothing"}))
def test_every_value_counts(name: str) -> None:
    column = FRAME[name]
    others = [column.reverse(), column[:2], column.rename("y"), column.clear()]
    others += [pl.concat([column[:2], column[:1]]), pl.concat([column[1:2], column[1:]])]
    fingerprints = {fingerprint([c.to_frame()]) for c in [column, *others]}
    assert len(fingerprints) == 1 + len(others)


def test_type_order_and_table_count() -> None:
    one, two = pl.DataFrame({"a": [1], "b": [2]}), pl.DataFrame({"b": [2], "a": [1]})
    tables = [[one], [two], [one.cast(pl.Int32)], [one, one], [one, two], [two, one], []]
    tables += [[one.select("a"), one.select("b")], [pl.DataFrame({"a": ["1"], "b": ["2"]})]]
    assert len({fingerprint(t) for t in tables}) == len(tables)


@given(st.lists(st.text(max_size=3), max_size=6), st.lists(st.text(max_size=3), max_size=6))
def test_texts_do_not_run_into_each_other(one: list[str], other: list[str]) -> None:
    first, second = (fingerprint([pl.DataFrame({"x": t}, {"x": pl.String})]) for t in (one, other))
    assert (first == second) == (one == other)


def test_a_log_has_that_of_its_tables() -> None:
    events = pl.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "timestamp": [5, 6]})
    log = EventLog.from_frames(events, name="a")
    assert log.fingerprint == EventLog.from_frames(events.reverse(), name="b").fingerprint
    items = pl.DataFrame({"item_id": [3, 4], "title": ["x", "y"]})
    others = [
        EventLog.from_frames(events, items),
        EventLog.from_frames(events.with_columns(timestamp=pl.col("timestamp") + 1)),
        EventLog.from_frames(events.with_columns(search=pl.lit("z"))),
        EventLog.from_frames(events, users=pl.DataFrame({"user_id": [1, 2], "age": [3, 4]})),
    ]
    assert len({log.fingerprint, *(other.fingerprint for other in others)}) == 5
