"""Spans end before their moment, labels are known before they are learnt, folds share no user."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError, DataError, LeakError
from recsys.log.event_log import EventLog
from recsys.log.vocabulary import Vocabulary
from recsys.tasks.as_of import AsOfTable, folds, spans
from recsys.tasks.features import RFM, computed
from recsys.tasks.labels import LabelTable

Rows = Sequence[tuple[str, int]]
START = datetime(2026, 1, 1)


def a_log(events: Rows) -> EventLog:
    """Events as user and day."""
    frame = pl.DataFrame(events, schema=["user_id", "day"], orient="row")
    time = START + pl.duration(days="day")
    return EventLog.from_frames(frame.select("user_id", item_id=pl.lit("i"), timestamp=time))


def table_of(log: EventLog, rows: Rows, phases: Sequence[int], days: int = 1) -> LabelTable:
    """Rows as user and day, each known some days later, every second one a yes."""
    frame = pl.DataFrame(rows, schema=["user_id", "day"], orient="row").select(
        "user_id",
        as_of=(START + pl.duration(days="day")).cast(log.events["timestamp"].dtype),
        until=(START + pl.duration(days=pl.col("day") + days)).cast(log.events["timestamp"].dtype),
        phase=pl.Series(phases, dtype=pl.UInt8),
    )
    none = Ragged.from_lists([[]] * len(rows))
    labels = Ragged.from_lists([[0] if row % 2 else [] for row in range(len(rows))])
    yes = Vocabulary(pl.Series(["yes"]))
    no_items = Ragged.from_lists([[]])
    return LabelTable("q", log, frame, yes, labels, none, ranked=False, items=no_items)


users = st.sampled_from(["a", "b", "c"])
days = st.integers(0, 6)


@given(st.lists(st.tuples(users, days), min_size=4), st.lists(st.tuples(users, days), min_size=1))
def test_a_span_holds_what_a_user_did_before_the_moment(events: Rows, rows: Rows) -> None:
    log = a_log([("z", 0), ("y", 9), *events])
    table = table_of(log, rows, [0] * len(rows))
    starts, ends = table.spans()
    when = log.events["timestamp"]
    for row, (user, day) in enumerate(rows):
        moment = START + timedelta(days=day)
        expected = (log.events["user_id"] == user) & (when < moment)
        found = torch.arange(len(log.events))[starts[row] : ends[row]]
        assert expected.arg_true().to_list() == found.tolist()


@given(
    st.lists(st.tuples(users, days, st.integers(0, 2)), min_size=4),
    st.lists(st.tuples(users, days), min_size=1),
    st.booleans(),
)
def test_a_span_is_what_lies_before_whatever_basket_ids_come_again(
    events: list[tuple[str, int, int]], rows: Rows, dated: bool
) -> None:
    columns = ["user_id", "day", "basket_id"]
    frame = pl.DataFrame([("z", 0, 0), ("y", 9, 0), *events], schema=columns, orient="row")
    when = START + pl.duration(days="day") if dated else pl.col("day")
    log = EventLog.from_frames(
        frame.select("user_id", "basket_id", timestamp=when, item_id=pl.int_range(pl.len()))
    )
    moments = pl.DataFrame(rows, schema=["user_id", "as_of"], orient="row")
    if dated:
        as_of = (START + pl.duration(days="as_of")).cast(log.events["timestamp"].dtype)
        moments = moments.with_columns(as_of=as_of)
    for row, start, end in zip(moments.rows(), *spans(log, moments), strict=True):
        before = (pl.col("user_id") == row[0]) & (pl.col("timestamp") < row[1])
        expected = log.events.filter(before)
        assert log.events[start:end].equals(expected)
        assert expected["timestamp"].is_sorted()


def test_folds_need_as_many_users() -> None:
    table = table_of(a_log([("a", 0), ("b", 1)]), [("a", 3), ("b", 5), ("b", 6)], [0, 0, 0])
    for num_folds in (0, 1, 3):
        message = f"q: num_folds={num_folds} does not divide the 2 users of the table; give 2"
        with pytest.raises(ConfigError, match=message):
            list(folds(table, num_folds=num_folds))
    assert len(list(folds(table, num_folds=2, repeats=3))) == 6
    assert not list(folds(table, repeats=0))


def test_an_unknown_user_has_an_empty_span() -> None:
    log = a_log([("a", 0), ("b", 1)])
    starts, ends = table_of(log, [("nobody", 5)], [0]).spans()
    assert (ends - starts).tolist() == [0]


def test_spans_of_a_log_that_knows_no_time() -> None:
    events = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": [1, 5, 3]})
    moments = pl.DataFrame({"user_id": [1, 2], "as_of": [5, 4]})
    starts, ends = spans(EventLog.from_frames(events), moments)
    assert [starts.tolist(), ends.tolist()] == [[0, 2], [1, 3]]


def test_a_label_that_is_known_too_late_is_refused() -> None:
    log = a_log([("a", 0), ("b", 1)])
    rows = [("a", 3), ("b", 5)]
    assert len(table_of(log, rows, [0, 2], days=2)) == 2
    with pytest.raises(LeakError, match=r"1 rows are known only at 2026-01-07 .* of phase 2"):
        table_of(log, rows, [0, 2], days=3)
    with pytest.raises(LeakError, match="of phase 1"):
        table_of(log, rows, [0, 1], days=3)


def test_an_excluded_label_is_refused() -> None:
    table = table_of(a_log([("a", 0), ("b", 1)]), [("a", 3), ("b", 5)], [0, 2])
    with pytest.raises(DataError, match="row 1 excludes one of its labels"):
        replace(table, excluded=Ragged.from_lists([[0], [0]]))


def test_parts_of_other_lengths_are_refused() -> None:
    table = table_of(a_log([("a", 0), ("b", 1)]), [("a", 3), ("b", 5)], [0, 2])
    with pytest.raises(DataError, match=r"\(2, 1, 2\) rows, labels and excluded"):
        replace(table, labels=Ragged.from_lists([[0]]))
    with pytest.raises(DataError, match="of 1 candidates, 2 with items"):
        replace(table, items=Ragged.from_lists([[], []]))


@pytest.mark.parametrize("phases", [[0] * 30, [0, 2] * 15])
def test_folds_share_no_user_and_test_every_row_once_a_repeat(phases: list[int]) -> None:
    rows = [(f"u{row % 10}", 2 if phase == 0 else 4) for row, phase in enumerate(phases)]
    table = table_of(a_log([("a", 0), ("b", 1)]), rows, phases)
    pairs = list(folds(table, num_folds=3, repeats=2, seed=1))
    assert len(pairs) == 6
    user = table.rows["user_id"]
    for train, test in pairs:
        assert not set(user[train.numpy()]) & set(user[test.numpy()])
        assert (table.rows["phase"][train.numpy()] == 0).all()
    test_rows = table.phase(2 if table.has_phases else 0).tolist()
    for repeat in (pairs[:3], pairs[3:]):
        assert sorted(row for _, test in repeat for row in test.tolist()) == test_rows
    assert [t.tolist() for _, t in pairs[:3]] != [t.tolist() for _, t in pairs[3:]]
    again = folds(table, num_folds=3, repeats=2, seed=1)
    assert all(a.equal(c) and b.equal(d) for (a, b), (c, d) in zip(pairs, again, strict=True))


def test_a_table_needs_no_labels_for_spans_features_and_folds() -> None:
    """Other kinds of table inherit what is common to users as of moments."""
    labelled = table_of(a_log([("a", 0), ("b", 1)]), [("a", 3), ("b", 5), ("b", 6)], [0, 0, 0])
    table = AsOfTable("q", labelled.log, labelled.rows)
    assert len(table) == 3
    assert [end.tolist() for end in table.spans()] == [end.tolist() for end in labelled.spans()]
    assert (computed(table, RFM(windows=(2,))) == computed(labelled, RFM(windows=(2,)))).all()
    pairs = zip(folds(table, num_folds=2), folds(labelled, num_folds=2), strict=True)
    assert all(a.equal(c) and b.equal(d) for (a, b), (c, d) in pairs)
    late = labelled.rows.with_columns(phase=pl.Series([0, 0, 2], dtype=pl.UInt8))
    days = late.with_columns(until=pl.col("until") + timedelta(days=1))
    with pytest.raises(LeakError, match="of phase 2"):
        AsOfTable("q", labelled.log, days)


def test_items_are_known_as_they_were_before_the_first_moment() -> None:
    events = pl.DataFrame(
        {
            "user_id": ["a", "b", "a", "b"],
            "item_id": ["i", "i", "j", "k"],
            "timestamp": [START + timedelta(days=day) for day in (0, 2, 3, 6)],
            "brand": [None, "late", "new", "later"],
        }
    )
    log = EventLog.from_frames(events, item_columns=["brand"])
    table = table_of(log, [("a", 1), ("a", 5), ("b", 7)], [0, 1, 2])
    assert table.known_items.rows() == [("i", "late"), ("j", "new"), ("k", None)]
    by_folds = table_of(log, [("a", 2), ("b", 3)], [0, 0])
    assert by_folds.known_items["brand"].to_list() == [None, None, None]
    plain = a_log([("a", 0), ("b", 1)])
    assert table_of(plain, [("a", 3)], [2]).known_items is plain.items
