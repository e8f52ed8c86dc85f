"""UPCF."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError
from recsys.models import UPCF
from recsys.tasks.splits import Split
from recsys.testing.contracts import ModelContract


class TestContract(ModelContract):
    def config(self, split: Split) -> dict[str, Any]:
        return {"_target_": "recsys.models.UPCF", "num_recent": 3}


def test_a_case_by_hand(split_of: Any) -> None:
    # Neighbours hold {0, 1, 2} and {3}; of the first's last two baskets one holds 1, both hold 2.
    split = split_of([[[0], [1, 2], [2]], [[3], [3]]], 5)
    model = UPCF(num_recent=2, asymmetry=0.5, locality=2.0).fit(split)
    batch = BasketBatch.from_lists([[[4], [0], [1, 4]]], 5)
    similarity = 2 / (3**0.5 * 3**0.5)  # 0 and 1 of three and three items
    neighbour = torch.tensor([0, 0.5, 1, 0, 0]) * similarity**2
    frequency = torch.tensor([0.5, 0.5, 0, 0, 0.5])
    torch.testing.assert_close(model.score(batch)[0], frequency + neighbour)


def test_asymmetry_chooses_whose_size_counts(split_of: Any) -> None:
    split = split_of([[[0, 1, 2], [3]], [[0], [0]]], 5)
    batch = BasketBatch.from_lists([[[0, 4]]], 5)
    asked_only = UPCF(num_recent=1, asymmetry=1.0, locality=1.0).fit(split).score(batch)[0]
    neighbour_only = UPCF(num_recent=1, asymmetry=0.0, locality=1.0).fit(split).score(batch)[0]
    torch.testing.assert_close(asked_only, torch.tensor([1 + 1 / 2, 0, 0, 1 / 2, 1]))
    torch.testing.assert_close(neighbour_only, torch.tensor([1 + 1.0, 0, 0, 1 / 4, 1]))


def test_a_user_is_no_neighbour_of_its_own(split_of: Any) -> None:
    split = split_of([[[0], [1]], [[2], [3]]], 4)
    model = UPCF(num_recent=1).fit(split)
    torch.testing.assert_close(
        model.score(split.training), torch.tensor([[0, 1.0, 0, 0], [0, 0, 0, 1]])
    )


def test_a_user_without_a_history_gets_zeros(split_of: Any) -> None:
    model = UPCF().fit(split_of([[[0], [1]]], 3))
    assert model.score(BasketBatch.from_lists([[]], 3)).tolist() == [[0, 0, 0]]


basket = st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True)
histories = st.lists(basket, min_size=2, max_size=6)


@settings(max_examples=25)
@given(
    training=st.lists(histories, min_size=2, max_size=6),
    asked=histories,
    num_recent=st.integers(1, 4),
    asymmetry=st.floats(0, 1),
    locality=st.floats(1, 9),
)
def test_equals_a_loop_over_users_and_items(
    split_of: Any, training: Any, asked: Any, num_recent: int, asymmetry: float, locality: float
) -> None:
    model = UPCF(num_recent=num_recent, asymmetry=asymmetry, locality=locality)
    model.fit(split_of(training, 6))
    expected = np.zeros(6)
    own_items = set().union(*asked)
    for history in [*training, asked]:
        items = set().union(*history)
        common = len(own_items & items)
        similarity = common / (len(own_items) ** asymmetry * len(items) ** (1 - asymmetry))
        if history is asked:
            similarity = 1
        recent = history[-num_recent:]
        for i in range(6):
            expected[i] += similarity**locality * sum(i in b for b in recent) / len(recent)
    scores = model.score(BasketBatch.from_lists([asked], 6))[0]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_at_least_one_basket_is_recent() -> None:
    with pytest.raises(ConfigError, match="num_recent=0"):
        UPCF(num_recent=0)
