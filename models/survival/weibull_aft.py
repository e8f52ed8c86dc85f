"""Weibull AFT: covariates stretch time, S(t|x) = exp(-(t / exp(x b + b0))^k).

Source: Kalbfleisch & Prentice, "The Statistical Analysis of Failure Time Data", 2002, 3.6. Added: a
ridge penalty on b, of standardised covariates.

    maximise   log-likelihood(b, b0, k) - l2 / 2 |b|^2

Shapes: R rows, F covariates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from recsys.nn.hazards import censored_log_likelihood
from recsys.ranges import at_least
from recsys.scoring.survival import Durations, SurvivalCurves, SurvivalPredictor
from recsys.tasks.features import Feature

SHORTEST = 1e-3
"""Of the mean duration: what is shorter counts as this much, since log t is needed."""


class WeibullAFT(SurvivalPredictor):
    """Durations of Weibull's distribution, whose scale depends on the covariates.

    Args:
        features: of a user as of a moment.
        l2: penalty of the coefficients of standardised covariates.
        grid_size: times of a curve.
    """

    b: Tensor
    b0: Tensor
    log_k: Tensor
    shortest: float
    longest: float

    def __init__(
        self, *, features: Sequence[Feature] = (), l2: float = 1e-3, grid_size: int = 200
    ) -> None:
        super().__init__(features=features)
        at_least(0, l2=l2)
        at_least(2, grid_size=grid_size)
        self.l2, self.grid_size = l2, grid_size

    @property
    def coefficients(self) -> Tensor:
        """(F) b for covariates as they were given."""
        return self.b / self.scale

    @property
    def intercept(self) -> Tensor:
        """b0 for covariates as they were given."""
        return self.b0 - self.shift.double() @ self.coefficients

    def _learn(self, train: Durations, held_out: Durations) -> None:
        rows = Durations(train.covariates.double(), train.durations.double(), train.observed)
        self.shortest = SHORTEST * float(rows.durations.mean()) or 1.0
        self.longest = float(rows.durations.max()) or 1.0
        self.b = torch.zeros(rows.covariates.shape[1], dtype=torch.float64)
        self.b0 = (rows.durations.sum() / rows.observed.sum()).clamp(min=self.shortest).log()
        self.log_k = torch.zeros((), dtype=torch.float64)
        start = torch.cat([self.b, self.b0[None], self.log_k[None]]).numpy()

        def lossed(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            at = torch.from_numpy(parameters).requires_grad_()
            self.b, self.b0, self.log_k = at[:-2], at[-2], at[-1]
            loss = self.l2 / 2 * self.b.square().sum() - self._likelihood(rows).sum()
            (gradient,) = torch.autograd.grad(loss, at)
            return float(loss.detach()), gradient.numpy()

        found = minimize(
            lossed, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "maxiter": 2000}
        )
        at = torch.from_numpy(found.x)
        self.b, self.b0, self.log_k = at[:-2], at[-2], at[-1]

    def _curves(self, covariates: Tensor) -> SurvivalCurves:
        # Denser near 0, where Weibull's curves may fall at once.
        times = torch.linspace(0, 1, self.grid_size, dtype=torch.float64) ** 2 * self.longest
        log_scale = covariates.double() @ self.b + self.b0
        power = self.log_k.exp() * (times.log() - log_scale[:, None])
        return SurvivalCurves(times.float(), (-power.exp()).exp().float())

    def _log_likelihood(self, rows: Durations) -> Tensor:
        return self._likelihood(
            Durations(rows.covariates.double(), rows.durations.double(), rows.observed)
        ).float()

    def _likelihood(self, rows: Durations) -> Tensor:
        log_time = rows.durations.clamp(min=self.shortest).log()
        power = self.log_k.exp() * (log_time - rows.covariates @ self.b - self.b0)
        return censored_log_likelihood(self.log_k + power - log_time, power.exp(), rows.observed)
