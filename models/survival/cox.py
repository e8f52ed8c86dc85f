"""Cox's proportional hazards: h(t|x) = h0(t) exp(x b).

Paper: Cox, "Regression models and life-tables", JRSS B 1972; tied events as in Efron (1977), the
baseline as in Breslow (1974). Added: a ridge penalty on b, of standardised covariates.

    maximise   log partial likelihood(b) - l2 / 2 |b|^2

by Newton's method. Its likelihood, which steps have not, is that of baseline hazards that are
constant between a few times, given b.

Shapes: R rows, F covariates, E rows with an event.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.models.survival._baseline import ConstantHazards, breslow_steps
from recsys.nn.hazards import censored_log_likelihood, efron, ties
from recsys.ranges import at_least
from recsys.scoring.survival import Durations, SurvivalCurves, SurvivalPredictor
from recsys.tasks.features import Feature

logger = logging.getLogger(__name__)
CLOSE = 1e-9
"""Newton's method stops where no coefficient moves by more."""
MOST_STEPS = 50


class Cox(SurvivalPredictor):
    """Hazards that are multiples of one another.

    Args:
        features: of a user as of a moment.
        l2: penalty of the coefficients of standardised covariates; above 0 where covariates are
            copies of each other.
        num_cells: of constant hazards, for the likelihood.
    """

    b: Tensor
    times: Tensor
    cumulative: Tensor
    hazards: ConstantHazards

    def __init__(
        self, *, features: Sequence[Feature] = (), l2: float = 1e-3, num_cells: int = 10
    ) -> None:
        super().__init__(features=features)
        at_least(0, l2=l2)
        at_least(1, num_cells=num_cells)
        self.l2, self.num_cells = l2, num_cells

    @property
    def coefficients(self) -> Tensor:
        """(F) b for covariates as they were given."""
        return self.b / self.scale

    def _learn(self, train: Durations, held_out: Durations) -> None:
        rows = Durations(train.covariates.double(), train.durations.double(), train.observed)
        self.b = self._newton(rows)
        score = rows.covariates @ self.b
        self.times, self.cumulative = breslow_steps(rows, score)
        self.hazards = ConstantHazards.of(rows, score, self.num_cells)

    def _newton(self, rows: Durations) -> Tensor:
        b = torch.zeros(rows.covariates.shape[1], dtype=torch.float64)
        value = self._objective(b, rows)
        for _ in range(MOST_STEPS):
            gradient, hessian = derivatives(b, rows)
            gradient, hessian = gradient - self.l2 * b, hessian + self.l2 * torch.eye(len(b))
            step = torch.linalg.lstsq(hessian, gradient[:, None], driver="gelsd").solution[:, 0]
            if not len(b) or step.abs().max() < CLOSE:
                return b
            # Halved until it climbs: far from the best Newton's step may go too far.
            while (new := self._objective(b + step, rows)) < value and step.abs().max() > CLOSE:
                step = step / 2
            b, value = b + step, new
        logger.info("Cox: still moving after %s steps; raise l2=%s", MOST_STEPS, self.l2)
        return b

    def _objective(self, b: Tensor, rows: Durations) -> Tensor:
        score = rows.covariates @ b
        return efron(score, rows.durations, rows.observed) - self.l2 / 2 * b.square().sum()

    def _curves(self, covariates: Tensor) -> SurvivalCurves:
        factor = (covariates.double() @ self.b).exp()
        survival = (-factor[:, None] * self.cumulative).exp()
        return SurvivalCurves(self.times.float(), survival.float(), steps=True)

    def _log_likelihood(self, rows: Durations) -> Tensor:
        score, times = rows.covariates.double() @ self.b, rows.durations.double()
        log_hazard = self.hazards.rate(times).log() + score
        cumulative = self.hazards.cumulative(times) * score.exp()
        return censored_log_likelihood(log_hazard, cumulative, rows.observed).float()


def derivatives(b: Tensor, rows: Durations) -> tuple[Tensor, Tensor]:
    """The gradient (F) of Efron's log partial likelihood and its Hessian (F, F), negated.

    An event among d at one time, the l-th from 0, is compared with what is at risk less l/d of the
    d: the sums of exp(x b), x exp(x b) and x x' exp(x b) over these. No array is larger than the
    covariates: the sum of the third over all events is X' diag(w) X, where w is how often a row is
    at risk, each time by its share.
    """
    order = rows.durations.argsort()
    x, durations, observed = rows.covariates[order], rows.durations[order], rows.observed[order]
    score = x @ b
    factor = (score - score.max()).exp()
    first = torch.searchsorted(durations, durations[observed])
    group, part = ties(durations[observed])
    columns = torch.cat([factor[:, None], factor[:, None] * x], dim=1)
    at_risk = columns.flip(0).cumsum(0).flip(0)[first]
    tied = torch.zeros_like(at_risk).index_add(0, group, columns[observed])[group]
    sums = at_risk - part[:, None] * tied
    total, mean = sums[:, 0], sums[:, 1:] / sums[:, :1]
    times_at_risk = torch.zeros_like(factor).index_add(0, first, 1 / total).cumsum(0)
    left_out = torch.zeros_like(total).index_add(0, group, part / total)[group]
    weight = factor * times_at_risk
    weight[observed] -= factor[observed] * left_out
    gradient = x[observed].sum(0) - mean.sum(0)
    return gradient, x.T @ (weight[:, None] * x) - mean.T @ mean
