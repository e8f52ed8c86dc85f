"""NewEASE: what goes with what a user has had, weighed by how many lately had it first.

Paper: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019 (see `ease.py`), over
candidates instead of items. Changed: the score of a candidate is multiplied by the logarithm of one
more than the users who had it first in the last days; EASE alone predicts what a user has again.

Shapes: U users, V users of the log, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_array
from torch import Tensor

from recsys.log.event_log import USER, EventLog
from recsys.log.vocabulary import Vocabulary
from recsys.models.factors.ease import ridge_weights
from recsys.models.labels.new_popularity import NewPopularity
from recsys.ranges import above
from recsys.scoring.predictor import candidate_events
from recsys.tasks.labels import LabelTable


@dataclass(frozen=True, kw_only=True)
class NewEASE(NewPopularity):
    """EASE over candidates, times the logarithm of recent first events.

    Args:
        days: in which first events are recent.
        l2: penalty of EASE.

    Raises:
        ConfigError: no day, or a penalty that is not positive.
    """

    days: int | None = 28
    l2: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        above(0, l2=self.l2)

    def scores(self, table: LabelTable, log: EventLog, users: pl.Series) -> Tensor:
        pairs = candidate_events(table, log).select(USER, "candidate").unique()
        known = Vocabulary(pl.concat([pairs[USER], users.cast(pairs[USER].dtype)]).unique().sort())
        place = known.index_of(pairs[USER]).to_numpy(), pairs["candidate"].to_numpy()
        shape = len(known), len(table.candidates)
        held = csr_array((np.ones(len(pairs), dtype=np.float32), place), shape=shape)
        weights = ridge_weights(held, self.l2)
        of_users = held[known.index_of(users).to_numpy()]
        return torch.from_numpy(of_users @ weights.numpy()) * self.newcomers(table, log).log1p()
