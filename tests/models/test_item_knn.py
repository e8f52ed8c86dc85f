"""ItemKNN."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.models import ItemKNN
from recsys.models.neighbours import item_knn
from tests.models.conftest import split_by_user


def test_a_case_by_hand(split_of: Any) -> None:
    # Users with 0: three, with 1: two, with 2: one; 0 and 1 share two, 0 and 2 one.
    split = split_of([[[0], [1]], [[0, 1, 2]], [[0], [0]]], 4)
    score = ItemKNN().fit(split).score(BasketBatch.from_lists([[[0]], [[1], [2]], []], 4))
    one, two, both = 2 / (3 * 2) ** 0.5, 1 / 3**0.5, 1 / 2**0.5
    expected = [[0, one, two, 0], [one + two, both, both, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(score, torch.tensor(expected))


def test_shrinkage_and_decay(split_of: Any) -> None:
    split = split_of([[[0], [1]], [[0, 1, 2]], [[0], [0]]], 4)
    model = ItemKNN(shrink=1.0, decay=0.5).fit(split)
    score = model.score(BasketBatch.from_lists([[[1], [2], [2]]], 4))[0]
    one, two = 2 / (6**0.5 + 1), 1 / (3**0.5 + 1)
    both = 1 / (2**0.5 + 1)
    expected = [0.25 * one + 1.5 * two, 1.5 * both, 0.25 * both, 0]
    torch.testing.assert_close(score, torch.tensor(expected))


def test_neighbours_are_cut_off_in_the_row_of_the_historys_item(split_of: Any) -> None:
    # 2 is the third best for 0, though 0 is the only one for 2.
    split = split_of([[[0, 1]], [[0, 1]], [[0, 3]], [[0, 2]], [[2], [2]], [[2], [2]]], 4)
    model = ItemKNN(num_neighbors=2).fit(split)
    from_0, from_2 = model.score(BasketBatch.from_lists([[[0]], [[2]]], 4))
    assert (from_0 > 0).tolist() == [False, True, False, True]
    assert (from_2 > 0).tolist() == [True, False, False, False]


def test_equal_neighbours_are_kept_by_ascending_index(split_of: Any) -> None:
    split = split_of([[[0, 3], [1, 2]], [[1, 2], [3, 0]]], 5)
    model = ItemKNN(num_neighbors=2).fit(split)
    scores = model.score(BasketBatch.from_lists([[[0]], [[2]]], 5))
    assert (scores > 0).tolist() == [[False, True, True, False, False], [True, True] + [False] * 3]


def test_more_pairs_than_memory_would_hold(split_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of([[list(range(6000))], [[0], [1]]], 6000)
    monkeypatch.setattr("recsys.memory.available_memory", lambda: 2**28)
    ItemKNN(num_neighbors=500).check_size(split)
    message = r"ItemKNN, up to 36,000,000 pairs of items, .* take 1 GiB .*; set model.num_neighbors"
    with pytest.raises(DataError, match=message):
        ItemKNN().fit(split)


history = st.lists(
    st.lists(st.integers(0, 6), min_size=1, max_size=3, unique=True), min_size=1, max_size=4
)


@given(
    training=st.lists(history, min_size=2, max_size=6).filter(
        lambda users: any(len(user) > 1 for user in users)
    ),
    asked=history,
    num_neighbors=st.none() | st.integers(1, 7),
    shrink=st.floats(0, 5),
    decay=st.floats(0.1, 1),
    sparse=st.sampled_from([0, 4, 10**6]),
)
def test_equals_loops_over_items(
    training: Any, asked: Any, num_neighbors: int | None, shrink: float, decay: float, sparse: int
) -> None:
    model = ItemKNN(num_neighbors=num_neighbors, shrink=shrink, decay=decay)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_knn, "_PAIRS_AT_ONCE", 9)
        patch.setattr(item_knn, "_SPARSE", sparse)
        model.fit(split_by_user(training, 7))
    holders = [{u for u, h in enumerate(training) if any(i in b for b in h)} for i in range(7)]
    expected = np.zeros(7)
    for age, basket in enumerate(reversed(asked)):
        for i in basket:
            similar = {
                j: len(holders[i] & holders[j])
                / (len(holders[i]) ** 0.5 * len(holders[j]) ** 0.5 + shrink)
                for j in range(7)
                if j != i and holders[i] & holders[j]
            }
            best = sorted(similar, key=lambda j: (-round(similar[j], 9), j))[:num_neighbors]
            for j in best:
                expected[j] += decay**age * similar[j]
    score = model.score(BasketBatch.from_lists([asked], 7))[0]
    np.testing.assert_allclose(score.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value"), [("num_neighbors", 0), ("shrink", -1.0), ("decay", 0.0), ("decay", 1.5)]
)
def test_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{option}={value}"):
        ItemKNN(**{option: value})
