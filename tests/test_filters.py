import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import EventLog
from recsys.errors import DataError
from recsys.events import ITEM, TIME, USER
from recsys.filters import filtered, first_events, k_core

Pair = tuple[int, int]


def log_of(pairs: list[Pair]) -> EventLog:
    users, items = zip(*pairs, strict=True)
    return EventLog.from_frames(
        pl.DataFrame({USER: users, ITEM: items, TIME: range(len(pairs))}),
        pl.DataFrame({ITEM: range(9), "title": [f"item {i}" for i in range(9)]}),
    )


def naive_core(pairs: list[Pair], least_user: int, least_item: int) -> list[Pair]:
    while True:
        users, items = [u for u, _ in pairs], [i for _, i in pairs]
        kept = [
            (u, i)
            for u, i in pairs
            if users.count(u) >= least_user and items.count(i) >= least_item
        ]
        if kept == pairs:
            return sorted(kept)
        pairs = kept


pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=2, max_size=40).filter(
    lambda p: len({u for u, _ in p}) > 1
)


@given(pairs, st.integers(0, 4), st.integers(0, 4))
def test_core_is_what_dropping_in_turn_leaves(pairs: list[Pair], user: int, item: int) -> None:
    expected = naive_core(pairs, user, item)
    if len({u for u, _ in expected}) < 2:
        with pytest.raises(DataError, match=f"min_user_events={user} and min_item_events={item}"):
            k_core(log_of(pairs), min_user_events=user, min_item_events=item)
        return
    core = k_core(log_of(pairs), min_user_events=user, min_item_events=item)
    assert sorted(core.events.select(USER, ITEM).iter_rows()) == expected
    if core.num_events < len(pairs):
        assert core.items[ITEM].to_list() == sorted({i for _, i in expected})
    assert core.users[USER].to_list() == sorted({u for u, _ in expected})


@given(pairs)
def test_first_events_keep_the_first_of_each_pair_in_order(pairs: list[Pair]) -> None:
    log = log_of(pairs)
    expected = {pair: time for time, pair in reversed(list(enumerate(pairs)))}
    kept = first_events(log).events
    assert {(u, i): t for u, i, t in kept.iter_rows()} == expected
    assert kept.equals(kept.sort(USER, TIME))


def test_counting_starts_when_repeats_are_gone() -> None:
    log = log_of([(0, 1), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 1)])
    assert filtered(log, min_user_events=2).users[USER].to_list() == [0, 1, 2]
    assert filtered(log, first_only=True, min_user_events=2).users[USER].to_list() == [0, 1]


def test_without_minimum_the_log_is_the_same() -> None:
    log = log_of([(0, 1), (1, 2)])
    assert filtered(log) is log
