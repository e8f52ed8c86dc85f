"""BasketBatch against plain lists of baskets."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged

N = 6
History = list[list[int]]
histories = st.lists(
    st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=3), max_size=4), max_size=5
)


def batch_of(users: list[History]) -> BasketBatch:
    return BasketBatch.from_lists(users, N)


def as_lists(batch: BasketBatch) -> list[History]:
    """The baskets of each user, numbers without events left out."""
    users = []
    for begin, end in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        baskets: dict[int, list[int]] = {}
        for number, item in zip(batch.baskets[begin:end], batch.items[begin:end], strict=True):
            baskets.setdefault(int(number), []).append(int(item))
        users.append(list(baskets.values()))
    return users


@given(histories)
def test_lists_come_back(users: list[History]) -> None:
    batch = batch_of(users)
    assert as_lists(batch) == users
    assert len(batch) == len(users)
    assert batch.users.tolist() == [-1] * len(users)
    assert batch.quantities.tolist() == [1.0] * len(batch.items)
    assert batch.num_baskets().tolist() == [len(user) for user in users]
    assert batch.lengths().tolist() == [sum(map(len, user)) for user in users]


@given(histories.filter(len), st.data())
def test_rows_are_gathered_with_all_that_belongs_to_them(
    users: list[History], data: st.DataObject
) -> None:
    index = data.draw(st.lists(st.integers(0, len(users) - 1), max_size=6))
    batch = batch_of(users)
    whole = BasketBatch(
        items=batch.items,
        baskets=batch.baskets,
        times=torch.arange(len(batch.items)),
        quantities=torch.arange(len(batch.items)).float(),
        values=-torch.arange(len(batch.items)).float(),
        log_rows=torch.arange(len(batch.items)) + 5,
        offsets=batch.offsets,
        users=torch.arange(len(users)),
        num_items=N,
    )
    rows = whole.rows(torch.tensor(index, dtype=torch.int64))
    assert as_lists(rows) == [users[u] for u in index]
    assert rows.users.tolist() == index
    events = [e for u in index for e in range(int(batch.offsets[u]), int(batch.offsets[u + 1]))]
    assert rows.times.tolist() == events
    assert rows.quantities.tolist() == events
    assert rows.values.tolist() == [-e for e in events]
    assert rows.log_rows.tolist() == [e + 5 for e in events]


@given(histories, st.data())
def test_baskets_as_rows(users: list[History], data: st.DataObject) -> None:
    batch = batch_of(users)
    batch = batch.where(torch.tensor([data.draw(st.booleans()) for _ in batch.items]).bool())
    rows, offsets = batch.basket_rows()
    baskets = Ragged(batch.items, offsets)
    assert rows.tolist() == baskets.owners().tolist()
    user_items = [part.tolist() for part in batch.items.split(offsets.diff().tolist())]
    assert user_items == [basket for user in as_lists(batch) for basket in user]


@given(histories, st.integers(0, 5))
def test_last_baskets_and_their_age(users: list[History], count: int) -> None:
    batch = batch_of(users)
    ages = [a for u in users for a, b in zip(range(len(u))[::-1], u, strict=True) for _ in b]
    assert batch.age().tolist() == ages
    last = batch.last(count)
    assert as_lists(last) == [user[max(len(user) - count, 0) :] for user in users]
    assert last.age().tolist() == [age for age in ages if age < count]


@given(histories, st.data())
def test_events_are_chosen_and_users_stay(users: list[History], data: st.DataObject) -> None:
    batch = batch_of(users)
    keep = [data.draw(st.booleans()) for _ in batch.items]
    filtered = batch.where(torch.tensor(keep, dtype=torch.bool))
    flags = iter(keep)
    baskets = [[[i for i in basket if next(flags)] for basket in user] for user in users]
    assert as_lists(filtered) == [[basket for basket in user if basket] for user in baskets]
    assert len(filtered) == len(users)


@given(histories, st.integers(1, 6))
def test_the_latest_events_as_histories_of_their_own(users: list[History], count: int) -> None:
    batch = BasketBatch.from_lists(users, N)
    latest = batch.latest(count)
    for row, user in enumerate(users):
        events = [(item, number) for number, basket in enumerate(user) for item in basket]
        first = events[-count][1] if len(events) > count else 0
        row_batch = latest.rows(torch.tensor([row]))
        assert row_batch.items.tolist() == [item for item, _ in events[-count:]]
        assert row_batch.baskets.tolist() == [number - first for _, number in events[-count:]]
    assert latest.users.equal(batch.users)
    assert batch.latest(100) is batch


@given(histories)
def test_sums_and_counts_by_user_and_item(users: list[History]) -> None:
    batch = batch_of(users)
    weights = torch.arange(1.0, len(batch.items) + 1, dtype=torch.float64)
    total = torch.zeros(len(users), N, dtype=torch.float64)
    event = iter(weights.tolist())
    for row, user in enumerate(users):
        for item in (i for basket in user for i in basket):
            total[row, item] += next(event)
    assert batch.sum(weights).equal(total)
    flat = [[i for basket in user for i in basket] for user in users]
    counts = [[user.count(item) for item in range(N)] for user in flat]
    assert batch.counts().tolist() == counts
    assert batch.multi_hot().tolist() == [[min(c, 1) for c in row] for row in counts]


def test_a_batch_moves_whole() -> None:
    there = batch_of([[[0, 1]], [[2]]]).to("meta")
    tensors = [value for value in vars(there).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 8
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.gpu
def test_views_are_the_same_on_a_gpu(cuda: str) -> None:
    here = batch_of([[[0, 1], [1, 2, 3]], [], [[4], [5], [4]]])
    there = here.to(cuda)

    def views(batch: BasketBatch) -> list[Any]:
        last = batch.last(1)
        rows = batch.rows(torch.tensor([2, 0], device=batch.device))
        tensors = [batch.age(), batch.counts(), last.items, last.offsets]
        return [t.tolist() for t in [*tensors, rows.items, rows.offsets]]

    assert views(there) == views(here)


def known(users: list[History]) -> BasketBatch:
    """Histories of users 0, 1, … as a saved model has them."""
    return replace(batch_of(users), users=torch.arange(len(users)))


@given(histories, st.integers(1, 4))
def test_histories_of_all_users_pass(users: list[History], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.batch.histories._EVENTS_AT_ONCE", at_once)
        known(users).check(len(users))


USERS: list[History] = [[[1], [2, 3], [4]], [], [[0], [5]]]
BAD: list[tuple[str, Any, str]] = [
    ("items", [1, 2, 3, 4, 0, 6], "items holds 6; expected 0 .. 5"),
    ("items", [1, 2, 3, 4, 0, -1], "items holds -1; expected 0 .. 5"),
    ("items", [1.0, 2.0, 3.0, 4.0, 0.0, 5.0], r"items is \(6,\) torch.float32"),
    ("users", [0, 1, 1], "users are not 0 .. 2"),
    ("users", [0, 1, 2**40], "users are not 0 .. 2"),
    ("users", [0, 1], r"users is \(2,\) torch.int64; expected \(3,\)"),
    ("offsets", [0, 4, 4, 7], "offsets goes from 0 to 7; expected 0 to 6"),
    ("offsets", [0, 5, 4, 6], "offsets falls"),
    ("offsets", [0, 2**62, -(2**62), 6], "offsets falls"),
    ("baskets", [0, 1, 1, 2, 0, 2], "baskets are not numbered"),
    ("baskets", [1, 2, 2, 3, 0, 1], "baskets are not numbered"),
    ("baskets", [0, 1, 0, 1, 0, 1], "baskets are not numbered"),
    ("baskets", [0, 1, 1, 2, 1, 2], "baskets are not numbered"),
    ("baskets", [0, 1, 1, 2, 0, -(2**63)], "baskets are not numbered"),
    ("baskets", [0, 1, 1, 2, 0], r"baskets is \(5,\) torch.int64; expected \(6,\)"),
    ("times", [0, 1, 1, 2, 0, 2**62], "times are beyond"),
    ("times", [0, 1, 1, -(2**63), 0, 1], "times are beyond"),
    ("log_rows", [0, 1, 2, 3, 4, -2], "log_rows holds less than -1"),
    ("quantities", [1.0, 1.0, 1.0, 1.0, 1.0, -1.0], "quantities hold what is no amount"),
    ("quantities", [1.0, 1.0, 1.0, 1.0, 1.0, float("nan")], "quantities hold what is no amount"),
    ("quantities", [1, 1, 1, 1, 1, 1], r"quantities is \(6,\) torch.int64"),
    ("values", [1.0], r"values is \(1,\) torch.float32; expected \(6,\)"),
]


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize(("name", "numbers", "words"), BAD)
def test_histories_that_no_log_has(
    name: str, numbers: list[Any], words: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.batch.histories._EVENTS_AT_ONCE", at_once)
    batch = known(USERS)
    batch.check(3)
    with pytest.raises(ValueError, match=words):
        replace(batch, **{name: torch.tensor(numbers)}).check(3)
