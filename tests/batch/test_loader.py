"""The loader: every user once an epoch, in an order that a seed gives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged


def part_of(num_users: int) -> Part:
    """User u has had item u, u times over, and is asked for item 0."""
    history = BasketBatch.from_lists([[[u]] * u for u in range(num_users)], 50)
    history = history.rows(torch.arange(num_users))
    users = torch.arange(num_users)
    history = BasketBatch(**{**vars(history), "users": users})
    return Part("train", history, Ragged.from_lists([[0]] * num_users))


def users_of(loader: Loader) -> list[list[int]]:
    return [batch.history.users.tolist() for batch in loader]


@given(st.integers(0, 12), st.integers(1, 5))
def test_batches_follow_the_part(num_users: int, batch_size: int) -> None:
    loader = Loader(part_of(num_users), batch_size)
    batches = users_of(loader)
    assert [user for batch in batches for user in batch] == list(range(num_users))
    assert len(loader) == len(batches) == -(-num_users // batch_size)
    assert all(len(batch) == batch_size for batch in batches[:-1])


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 9))
def test_shuffled_batches_hold_every_user_once(num_users: int, batch_size: int, seed: int) -> None:
    loader = Loader(part_of(num_users), batch_size, shuffle_seed=seed)
    batches = users_of(loader)
    assert sorted(user for batch in batches for user in batch) == list(range(num_users))
    assert users_of(loader) == batches


def test_the_order_is_the_seeds() -> None:
    orders = [users_of(Loader(part_of(20), 20, shuffle_seed=seed)) for seed in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != [list(range(20))]


def test_histories_stay_with_their_users() -> None:
    for batch in Loader(part_of(9), 4, shuffle_seed=1):
        for row, user in enumerate(batch.history.users.tolist()):
            single = batch.history.rows(torch.tensor([row]))
            assert single.items.tolist() == [user] * user
        assert batch.target.lengths.tolist() == [1] * len(batch)


@pytest.mark.gpu
def test_batches_are_gathered_where_the_part_lies(cuda: str) -> None:
    loader = Loader(part_of(9).to(cuda), 4, shuffle_seed=1)
    assert all(batch.history.items.is_cuda and batch.target.values.is_cuda for batch in loader)
    assert users_of(loader) == users_of(Loader(part_of(9), 4, shuffle_seed=1))
