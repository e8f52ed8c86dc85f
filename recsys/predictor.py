"""Predictors: what answers a table of questions, as a `Scorer` answers what comes next.

Shapes: B rows asked, C candidates, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from recsys.errors import ConfigError, LeakError
from recsys.features import Feature, before, computed
from recsys.questions import AS_OF, Questions


class Predictor(ABC):
    """Learns from rows whose answers it is shown, and scores the candidates of others."""

    @abstractmethod
    def fit(self, questions: Questions, rows: Tensor) -> Self:
        """Learn from the answers of `rows` (B,) int64 and of no others."""

    @abstractmethod
    def predict(self, questions: Questions, rows: Tensor) -> Tensor:
        """Scores (B, C) float32 of the candidates for `rows` (B,) int64, higher is likelier."""

    def check_leaks(self, questions: Questions, rows: Tensor, *, sample: int = 32) -> None:
        """Predict some of the rows, all of one moment, again from the log that ends there.

        Raises:
            LeakError: a score changes.
        """
        moment = questions.rows[AS_OF][int(rows[0])]
        chosen = rows[torch.linspace(0, len(rows) - 1, min(sample, len(rows))).long()]
        cut = replace(questions, log=before(questions.log, moment))
        once, again = self.predict(questions, chosen), self.predict(cut, chosen)
        changed = int((~torch.isclose(once, again, rtol=1e-3, atol=1e-4)).any(1).sum())
        if changed:
            raise LeakError(
                f"{questions.name}: {type(self).__name__} knows what comes after {moment}: "
                f"{changed} of {len(chosen)} rows change when the log ends there; use events "
                "before `as_of` only"
            )


class FeaturePredictor(Predictor):
    """A predictor of features.

    Args:
        features: of a user as of a moment; their columns stand side by side.

    Raises:
        ConfigError: there is none.
    """

    def __init__(self, *, features: Sequence[Feature]) -> None:
        if not features:
            raise ConfigError(f"{type(self).__name__} has no features; give it at least one")
        self.features = list(features)

    def inputs(self, questions: Questions, rows: Tensor) -> np.ndarray:
        """The features of rows (B,) as (B, F) float32."""
        columns = [computed(questions, feature)[rows.numpy()] for feature in self.features]
        return np.hstack(columns)

    def check_leaks(self, questions: Questions, rows: Tensor, *, sample: int = 32) -> None:
        """Nothing more: `computed` has checked every feature."""
