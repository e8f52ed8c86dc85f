"""Markov: what followed the last basket's items.

The first-order chain that FPMC factorises, without the factors: Rendle, Freudenthaler,
Schmidt-Thieme, "Factorizing Personalized Markov Chains for Next-Basket Recommendation", WWW 2010,
eq. 3 to 6, for all users together.

    p(j | i)    = baskets with i after which a basket with j came / baskets with i with a next one
    score(u, j) = mean of p(j | i) over the items i of u's last basket

In a log of single events a basket is one event and p(j | i) is the share of j among what came right
after i. A user without a history, or whose last items were never followed by anything, gets
popularity.

Shapes: B users, N baskets, n items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.models.neighbours._item_rows import ItemRows, check_pairs
from recsys.scoring.kinds import Explainable
from recsys.scoring.parts import Parts
from recsys.tasks.splits import Split
from recsys.types import Scores


class Markov(Explainable, ItemRows):
    """Transition probabilities from the last basket.

    Raises:
        DataError: on fitting, the transitions would take more memory than there is.
    """

    def check_size(self, split: Split) -> None:
        before, after = _transitions(split.training)
        most = np.minimum(before.T @ np.diff(after.indptr), split.num_items)
        check_pairs(int(most.sum()), "Markov", "leave out large baskets, or choose another model")

    def compute(self, split: Split) -> None:
        before, after = _transitions(split.training)
        num_followed = before.sum(0)
        share = diags_array(1 / np.maximum(num_followed, 1))
        self.keep_rows((share @ (before.T @ after)).tocsr())

    def score(self, batch: BasketBatch) -> Scores:
        last = batch.last(1)
        size = last.lengths()[last.owners()]
        return self.sum_rows(last, 1 / size)

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        last = batch.last(1)
        return [self.event_parts(last, items, 1 / last.lengths()[last.owners()])]


def _transitions(history: BasketBatch) -> tuple[csr_array, csr_array]:
    """All baskets that have a next one, and these next ones, as rows (N, n) of 0 and 1."""
    owner, basket = history.owners(), history.baskets
    opens = torch.ones_like(owner, dtype=torch.bool)
    opens[1:] = (owner[1:] != owner[:-1]) | (basket[1:] != basket[:-1])
    begin = opens.nonzero()[:, 0].numpy()
    offsets = np.append(begin, len(owner))
    ones = np.ones(len(owner), dtype=np.float32)
    shape = (len(begin), history.num_items)
    baskets = csr_array((ones, history.items.numpy(), offsets), shape=shape)
    same_user = np.flatnonzero(np.diff(owner.numpy()[begin]) == 0)
    return baskets[same_user], baskets[same_user + 1]
