"""The k best items for each query, searched among item vectors.

Every exact path gives one answer, whatever the batch size, the threads or the library: items in
order of (score descending, index ascending). For vectors that takes more than one matrix product,
whose float32 rounding depends on its blocking: a shortlist from float32 is scored again in float64,
and where the rounding error of float32 could have kept an item off the shortlist, the row is
searched again for everything within that error.

Shapes: B or Q queries, n items, D dimensions, k places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from recsys.batch.ragged import Ragged, offsets_of
from recsys.errors import DataError
from recsys.retrieval.lists import TopK, check_search, ordered
from recsys.retrieval.tiles import NEVER, best_of, tiles
from recsys.types import ItemVectors, UserVectors

_PAIRS_AT_ONCE = 2**12  # few, so that the vectors of the pairs stay in the cache
_CELLS_AT_ONCE = 2**22


class ItemIndex(ABC):
    """Finds the items with the largest inner products, wherever their vectors lie."""

    @property
    @abstractmethod
    def num_items(self) -> int:
        """How many items there are."""

    @abstractmethod
    def best(self, queries: Tensor, k: int, exclude: Ragged | None) -> TopK:
        """What `search` finds, with scores in float64: by these the lists of parts are merged."""

    @torch.no_grad()
    def search(self, queries: UserVectors, k: int, exclude: Ragged | None = None) -> TopK:
        """The k items with the largest inner product for each query.

        Args:
            queries: (Q, D), on the device of the vectors.
            k: 1 .. n.
            exclude: Q rows of item indices that are no candidates.

        Raises:
            CatalogueError: k is not in 1 .. n.
            DataError: a query is not finite, or `exclude` has not Q rows.
        """
        check_search(k, self.num_items, exclude, len(queries))
        best = self.best(queries.float(), k, exclude)
        return TopK(best.items, best.scores.float())


class VectorIndex(ItemIndex):
    """Searches vectors that all lie in one place.

    Args:
        vectors: (n, D). float32 is searched where it lies; other types are converted.

    Attributes:
        exact: whether `search` finds the true k best.
        queries_at_once: rows of queries per step, which bounds the memory and nothing else.

    Raises:
        DataError: a vector is not finite.
    """

    exact = True
    queries_at_once = 256

    def __init__(self, vectors: ItemVectors) -> None:
        self.vectors = vectors.detach().float()
        self.longest = _norms(self.vectors, "item vectors").max().item()

    @property
    def num_items(self) -> int:
        return len(self.vectors)

    @abstractmethod
    def shortlist(self, queries: Tensor, width: int, exclude: Ragged | None) -> TopK:
        """The `width` best in float32, best first; ties and rounding are left to `search`."""

    def best(self, queries: Tensor, k: int, exclude: Ragged | None) -> TopK:
        norms = _norms(queries, "queries")
        lists = []
        with _full_float32():
            every = torch.arange(len(queries), device=queries.device)
            for rows in every.split(self.queries_at_once):
                excluded = None if exclude is None else exclude.rows(rows)
                lists.append(self._search(queries[rows], norms[rows], k, excluded))
        items = torch.cat([top.items for top in lists])
        return TopK(items, torch.cat([top.scores for top in lists]))

    def _search(self, queries: Tensor, norms: Tensor, k: int, exclude: Ragged | None) -> TopK:
        width = min(len(self.vectors), k + max(k // 4, 16))
        short = self.shortlist(queries, width, exclude)
        best = self._scored_again(queries, short, k)
        if not self.exact or width == len(self.vectors):
            return best
        # An item off the shortlist has at most its last score in float32, and this much more.
        error = _rounding(norms, self.longest, queries.shape[1])
        last = short.scores[:, -1]
        doubtful = ((last + error >= best.scores[:, -1]) & (last > NEVER)).nonzero()[:, 0]
        for rows in doubtful.split(max(1, _CELLS_AT_ONCE // len(self.vectors))):
            excluded = None if exclude is None else exclude.rows(rows)
            floor = best.scores[rows, -1] - error[rows]
            again = self._search_above(queries[rows], floor, k, excluded)
            best.items[rows], best.scores[rows] = again.items, again.scores
        return best

    def _scored_again(self, queries: Tensor, short: TopK, k: int) -> TopK:
        """The k best of a shortlist (B, width) by their scores in float64."""
        none = short.scores == NEVER
        items = short.items.masked_fill(none, 0)
        row = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])
        scores = self._score(queries, row, items.flatten()).view(items.shape)
        best = ordered(scores.masked_fill(none, NEVER), items)
        return TopK(best.items[:, :k], best.scores[:, :k])

    def _search_above(self, queries: Tensor, floor: Tensor, k: int, exclude: Ragged | None) -> TopK:
        """The k best among all items whose float32 score reaches the row's floor (B,)."""
        pairs = [
            (row, start + column)
            for start, scores in tiles(queries, self.vectors, exclude)
            for row, column in [(scores >= floor[:, None]).nonzero(as_tuple=True)]
        ]
        row, item = (torch.cat(part) for part in zip(*pairs, strict=True))
        scores = self._score(queries, row, item)
        # Items ascend within a row, and both sorts keep the order of equals.
        scores, order = scores.sort(descending=True, stable=True)
        row, by_row = row[order].sort(stable=True)
        first = offsets_of(torch.bincount(row, minlength=len(queries)))[:-1]
        places = first[:, None] + torch.arange(k, device=row.device)
        return TopK(item[order][by_row][places], scores[by_row][places])

    def _score(self, queries: Tensor, row: Tensor, item: Tensor) -> Tensor:
        """(P,) inner products of pairs in float64, each of them the same in any company."""
        pieces = zip(row.split(_PAIRS_AT_ONCE), item.split(_PAIRS_AT_ONCE), strict=True)
        scores = [(queries[r].double() * self.vectors[i].double()).sum(1) for r, i in pieces]
        return torch.cat(scores)


class ExactIndex(VectorIndex):
    """Exact search where the vectors lie, on their device, tile by tile of the catalogue.

    >>> index = ExactIndex(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    >>> top = index.search(torch.tensor([[2.0, 1.0]]), k=2)
    >>> top.items.tolist(), top.scores.tolist()
    ([[2, 0]], [[3.0, 2.0]])
    """

    def shortlist(self, queries: Tensor, width: int, exclude: Ragged | None) -> TopK:
        scored = tiles(queries, self.vectors, exclude, at_least=width)
        scores, items = best_of(scored, width)
        return TopK(items, scores)


@contextmanager
def _full_float32() -> Iterator[None]:
    """float32 products of float32, not of TF32 or bfloat16, whatever the training around chose."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _norms(vectors: Tensor, what: str) -> Tensor:
    """Euclidean lengths (rows,) in float64."""
    norms = torch.linalg.vector_norm(vectors, dim=1).double()
    if not norms.isfinite().all():
        row = int((~norms.isfinite()).nonzero()[0])
        raise DataError(f"{what} hold NaN or infinity, first in row {row}; look for divergence")
    return norms


def _rounding(norms: Tensor, longest: float, dim: int) -> Tensor:
    """Twice the most that float32 inner products of `dim` terms can be off, in any order.

    Higham (2002), eq. 3.5: |error| <= dim u |x| |y|, here with u = 2^-23 for 2^-24, and the last
    term for products that underflow.
    """
    limits = torch.finfo(torch.float32)
    return dim * (limits.eps * norms * longest + limits.tiny)
