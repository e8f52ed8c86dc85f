"""CandidateSize: candidates that stand for many items first, such as coupons that cover the most.

Shapes: U users, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from torch import Tensor

from recsys.log.event_log import EventLog
from recsys.scoring.predictor import HistoryPredictor
from recsys.tasks.labels import LabelTable


@dataclass(frozen=True, kw_only=True)
class CandidateSize(HistoryPredictor):
    """How many items a candidate stands for, the same for every user."""

    def scores(self, table: LabelTable, log: EventLog, users: pl.Series) -> Tensor:
        return table.items.lengths.float().expand(len(users), -1)
