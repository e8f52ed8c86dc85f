"""Every split against a plain reading of its definition, on small logs of all shapes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby, pairwise
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import EventLog, Split
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE
from recsys.tasks.splits import (
    global_time,
    last_basket,
    last_share,
    leave_last_out,
    unsplit,
    user_holdout,
)

Baskets = list[tuple[int, set[int]]]  # (time, items) in order
Fitted = dict[int, list[set[int]]]  # user -> history by basket
Examples = dict[int, tuple[list[set[int]], set[int]]]  # user -> history by basket, target

Row = tuple[int, int, int, int]  # user, item, time, basket id

rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 7), st.integers(0, 2)),
    min_size=6,
    max_size=40,
).filter(lambda rows: len({user for user, *_ in rows}) > 1)
days_in = st.booleans()


def log_of(rows: Sequence[tuple], *, baskets: bool = True, dated: bool = False) -> EventLog:
    """Rows of user, item, time and basket id; without one, what is taken at one time is one.

    Quantities are powers of two, whose sum names the rows that it is of.
    """
    rows = [row if len(row) == 4 else (*row, row[2]) for row in rows]
    events = pl.DataFrame(rows, schema=[USER, ITEM, TIME, BASKET], orient="row")
    events = events.with_columns(pl.int_range(pl.len()).alias("place"))
    events = events.with_columns((2.0 ** (pl.col("place") % 20)).alias(QUANTITY))
    if dated:
        events = events.with_columns(pl.datetime(2024, 3, 1) + pl.duration(days=TIME))
    users = pl.DataFrame({USER: range(4), "split": ["train", "validation", "test", "train"]})
    return EventLog.from_frames(events if baskets else events.drop(BASKET), users=users)


def in_order(rows: list[Row]) -> dict[int, list[Row]]:
    """By user in order of time; at one time by where the user began the basket."""
    baskets_of = {}
    for user in sorted({user for user, *_ in rows}):
        by_time = sorted((row for row in rows if row[0] == user), key=lambda row: row[2])
        ids = [basket for *_, basket in by_time]
        baskets_of[user] = sorted(by_time, key=lambda row: (row[2], ids.index(row[3])))
    return baskets_of


def baskets_of(rows: list[Row], *starts: int) -> dict[int, Baskets]:
    """By user the runs of a basket id, none of which passes a start."""

    def key(row: Row) -> tuple[int, int]:
        return row[3], sum(row[2] >= start for start in starts)

    runs = {u: [list(run) for _, run in groupby(of, key)] for u, of in in_order(rows).items()}
    return {u: [(run[0][2], {item for _, item, *_ in run}) for run in of] for u, of in runs.items()}


def events_of(rows: list[Row]) -> dict[int, Baskets]:
    """By user one basket an event."""
    return {u: [(time, {item}) for _, item, time, _ in of] for u, of in in_order(rows).items()}


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


def examples_of(split: Split, part: Part) -> Examples:
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


def agrees(split: Callable[[], Split], everything: dict, fitted: Fitted, *parts: Examples) -> None:
    if not all(parts):
        with pytest.raises(DataError, match="no user is left for"):
            split()
        return
    result = split()
    three_parts = (result.train, result.validation, result.test)
    assert [examples_of(result, part) for part in three_parts] == list(parts)
    assert histories_of(result, result.training) == fitted
    assert histories_of(result, result.latest) == {u: sets(b) for u, b in everything.items()}


def last_left_out(baskets: dict[int, Baskets]) -> tuple:
    long = {user: b for user, b in baskets.items() if len(b) > 2}
    train = {user: upto(b, -3 if user in long else -1) for user, b in baskets.items()}
    return (
        baskets,
        {user: sets(b[:-2] if user in long else b) for user, b in baskets.items()},
        {user: example for user, example in train.items() if example[0]},
        {user: upto(b, -2) for user, b in long.items()},
        {user: upto(b, -1) for user, b in long.items()},
    )


@settings(max_examples=40)
@given(rows)
def test_last_basket(rows: list[Row]) -> None:
    agrees(lambda: last_basket(log_of(rows)), *last_left_out(baskets_of(rows)))


@settings(max_examples=40)
@given(rows)
def test_leave_last_out(rows: list[Row]) -> None:
    agrees(lambda: leave_last_out(log_of(rows)), *last_left_out(events_of(rows)))


@settings(max_examples=40)
@given(rows)
def test_without_baskets_the_last_basket_is_the_last_event(rows: list[Row]) -> None:
    rows = [(*row[:3], 0) for row in rows]
    agrees(lambda: last_basket(log_of(rows, baskets=False)), *last_left_out(events_of(rows)))


@settings(max_examples=40)
@given(rows)
def test_user_holdout(rows: list[Row]) -> None:
    baskets = baskets_of(rows)
    if not {0, 3} & set(baskets) or not {1, 2} <= set(baskets):
        with pytest.raises(DataError, match=r"users.split holds"):
            user_holdout(log_of(rows))
        return
    histories = {user: upto(b, -1) for user, b in baskets.items() if len(b) > 1}
    parts = [{u: a for u, a in histories.items() if u in group} for group in ((0, 3), (1,), (2,))]
    fitted = {user: sets(baskets[user]) for user in (0, 3) if user in baskets}
    agrees(lambda: user_holdout(log_of(rows)), baskets, fitted, *parts)


@settings(max_examples=40)
@given(rows, st.integers(1, 4), st.integers(1, 3))
def test_global_time(rows: list[Row], start: int, length: int) -> None:
    parts: list[Examples] = [{}, {}, {}]
    everything = baskets_of(rows, start, start + length)
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


def splits_of(log: EventLog, start: int, length: int) -> Iterator[tuple[str, Split]]:
    """Every split that the log is long enough for."""
    starts: list[Any] = [start, start + length]
    if log.has_calendar_time:
        starts = [datetime(2024, 3, 1) + timedelta(days=at) for at in starts]
    builders: dict[str, Callable[[], Split]] = {
        "leave_last_out": lambda: leave_last_out(log),
        "last_basket": lambda: last_basket(log),
        "user_holdout": lambda: user_holdout(log),
        "global_time": lambda: global_time(log, validation_start=starts[0], test_start=starts[1]),
    }
    for name, make in builders.items():
        with suppress(DataError):  # no user is left for a part
            yield name, make()


def events_in(split: Split, batch: BasketBatch) -> dict[int, list[int]]:
    """By user the rows of the log that a batch is of, those among them that were summed too."""
    place = {q: row for row, q in enumerate(split.log.events[QUANTITY].to_list())}
    items_of: dict[int, list[int]] = {int(user): [] for user in batch.users}
    for owner, total in zip(batch.owners().tolist(), batch.quantities.tolist(), strict=True):
        bits = (2.0**bit for bit in range(20) if int(total) >> bit & 1)
        items_of[int(batch.users[owner])] += [place[bit] for bit in bits]
    return {user: sorted(of) for user, of in items_of.items()}


def targets_in(split: Split, phase: int) -> dict[int, list[int]]:
    is_target = (split.events["phase"] == phase) & split.events["target"]
    return events_in(split, split._batch(is_target))


few_rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 7), st.integers(0, 2)),
    min_size=6,
    max_size=20,
).filter(lambda rows: len({user for user, *_ in rows}) > 1)


@settings(max_examples=40)
@given(few_rows, days_in, st.integers(1, 4), st.integers(1, 3))
def test_nothing_is_known_before_it_happens(
    rows: list[Row], dated: bool, start: int, length: int
) -> None:
    log = log_of(rows, dated=dated)
    of_user = log.events.with_row_index("row").group_by(USER, maintain_order=True).agg("row")["row"]
    for name, split in splits_of(log, start, length):
        for batch in (split.training, split.latest, unsplit(log)):
            falls = (batch.times.diff() < 0) & (batch.owners().diff() == 0)
            assert not falls.any()
        assert events_in(split, split.latest) == dict(enumerate(of_user.to_list()))
        for user, events in events_in(split, split.training).items():
            assert events == of_user[user].to_list()[: len(events)]
        for phase, part in enumerate((split.train, split.validation, split.test)):
            history, target = events_in(split, part.history), targets_in(split, phase)
            assert history.keys() == target.keys()
            for user, events in history.items():
                # What was known comes first, the target next to it, and of neither is anything left
                # out: as every split promises of a user in the order of the log.
                together = events + target[user]
                assert together == of_user[user].to_list()[: len(together)]
                assert events
                assert target[user]
        if name == "global_time":
            check_times(split, start, length)


def check_times(split: Split, start: int, length: int) -> None:
    """No event at or after a start is known before it, and no target of its phase lies before."""
    day = split.log.events[TIME]
    day = (day - datetime(2024, 3, 1)).dt.total_days() if split.log.has_calendar_time else day
    ends = (start, start + length, day.max() + 1)  # type: ignore[operator]
    for events in events_in(split, split.training).values():
        assert all(day[row] < start for row in events)
    for phase, part in ((1, split.validation), (2, split.test)):
        for events in events_in(split, part.history).values():
            assert all(day[row] < ends[phase - 1] for row in events)
        for targets in targets_in(split, phase).values():
            assert all(ends[phase - 1] <= day[row] < ends[phase] for row in targets)


@settings(max_examples=40)
@given(few_rows, days_in, st.integers(1, 4), st.integers(1, 3))
def test_a_window_is_of_the_users_who_are_asked(
    rows: list[Row], dated: bool, start: int, length: int
) -> None:
    log = log_of(rows, dated=dated)
    for _, split in splits_of(log, start, length):
        for phase, part in ((1, split.validation), (2, split.test)):
            window, is_new = split.window(phase)
            assert window.users.equal(part.history.users)
            assert histories_of(split, window.where(~is_new)) == histories_of(split, part.history)
            first = window.where(is_new)
            opening = first.baskets == first.baskets[first.offsets[:-1]][first.owners()]
            assert events_in(split, first.where(opening)) == targets_in(split, phase)


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
    log_events = split.log.events[history.log_rows.numpy()]
    assert len(log_events) == len(history.items) == 9
    assert log_events[ITEM].to_list() == split.items.ids[history.items.numpy()].to_list()
    assert log_events[TIME].to_list() == history.times.tolist()


def test_without_quantities_each_event_counts_one_and_has_no_value() -> None:
    latest = leave_last_out(EventLog.from_frames(log_of(ROWS).events.drop(QUANTITY))).latest
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
    moments = {k: v.isoformat() if as_text else v for k, v in starts.items()}
    split = global_time(dated(zone), **moments)
    assert split.validation.target.values.tolist() == [2, 2]
    assert split.test.target.values.tolist() == [4, 4]


def test_a_start_may_name_its_own_zone() -> None:
    log = dated("America/New_York")
    start = datetime(2024, 3, 10, 16, 0, tzinfo=UTC)  # noon, on the day that summer time began
    split = global_time(log, validation_start=start, test_start="2024-03-11T16:00:01+00:00")
    assert split.validation.target.values.tolist() == [2, 2]
    assert split.test.target.values.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("log", "starts", "error", "message"),
    [
        (
            dated(None),
            (3, "2024-03-11"),
            ConfigError,
            "validation_start=3: the timestamps of log ask for a time",
        ),
        (log_of(ROWS), (3, 3), ConfigError, "test_start=3 must lie after validation_start=3"),
        (log_of(ROWS), (2, 9), DataError, "no user is left for test;"),
        (
            dated("America/New_York"),
            ("2024-03-10T02:30", "2024-03-12"),
            ConfigError,
            "validation_start=.* no such time in America/New_York; clocks were put forward",
        ),
    ],
)
def test_impossible_starts(
    log: EventLog, starts: tuple, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        global_time(log, validation_start=starts[0], test_start=starts[1])


def test_a_start_between_two_seconds_divides_them() -> None:
    """As it divides a basket that goes on over it."""
    moment = datetime(2024, 1, 1, 12, 0, 0, 500_000)
    times = [moment + timedelta(milliseconds=ms) for ms in (-90_000, -1, 0, 200, 90_000)]
    columns = {USER: [1, 2], TIME: [times] * 2, ITEM: [list(range(5))] * 2}
    events = pl.DataFrame(columns).explode(TIME, ITEM).with_columns(pl.lit("x").alias(BASKET))
    events = pl.concat([events, events.with_columns(pl.lit(-1).alias(ITEM).cast(pl.Int64))])
    first = events.with_columns(pl.col(TIME) - timedelta(days=1), pl.lit("w").alias(BASKET))
    split = global_time(
        EventLog.from_frames(pl.concat([first, events])),
        validation_start=moment,
        test_start=times[-1],
    )
    ids = split.items.ids
    assert ids[split.training.rows(torch.tensor([0])).items.numpy()].to_list()[-3:] == [0, -1, 1]
    assert ids[split.validation.rows(torch.tensor([0])).target.values.numpy()].to_list() == [
        -1,
        2,
        3,
    ]
    assert ids[split.test.rows(torch.tensor([0])).target.values.numpy()].to_list() == [-1, 4]


def test_what_training_ends_with_is_the_last_event_not_the_last_row() -> None:
    """An item that stands at both ends of a basket is one row, at the time of its first event."""
    times = [0, 10, 20, 30, 40, 50]
    columns = {USER: [1, 2], TIME: [times] * 2, ITEM: [[1, 5, 6, 5, 7, 8]] * 2}
    events = pl.DataFrame({**columns, BASKET: [["a", "b", "b", "b", "c", "d"]] * 2})
    split = last_basket(EventLog.from_frames(events.explode(TIME, ITEM, BASKET)))
    assert split.training.times.tolist() == [0, 10, 20] * 2
    assert split.trained_until == 30
    assert split.training_ends.tolist() == [3, 9]


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
    first_values: dict[int, tuple[int, str]] = {}
    at = {(users[u], t) for u, t in train.select("user", "time").iter_rows()}
    of_training = set(train["log_row"])
    changed = []
    for number, row in enumerate(log.events.select(USER, ITEM, TIME, WORDS).rows()):
        user, item, time, attribute = row
        is_training = (user, time) in at if by_basket else number in of_training
        if is_training and attribute is not None:
            first_values[item] = min(
                first_values.get(item, (time, attribute)),
                (time, attribute),
                key=lambda pair: pair[0],
            )
        changed.append(row if is_training else (user, item, time, "later"))
    expected = [first_values.get(item, (0, None))[1] for item in items]
    assert made.item_table.rows() == list(zip(items, expected, strict=True))
    assert made.num_classes[WORDS] == len({word for word in expected if word is not None})
    # Whatever is said later changes nothing.
    assert split(worded(changed)).item_table.equals(made.item_table)


def test_a_table_of_items_is_known_from_the_start() -> None:
    events = pl.DataFrame({USER: [1] * 4 + [2] * 4, ITEM: [*range(4)] * 2, TIME: [*range(4)] * 2})
    items = pl.DataFrame({ITEM: range(4), "title": list("abcd")})
    assert leave_last_out(EventLog.from_frames(events, items)).item_table.equals(items)


def test_each_of_the_last_events_is_a_row_after_all_before_it() -> None:
    # 10 events: 7 train, 1 validates, 2 test; 3 events: 2, 0 and 1; a single event trains.
    rows = [(0, item, item, 0) for item in range(5)] + [(0, item, 5 + item, 0) for item in range(5)]
    rows += [(1, item, item, 0) for item in range(3)] + [(2, 0, 0, 0)]
    split = last_share(log_of(rows, baskets=False), test_share=0.2, validation_share=0.1)
    validation, test = split.validation, split.test
    steps = test.rows(torch.arange(len(test)))
    assert test.target.values.tolist() == [3, 4, 2]
    assert steps.history.users.tolist() == [0, 0, 1]
    assert steps.history.lengths().tolist() == [8, 9, 2]
    assert steps.history.rows(torch.tensor([1])).items.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert validation.target.values.tolist() == [2]
    assert validation.rows(torch.tensor([0])).history.lengths().tolist() == [7]
    assert split.training.lengths().tolist() == [7, 2, 1]
    assert test.last_of_users().target.values.tolist() == [4, 2]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"test_share": 1.0}, "test_share=1.0: expected from 0 to below 1"),
        ({"test_share": 0.5, "validation_share": 0.5}, "leave nothing to train on; lower them"),
    ],
)
def test_shares_leave_something_to_train_on(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        last_share(log_of([(0, 0, 0, 0), (1, 1, 1, 0)]), **shares)
