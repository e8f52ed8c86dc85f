"""CandidateSize: candidates that stand for many items first, such as coupons that cover the most.

Shapes: U users asked, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from torch import Tensor

from recsys.events import EventLog
from recsys.predictor import HistoryPredictor
from recsys.questions import Questions


@dataclass(frozen=True, kw_only=True)
class CandidateSize(HistoryPredictor):
    """How many items a candidate stands for, the same for every user."""

    def scores(self, questions: Questions, log: EventLog, users: pl.Series) -> Tensor:
        return questions.items.lengths.float().expand(len(users), -1)
