"""Survival: times until an event, cut off or not, and models that give each row a curve of them.

Shapes: R rows, F covariates, T times of a curve.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.nn.hazards import censored_log_likelihood
from recsys.scoring.predictor import Steps
from recsys.tasks.features import Feature, check_features, computed
from recsys.tasks.return_times import ReturnTimes

SMALLEST = 1e-30
"""Survival below it counts as this much where a logarithm is taken."""


@dataclass(frozen=True, eq=False)
class Durations:
    """Rows with how long it took until an event, or until nobody looked any more.

    Attributes:
        covariates: (R, F) float.
        durations: (R) float, from 0.
        observed: (R) bool, whether the event was seen; else the duration is censored.

    Raises:
        DataError: the parts are not of one length, or a duration is negative or no number.
    """

    covariates: Tensor
    durations: Tensor
    observed: Tensor

    def __post_init__(self) -> None:
        lengths = len(self.covariates), len(self.durations), len(self.observed)
        if len(set(lengths)) > 1:
            raise DataError(
                f"covariates, durations and observed have {lengths} rows; give each row its own"
            )
        wrong = ~(self.durations.isfinite() & (self.durations >= 0))
        if wrong.any():
            row = int(wrong.int().argmax())
            raise DataError(
                f"durations: row {row} has {float(self.durations[row])}; give numbers from 0"
            )

    def __len__(self) -> int:
        return len(self.durations)

    def rows(self, rows: Tensor) -> Durations:
        """Some rows: (B) int64 or (R) bool."""
        return Durations(self.covariates[rows], self.durations[rows], self.observed[rows])

    def to(self, device: torch.device) -> Durations:
        """The same rows on another device."""
        return Durations(
            self.covariates.to(device), self.durations.to(device), self.observed.to(device)
        )

    @classmethod
    def joined(cls, parts: Sequence[Durations]) -> Durations:
        """The rows of all parts, one part after the other."""
        return cls(
            torch.cat([part.covariates for part in parts]),
            torch.cat([part.durations for part in parts]),
            torch.cat([part.observed for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class SurvivalCurves:
    """Of each row the probability that the event is later than each of some times.

    Between the times a curve is that of a constant hazard, which goes on behind the last; a curve
    of steps falls at its times alone.

    Attributes:
        times: (T) ascending from 0.
        survival: (R, T), 1 at first and falling.
        steps: whether the curves are steps.

    >>> curves = SurvivalCurves(torch.tensor([0.0, 10.0]), torch.tensor([[1.0, 0.5], [1.0, 0.25]]))
    >>> curves.at(torch.tensor([5.0, 20.0]))
    tensor([[0.7071, 0.2500],
            [0.5000, 0.0625]])
    >>> curves.median()
    tensor([10.,  5.])
    """

    times: Tensor
    survival: Tensor
    steps: bool = False

    def __len__(self) -> int:
        return len(self.survival)

    def rows(self, rows: Tensor) -> SurvivalCurves:
        """Some rows: (B) int64 or (R) bool."""
        return SurvivalCurves(self.times, self.survival[rows], self.steps)

    def at(self, times: Tensor) -> Tensor:
        """S (R, N) at times (N), that all rows share, or (R, N)."""
        if self.steps:
            cell = torch.searchsorted(self.times, times, right=True) - 1
            return self._of_cells(self.survival, cell)
        cell, beyond = self._cells(times)
        cumulative = self._cumulative()
        rate = cumulative.diff(dim=1) / self.times.diff()
        cumulative_hazard = self._of_cells(cumulative, cell) + beyond * self._of_cells(rate, cell)
        return (-cumulative_hazard).exp()

    def density(self, times: Tensor) -> Tensor:
        """The density h S (R, N) at times (N), that all rows share, or (R, N).

        Raises:
            ConfigError: the curves are steps.
        """
        return self._hazard(times) * self.at(times)

    def median(self) -> Tensor:
        """(R) the time at which half have had the event; infinite where a curve of steps stays."""
        return self.quantile(0.5)

    def quantile(self, share: float) -> Tensor:
        """(R) the time by which a share of such rows have had the event."""
        wanted = 1 - share
        reached = self.survival <= wanted
        first = reached.int().argmax(1)
        never = ~reached.any(1)
        if self.steps:
            return self.times[first].masked_fill(never, torch.inf)
        cell = torch.where(never, len(self.times) - 1, first).clamp(min=1) - 1
        cumulative = self._cumulative()
        rate = (cumulative.diff(dim=1) / self.times.diff()).gather(1, cell[:, None])[:, 0]
        left = -torch.log(rate.new_tensor(wanted)) - cumulative.gather(1, cell[:, None])[:, 0]
        return self.times[cell] + left / rate

    def log_likelihood(self, durations: Tensor, observed: Tensor) -> Tensor:
        """(R) the log density of events and the log survival of what is censored.

        Raises:
            ConfigError: the curves are steps.
        """
        hazard = self._hazard(durations[:, None])[:, 0]
        survival = self.at(durations[:, None])[:, 0]
        # An event where a curve has long reached 0 is not impossible: it costs much.
        tiny = torch.finfo(hazard.dtype).tiny
        hazard, survival = hazard.clamp(min=tiny), survival.clamp(min=tiny)
        return censored_log_likelihood(hazard.log(), -survival.log(), observed)

    def thinned(self, times: Tensor) -> SurvivalCurves:
        """Curves through the points at fewer times (N), from 0, with constant hazards between."""
        return SurvivalCurves(times, self.at(times))

    def _hazard(self, times: Tensor) -> Tensor:
        if self.steps:
            raise ConfigError("curves of steps have no density; take `thinned(times)` of them")
        cell, _ = self._cells(times)
        return self._of_cells(self._cumulative().diff(dim=1) / self.times.diff(), cell)

    def _cells(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """In which cell times lie, the last if behind, and how far from where it begins."""
        last = len(self.times) - 2
        cell = (torch.searchsorted(self.times, times, right=True) - 1).clamp(0, last)
        return cell, times - self.times[cell]

    def _of_cells(self, values: Tensor, cell: Tensor) -> Tensor:
        return values[:, cell] if cell.ndim == 1 else values.gather(1, cell)

    def _cumulative(self) -> Tensor:
        return -self.survival.clamp(min=SMALLEST).log()


def kaplan_meier(durations: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """The share without an event, of rows some of which are censored.

    Source: Kaplan & Meier, "Nonparametric estimation from incomplete observations", JASA 1958.
    What is censored at the time of an event was still at risk of it.

    Args:
        durations, observed: (R).

    Returns:
        times, survival: (T) the distinct times of events with 0 before them, and S, a step at each.

    >>> observed = torch.tensor([True, False, True, True])
    >>> kaplan_meier(torch.tensor([1.0, 2.0, 3.0, 4.0]), observed)
    (tensor([0., 1., 3., 4.]), tensor([1.0000, 0.7500, 0.3750, 0.0000]))
    """
    durations = durations.to(torch.promote_types(durations.dtype, torch.float32))
    times, events = durations[observed].unique(return_counts=True)
    at_risk = len(durations) - torch.searchsorted(durations.sort().values, times)
    survival = (1 - events.double() / at_risk).cumprod(0).to(durations)
    zero = durations.new_zeros(1)
    if len(times) and times[0] == 0:  # events at 0: the curve begins below 1
        return times, survival
    return torch.cat([zero, times]), torch.cat([zero + 1, survival])


class SurvivalPredictor(ABC):
    """Learns from durations, some of them censored, and gives other rows curves of theirs.

    From arrays it does with `learn` and `curves`; from a table of return times with `fit` and
    `predict`, by features. Covariates are standardised by the rows that are learnt from.

    Args:
        features: of a user as of a moment, their columns side by side; none where only arrays are
            given.

    Attributes:
        holds_out: whether some rows are kept to stop training by. The others learn from all.
        standardises: whether covariates are standardised.
        steps: how a network is trained, and for any model what share of the users is held out.
    """

    holds_out: ClassVar[bool] = False
    standardises: ClassVar[bool] = True
    steps: Steps = Steps()

    def __init__(self, *, features: Sequence[Feature] = ()) -> None:
        check_features(features)
        self.features = list(features)
        self.shift = self.scale = torch.zeros(0)

    def learn(self, train: Durations, held_out: Durations) -> Self:
        """Learn from `train`; training stops by `held_out`, where the model `holds_out` rows.

        Raises:
            DataError: no row has an event, so that no time is known.
        """
        if not train.observed.any():
            raise DataError(
                f"{type(self).__name__}: none of the {len(train)} rows to learn from has an event; "
                "follow them for longer, or give more"
            )
        is_any = train.covariates.shape[1] > 0
        deviation = train.covariates.std(0, correction=0) if is_any else train.covariates[0]
        self.shift = train.covariates.mean(0)
        self.scale = torch.where(deviation > 0, deviation, 1.0)
        if not self.standardises:
            self.shift, self.scale = torch.zeros_like(self.shift), torch.ones_like(self.scale)
        self._learn(self._scaled(train), self._scaled(held_out))
        return self

    def curves(self, covariates: Tensor) -> SurvivalCurves:
        """Of rows (R, F) the curves (R, T), on the processor."""
        return self._curves(self._standardised(covariates))

    def log_likelihood(self, rows: Durations) -> Tensor:
        """(R) the log density of events and the log survival of what is censored."""
        return self._log_likelihood(self._scaled(rows))

    def fit(self, table: ReturnTimes, rows: Tensor) -> Self:
        """Learn from what came of `rows` (B,) int64 of a table, and of no others.

        Where rows are held out, they are all rows of some users.
        """
        data = self.data(table, rows)
        if not self.holds_out:
            return self.learn(data, data)
        inside = self.steps.some_users(table.user_of(rows), torch.Generator().manual_seed(0))
        return self.learn(data.rows(~inside), data.rows(inside))

    def predict(self, table: ReturnTimes, rows: Tensor) -> SurvivalCurves:
        """The curves of `rows` (B,) int64 of a table."""
        return self.curves(self._inputs(table, rows))

    def data(self, table: ReturnTimes, rows: Tensor) -> Durations:
        """What came of `rows` (B,) int64 of a table, with their features."""
        inputs = self._inputs(table, rows)
        return Durations(inputs, table.durations[rows], table.observed[rows])

    def _inputs(self, table: ReturnTimes, rows: Tensor) -> Tensor:
        """The features of rows (B,) as (B, F) float32."""
        columns = [computed(table, feature)[rows.numpy()] for feature in self.features]
        return torch.from_numpy(np.hstack([np.zeros((len(rows), 0), np.float32), *columns]))

    @abstractmethod
    def _learn(self, train: Durations, held_out: Durations) -> None:
        """As `learn`, of standardised covariates."""

    @abstractmethod
    def _curves(self, covariates: Tensor) -> SurvivalCurves:
        """As `curves`, of standardised covariates."""

    def _log_likelihood(self, rows: Durations) -> Tensor:
        return self._curves(rows.covariates).log_likelihood(rows.durations, rows.observed)

    def _standardised(self, covariates: Tensor) -> Tensor:
        return (covariates - self.shift) / self.scale

    def _scaled(self, rows: Durations) -> Durations:
        return Durations(self._standardised(rows.covariates), rows.durations, rows.observed)
