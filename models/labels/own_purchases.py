"""OwnPurchases: how much a user has bought of what a candidate stands for.

A coupon is redeemed for what a household buys anyway; a coupon for very many products covers much
of what anyone buys, and is divided by the logarithm of its size.

Shapes: U users, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.log.event_log import TIME, USER, EventLog
from recsys.log.time import days_after
from recsys.log.vocabulary import Vocabulary
from recsys.ranges import at_least
from recsys.scoring.predictor import HistoryPredictor, candidate_events
from recsys.tasks.labels import LabelTable
from recsys.tasks.tensors import tensor_of


@dataclass(frozen=True, kw_only=True)
class OwnPurchases(HistoryPredictor):
    """Events of the user among the candidate's items, by the logarithm of the candidate's size.

    Args:
        days: before the last event of the log.

    Raises:
        ConfigError: no day.
    """

    days: int = 182

    def __post_init__(self) -> None:
        at_least(1, days=self.days)

    def scores(self, table: LabelTable, log: EventLog, users: pl.Series) -> Tensor:
        last = log.events.select(pl.col(TIME).max())[TIME]
        events = candidate_events(table, log).filter(
            pl.col(TIME) >= days_after(last, -self.days)[0]
        )
        row = Vocabulary(users).index_of(events[USER])
        counted = events.with_columns(row.alias("row")).filter(pl.col("row") >= 0)
        counts = torch.zeros(len(users), len(table.candidates))
        place = tensor_of(counted["row"]), tensor_of(counted["candidate"])
        counts.index_put_(place, torch.ones(len(counted)), accumulate=True)
        return counts / table.items.lengths.float().add(1).log1p()
