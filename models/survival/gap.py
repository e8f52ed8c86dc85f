"""Gap: the event comes after a multiple of a gap between earlier ones, as multiples usually are.

A rule of thumb, "next time will be as long as last time", with a distribution: the durations of the
training rows over their gaps have one Kaplan-Meier curve, and a row's curve is that one stretched
by the row's gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.models.survival._baseline import ConstantHazards
from recsys.nn.hazards import censored_log_likelihood
from recsys.ranges import at_least
from recsys.scoring.survival import Durations, SurvivalCurves, SurvivalPredictor, kaplan_meier
from recsys.tasks.features import Feature


class Gap(SurvivalPredictor):
    """Curves stretched by a gap.

    Args:
        features: of a user as of a moment; `Gaps` has the last gap at 0 and the mean one at 1.
        column: of the covariates, that holds the gap. Where it holds 0 or less, the user has none,
            and the mean of the training rows' stands for it.
        num_cells: of constant hazards, for the likelihood.
        grid_size: times of a curve.

    Raises:
        ConfigError: there is no such column, or no training row has a gap.
    """

    standardises = False

    usual: Tensor
    times: Tensor
    survival: Tensor
    hazards: ConstantHazards
    grid: Tensor

    def __init__(
        self,
        *,
        features: Sequence[Feature] = (),
        column: int = 0,
        num_cells: int = 10,
        grid_size: int = 200,
    ) -> None:
        super().__init__(features=features)
        at_least(0, column=column)
        at_least(1, num_cells=num_cells)
        at_least(2, grid_size=grid_size)
        self.column, self.num_cells, self.grid_size = column, num_cells, grid_size

    def _learn(self, train: Durations, held_out: Durations) -> None:
        if self.column >= train.covariates.shape[1]:
            raise ConfigError(
                f"Gap: column={self.column}, and there are {train.covariates.shape[1]} covariates; "
                "name the one that holds a gap, from 0"
            )
        gaps = train.covariates[:, self.column].double()
        if not (gaps > 0).any():
            raise ConfigError(
                f"Gap: column={self.column} has no number above 0; name one that holds a gap"
            )
        self.usual = gaps[gaps > 0].mean()
        multiple = train.durations.double() / self._gaps(train.covariates)
        rows = Durations(train.covariates, multiple, train.observed)
        self.times, self.survival = kaplan_meier(multiple, train.observed)
        self.hazards = ConstantHazards.of(rows, torch.zeros_like(multiple), self.num_cells)
        # Denser near 0, where short gaps have their steps.
        share = torch.linspace(0, 1, self.grid_size) ** 2
        self.grid = share * train.durations.max()

    def _curves(self, covariates: Tensor) -> SurvivalCurves:
        multiple = self.grid.double() / self._gaps(covariates)[:, None]
        place = torch.searchsorted(self.times, multiple, right=True) - 1
        return SurvivalCurves(self.grid, self.survival[place].float())

    def _log_likelihood(self, rows: Durations) -> Tensor:
        gaps = self._gaps(rows.covariates)
        multiple = rows.durations.double() / gaps
        rate, cumulative = self.hazards.rate(multiple) / gaps, self.hazards.cumulative(multiple)
        return censored_log_likelihood(rate.log(), cumulative, rows.observed).float()

    def _gaps(self, covariates: Tensor) -> Tensor:
        gaps = covariates[:, self.column].double()
        return torch.where(gaps > 0, gaps, self.usual)
