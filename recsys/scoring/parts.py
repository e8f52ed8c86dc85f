"""What scores are made of: parts that add up to them.

Shapes: B scores, P parts of them, E events, n items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch

Kind: TypeAlias = Literal["history", "user", "word", "member", "popularity"]
"""An item that the user has had, a user of the training, a word of the item's text, a model of
those that the model is made of, or what is popular."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts of one kind of B scores; what is 0 is left out.

    Attributes:
        kind: what brought them.
        rows: (P,) int64, whose of the B scores each is a part.
        sources: (P,) int64, the index of an item or a user; of other kinds a place in `names`.
        values: (P,) float64.
        names: of sources that are neither items nor users.
    """

    kind: Kind
    rows: Tensor
    sources: Tensor
    values: Tensor
    names: Sequence[str] = ()

    @classmethod
    def summed(
        cls, kind: Kind, rows: Tensor, sources: Tensor, values: Tensor, names: Sequence[str] = ()
    ) -> Parts:
        """One part for each score and source, of values (E,) of which several may be of one.

        >>> rows, sources = torch.tensor([0, 1, 0, 0]), torch.tensor([7, 7, 2, 7])
        >>> parts = Parts.summed("history", rows, sources, torch.tensor([1.0, 2.0, 0.0, 4.0]))
        >>> parts.rows.tolist(), parts.sources.tolist(), parts.values.tolist()
        ([0, 1], [7, 7], [5.0, 2.0])
        """
        width = int(sources.max()) + 1 if len(sources) else 1
        pairs, pair = torch.unique(rows * width + sources, return_inverse=True)
        total = torch.zeros(len(pairs), dtype=torch.float64, device=values.device)
        total.index_add_(0, pair, values.double())
        pairs, total = pairs[total != 0], total[total != 0]
        return cls(kind, pairs // width, pairs % width, total, names)

    @classmethod
    def of_each(cls, kind: Kind, values: Tensor, names: Sequence[str]) -> Parts:
        """Of values (B, S) for each of the S names."""
        rows, sources = values.nonzero(as_tuple=True)
        return cls(kind, rows, sources, values[rows, sources].double(), names)

    @classmethod
    def of_own(cls, batch: BasketBatch, items: Tensor, weights: Tensor) -> Parts:
        """Of the user's own events (E,) of the item that is scored, and their weights."""
        owners = batch.owners()
        same = batch.items == items[owners]
        return cls.summed("history", owners[same], batch.items[same], weights[same])

    @classmethod
    def of_popularity(cls, values: Tensor) -> Parts:
        """Of what is popular, as much (B,)."""
        return cls.of_each("popularity", values[:, None], ["popularity"])

    def sum(self, num_rows: int) -> Tensor:
        """(B,): the parts of each score added up."""
        total = torch.zeros(num_rows, dtype=torch.float64, device=self.values.device)
        return total.index_add_(0, self.rows, self.values)
