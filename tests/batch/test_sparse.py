"""Sparse matrices and their products."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.batch.ragged import Ragged, offsets_of
from recsys.batch.sparse import csr, matmul

histories = st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=5)
matrices = st.lists(st.lists(st.integers(0, 5), unique=True), min_size=6, max_size=6)


def dense(lists: list[list[int]], weights: torch.Tensor) -> torch.Tensor:
    matrix = torch.zeros(len(lists), 6)
    events = [(r, c) for r, row in enumerate(lists) for c in row]
    for (r, c), weight in zip(events, weights.tolist(), strict=True):
        matrix[r, c] += weight
    return matrix


@given(left=histories, right=matrices)
@pytest.mark.parametrize("has_mkl", [True, False])
def test_products_equal_dense_ones(
    left: list[list[int]], right: list[list[int]], has_mkl: bool
) -> None:
    """Histories are in any order and hold an item more than once."""
    if has_mkl and not torch.backends.mkl.is_available():
        pytest.skip("this torch has no MKL")
    first, second = Ragged.from_lists(left), Ragged.from_lists(right)
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(len(first.values), generator=generator)
    b = torch.rand(len(second.values), generator=generator)
    full = dense(right, b)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(torch.backends.mkl, "is_available", lambda: has_mkl)
        sparse = matmul(csr(first, 6, a), csr(second, 6, b))
        strided = matmul(csr(first, 6, a), full)
    torch.testing.assert_close(sparse, dense(left, a) @ full)
    torch.testing.assert_close(strided, dense(left, a) @ full)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_precisions_that_torch_has_no_sparse_products_of(
    kind: torch.dtype, is_sparse: bool
) -> None:
    matrix = csr(Ragged.from_lists([[2, 0], [1]]), 3)
    right = torch.tensor([[0.5, 2.0], [4.0, 1.0], [0.25, 8.0]], dtype=kind)
    with torch.autocast("cpu", torch.bfloat16):
        product = matmul(matrix, right.to_sparse_csr() if is_sparse else right)
    assert product.tolist() == [[0.75, 10.0], [4.0, 1.0]]
    assert product.dtype == (torch.float64 if kind == torch.float64 else torch.float32)


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_equal_columns_have_equal_products_in_any_batch(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    twin = torch.randperm(157, generator=generator)
    weights = torch.randn(157, 157, generator=generator)
    weights *= torch.rand(157, 157, generator=generator) < 0.3
    weights[:, twin[:70]] = weights[:, twin[70:140]]
    items = torch.randint(157, (batch_size, 30), generator=generator).tolist()
    histories = csr(Ragged.from_lists(items), 157, torch.rand(30 * batch_size, generator=generator))
    rows, columns = weights.nonzero(as_tuple=True)
    offsets = offsets_of(torch.bincount(rows, minlength=157))
    for right in (weights, csr(Ragged(columns, offsets), 157, weights[rows, columns])):
        product = matmul(histories, right)
        assert product[:, twin[:70]].equal(product[:, twin[70:140]])


def test_without_weights_every_value_counts_one() -> None:
    matrix = csr(Ragged.from_lists([[2, 0], [], [1]]), 4)
    assert matmul(matrix, torch.eye(4)).tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_the_callers_warnings_stay_as_they_are() -> None:
    csr(Ragged.from_lists([[0]]), 1)
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)
