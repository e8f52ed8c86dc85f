"""ItemKNN: items that were held by the same users as those of the history.

Paper: Deshpande & Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004.

    s(i, j)     = users with i and j / (√(users with i) √(users with j) + shrink),  s(i, i) = 0
    score(u, j) = sum over events (i, age) of u's history of decay^age s(i, j)

where s(i, ·) holds the `num_neighbors` items most similar to i and is zero elsewhere.

Kept: cosine similarity of binary columns, neighbours cut off in the rows of the history's items.
Changed: rows are not normalised to length 1; the shrinkage of the similarity (Bell & Koren 2007)
and the decay of older events are ours to choose. A user without a history, or with one of items
that have no neighbours, gets popularity.

Shapes: n items, E pairs of similar items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.progress import track
from scipy.sparse import csr_array, vstack
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.models.neighbours._item_rows import ItemRows, check_pairs, held_items
from recsys.ranges import at_least, decays
from recsys.retrieval.lists import top_k
from recsys.scoring.kinds import Explainable
from recsys.scoring.parts import Parts
from recsys.tasks.splits import Split
from recsys.types import Scores

_PAIRS_AT_ONCE = 2**21
_SPARSE = 8  # rows with fewer than one value in so many cells

console = Console(stderr=True)


class ItemKNN(Explainable, ItemRows):
    """Sums the similarities to the items of a history.

    Args:
        num_neighbors: of each item; None keeps every item that shares a user with it.
        shrink: lowers the similarity of items that few users hold.
        decay: weight of an event relative to one a basket later, in (0, 1].

    Raises:
        ConfigError: an option is out of its range.
        DataError: on fitting, the neighbours would take more memory than there is.
    """

    def __init__(
        self, *, num_neighbors: int | None = None, shrink: float = 0.0, decay: float = 1.0
    ) -> None:
        super().__init__()
        at_least(1, num_neighbors=num_neighbors)
        at_least(0, shrink=shrink)
        decays(decay=decay)
        self.num_neighbors = num_neighbors
        self.shrink = shrink
        self.decay = decay

    def check_size(self, split: Split) -> None:
        most = _most_pairs(held_items(split.training))
        num_pairs = most if self.num_neighbors is None else np.minimum(most, self.num_neighbors)
        check_pairs(int(num_pairs.sum()), "ItemKNN", "set model.num_neighbors, or lower it")

    def compute(self, split: Split) -> None:
        user_items = held_items(split.training)
        holders = user_items.T.tocsr()
        norms = np.sqrt(np.diff(holders.indptr))
        # Some rows at a time: all co-occurrences may be far more than the neighbours.
        most = _most_pairs(user_items)
        ends = np.flatnonzero(np.diff((most.cumsum() - most) // _PAIRS_AT_ONCE)) + 1
        blocks = np.split(np.arange(split.num_items), ends)
        progress = track(
            blocks, "item_knn", console=console, disable=_is_short(blocks), transient=True
        )
        rows = [self._similarities(holders[b] @ user_items, norms, int(b[0])) for b in progress]
        self.keep_rows(vstack(rows, format="csr"))

    def _similarities(self, common: csr_array, norms: np.ndarray, start: int) -> csr_array:
        """Rows `start` … of s, from the numbers of users that they have in common with all."""
        row, column = common.tocoo().coords
        similarity = common.data / (norms[start + row] * norms[column] + self.shrink)
        other = start + row != column
        values = similarity[other], (row[other], column[other])
        matrix = csr_array(values, shape=common.shape)
        return matrix if self.num_neighbors is None else _largest(matrix, self.num_neighbors)

    def score(self, batch: BasketBatch) -> Scores:
        return self.sum_rows(batch, self.decay ** batch.age().float())

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        return [self.event_parts(batch, items, self.decay ** batch.age().float())]


def _most_pairs(user_items: csr_array) -> np.ndarray:
    """(n,): with how many items each shares a user, at most, given who holds what (U, n)."""
    return np.minimum(user_items.T @ np.diff(user_items.indptr), user_items.shape[1])


def _largest(rows: csr_array, k: int) -> csr_array:
    """The k largest positive values of each row (R, n), equal ones by ascending column."""
    if rows.nnz * _SPARSE > rows.shape[0] * rows.shape[1]:
        return _largest_of_dense(rows, k)
    row, column = rows.tocoo().coords
    order = np.lexsort((column, -rows.data, row))
    place = np.arange(len(order)) - rows.indptr[:-1][row[order]]
    largest = order[place < k]
    return csr_array((rows.data[largest], (row[largest], column[largest])), shape=rows.shape)


def _largest_of_dense(rows: csr_array, k: int) -> csr_array:
    """The same without sorting: for rows that are nearly full, a look at each cell is faster."""
    top = top_k(torch.from_numpy(rows.toarray()), min(k, rows.shape[1]))
    positive = (top.scores > 0).numpy()
    places = positive.nonzero()[0], top.items.numpy()[positive]
    return csr_array((top.scores.numpy()[positive], places), shape=rows.shape)


def _is_short(blocks: list[np.ndarray]) -> bool:
    return len(blocks) < 8 or not console.is_terminal
