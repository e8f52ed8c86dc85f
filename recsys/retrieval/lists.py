"""The best k of each query: lists in order of (score descending, index ascending)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.errors import CatalogueError, DataError
from recsys.retrieval.tiles import NEVER
from recsys.types import Scores, TopItems


@dataclass(frozen=True, eq=False)
class TopK:
    """The best items of each query, best first, equal scores by ascending index.

    Attributes:
        items: (Q, k) int64, -1 where fewer than k candidates remain.
        scores: (Q, k), -inf there.
    """

    items: TopItems
    scores: Float[Tensor, "users k"]

    def with_one_score(self) -> Tensor:
        """(R,) the queries whose items all score alike; one item alone is like nothing."""
        last = self.scores.masked_fill(self.items < 0, torch.inf).amin(1)
        alike = self.scores[:, 0] <= last
        if self.items.shape[1] > 1:
            alike &= self.items[:, 1] >= 0
        return alike.nonzero()[:, 0]

    @classmethod
    def cat(cls, pieces: Iterable[TopK], k: int) -> TopK:
        """The lists of all pieces, of k items each, on the CPU; there may be no piece."""
        lists = [cls(torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)), *pieces]
        items, scores = zip(*((top.items.cpu(), top.scores.cpu()) for top in lists), strict=True)
        return cls(torch.cat(items), torch.cat(scores))


def top_k(scores: Scores, k: int, exclude: Ragged | None = None) -> TopK:
    """The k best columns of each row of `scores` (B, n); a score of -inf is no candidate.

    Args:
        scores: (B, n), left as they are.
        k: 1 .. n.
        exclude: B rows of columns that are no candidates.

    Raises:
        CatalogueError: k is not in 1 .. n.
        DataError: a candidate's score is NaN, or `exclude` has not B rows.

    >>> scores = torch.tensor([[0.1, 0.9, 0.9, 0.5]])
    >>> top_k(scores, 2).items.tolist()
    [[1, 2]]
    >>> top_k(scores, 2, exclude=Ragged.from_lists([[1]])).items.tolist()
    [[2, 3]]
    """
    n = scores.shape[1]
    check_search(k, n, exclude, len(scores))
    if exclude is not None:
        scores = scores.clone()
        scores[exclude.owners(), exclude.values] = NEVER
    best, items = scores.topk(min(k + 1, n), dim=1)  # one more shows a tie at the boundary
    if best[:, 0].isnan().any():  # topk puts NaN first
        row = int(best[:, 0].isnan().nonzero()[0])
        raise DataError(f"scores of row {row} hold NaN; look for a diverged or unfitted model")
    items = items[:, :k]
    if k < n:
        tied = ((best[:, k - 1] == best[:, k]) & (best[:, k] > NEVER)).nonzero()[:, 0]
        items[tied] = _lowest_among_ties(scores[tied], best[tied, k - 1 : k], k)
    return ordered(scores.gather(1, items), items)


def _lowest_among_ties(scores: Tensor, boundary: Tensor, k: int) -> Tensor:
    """(B, k): columns above the boundary (B, 1), and the first at it, as many as are missing."""
    n = scores.shape[1]
    place = torch.arange(n, 0, -1, dtype=torch.int32, device=scores.device)
    place = torch.where(scores == boundary, place, 0).masked_fill_(scores > boundary, n + 1)
    return place.topk(k, dim=1).indices


def ordered(scores: Tensor, items: Tensor) -> TopK:
    """Each row by (score descending, item ascending); items of score -inf become -1."""
    items, order = items.sort(dim=1)
    scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return TopK(items.gather(1, order).masked_fill(scores == NEVER, -1), scores)


def merged(lists: Sequence[TopK], k: int) -> TopK:
    """The k best of a catalogue, of the k best of each of its parts, as one search would list them.

    Args:
        lists: of the same queries, a list for each part: items as the catalogue counts them, and
            as many of the part's as it has, at most k.
        k: at most the size of the catalogue.

    >>> first = TopK(torch.tensor([[1, 0]]), torch.tensor([[5.0, 2.0]]))
    >>> second = TopK(torch.tensor([[3]]), torch.tensor([[2.0]]))
    >>> merged([second, first], 2).items.tolist()
    [[1, 0]]
    """
    scores = torch.cat([top.scores for top in lists], dim=1)
    best = ordered(scores, torch.cat([top.items for top in lists], dim=1))
    return TopK(best.items[:, :k], best.scores[:, :k])


def check_length(k: int, num_items: int) -> None:
    """Refuse lists that no catalogue of `num_items` has.

    Raises:
        CatalogueError: k is not in 1 .. n.
    """
    if k < 1:
        raise CatalogueError(f"k={k} is not a length of list; expected at least 1")
    if k > num_items:
        raise CatalogueError(f"k={k} exceeds the {num_items} items in the catalogue; lower k")


def check_search(k: int, num_items: int, exclude: Ragged | None, num_queries: int) -> None:
    """Refuse lists that no catalogue of `num_items` has, or exclusions of other queries."""
    check_length(k, num_items)
    if exclude is not None and len(exclude) != num_queries:
        raise DataError(
            f"exclude holds {len(exclude)} rows for {num_queries} queries; give a row for each"
        )
