"""Markov."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.batch.histories import BasketBatch
from recsys.errors import DataError
from recsys.models import Markov
from tests.models.conftest import split_by_user


def test_a_case_by_hand(split_of: Any) -> None:
    # After 0 came 1 twice, then 2 once; 2 is never followed, and users do not follow each other.
    split = split_of([[[0], [1], [0], [2]], [[0], [1]]], 4)
    batch = BasketBatch.from_lists([[[3], [0]], [[0], [1]], [[2]], []], 4)
    expected = [[0, 2 / 3, 1 / 3, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(Markov().fit(split).score(batch), torch.tensor(expected))


def test_baskets_follow_baskets(split_of: Any) -> None:
    split = split_of([[[0, 1], [2, 3]], [[0], [3]]], 4)
    batch = BasketBatch.from_lists([[[0]], [[2], [0, 1]]], 4)
    expected = [[0, 0, 1 / 2, 1], [0, 0, 3 / 4, 1]]
    torch.testing.assert_close(Markov().fit(split).score(batch), torch.tensor(expected))


history = st.lists(
    st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True), min_size=1, max_size=4
)


@given(
    training=st.lists(history, min_size=2, max_size=5).filter(
        lambda users: any(len(user) > 1 for user in users)
    ),
    asked=history,
)
def test_equals_loops_over_baskets(training: Any, asked: Any) -> None:
    count, followed = np.zeros((5, 5)), np.zeros(5)
    for user in training:
        for before, after in pairwise(user):
            for i in before:
                followed[i] += 1
                count[i, after] += 1
    expected = (count / np.maximum(followed, 1)[:, None])[asked[-1]].mean(0)
    model = Markov().fit(split_by_user(training, 5))
    score = model.score(BasketBatch.from_lists([asked], 5))[0]
    np.testing.assert_allclose(score.numpy(), expected, atol=1e-6)


def test_more_transitions_than_memory_would_hold(
    split_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = list(range(6000))
    split = split_of([[everything, everything, everything], [[0], [1]]], 6000)
    monkeypatch.setattr("recsys.memory.available_memory", lambda: 2**28)
    # An item is followed by 6,000 others at most, however many baskets hold it.
    message = r"Markov, up to 36,000,000 pairs of items, would take 1 GiB .*; leave out large bask"
    with pytest.raises(DataError, match=message):
        Markov().fit(split)
