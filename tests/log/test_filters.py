import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import EventLog
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM, TIME, USER
from recsys.log.filters import filtered, first_events, k_core

Pair = tuple[int, int]


def log_of(pairs: list[Pair]) -> EventLog:
    users, items = zip(*pairs, strict=True)
    return EventLog.from_frames(
        pl.DataFrame({USER: users, ITEM: items, TIME: range(len(pairs))}),
        pl.DataFrame({ITEM: range(9), "title": [f"item {i}" for i in range(9)]}),
    )


def naive_core(
    pairs: list[Pair], least_user: int, least_item: int, until: int | None = None
) -> list[Pair]:
    rows = list(enumerate(pairs))  # a row's time is its place
    while True:
        early_pairs = [pair for time, pair in rows if until is None or time < until]
        users, items = [u for u, _ in early_pairs], [i for _, i in early_pairs]
        core = [
            (time, (u, i))
            for time, (u, i) in rows
            if users.count(u) >= least_user and items.count(i) >= least_item
        ]
        if core == rows:
            return sorted(pair for _, pair in core)
        rows = core


pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=2, max_size=40).filter(
    lambda p: len({u for u, _ in p}) > 1
)


untils = st.none() | st.integers(0, 40)


@given(pairs, st.integers(0, 4), st.integers(0, 4), untils)
def test_core_is_what_dropping_in_turn_leaves(
    pairs: list[Pair], user: int, item: int, until: int | None
) -> None:
    expected = naive_core(pairs, user, item, until)
    least = {"min_user_events": user, "min_item_events": item, "until": until}
    if len({u for u, _ in expected}) < 2:
        with pytest.raises(DataError, match=f"min_user_events={user} and min_item_events={item}"):
            k_core(log_of(pairs), **least)  # type: ignore[arg-type]
        return
    core = k_core(log_of(pairs), **least)  # type: ignore[arg-type]
    assert sorted(core.events.select(USER, ITEM).iter_rows()) == expected
    if core.num_events < len(pairs):
        assert core.items[ITEM].to_list() == sorted({i for _, i in expected})
    assert core.users[USER].to_list() == sorted({u for u, _ in expected})


@given(pairs, pairs, st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_what_comes_later_does_not_decide_what_is_left(
    pairs: list[Pair], later: list[Pair], user: int, item: int, first_only: bool
) -> None:
    def early(pairs: list[Pair]) -> list[tuple]:
        least = {"min_user_events": user, "min_item_events": item}
        core = filtered(log_of(pairs), first_only=first_only, until=until, **least)  # type: ignore[arg-type]
        return core.events.filter(pl.col(TIME) < until).rows()

    until = len(pairs)  # a row's time is its place
    try:
        expected = early(pairs)
    except DataError:  # nobody is left
        return
    assert early(pairs + later) == expected


def test_a_core_says_until_when_it_counts() -> None:
    with pytest.raises(DataError, match="min_item_events=2 before 1; lower them"):
        k_core(log_of([(0, 1), (1, 1), (1, 1)]), min_user_events=0, min_item_events=2, until=1)
    with pytest.raises(ConfigError, match="until='soon': the timestamps of log ask for an int"):
        k_core(log_of([(0, 1), (1, 1)]), min_user_events=0, min_item_events=2, until="soon")


@given(pairs)
def test_first_events_keep_the_first_of_each_pair_in_order(pairs: list[Pair]) -> None:
    log = log_of(pairs)
    expected = {pair: time for time, pair in reversed(list(enumerate(pairs)))}
    events = first_events(log).events
    assert {(u, i): t for u, i, t in events.iter_rows()} == expected
    assert events.equals(events.sort(USER, TIME))


def test_counting_starts_when_repeats_are_gone() -> None:
    log = log_of([(0, 1), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 1)])
    assert filtered(log, min_user_events=2).users[USER].to_list() == [0, 1, 2]
    assert filtered(log, first_only=True, min_user_events=2).users[USER].to_list() == [0, 1]


def test_without_minimum_the_log_is_the_same() -> None:
    log = log_of([(0, 1), (1, 2)])
    assert filtered(log) is log
