"""An index whose vectors ranks divide.

Shapes: Q queries of this rank, R of all ranks, n_r vectors of this rank, k places.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys import ranks
from recsys.batch.ragged import Ragged, offsets_of
from recsys.retrieval.index import ExactIndex, ItemIndex
from recsys.retrieval.lists import TopK, merged
from recsys.retrieval.tiles import NEVER
from recsys.types import ItemVectors


class DividedIndex(ItemIndex):
    """Each rank searches its own vectors for the queries of all; what all find is merged.

    By an exact index of their own, ranks find what one index of all vectors does, to the last bit.
    An approximate one is trained on the vectors of its rank, and looks at others than one of all.

    All ranks search as often as each other, be it for no query.

    Args:
        vectors: (n_r, D), maybe none; they follow those of the rank before.
        build: makes the index of them.

    >>> index = DividedIndex(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    >>> index.search(torch.tensor([[2.0, 1.0]]), k=2).items.tolist()  # by the only rank
    [[2, 0]]
    """

    def __init__(
        self, vectors: ItemVectors, build: Callable[[Tensor], ItemIndex] = ExactIndex
    ) -> None:
        sizes = ranks.sizes(len(vectors))
        self.first_item = sum(sizes[: ranks.rank()])
        self.total = sum(sizes)
        self.part = build(vectors) if len(vectors) else None

    @property
    def num_items(self) -> int:
        return self.total

    def best(self, queries: Tensor, k: int, exclude: Ragged | None) -> TopK:
        counts = ranks.sizes(len(queries))
        if exclude is not None:
            lengths = ranks.gather(exclude.lengths)
            exclude = Ragged(ranks.gather(exclude.values), offsets_of(lengths))
        lists = self._of_part(ranks.gather(queries), k, exclude)
        shape = (len(counts), len(queries), k)
        items, scores = (
            ranks.exchange(rows, counts).view(shape) for rows in (lists.items, lists.scores)
        )
        return merged([TopK(*of_rank) for of_rank in zip(items, scores, strict=True)], k)

    def _of_part(self, queries: Tensor, k: int, exclude: Ragged | None) -> TopK:
        """Lists (R, k) of this rank's items, with places left empty where it has fewer."""
        if self.part is None:
            items = torch.full((len(queries), k), -1, device=queries.device)
            return TopK(items, items.double().fill_(NEVER))
        width = min(k, self.part.num_items)
        if exclude is not None:
            exclude = within(exclude, self.first_item, self.part.num_items)
        best = self.part.best(queries, width, exclude)
        items = best.items + self.first_item * (best.items >= 0)
        missing = (0, k - width)
        return TopK(F.pad(items, missing, value=-1), F.pad(best.scores, missing, value=NEVER))


def within(rows: Ragged, first: int, count: int) -> Ragged:
    """Of rows of items those from `first` on, `count` of them, as counted from there.

    >>> within(Ragged.from_lists([[4, 2], [], [3, 9]]), first=3, count=2).values.tolist()
    [1, 0]
    """
    values = rows.values - first
    is_within = (values >= 0) & (values < count)
    lengths = torch.bincount(rows.owners()[is_within], minlength=len(rows))
    return Ragged(values[is_within], offsets_of(lengths))
