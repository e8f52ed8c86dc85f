"""Blend: the mean of what several predictors say, which err in different places.

Members should score on one scale: probabilities, as `LogisticRegression` and `LightGBM` do, or the
log-shares of ranked candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.scoring.predictor import Predictor
from recsys.tasks.labels import LabelTable


class Blend(Predictor):
    """Scores are the mean of the members' scores.

    Args:
        members: by name, fitted on the same rows, one after the other.

    Raises:
        ConfigError: there is none.
    """

    def __init__(self, *, members: Mapping[str, Predictor]) -> None:
        if not members:
            raise ConfigError("members={}; a blend is made of at least one predictor")
        self.members = list(members.values())

    def fit(self, table: LabelTable, rows: Tensor) -> Self:
        for member in self.members:
            member.fit(table, rows)
        return self

    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        return torch.stack([member.predict(table, rows) for member in self.members]).mean(0)

    def check_leaks(self, table: LabelTable, rows: Tensor, *, sample: int = 32) -> None:
        """As each of the members does."""
        for member in self.members:
            member.check_leaks(table, rows, sample=sample)
