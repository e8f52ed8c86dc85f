"""Prefixes against a plain construction of every basket's example."""

from collections.abc import Iterable
from dataclasses import replace

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.batch.examples import Part, Prefixes
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.log.event_log import EventLog
from recsys.tasks.splits import last_basket

N = 6
History = list[list[int]]
Event = tuple[int, int, int, float]  # item, basket, time, quantity
Example = tuple[int, list[Event], list[int]]  # user, history, target
histories = st.lists(
    st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=4), max_size=5), max_size=5
)


def batch_of(users: list[History]) -> BasketBatch:
    """User u is number 100 - u; every event has a time and a quantity of its own."""
    batch = BasketBatch.from_lists(users, N)
    events = torch.arange(len(batch.items))
    numbers = 100 - torch.arange(len(users))
    return replace(batch, users=numbers, times=7 * events, quantities=events / 4)


def events_of(users: list[History]) -> list[list[Event]]:
    count, rows = 0, []
    for user in users:
        row: list[Event] = []
        for number, basket in enumerate(user):
            for item in basket:
                row.append((item, number, 7 * count, count / 4))
                count += 1
        rows.append(row)
    return rows


def plain(users: list[History], last: int = 9) -> list[Example]:
    return [
        (100 - u, [event for event in events if event[1] < index], sorted(set(user[index])))
        for u, (user, events) in enumerate(zip(users, events_of(users), strict=True))
        for index in range(max(1, len(user) - last), len(user))
    ]


def examples_of(parts: Iterable[Part]) -> list[Example]:
    examples = []
    for part in parts:
        history = part.history
        assert type(part) is Part
        assert type(history) is BasketBatch
        assert history.num_items == N
        columns = (history.items, history.baskets, history.times, history.quantities)
        events = list(zip(*(column.tolist() for column in columns), strict=True))
        ends, values = history.offsets.tolist(), part.target.values.tolist()
        targets = part.target.offsets.tolist()
        for row, user in enumerate(history.users.tolist()):
            user_events = events[ends[row] : ends[row + 1]]
            examples.append((user, user_events, values[targets[row] : targets[row + 1]]))
    return examples


@given(histories)
def test_every_basket_but_the_first_is_an_example(users: list[History]) -> None:
    prefixes = Prefixes.of("train", batch_of(users))
    assert prefixes.name == "train"
    assert len(prefixes) == len(plain(users))
    assert examples_of([prefixes.rows(torch.arange(len(prefixes)))]) == plain(users)


@given(histories, st.integers(1, 6))
def test_the_last_baskets_alone(users: list[History], last: int) -> None:
    prefixes = Prefixes.of("train", batch_of(users), last=last)
    assert examples_of(Loader(prefixes, 3)) == plain(users, last)


@given(histories, st.integers(1, 4), st.none() | st.integers(1, 2))
def test_the_latest_events_before_each_target(
    users: list[History], most: int, last: int | None
) -> None:
    history = batch_of(users)
    whole = Prefixes.of("train", history, last=last)
    some = Prefixes.of("train", history, last=last, max_events=most)
    every = torch.arange(len(whole))
    expected = whole.rows(every).history.latest(most)
    for batch in (some.rows(every), some.to("cpu").rows(every)):
        for name in ("items", "baskets", "times", "quantities", "offsets", "users"):
            assert getattr(batch.history, name).equal(getattr(expected, name))
        assert batch.target.values.equal(whole.target.values)


@given(histories, st.data())
def test_rows_in_any_order_and_repeated(users: list[History], data: st.DataObject) -> None:
    examples = plain(users)
    numbers = st.lists(st.integers(0, len(examples) - 1), max_size=9)
    index = data.draw(numbers) if examples else []
    part = Prefixes.of("train", batch_of(users)).rows(torch.tensor(index, dtype=torch.int64))
    assert len(part) == len(index)
    assert examples_of([part]) == [examples[row] for row in index]


@given(histories, st.integers(1, 4))
def test_through_the_loader(users: list[History], batch_size: int) -> None:
    prefixes = Prefixes.of("train", batch_of(users))
    loader = Loader(prefixes, batch_size)
    assert len(loader) == -(-len(prefixes) // batch_size)
    assert examples_of(loader) == plain(users)
    shuffled = Loader(prefixes, batch_size, shuffle_seed=3)
    assert sorted(examples_of(shuffled)) == sorted(plain(users))


@given(histories)
def test_moved_they_are_the_same(users: list[History]) -> None:
    moved = Prefixes.of("train", batch_of(users)).to("cpu", non_blocking=True)
    assert type(moved) is Prefixes
    assert examples_of(Loader(moved, 3)) == plain(users)


@pytest.mark.gpu
def test_batches_are_gathered_where_the_events_lie(cuda: str) -> None:
    users = [[[0, 1], [2], [0, 3]], [[4]], [[5], [5, 1]]]
    prefixes = Prefixes.of("train", batch_of(users).to(cuda))
    (part,) = Loader(prefixes, 9)
    assert part.history.items.is_cuda
    assert part.target.values.is_cuda
    assert examples_of([part.to("cpu")]) == plain(users)


def test_of_a_split_the_examples_end_with_the_training_targets() -> None:
    """Users have 5, 3 and 2 baskets; the last two of the first two users are asked later."""
    baskets = {"a": [[0, 1], [0, 2], [3, 1], [4], [5]], "b": [[4], [5], [0]], "c": [[2], [4, 5]]}
    rows = [(u, i, t, t) for u, b in baskets.items() for t, items in enumerate(b) for i in items]
    columns = ["user_id", "item_id", "timestamp", "basket_id"]
    split = last_basket(EventLog.from_frames(pl.DataFrame(rows, columns, orient="row")))
    prefixes = Prefixes.of("train", split.training)
    part = prefixes.rows(torch.arange(len(prefixes)))
    assert part.history.users.tolist() == [0, 0, 2]  # b has one basket in training
    assert part.history.num_baskets().tolist() == [1, 2, 1]
    assert part.target.values.tolist() == [0, 2, 1, 3, 4, 5]
    last, train = part.rows(torch.tensor([1, 2])), split.train
    assert last.target.values.tolist() == train.target.values.tolist()
    for name in ("items", "baskets", "times", "users", "offsets", "quantities"):
        assert getattr(last.history, name).equal(getattr(train.history, name))
