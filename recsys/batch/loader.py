"""Batches of users, gathered from flat tensors on the device by index arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from recsys import ranks
from recsys.batch.examples import Part


class Loader:
    """Iterates a part in batches of its users.

    Args:
        part: the users, on the device where the batches are wanted.
        batch_size: users a batch; the last may be smaller.
        shuffle_seed: gives the order of the users; None keeps that of the part.
        by_rank: what is left to this rank: some `rows` of every batch, maybe none, or some
            `batches`, or `turns`, which are batches, with one of nobody where other ranks have one
            more; None: all of it. Of a part by rank it is what this rank has: of a batch of all
            users its own, or batches of its own users.

    >>> history = BasketBatch.from_lists([[[0]], [[1]], [[2]]], num_items=3)
    >>> part = Part("train", history, Ragged.from_lists([[1], [2], [0]]))
    >>> [batch.history.items.tolist() for batch in Loader(part, batch_size=2)]
    [[0, 1], [2]]
    """

    def __init__(
        self,
        part: Part,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        by_rank: Literal["rows", "batches", "turns"] | None = None,
    ) -> None:
        self.part = part
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.by_rank = by_rank

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Part]:
        return map(self.part.rows, self.rows())

    def rows(self) -> Iterator[Tensor]:
        """Of each batch the rows of the part that are left to this rank."""
        order = self._order
        if self.shuffle_seed is not None:
            generator = torch.Generator().manual_seed(self.shuffle_seed)
            order = order[torch.randperm(len(order), generator=generator)]
        # One transfer an epoch, whatever the number of batches.
        order = order.to(self.part.history.device)
        for start in self._starts:
            rows = order[start : start + self.batch_size]
            if self.by_rank == "rows":
                rows = rows[rows >= 0] if self.part.by_rank else ranks.own(rows)
            yield rows

    @cached_property
    def _order(self) -> Tensor:
        """(R,) int64 rows of the part; of batches that ranks share -1 for a row of another rank.

        All ranks have the rows of all, in the order of their users, as a process alone has them.
        """
        rows = torch.arange(len(self.part))
        if not (self.part.by_rank and self.by_rank == "rows"):
            return rows
        users = ranks.gather(self.part.users.cpu())
        order = torch.full_like(users, -1)
        order[sum(ranks.sizes(len(rows))[: ranks.rank()]) :][: len(rows)] = rows
        return order[users.argsort(stable=True)]

    @cached_property
    def _starts(self) -> list[int]:
        starts = torch.arange(0, len(self._order), self.batch_size)
        if self.by_rank not in ("batches", "turns"):
            return starts.tolist()
        most = -(-len(starts) // ranks.world())
        if not self.part.by_rank:
            starts = ranks.own(starts)
        elif self.by_rank == "turns":
            most = max(ranks.sizes(len(starts)))
        missing = most - len(starts) if self.by_rank == "turns" else 0
        return [*starts.tolist(), *[len(self.part)] * missing]


@dataclass(frozen=True, eq=False)
class MicroBatch(Part):
    """Some rows of a batch, maybe none.

    Attributes:
        weight: by which its loss is multiplied. The mean over the micro-batches of a batch is then
            the batch's loss.
    """

    weight: float


class MicroBatches:
    """The batches of a loader, each as some rows after others.

    Args:
        loader: of this rank's rows; a micro-batch is then some rows of each rank.
        number: of micro-batches in a batch.
        num_terms: how many terms the loss of a part is a mean of.

    >>> history = BasketBatch.from_lists([[[0]], [[1]], [[2]]], num_items=3)
    >>> part = Part("train", history, Ragged.from_lists([[1], [2], [0]]))
    >>> batches = MicroBatches(Loader(part, batch_size=3), number=2, num_terms=len)
    >>> [(batch.history.items.tolist(), round(batch.weight, 2)) for batch in batches]
    [([0, 1], 1.33), ([2], 0.67)]
    """

    def __init__(self, loader: Loader, number: int, num_terms: Callable[[Part], int]) -> None:
        self.loader = loader
        self.number = number
        self.num_terms = num_terms

    def __len__(self) -> int:
        return len(self.loader) * self.number

    def __iter__(self) -> Iterator[MicroBatch]:
        for batch in self.loader:
            rows = torch.arange(len(batch), device=batch.history.device)
            parts = [batch.rows(index) for index in rows.tensor_split(self.number)]
            terms = ranks.counts([self.num_terms(part) for part in parts])
            for part, num_terms in zip(parts, terms, strict=True):
                weight = num_terms * self.number / max(sum(terms), 1)
                yield MicroBatch(part.name, part.history, part.target, weight)


class KeptBatches:
    """The batches of a loader, gathered once and iterated in every epoch.

    What a batch has computed of itself (`functools.cached_property`) is kept with it.
    """

    def __init__(self, loader: Loader | MicroBatches) -> None:
        self.batches = list(loader)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Part]:
        return iter(self.batches)
