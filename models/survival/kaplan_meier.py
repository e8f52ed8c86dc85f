"""Kaplan-Meier: one curve for all rows, whatever their covariates. What features have to beat.

Source: Kaplan & Meier, "Nonparametric estimation from incomplete observations", JASA 1958. Its
likelihood, which steps have not, is that of hazards that are constant between a few times.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.models.survival._baseline import ConstantHazards
from recsys.nn.hazards import censored_log_likelihood
from recsys.ranges import at_least
from recsys.scoring.survival import Durations, SurvivalCurves, SurvivalPredictor, kaplan_meier
from recsys.tasks.features import Feature


class KaplanMeier(SurvivalPredictor):
    """The share of training rows without an event so far.

    Args:
        features: are not looked at.
        num_cells: of constant hazards, for the likelihood.
    """

    times: Tensor
    survival: Tensor
    hazards: ConstantHazards

    def __init__(self, *, features: Sequence[Feature] = (), num_cells: int = 10) -> None:
        super().__init__(features=features)
        at_least(1, num_cells=num_cells)
        self.num_cells = num_cells

    def _learn(self, train: Durations, held_out: Durations) -> None:
        self.times, self.survival = kaplan_meier(train.durations, train.observed)
        durations = train.durations.double()
        rows = Durations(train.covariates, durations, train.observed)
        self.hazards = ConstantHazards.of(rows, torch.zeros_like(durations), self.num_cells)

    def _curves(self, covariates: Tensor) -> SurvivalCurves:
        return SurvivalCurves(self.times, self.survival.expand(len(covariates), -1), steps=True)

    def _log_likelihood(self, rows: Durations) -> Tensor:
        times = rows.durations.double()
        rate, cumulative = self.hazards.rate(times), self.hazards.cumulative(times)
        return censored_log_likelihood(rate.log(), cumulative, rows.observed).float()
