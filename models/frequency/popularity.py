"""Popularity: the same list for everyone, by how often an item was taken.

score(u, i) = the number of training baskets that hold i, where a basket may count less the longer
ago it was. A user without a history gets the same list as everyone.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError
from recsys.ranges import decays
from recsys.scoring.kinds import Explainable
from recsys.scoring.parts import Parts
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split
from recsys.types import Scores


class Popularity(Explainable, ClosedForm):
    """How many training baskets hold an item.

    Args:
        targets_only: count the training users' targets (their last training baskets) only, which
            are nearest in time to what is asked.
        decay: a basket with `a` later ones of the same user counts `decay ** a`; None: 1.

    Raises:
        ConfigError: `decay` is outside (0, 1], or given for targets, which are of one age.
    """

    popularity: Tensor

    def __init__(self, *, targets_only: bool = False, decay: float | None = None) -> None:
        super().__init__()
        if decay is not None:
            decays(decay=decay)
        if decay is not None and targets_only:
            raise ConfigError(
                f"decay={decay} changes nothing with targets_only=True; leave one of them out"
            )
        self.targets_only = targets_only
        self.decay = 1.0 if decay is None else decay

    def compute(self, split: Split) -> None:
        history, targets = split.training, split.train.target
        if self.targets_only:
            counts = torch.bincount(targets.values, minlength=split.num_items)
        else:
            weights = self.decay ** history.age().double()
            counts = torch.bincount(history.items, weights, minlength=split.num_items)
        self.keep("popularity", counts.float())

    def score(self, batch: BasketBatch) -> Scores:
        return self.popularity.expand(len(batch), -1)

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        return [Parts.of_popularity(self.popularity[items])]
