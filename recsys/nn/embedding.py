"""EmbeddingTable: one matrix of vectors, whoever uses it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.precision import wide
from recsys.types import ItemVectors


class EmbeddingTable(nn.Module):
    """Vectors of n items and one padding row of zeros, on one device, trained once.

    What uses a table is given the module, never a copy of its weight, and so reads and trains the
    same storage: an optimiser steps it once, and a saved model holds it once.

    Args:
        num_embeddings: n; index n is the padding.
        embedding_dim: D.
        std: of the normal distribution that the vectors start from.

    >>> table = EmbeddingTable(3, 4)
    >>> table(torch.tensor([[0, 1]])).shape
    torch.Size([1, 2, 4])
    >>> table(torch.tensor([3])).tolist()
    [[0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, std: float = 0.02) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.weight = nn.Parameter(torch.randn(num_embeddings + 1, embedding_dim) * std)
        with torch.no_grad():
            self.weight[num_embeddings].zero_()

    @property
    def vectors(self) -> ItemVectors:
        """(n, D): the real rows, a view of the table's own storage."""
        return self.weight[: self.num_embeddings]

    def forward(self, index: Tensor) -> Tensor:
        """(..., D) vectors of `index` (...) int64; the padding row takes no gradient."""
        # A row's gradient is a sum over all its uses.
        rows = nn.functional.embedding(index, wide(self.weight), padding_idx=self.num_embeddings)
        return rows.to(self.weight.dtype)
