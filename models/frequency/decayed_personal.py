"""Decayed personal frequency with a share of popularity.

score(u, i) = sum over u's baskets S_t of decay^(T - t) [i in S_t]  +  popularity_weight c_i / max c

where T is u's last basket, which weighs 1, and c_i the number of training users whose target (last
training basket) holds i. Recency and frequency of a user's own items explain most of what is bought
again; targets are nearest in time to what is asked and the better popularity where tastes drift.

A user without a history gets this popularity, too, whatever its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.ranges import at_least, decays
from recsys.scoring.kinds import Explainable
from recsys.scoring.parts import Parts
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split
from recsys.types import Scores


class DecayedPersonal(Explainable, ClosedForm):
    """A user's items, recent ones first, with popular ones behind or between them.

    Args:
        decay: what each later basket takes from the weight of an earlier one, in (0, 1].
        popularity_weight: of the most popular item beside an item of the user's last basket.

    Raises:
        ConfigError: `decay` is outside (0, 1], or the weight is negative.
    """

    popularity: Tensor

    def __init__(self, *, decay: float = 0.9, popularity_weight: float = 0.1) -> None:
        super().__init__()
        decays(decay=decay)
        at_least(0, popularity_weight=popularity_weight)
        self.decay = decay
        self.popularity_weight = popularity_weight

    def compute(self, split: Split) -> None:
        counts = torch.bincount(split.train.target.values, minlength=split.num_items).float()
        self.keep("popularity", counts / counts.max())

    def score(self, batch: BasketBatch) -> Scores:
        personal = batch.sum(self.decay ** batch.age().float())
        return personal + self.popularity_weight * self.popularity

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        own = Parts.of_own(batch, items, self.decay ** batch.age().float())
        return [own, Parts.of_popularity(self.popularity_weight * self.popularity[items])]
