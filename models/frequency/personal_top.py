"""Personal top: what a user has taken most often, the strongest simple baseline of next baskets.

score(u, i) = the number of u's baskets that hold i; with `fill`, popularity decides among items
that u took equally often, and so fills the list with the most popular of the items u never took.
Without `fill`, equal scores go to the lower item index, unless they are all that there is.

A user without a history gets popularity.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from recsys.batch.bounds import check_tensor
from recsys.batch.histories import BasketBatch
from recsys.scoring.kinds import Explainable
from recsys.scoring.parts import Parts
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split
from recsys.types import Scores


class PersonalTop(Explainable, ClosedForm):
    """In how many of a user's baskets an item occurs.

    Args:
        fill: settle ties by the number of training baskets that hold the item.
    """

    popularity_share: Tensor

    def __init__(self, *, fill: bool = True) -> None:
        super().__init__()
        self.fill = fill

    def compute(self, split: Split) -> None:
        counts = torch.bincount(split.training.items, minlength=split.num_items).double()
        share = counts / (counts.max() + 1)
        self.keep("popularity_share", share if self.fill else torch.zeros_like(share))

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("popularity_share", self.popularity_share, torch.float64, histories.num_items)

    def score(self, batch: BasketBatch) -> Scores:
        # Doubles: a share below 1 beside counts in the hundreds would lose digits in floats.
        return batch.counts() + self.popularity_share

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        own = Parts.of_own(batch, items, torch.ones(len(batch.items), device=batch.device))
        return [own, Parts.of_popularity(self.popularity_share[items])]
