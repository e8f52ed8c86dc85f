"""IALS."""

from typing import Any

import numpy as np
import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.models import IALS
from recsys.models.factors import ials
from recsys.tasks.splits import Split

BASKETS = [[[0, 1]], [[0, 1, 2], [0]], [[0], [1, 3]], [[2, 3]], [[2], [4]], [[2, 0, 4]], [[4, 1]]]
OPTIONS: dict[str, Any] = {
    "embedding_dim": 3,
    "unobserved_weight": 0.3,
    "l2": 0.05,
    "frequency_exponent": 0.7,
}


def held(baskets: list[list[list[int]]]) -> np.ndarray:
    matrix = np.zeros((len(baskets), 5))
    for user, history in enumerate(baskets):
        matrix[user, [item for basket in history for item in basket]] = 1
    return matrix


def solved(x: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors of the rows of `x`, each by a least-squares problem over all of its columns."""
    a, l2, nu, dim = 0.3, 0.05, 0.7, vectors.shape[1]
    rows = []
    for row in x:
        penalty = (l2 * (row.sum() + a * len(row)) ** nu) ** 0.5
        held_rows = vectors[row > 0]
        design = np.vstack([held_rows, a**0.5 * vectors, penalty * np.eye(dim)])
        target = np.append(np.ones(len(held_rows)), np.zeros(len(design) - len(held_rows)))
        rows.append(np.linalg.lstsq(design, target, rcond=None)[0])
    return np.array(rows)


@pytest.fixture
def split(split_of: Any) -> Split:
    return split_of(BASKETS, 5)


def test_equals_least_squares_problems_in_turn(split: Split) -> None:
    model = IALS(num_epochs=3, std=1.0, seed=4, **OPTIONS).fit(split)
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    items = start.numpy() / 3**0.5
    x = held(BASKETS)
    for _ in range(3):
        users = solved(x, items)
        items = solved(x.T, users)
    np.testing.assert_allclose(model.encode_items().numpy(), items, atol=1e-4)


def test_users_are_solved_from_their_history(split: Split) -> None:
    model = IALS(std=1.0, **OPTIONS).fit(split)
    histories = [[[3]], [[0], [0, 2, 4]], [[1, 2]]]
    batch = BasketBatch.from_lists(histories, 5)
    items = model.encode_items().numpy()
    expected = solved(held(histories), items)
    np.testing.assert_allclose(model.encode_users(batch).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(model.score(batch).numpy(), expected @ items.T, atol=1e-5)


def objective(x: np.ndarray, users: np.ndarray, items: np.ndarray) -> float:
    a, l2, nu = 0.3, 0.05, 0.7
    products = users @ items.T
    user_scale = (x.sum(1) + a * x.shape[1]) ** nu
    item_scale = (x.sum(0) + a * x.shape[0]) ** nu
    penalty = user_scale @ (users**2).sum(1) + item_scale @ (items**2).sum(1)
    return float((x * (products - 1) ** 2).sum() + a * (products**2).sum() + l2 * penalty)


def test_every_epoch_lowers_the_loss(split: Split) -> None:
    losses = []
    for num_epochs in range(1, 6):
        model = IALS(num_epochs=num_epochs, std=1.0, **OPTIONS).fit(split)
        users = model.encode_users(split.training).numpy()
        losses.append(objective(held(BASKETS), users, model.encode_items().numpy()))
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


def test_a_user_without_a_history_gets_zeros(split: Split) -> None:
    model = IALS(**OPTIONS).fit(split)
    assert model.encode_users(BasketBatch.from_lists([[], []], 5)).tolist() == [[0, 0, 0]] * 2


def test_blocks_hold_every_row_once_and_do_not_change_the_result(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = IALS(**OPTIONS).fit(split).encode_items()
    monkeypatch.setattr(ials, "_CELLS_AT_ONCE", 4)
    rows = Ragged.from_lists([[1], [], [0, 2, 3, 4, 5], [2, 3], [4], [0, 1]])
    blocks = list(ials._blocks(rows, 1, padding=9))
    assert [block.tolist() for block, _ in blocks] == [[2], [3, 5], [0, 4]]
    assert [indices.tolist() for _, indices in blocks][1:] == [[[2, 3], [0, 1]], [[1], [4]]]
    # A system of 3 x 3 numbers a row is more than a row of one value.
    assert [len(block) for block, _ in ials._blocks(rows, 3, padding=9)] == [1] * 5
    torch.testing.assert_close(IALS(**OPTIONS).fit(split).encode_items(), whole)


def test_systems_that_have_no_solution(split: Split) -> None:
    with pytest.raises(ConfigError, match=r"l2=1e-30 is too little .* or lower std=1e\+30"):
        IALS(**(OPTIONS | {"l2": 1e-30, "std": 1e30})).fit(split)


@pytest.mark.parametrize("option", ["unobserved_weight", "l2"])
def test_weights_must_be_positive(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}=0"):
        IALS(**{option: 0.0})
