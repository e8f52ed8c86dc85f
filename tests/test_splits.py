"""Every split against a plain reading of its definition, on small logs of all shapes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import EventLog, Split
from recsys.batch import BasketBatch
from recsys.errors import DataError
from recsys.events import BASKET, ITEM, QUANTITY, TIME, USER, VALUE
from recsys.splits import (
    Part,
    global_time,
    last_basket,
    leave_last_out,
    unsplit,
    user_holdout,
)

Baskets = list[tuple[int, set[int]]]  # (time, items) in order
Fitted = dict[int, list[set[int]]]  # user -> history by basket
Answer = dict[int, tuple[list[set[int]], set[int]]]  # user -> history by basket, target

rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 7)), min_size=6, max_size=40
).filter(lambda rows: len({user for user, *_ in rows}) > 1)


def log_of(rows: list[tuple[int, int, int]], *, baskets: bool = True) -> EventLog:
    """Rows of user, item and time; with baskets, what a user takes at one time is one."""
    events = pl.DataFrame(rows, schema=[USER, ITEM, TIME], orient="row")
    if baskets:
        events = events.with_columns(pl.col(TIME).alias(BASKET))
    users = pl.DataFrame({USER: range(4), "split": ["train", "validation", "test", "train"]})
    return EventLog.from_frames(events, users=users)


def baskets_of(rows: list[tuple[int, int, int]]) -> dict[int, Baskets]:
    times: dict[int, dict[int, set[int]]] = {}
    for user, item, time in rows:
        times.setdefault(user, {}).setdefault(time, set()).add(item)
    return {user: sorted(of_user.items()) for user, of_user in times.items()}


def events_of(rows: list[tuple[int, int, int]]) -> dict[int, Baskets]:
    ordered = sorted(rows, key=lambda row: (row[0], row[2]))
    return {u: [(t, {i}) for v, i, t in ordered if v == u] for u, *_ in ordered}


def histories_of(split: Split, batch: BasketBatch) -> dict[int, list[set[int]]]:
    histories = {}
    items, users = split.items.ids.to_list(), split.users.ids.to_list()
    offsets = batch.offsets.tolist()
    for row, user in enumerate(batch.users.tolist()):
        events = slice(offsets[row], offsets[row + 1])
        numbers = batch.baskets[events].tolist()
        assert numbers == sorted(numbers)
        sets: dict[int, set[int]] = {number: set() for number in numbers}
        for number, item in zip(numbers, batch.items[events].tolist(), strict=True):
            sets[number].add(items[item])
        histories[users[user]] = list(sets.values())
    return histories


def answer_of(split: Split, part: Part) -> Answer:
    ids, targets = split.items.ids.to_list(), []
    values, offsets = part.target.values.tolist(), part.target.offsets.tolist()
    for begin, end in pairwise(offsets):
        assert values[begin:end] == sorted(set(values[begin:end]))
        targets.append({ids[item] for item in values[begin:end]})
    histories = histories_of(split, part.history)
    return {
        user: (histories[user], target) for user, target in zip(histories, targets, strict=True)
    }


def sets(baskets: Baskets) -> list[set[int]]:
    return [items for _, items in baskets]


def upto(baskets: Baskets, target: int) -> tuple[list[set[int]], set[int]]:
    return sets(baskets[:target]), baskets[target][1]


def agrees(split: Callable[[], Split], everything: dict, fitted: Fitted, *parts: Answer) -> None:
    if not all(parts):
        with pytest.raises(DataError, match="no user is left for"):
            split()
        return
    made = split()
    asked = (made.train, made.validation, made.test)
    assert [answer_of(made, part) for part in asked] == list(parts)
    assert histories_of(made, made.training) == fitted
    assert histories_of(made, made.latest) == {u: sets(b) for u, b in everything.items()}


def last_left_out(baskets: dict[int, Baskets]) -> tuple:
    long = {user: b for user, b in baskets.items() if len(b) > 2}
    train = {user: upto(b, -3 if user in long else -1) for user, b in baskets.items()}
    return (
        baskets,
        {user: sets(b[:-2] if user in long else b) for user, b in baskets.items()},
        {user: asked for user, asked in train.items() if asked[0]},
        {user: upto(b, -2) for user, b in long.items()},
        {user: upto(b, -1) for user, b in long.items()},
    )


@settings(max_examples=40)
@given(rows)
def test_last_basket(rows: list[tuple[int, int, int]]) -> None:
    agrees(lambda: last_basket(log_of(rows)), *last_left_out(baskets_of(rows)))


@settings(max_examples=40)
@given(rows)
def test_leave_last_out(rows: list[tuple[int, int, int]]) -> None:
    agrees(lambda: leave_last_out(log_of(rows)), *last_left_out(events_of(rows)))


@settings(max_examples=40)
@given(rows)
def test_without_baskets_the_last_basket_is_the_last_event(rows: list) -> None:
    agrees(lambda: last_basket(log_of(rows, baskets=False)), *last_left_out(events_of(rows)))


@settings(max_examples=40)
@given(rows)
def test_user_holdout(rows: list[tuple[int, int, int]]) -> None:
    baskets = baskets_of(rows)
    if not {0, 3} & set(baskets) or not {1, 2} <= set(baskets):
        with pytest.raises(DataError, match=r"users.split holds"):
            user_holdout(log_of(rows))
        return
    asked = {user: upto(b, -1) for user, b in baskets.items() if len(b) > 1}
    parts = [{u: a for u, a in asked.items() if u in group} for group in ((0, 3), (1,), (2,))]
    fitted = {user: sets(baskets[user]) for user in (0, 3) if user in baskets}
    agrees(lambda: user_holdout(log_of(rows)), baskets, fitted, *parts)


@settings(max_examples=40)
@given(rows, st.integers(1, 4), st.integers(1, 3))
def test_global_time(rows: list[tuple[int, int, int]], start: int, length: int) -> None:
    parts: list[Answer] = [{}, {}, {}]
    everything = baskets_of(rows)
    fitted = {u: sets([b for b in baskets if b[0] < start]) for u, baskets in everything.items()}
    for user, baskets in everything.items():
        windows = [sum(time >= s for s in (start, start + length)) for time, _ in baskets]
        for phase in {0, 1, 2} & set(windows):
            place = windows.index(phase)
            if phase == 0:
                place += windows.count(0) - 1
            if place > 0:
                parts[phase][user] = upto(baskets, place)
    agrees(
        lambda: global_time(log_of(rows), validation_start=start, test_start=start + length),
        everything,
        {user: history for user, history in fitted.items() if history},
        *parts,
    )


ROWS = [(user, item, time) for user in (0, 1, 2) for time, item in enumerate((7, 5, 5, 3))]


def test_an_item_stands_once_in_a_basket_with_its_quantities_summed() -> None:
    first = log_of(ROWS).events.with_columns(
        pl.lit(0).alias(BASKET),
        pl.Series(QUANTITY, [1.0, 2.0, 3.0, 4.0] * 3),
        pl.Series(VALUE, [5, 6, 7, None] * 3),
    )
    later = [first.with_columns(pl.col(TIME) + t, pl.lit(t).alias(BASKET)) for t in (10, 20, 30)]
    split = last_basket(EventLog.from_frames(pl.concat([first, *later])))
    row = split.train.history.rows(torch.tensor([0]))
    assert row.items.tolist() == [2, 1, 0]  # 7, 5, 3
    assert row.quantities.tolist() == [1, 2 + 3, 4]
    assert row.values[:2].tolist() == [5, 6 + 7]
    assert row.values[2].isnan()  # unknown
    assert row.times.tolist() == [0, 1, 3]
    assert row.log_rows.tolist() == [0, 1, 3]  # the first of each


def test_an_event_is_found_again_in_the_log() -> None:
    split = leave_last_out(log_of([(user, item, 9 - time) for user, item, time in ROWS]))
    history = split.test.history
    found = split.log.events[history.log_rows.numpy()]
    assert len(found) == len(history.items) == 9
    assert found[ITEM].to_list() == split.items.ids[history.items.numpy()].to_list()
    assert found[TIME].to_list() == history.times.tolist()


def test_without_quantities_each_event_counts_one_and_has_no_value() -> None:
    latest = leave_last_out(log_of(ROWS)).latest
    assert latest.quantities.tolist() == [1.0] * len(ROWS)
    assert latest.values.isnan().all()


def test_a_whole_log_stands_as_it_is() -> None:
    rows = [(3, 7, 0), (3, 5, 0), (3, 7, 0), (3, 5, 9), (4, 5, 2)]
    log = log_of(rows)
    events = log.events.with_columns(pl.Series(BASKET, [0, 0, 0, 1, 0]))
    items = pl.DataFrame({ITEM: [5, 6, 7]})  # 6 has no event
    batch = unsplit(EventLog.from_frames(events, items))
    assert batch.items.tolist() == [2, 0, 2, 0, 0]
    assert batch.baskets.tolist() == [0, 0, 0, 1, 0]
    assert batch.offsets.tolist() == [0, 4, 5]
    assert batch.log_rows.tolist() == [0, 1, 2, 3, 4]
    assert (batch.times.tolist(), batch.num_items) == ([0, 0, 0, 9, 2], 3)


def test_classes_of_the_items_are_counted_without_nulls_and_lists() -> None:
    items = pl.DataFrame(
        {ITEM: [7, 5, 3], "kind": ["a", None, "a"], "words": [["x"], ["y"], ["z"]]}
    )
    split = leave_last_out(EventLog.from_frames(log_of(ROWS).events, items))
    assert split.num_classes == {ITEM: 3, "kind": 1}


def test_catalogue_is_every_item_with_an_event_in_order_of_ids() -> None:
    items = pl.DataFrame({ITEM: [9, 7, 5], "title": ["nine", "seven", "five"]})
    log = EventLog.from_frames(log_of(ROWS).events, items)
    split = leave_last_out(log)
    assert split.num_items == 3
    assert split.item_table.rows() == [(3, None), (5, "five"), (7, "seven")]


def dated(zone: str | None) -> EventLog:
    """Two users who buy something every day at noon from 2024-03-08 to 2024-03-12."""
    noon = datetime(2024, 3, 8, 12)
    days = pl.Series(TIME, [noon + timedelta(days=d) for d in range(5)]).dt.replace_time_zone(zone)
    users = pl.DataFrame({USER: [0, 1]})
    return EventLog.from_frames(users.join(days.to_frame().with_row_index(ITEM), how="cross"))


@pytest.mark.parametrize("zone", [None, "America/New_York"])
@pytest.mark.parametrize("as_text", [False, True])
def test_starts_are_in_the_time_zone_of_the_log(zone: str | None, as_text: bool) -> None:
    starts = {
        "validation_start": datetime(2024, 3, 10, 12),
        "test_start": datetime(2024, 3, 11, 12, 0, 1),
    }
    given = {k: v.isoformat() if as_text else v for k, v in starts.items()}
    split = global_time(dated(zone), **given)
    assert split.validation.target.values.tolist() == [2, 2]
    assert split.test.target.values.tolist() == [4, 4]


def test_a_start_may_name_its_own_zone() -> None:
    log = dated("America/New_York")
    start = datetime(2024, 3, 10, 16, 0, tzinfo=UTC)  # noon, on the day that summer time began
    split = global_time(log, validation_start=start, test_start="2024-03-11T16:00:01+00:00")
    assert split.validation.target.values.tolist() == [2, 2]
    assert split.test.target.values.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("log", "starts", "message"),
    [
        (
            dated(None),
            (3, "2024-03-11"),
            "validation_start=3: the timestamps of log ask for a time",
        ),
        (
            dated(None),
            ("2024-03-10", "soon"),
            "test_start='soon': the timestamps of log ask for a t",
        ),
        (log_of(ROWS), ("2024-03-10", 3), "validation_start='2024-03-10': .* ask for an integer"),
        (log_of(ROWS), (2, datetime(2024, 1, 1)), "test_start=.* ask for an integer"),
        (log_of(ROWS), (3, 3), "test_start=3 must lie after validation_start=3"),
        (log_of(ROWS), (2, 9), "no user is left for test;"),
        (
            dated("America/New_York"),
            ("2024-03-10T02:30", "2024-03-12"),
            "no such time in America/New_York; clocks were put forward",
        ),
    ],
)
def test_impossible_starts(log: EventLog, starts: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message):
        global_time(log, validation_start=starts[0], test_start=starts[1])


def test_user_holdout_needs_the_column() -> None:
    log = EventLog.from_frames(log_of(ROWS).events)
    with pytest.raises(DataError, match="users have no column 'split'"):
        user_holdout(log)
    with pytest.raises(DataError, match=r"users.part holds \['None', 'a'\]; expected \['train'"):
        user_holdout(
            EventLog.from_frames(
                log.events, users=pl.DataFrame({USER: [0, 1, 2], "part": ["a", None, "a"]})
            ),
            column="part",
        )


def test_too_short_a_log() -> None:
    with pytest.raises(
        DataError, match="log: no user is left for validation; the log is too short"
    ):
        leave_last_out(log_of([(0, 1, 1), (0, 2, 2), (1, 1, 1)]))


WORDS = "title"
SPLITS: list[tuple[Callable[[EventLog], Split], bool]] = [
    (leave_last_out, False),
    (last_basket, True),
    (user_holdout, True),
    (partial(global_time, validation_start=3, test_start=6), True),
]


def worded(rows: list[tuple[int, int, int, str | None]]) -> EventLog:
    """Rows of user, item, time and what the event says of the item."""
    events = pl.DataFrame(rows, schema=[USER, ITEM, TIME, WORDS], orient="row")
    events = events.with_columns(pl.col(TIME).alias(BASKET), pl.col(WORDS).cast(pl.String))
    users = pl.DataFrame({USER: range(4), "split": ["train", "validation", "test", "train"]})
    return EventLog.from_frames(events, users=users, item_columns=[WORDS])


words = st.sampled_from(["a", "b", "c", None])
worded_rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 7), words),
    min_size=6,
    max_size=40,
).filter(lambda rows: len({user for user, *_ in rows}) > 1)


@pytest.mark.parametrize(("split", "by_basket"), SPLITS)
@settings(max_examples=30)
@given(worded_rows)
def test_items_are_described_by_training_events_alone(
    split: Callable[[EventLog], Split], by_basket: bool, rows: list
) -> None:
    log = worded(rows)
    try:
        made = split(log)
    except DataError:
        return
    train = made.events.filter(pl.col("phase") == 0)
    users, items = made.users.ids, made.items.ids
    known: dict[int, tuple[int, str]] = {}
    at = {(users[u], t) for u, t in train.select("user", "time").iter_rows()}
    of_training = set(train["log_row"])
    changed = []
    for number, row in enumerate(log.events.select(USER, ITEM, TIME, WORDS).rows()):
        user, item, time, said = row
        seen = (user, time) in at if by_basket else number in of_training
        if seen and said is not None:
            known[item] = min(known.get(item, (time, said)), (time, said), key=lambda pair: pair[0])
        changed.append(row if seen else (user, item, time, "later"))
    expected = [known.get(item, (0, None))[1] for item in items]
    assert made.item_table.rows() == list(zip(items, expected, strict=True))
    assert made.num_classes[WORDS] == len({word for word in expected if word is not None})
    # Whatever is said later changes nothing.
    assert split(worded(changed)).item_table.equals(made.item_table)


def test_a_table_of_items_is_known_from_the_start() -> None:
    events = pl.DataFrame({USER: [1] * 4 + [2] * 4, ITEM: [*range(4)] * 2, TIME: [*range(4)] * 2})
    items = pl.DataFrame({ITEM: range(4), "title": list("abcd")})
    assert leave_last_out(EventLog.from_frames(events, items)).item_table.equals(items)
