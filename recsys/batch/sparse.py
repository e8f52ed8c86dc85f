"""Sparse matrices in compressed rows, their products and their singular vectors.

A product of histories (B, n) with anything touches only the events that there are: on short
histories it takes a hundredth of the time of the dense product.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.devices import full_precision


def csr(rows: Ragged, num_columns: int, weights: Tensor | None = None) -> Tensor:
    """(R, num_columns) in torch's CSR layout.

    Args:
        rows: the columns that each of R rows holds, in any order.
        num_columns: all columns lie below it.
        weights: (E,) float32, one a value of `rows`; None: all 1.

    >>> csr(Ragged.from_lists([[2, 0], [1]]), num_columns=3).to_dense()
    tensor([[1., 0., 1.],
            [0., 1., 0.]])
    """
    if weights is None:
        weights = torch.ones(len(rows.values), device=rows.values.device)
    with warnings.catch_warnings():
        # torch says once a process that the layout is a beta.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(
            rows.offsets,
            rows.values,
            weights,
            (len(rows), num_columns),
            check_invariants=False,
        )


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """(R, C) dense: a sparse matrix times a dense or another sparse one.

    In single or double precision, which is all that torch has: halves are widened, and what mixed
    precision around it would lower stays as it is.

    Args:
        left: (R, M) in CSR; what a row holds more than once adds up.
        right: (M, C), dense, or in CSR without repeats.

    >>> counts = csr(Ragged.from_lists([[2, 0], [1]]), num_columns=3)
    >>> matmul(counts, torch.tensor([[1.0], [2.0], [4.0]]))
    tensor([[5.],
            [2.]])
    """
    wide = torch.promote_types(right.dtype, torch.float32)
    with full_precision(right.device):
        return _matmul(left.to(wide), right.to(wide))


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    if right.layout == torch.strided:
        return left @ right
    if left.is_cpu and torch.backends.mkl.is_available():
        # MKL writes the dense product at once, where torch makes a sparse one first. In single
        # precision it rounds the last columns otherwise than the others on some processors;
        # products of floats are exact in double, so columns that are equal stay so.
        product = left.values().new_zeros(left.shape[0], right.shape[1], dtype=torch.float64)
        return product.addmm_(left.double(), right.double()).to(left.dtype)
    return torch.sparse.mm(_coalesced(left), right.to_sparse_coo()).to_dense()


def _coalesced(matrix: Tensor) -> Tensor:
    """A matrix in CSR as coordinates, what a row holds more than once added up."""
    rows = Ragged(matrix.col_indices(), matrix.crow_indices())
    place = torch.stack([rows.owners(), rows.values])
    coordinates = torch.sparse_coo_tensor(
        place, matrix.values(), matrix.shape, check_invariants=False
    )
    return coordinates.coalesce()


def right_singular_vectors(rows: csr_array, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """(C, dim) float64, the leading right singular vectors of (R, C), and the values (dim,).

    By subspace iteration (Halko, Martinsson & Tropp, 2011, algorithm 4.4) from a fixed start, so
    that the result is the same every time, for equal singular values too.
    """
    width = min(2 * dim, rows.shape[1])
    basis = np.random.default_rng(0).standard_normal((rows.shape[1], width))
    for _ in range(10):
        basis = np.linalg.qr(rows.T @ (rows @ basis)).Q
    _, values, turn = np.linalg.svd(rows @ basis, full_matrices=False)
    return basis @ turn[:dim].T, values[:dim]
