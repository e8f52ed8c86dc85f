"""NewPopularity: what users have lately had for the first time, most first.

What is new to many is likelier to be new to the next one than what many have long had.

Shapes: U users, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.log.event_log import TIME, USER, EventLog
from recsys.log.time import days_after
from recsys.ranges import at_least
from recsys.scoring.predictor import HistoryPredictor, candidate_events
from recsys.tasks.labels import LabelTable
from recsys.tasks.tensors import tensor_of


@dataclass(frozen=True, kw_only=True)
class NewPopularity(HistoryPredictor):
    """How many users had a candidate for the first time in the last days before the moment.

    Args:
        days: before the last event of the log; None counts all users who had it.

    Raises:
        ConfigError: no day.
    """

    days: int | None = None

    def __post_init__(self) -> None:
        at_least(1, days=self.days)

    def scores(self, table: LabelTable, log: EventLog, users: pl.Series) -> Tensor:
        return self.newcomers(table, log).expand(len(users), -1)

    def newcomers(self, table: LabelTable, log: EventLog) -> Tensor:
        """(C,) float32, users who had a candidate first in the last days."""
        events = candidate_events(table, log)
        firsts = events.group_by(USER, "candidate").agg(pl.col(TIME).min())
        if self.days is not None:
            start = days_after(log.events.select(pl.col(TIME).max())[TIME], -self.days)
            firsts = firsts.filter(pl.col(TIME) >= start[0])
        candidates = tensor_of(firsts["candidate"])
        return torch.bincount(candidates, minlength=len(table.candidates)).float()
