"""Predictors: what predicts the labels of a table, as a `Scorer` ranks what comes next.

Shapes: B rows predicted, U users, C candidates, F features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, cast, runtime_checkable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError, LeakError
from recsys.log.event_log import ITEM, TIME, USER, EventLog
from recsys.log.vocabulary import Vocabulary
from recsys.ranges import above, at_least
from recsys.tasks.as_of import AS_OF, before
from recsys.tasks.features import Feature, check_features, computed, names_of
from recsys.tasks.labels import LabelTable
from recsys.tasks.tensors import tensor_of

WEIGHTS = {"candidate": pl.String, "feature": pl.String, "weight": pl.Float64}
"""Columns of the weights of a `Linear` predictor."""


class Predictor(ABC):
    """Learns from rows whose labels it is shown, and scores the candidates of others."""

    @abstractmethod
    def fit(self, table: LabelTable, rows: Tensor) -> Self:
        """Learn from the labels of `rows` (B,) int64 and of no others."""

    @abstractmethod
    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        """Scores (B, C) float32 of the candidates for `rows` (B,) int64, higher is likelier."""

    def refuse_no_rows(self, table: LabelTable, rows: Tensor) -> None:
        """For predictors that learn from labels.

        Raises:
            ConfigError: there are none.
        """
        if not len(rows):
            raise ConfigError(
                f"{table.name}: {type(self).__name__} learns from labels and there are none; "
                "give moments to train on"
            )

    def check_leaks(self, table: LabelTable, rows: Tensor, *, sample: int = 32) -> None:
        """Predict some of the rows, all of one moment, again from the log that ends there.

        Raises:
            LeakError: a score changes.
        """
        moment = table.rows[AS_OF][int(rows[0])]
        chosen = rows[torch.linspace(0, len(rows) - 1, min(sample, len(rows))).long()]
        cut = replace(table, log=before(table.log, moment))
        once, again = self.predict(table, chosen), self.predict(cut, chosen)
        changed = int(
            (~torch.isclose(once, again, rtol=1e-3, atol=1e-4, equal_nan=True)).any(1).sum()
        )
        if changed:
            raise LeakError(
                f"{table.name}: {type(self).__name__} knows what comes after {moment}: "
                f"{changed} of {len(chosen)} rows change when the log ends there; use events "
                "before `as_of` only"
            )


@runtime_checkable
class Linear(Protocol):
    """A predictor whose scores are sums of weights times features."""

    def weights(self, table: LabelTable) -> pl.DataFrame:
        """`candidate`, `feature` and `weight`, a row for each of both."""
        ...


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
        check_features(features)
        self.features = list(features)

    def inputs(self, table: LabelTable, rows: Tensor) -> np.ndarray:
        """The features of rows (B,) as (B, F) float32."""
        columns = [computed(table, feature)[rows.numpy()] for feature in self.features]
        return np.hstack(columns)

    def columns(self, table: LabelTable) -> list[str]:
        """The names of the columns of `inputs`, (F)."""
        return [name for feature in self.features for name in names_of(table, feature)]

    def refuse_ranking(self, table: LabelTable) -> None:
        """For predictors that know a candidate by its rows alone.

        Raises:
            ConfigError: the table ranks candidates.
        """
        if table.ranked:
            raise ConfigError(
                f"{type(self).__name__} ranks no candidates, and {table.name} has "
                f"{len(table.candidates)}; choose model=mlp, new_ease or own_purchases"
            )

    def check_leaks(self, table: LabelTable, rows: Tensor, *, sample: int = 32) -> None:
        """Nothing more: `computed` has checked every feature."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How a predictor's network is trained.

    Attributes:
        learning_rate, weight_decay: of AdamW.
        batch_size: rows a step.
        max_epochs: at most so many passes over the rows.
        patience: epochs without a lower loss on the rows held out after which training stops.
        held_out: share of the training users whose rows are held out.

    Raises:
        ConfigError: no user is held out, or all are; an option is out of its range.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch_size: int = 128
    max_epochs: int = 100
    patience: int = 8
    held_out: float = 0.15

    def __post_init__(self) -> None:
        above(0, learning_rate=self.learning_rate)
        at_least(0, weight_decay=self.weight_decay, max_epochs=self.max_epochs)
        at_least(1, batch_size=self.batch_size, patience=self.patience)
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out={self.held_out} is no share; 0.1 to 0.3 suits most tables")

    def check(self, loss: float, model: object) -> None:
        """See that training has not diverged, given the loss on the rows held out.

        Raises:
            DataError: the loss is infinite or no number.
        """
        if not math.isfinite(loss):
            raise DataError(
                f"{type(model).__name__}: the loss on the rows held out is {loss}; training "
                f"diverged: lower learning_rate={self.learning_rate}"
            )

    def some_users(self, users: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B,) bool: the rows, of users (B,), of as many users as are to be held out."""
        each = users.unique()
        count = max(1, round(len(each) * self.held_out))
        return torch.isin(users, each[torch.randperm(len(each), generator=generator)[:count]])


class HistoryPredictor(Predictor):
    """A predictor that reads the log up to a row's moment, and learns nothing from labels.

    Subclasses are frozen dataclasses: equal ones score a table's moments once between them.
    """

    @abstractmethod
    def scores(self, table: LabelTable, log: EventLog, users: pl.Series) -> Tensor:
        """Scores (U, C) of the candidates for users (U), from the log up to a moment."""

    def fit(self, table: LabelTable, rows: Tensor) -> Self:
        return self

    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        scores = torch.empty(len(rows), len(table.candidates))
        moments = table.rows[AS_OF][rows.numpy()]
        for moment in moments.unique():
            places = tensor_of((moments == moment).arg_true())
            users = table.rows[USER][rows[places].numpy()]
            vocabulary, of_users = self._at(table, moment)
            scores[places] = of_users[tensor_of(vocabulary.index_of(users))]
        return scores

    def _at(self, table: LabelTable, moment: Any) -> tuple[Vocabulary, Tensor]:
        """The scores of all users who have a row at a moment."""
        if (self, moment) not in table.memo:
            users = table.rows.filter(pl.col(AS_OF) == moment)[USER].unique().sort()
            scores = self.scores(table, before(table.log, moment), users)
            table.memo[self, moment] = (Vocabulary(users), scores.float())
        return cast(tuple[Vocabulary, Tensor], table.memo[self, moment])


def candidate_events(table: LabelTable, log: EventLog) -> pl.DataFrame:
    """`user_id`, `timestamp` and `candidate`, a row per event and candidate that it stands for."""
    of = pl.DataFrame(
        {
            ITEM: log.items[ITEM][table.items.values.numpy()],
            "candidate": table.items.owners().numpy(),
        }
    )
    events = log.events.select(USER, ITEM, TIME)
    return events.join(of, on=ITEM).select(USER, TIME, "candidate")
