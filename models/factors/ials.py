"""IALS: matrix factorisation of implicit feedback by alternating least squares.

Papers: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, in
the form of Rendle, Krichene, Zhang, Koren, "Revisiting the Performance of iALS on Item
Recommendation Benchmarks", RecSys 2022, eq. 1 to 4:

    loss = sum over held (u, i) of (w_u·h_i - 1)²  +  a sum over all (u, i) of (w_u·h_i)²
         + l2 ( sum over u of (|I_u| + a n)^nu |w_u|²  +  sum over i of (|U_i| + a U)^nu |h_i|² )

    w_u = ( sum over i in I_u of h_i h_iᵀ + a HᵀH + l2 (|I_u| + a n)^nu I )⁻¹ sum over I_u of h_i

and the same for h_i. a is `unobserved_weight`, nu `frequency_exponent`.

Kept: both halves in turn, exact solves, the scaled regulariser. Changed: nothing is kept of the
training users; a user's vector is solved from the history that is asked with, also for users that
the model has never seen. A user without a history, or with one of items that no training user held,
has a vector of zeros and gets popularity.

Shapes: B users, U training users, n items, D dimensions, L length of a padded row.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from recsys.batch.bounds import check_tensor
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of
from recsys.errors import ConfigError
from recsys.ranges import above, at_least
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split
from recsys.types import ItemVectors, UserVectors

_CELLS_AT_ONCE = 2**17
"""Padded values in a block of rows, at least D a row; times D numbers of memory."""


class IALS(VectorScorer, ClosedForm):
    """User and item vectors whose inner products tell held items from the rest.

    Args:
        embedding_dim: D.
        num_epochs: solves of all users, then all items.
        unobserved_weight: weight of a pair that was not held, relative to one that was.
        l2: weight of the regulariser.
        frequency_exponent: how much more it holds back frequent users and items: 0 alike for all.
        std: of the normal distribution that the item vectors start from, times √D.
        seed: of that start.

    Raises:
        ConfigError: an option is out of its range, or, as vectors are solved for, `l2` is too
            little beside `std`.
    """

    item_vectors: Tensor
    gram: Tensor

    def __init__(
        self,
        *,
        embedding_dim: int = 64,
        num_epochs: int = 16,
        unobserved_weight: float = 0.1,
        l2: float = 0.01,
        frequency_exponent: float = 1.0,
        std: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        above(0, unobserved_weight=unobserved_weight, l2=l2)  # without them no solve is sure
        above(0, std=std)
        at_least(0, frequency_exponent=frequency_exponent)
        at_least(1, embedding_dim=embedding_dim, num_epochs=num_epochs)
        self.embedding_dim = embedding_dim
        self.num_epochs = num_epochs
        self.unobserved_weight = unobserved_weight
        self.l2 = l2
        self.frequency_exponent = frequency_exponent
        self.std = std
        self.seed = seed

    def compute(self, split: Split) -> None:
        by_user = split.training.ragged.distinct(split.num_items)
        by_item = _transposed(by_user, split.num_items)
        generator = torch.Generator().manual_seed(self.seed)
        items = torch.randn(split.num_items, self.embedding_dim, generator=generator)
        items *= self.std / self.embedding_dim**0.5
        for _ in range(self.num_epochs):
            users = self._solve(by_user, items, items.T @ items)
            items = self._solve(by_item, users, users.T @ users)
        self.keep("item_vectors", items)
        self.keep("gram", items.T @ items)

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        dim = self.embedding_dim
        check_tensor("item_vectors", self.item_vectors, torch.float32, histories.num_items, dim)
        check_tensor("gram", self.gram, torch.float32, dim, dim)

    def encode_items(self) -> ItemVectors:
        return self.item_vectors

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        rows = batch.ragged.distinct(batch.num_items)
        return self._solve(rows, self.item_vectors, self.gram)

    def _solve(self, rows: Ragged, vectors: Tensor, gram: Tensor) -> Tensor:
        """(R, D): the vectors of rows of indices of `vectors`, whose Gram matrix is `gram`."""
        dim = vectors.shape[1]
        solutions = vectors.new_zeros(len(rows), dim)
        padded = torch.cat([vectors, vectors.new_zeros(1, dim)])
        scale = (rows.lengths + self.unobserved_weight * len(vectors)) ** self.frequency_exponent
        common = self.unobserved_weight * gram
        for block, indices in _blocks(rows, dim, padding=len(vectors)):
            factors = padded[indices]
            system = torch.baddbmm(common, factors.mT, factors)
            system.diagonal(dim1=1, dim2=2).add_(self.l2 * scale[block, None])
            right = factors.sum(1).unsqueeze(2)
            factor, failed = torch.linalg.cholesky_ex(system)
            if failed.any():
                raise ConfigError(
                    f"l2={self.l2} is too little for these vectors to be solved for; raise it, or "
                    f"lower std={self.std}"
                )
            solutions[block] = torch.cholesky_solve(right, factor).squeeze(2)
        return solutions


def _transposed(rows: Ragged, num_columns: int) -> Ragged:
    """The rows that hold each column, by column."""
    order = rows.values.argsort(stable=True)
    counts = torch.bincount(rows.values, minlength=num_columns)
    return Ragged(rows.owners()[order], offsets_of(counts))


def _blocks(rows: Ragged, dim: int, *, padding: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of about equal length: their indices (B,) and their values (B, L), padded.

    Together they are all rows that are not empty, the longest first. Each row also takes a system
    of D² numbers, however short it is.
    """
    lengths, order = rows.lengths.sort(descending=True)
    start, end = 0, int((lengths > 0).sum())
    while start < end:
        width = int(lengths[start])
        count = max(_CELLS_AT_ONCE // max(width, dim), 1)
        block = order[start : min(start + count, end)]
        start += len(block)
        some = rows.rows(block)
        padded = torch.full((len(block), width), padding, device=block.device)
        padded[torch.arange(width, device=block.device) < some.lengths[:, None]] = some.values
        yield block, padded
