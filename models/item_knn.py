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

import numpy as np
from scipy.sparse import coo_array, csr_array, vstack

from recsys.batch import BasketBatch
from recsys.errors import ConfigError
from recsys.models._item_rows import ItemRows, held_items
from recsys.splits import Split
from recsys.types import Scores

_ITEMS_AT_ONCE = 1024


class ItemKNN(ItemRows):
    """Sums the similarities to the items of a history.

    Args:
        num_neighbors: of each item; None keeps every item that shares a user with it.
        shrink: lowers the similarity of items that few users hold.
        decay: weight of an event relative to one a basket later, in (0, 1].

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self, *, num_neighbors: int | None = None, shrink: float = 0.0, decay: float = 1.0
    ) -> None:
        super().__init__()
        if num_neighbors is not None and num_neighbors < 1:
            raise ConfigError(f"num_neighbors={num_neighbors}: expected 1 or more, or null for all")
        if shrink < 0:
            raise ConfigError(f"shrink={shrink} is negative; 0 leaves the cosine as it is")
        if not 0 < decay <= 1:
            raise ConfigError(f"decay={decay} is outside (0, 1]; 1 weighs every event alike")
        self.num_neighbors = num_neighbors
        self.shrink = shrink
        self.decay = decay

    def compute(self, split: Split) -> None:
        held = held_items(split.training)
        holders = held.T.tocsr()
        norms = np.sqrt(np.diff(holders.indptr))
        # Some rows at a time: all co-occurrences may be far more than the neighbours.
        blocks = [
            self._similarities(holders[start : start + _ITEMS_AT_ONCE] @ held, norms, start)
            for start in range(0, split.num_items, _ITEMS_AT_ONCE)
        ]
        self.keep_rows(vstack(blocks, format="csr"))

    def _similarities(self, common: csr_array, norms: np.ndarray, start: int) -> coo_array:
        """Rows `start` … of s, from the numbers of users that they have in common with all."""
        row, column = common.tocoo().coords
        similarity = common.data / (norms[start + row] * norms[column] + self.shrink)
        kept = np.flatnonzero(start + row != column)
        if self.num_neighbors is not None:
            kept = kept[_largest(similarity[kept], row[kept], column[kept], self.num_neighbors)]
        values = (similarity[kept], (row[kept], column[kept]))
        return coo_array(values, shape=common.shape)

    def score(self, batch: BasketBatch) -> Scores:
        return self.sum_rows(batch, self.decay ** batch.age().float())


def _largest(values: np.ndarray, row: np.ndarray, column: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest values of each row, equal ones by ascending column."""
    order = np.lexsort((column, -values, row))
    begins = np.searchsorted(row[order], np.arange(row.max(initial=-1) + 1))
    place = np.arange(len(order)) - begins[row[order]]
    return order[place < k]
