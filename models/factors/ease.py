"""EASE: embarrassingly shallow autoencoders, a linear model from items to items.

Paper: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

    min over W of |X - X W|² + l2 |W|²  with  diag(W) = 0            (eq. 1, 2)
    P = (XᵀX + l2 I)⁻¹,   W = I - P / diag(P),   score = X W          (eq. 8, 3)

X is (U, n), 1 where a user holds the item; P / diag(P) divides column j by P_jj, so W is not
symmetric. Kept: all of it. Changed: a history is multiplied as a sparse row. A user without a
history, or with one of items that no training user held, gets popularity.

Shapes: B users, U training users, n items.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from recsys.batch.bounds import check_tensor
from recsys.batch.histories import BasketBatch
from recsys.batch.padded import multi_hot
from recsys.batch.sparse import csr, matmul
from recsys.memory import check_memory
from recsys.models.neighbours._item_rows import held_items
from recsys.ranges import above
from recsys.scoring.kinds import Explainable, Portable
from recsys.scoring.parts import Parts
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split
from recsys.types import Scores


class EASE(Explainable, Portable, ClosedForm):
    """Item-to-item weights by ridge regression of each item on all others.

    Fitting takes O(n³) time and three (n, n) matrices of float64.

    Args:
        l2: the weight of the penalty, lambda in the paper.

    Raises:
        ConfigError: `l2` is not positive.
        DataError: on fitting, the three matrices would take more memory than there is.

    >>> split = last_basket(checkerboard(num_items=4))
    >>> model = EASE(l2=10.0).fit(split)
    >>> model.score(BasketBatch.from_lists([[[0]]], num_items=4)) > 0  # item 2 has 0's colour
    tensor([[False, False,  True, False]])
    """

    item_weights: Tensor

    def __init__(self, *, l2: float = 250.0) -> None:
        super().__init__()
        above(0, l2=l2)
        self.l2 = l2

    def check_size(self, split: Split) -> None:
        check_ridge(split.num_items)

    def size_to_fit(self, split: Split) -> int:
        return ridge_size(split.num_items)

    def compute(self, split: Split) -> None:
        self.keep("item_weights", ridge_weights(held_items(split.training), self.l2))

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        num_items = histories.num_items
        check_tensor("item_weights", self.item_weights, torch.float32, num_items, num_items)

    def score(self, batch: BasketBatch) -> Scores:
        rows = batch.ragged.distinct(batch.num_items)
        return matmul(csr(rows, batch.num_items), self.item_weights)

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        rows = batch.ragged.distinct(batch.num_items)
        values = self.item_weights[rows.values, items[rows.owners()]]
        return [Parts.summed("history", rows.owners(), rows.values, values)]

    def portable(self) -> nn.Module:
        return Shallow(self.item_weights)


class Shallow(nn.Module):
    """EASE of padded rows.

    Args:
        item_weights: W (n, n).
    """

    item_weights: Tensor

    def __init__(self, item_weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("item_weights", item_weights)

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """(B, n) of items (B, L), of which `lengths` (B,) are held."""
        return multi_hot(items, lengths, self.item_weights.shape[0]) @ self.item_weights


def ridge_size(num_items: int) -> int:
    """Bytes that `ridge_weights` of n items takes."""
    return 3 * 8 * num_items**2


def check_ridge(num_items: int) -> None:
    """See that there is memory for `ridge_weights` of n items.

    Raises:
        DataError: there is not.
    """
    check_memory(
        ridge_size(num_items),
        f"EASE on {num_items:,} items",
        "choose a sparse model (item_knn, ials), or leave out rare items (min_item_events)",
    )


def ridge_weights(user_items: csr_array, l2: float) -> Tensor:
    """W (n, n) float32 for X (U, n), as at the top of the file.

    Raises:
        DataError: it would take more memory than there is.
    """
    check_ridge(user_items.shape[1])
    gram = torch.from_numpy((user_items.T @ user_items).toarray()).double()
    gram.diagonal().add_(l2)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    return inverse.div_(-inverse.diagonal()).fill_diagonal_(0).float()
