"""EmbeddingTable: one matrix of vectors, whoever uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from recsys import ranks
from recsys.checkpoints import SavedRows
from recsys.precision import wide
from recsys.types import ItemVectors


class EmbeddingTable(nn.Module):
    """Vectors of n items and one padding row of zeros, trained once.

    What uses a table is given the module, never a copy of its weight, and so reads and trains the
    same storage: an optimiser steps it once, and a saved model holds it once.

    A sharded table is divided by rows while it is trained on several ranks (`divided`): each holds,
    steps and saves some rows. What is saved is read by either kind.

    Args:
        num_embeddings: n; index n is the padding.
        embedding_dim: D.
        std: of the normal distribution that the vectors start from.
        shard: whether ranks divide it.
        sparse: whether gradients are of the rows that a batch asks for alone, for `RowAdamW`.

    >>> table = EmbeddingTable(3, 4)
    >>> table(torch.tensor([[0, 1]])).shape
    torch.Size([1, 2, 4])
    >>> table(torch.tensor([3])).tolist()
    [[0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        std: float = 0.02,
        shard: bool = False,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.shard, self.sparse = shard, sparse
        self.weight = nn.Parameter(torch.randn(num_embeddings + 1, embedding_dim) * std)
        with torch.no_grad():
            self.weight[num_embeddings].zero_()

    @property
    def is_divided(self) -> bool:
        """Whether this rank holds some of the rows alone."""
        return isinstance(self.weight, DTensor)

    @property
    def vectors(self) -> ItemVectors:
        """(n, D): the real rows, a view of the table's own storage."""
        assert not self.is_divided, "no rank has all rows"
        return self.weight[: self.num_embeddings]

    @property
    def own_vectors(self) -> ItemVectors:
        """(n_r, D): the real rows that this rank holds, maybe none, behind those of earlier ranks.

        A view of the table's own storage.
        """
        if not self.is_divided:
            return self.vectors
        rows = cast(DTensor, self.weight).to_local()
        first, _ = _own_rows(self.num_embeddings + 1)
        return rows[: max(self.num_embeddings - first, 0)]

    def forward(self, index: Tensor) -> Tensor:
        """(..., D) vectors of `index` (...) int64; the padding row takes no gradient."""
        if self.is_divided:
            return self._rows_of_ranks(index.flatten()).view(*index.shape, self.embedding_dim)
        # A row's gradient is a sum over all its uses.
        weight, padding = wide(self.weight), self.num_embeddings
        rows = F.embedding(index, weight, padding_idx=padding, sparse=self.sparse)
        return rows.to(self.weight.dtype)

    def _rows_of_ranks(self, index: Tensor) -> Tensor:
        """(E, D) vectors of `index` (E,): every rank is asked for all, and has some."""
        rows = cast(DTensor, F.embedding(self._for_all(index), self.weight))
        whole = rows.redistribute(placements=[Replicate()]).to_local()
        if whole.requires_grad:  # gradients of several ranks' losses are averaged: recsys.ranks
            whole.register_hook(lambda gradient: gradient / ranks.world())
        is_padding = (index == self.num_embeddings).unsqueeze(1)
        return ranks.back(whole, len(index)).masked_fill(is_padding, 0.0)

    def cross_entropy(self, states: Tensor, targets: Tensor) -> Tensor:
        """The mean over all ranks of the cross-entropy of `states` with all items, divided.

        A rank makes the logits of its own items, for the states of all. To be called, and gone back
        through, within `torch.distributed.tensor.parallel.loss_parallel`.

        Args:
            states: (E, D).
            targets: (E,) items.
        """
        logits = self._for_all(states) @ self.weight.T
        no_padding = torch.zeros(self.num_embeddings + 1, device=states.device)
        no_padding[self.num_embeddings] = -torch.inf
        logits = logits + like(no_padding, self.weight)
        every = self._for_all(targets)
        loss = F.cross_entropy(logits, every, reduction="sum") / max(len(every), 1)
        return loss.to_local() if isinstance(loss, DTensor) else loss

    def _for_all(self, rows: Tensor) -> DTensor:
        """Rows of all ranks, on all."""
        mesh = cast(DTensor, self.weight).device_mesh
        return DTensor.from_local(ranks.gather(rows), mesh, [Replicate()], run_check=False)

    def divide(self) -> None:
        """Keep the rows of this rank alone."""
        mesh = init_device_mesh(self.weight.device.type, (ranks.world(),))
        rows = distribute_tensor(self.weight.detach(), mesh, [Shard(0)], src_data_rank=None)
        self.weight = nn.Parameter(rows)

    def join(self) -> None:
        """Hold all rows again."""
        self.weight = nn.Parameter(whole(self.weight.detach()))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        name = f"{prefix}weight"
        if name in state_dict:
            state_dict[name] = like(state_dict[name], self.weight)
        super()._load_from_state_dict(state_dict, prefix, *args)


def tables_of(model: nn.Module) -> list[EmbeddingTable]:
    """The tables of a model."""
    return [module for module in model.modules() if isinstance(module, EmbeddingTable)]


def sharded(model: nn.Module) -> list[EmbeddingTable]:
    """The tables of a model that ranks divide."""
    return [table for table in tables_of(model) if table.shard]


@contextmanager
def joined_tables(model: nn.Module) -> Iterator[None]:
    """A block in which every rank holds all rows of all tables, to score by them."""
    tables = [(table, table.weight) for table in sharded(model) if table.is_divided]
    for table, _ in tables:
        table.join()
    yield
    for table, rows in tables:
        table.weight = rows


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which ranks hold rows, as all of it; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor | SavedRows, other: Tensor) -> Tensor:
    """A whole tensor, or the rows of it that this rank holds of the other.

    Raises:
        ValueError: what is in files has another shape than what is divided.
    """
    if isinstance(tensor, SavedRows):
        return _read(tensor, other) if isinstance(other, DTensor) else tensor.whole()
    if not isinstance(other, DTensor) or isinstance(tensor, DTensor):
        return tensor
    on = tensor.to(other.device)
    return distribute_tensor(on, other.device_mesh, other.placements, src_data_rank=None)


def _read(saved: SavedRows, other: DTensor) -> Tensor:
    """From files the rows that this rank holds of the other, and no more."""
    if saved.shape != other.shape:
        raise ValueError(f"shape {tuple(saved.shape)}; expected {tuple(other.shape)}")
    rows = saved.rows(*_own_rows(len(other))).to(other.device)
    of_all: Any = {"shape": other.shape, "stride": other.stride(), "run_check": False}
    return DTensor.from_local(rows, other.device_mesh, other.placements, **of_all)


def _own_rows(number: int) -> tuple[int, int]:
    """From which to which of so many rows a rank holds, as `DTensor` divides them."""
    each = -(-number // ranks.world())
    first = min(ranks.rank() * each, number)
    return first, min(first + each, number)
