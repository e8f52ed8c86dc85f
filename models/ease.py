"""EASE: embarrassingly shallow autoencoders, a linear model from items to items.

Paper: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

    min over W of |X - X W|² + l2 |W|²  with  diag(W) = 0            (eq. 1, 2)
    P = (XᵀX + l2 I)⁻¹,   W = I - P / diag(P),   score = X W          (eq. 8, 3)

X is (U, n), 1 where a user holds the item; P / diag(P) divides column j by P_jj, so W is not
symmetric. Kept: all of it. Changed: a history is multiplied as a sparse row.

Shapes: B users, U training users, n items.
"""

from __future__ import annotations

from typing import Self

import torch
from scipy.sparse import csr_array
from torch import Tensor

from recsys.batch import BasketBatch
from recsys.bounds import check_tensor
from recsys.errors import ConfigError
from recsys.models._item_rows import held_items
from recsys.module import ClosedForm
from recsys.sparse import csr, matmul
from recsys.splits import Split
from recsys.types import Scores


class EASE(ClosedForm):
    """Item-to-item weights by ridge regression of each item on all others.

    Fitting takes O(n³) time and three (n, n) matrices of float64.

    Args:
        l2: the weight of the penalty, lambda in the paper.

    Raises:
        ConfigError: `l2` is not positive.
    """

    item_weights: Tensor

    def __init__(self, *, l2: float = 250.0) -> None:
        super().__init__()
        if l2 <= 0:
            raise ConfigError(f"l2={l2} is not positive; 100 to 1000 suits most logs")
        self.l2 = l2

    def fit(self, split: Split) -> Self:
        self.keep("item_weights", ridge_weights(held_items(split.training), self.l2))
        return self

    def check_kept(self, histories: BasketBatch) -> None:
        num_items = histories.num_items
        check_tensor("item_weights", self.item_weights, torch.float32, num_items, num_items)

    def score(self, batch: BasketBatch) -> Scores:
        held = batch.ragged.distinct(batch.num_items)
        return matmul(csr(held, batch.num_items), self.item_weights)


def ridge_weights(held: csr_array, l2: float) -> Tensor:
    """W (n, n) float32 for X (U, n), as at the top of the file."""
    gram = torch.from_numpy((held.T @ held).toarray()).double()
    gram.diagonal().add_(l2)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    return inverse.div_(-inverse.diagonal()).fill_diagonal_(0).float()
