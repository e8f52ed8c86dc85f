"""Negative sampling."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from recsys.batch.ragged import Ragged
from recsys.nn.negatives import uniform

N = 7
rows = st.lists(st.sets(st.integers(0, N - 1), max_size=N - 1).map(sorted), min_size=1, max_size=5)


@given(rows, st.integers(1, 4), st.integers(0, 99))
def test_a_negative_is_an_item_that_the_row_does_not_hold(
    rows: list[list[int]], num_negatives: int, seed: int
) -> None:
    torch.manual_seed(seed)
    items = uniform(Ragged.from_lists(rows), N, num_negatives)
    owners = [row for row in rows for _ in row]
    assert items.shape == (len(owners), num_negatives)
    for row, negatives in zip(owners, items.tolist(), strict=True):
        assert all(0 <= item < N and item not in row for item in negatives)


@pytest.mark.parametrize("row", [[0], [6], [1, 2, 5], [0, 1, 2, 3, 4, 6]])
def test_every_item_outside_the_row_is_as_likely(row: list[int]) -> None:
    torch.manual_seed(0)
    positives = Ragged.from_lists([[2, 3], row])
    counts = torch.bincount(uniform(positives, N, 20_000)[2:].flatten(), minlength=N)
    outside = [item for item in range(N) if item not in row]
    assert counts[row].sum() == 0
    assert chisquare(counts[outside].numpy()).pvalue > 1e-4 or len(outside) == 1


def test_a_row_that_holds_everything_gets_the_padding() -> None:
    items = uniform(Ragged.from_lists([[0, 1, 2], [1]]), 3, 5)
    assert items[:3].unique().tolist() == [3]
    assert not (items[3] == 1).any()
    assert (items[3] < 3).all()


def test_examples_draw_outside_the_rows_that_they_name() -> None:
    torch.manual_seed(0)
    positives = Ragged.from_lists([[0, 1, 2, 3, 4], [], [2, 4, 5, 6]])
    items = uniform(positives, N, 500, rows=torch.tensor([2, 1, 0, 2]))
    distinct = [set(row) for row in items.tolist()]
    assert distinct == [{0, 1, 3}, set(range(N)), {5, 6}, {0, 1, 3}]


@pytest.mark.gpu
def test_negatives_are_drawn_on_the_gpu(cuda: str) -> None:
    items = uniform(Ragged.from_lists([[0, 2], [1]]).to(cuda), 4, 100)
    assert items.is_cuda
    assert set(items[:2].unique().tolist()) == {1, 3}
    assert set(items[2].unique().tolist()) == {0, 2, 3}
