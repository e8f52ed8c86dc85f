"""HazardODE: the hazard may depend on what has accumulated of it, H' = h(H, t, x).

Paper: Tang et al., "SODEN: A Scalable Continuous-Time Survival Model through Ordinary Differential
Equation Networks", JMLR 2022; the base of Jung & Kim's penalty (see `HazardNet`).

    H(0) = 0,   dH/dt = softplus(layers(1 - exp(-H), t, x)),   loss = H - e log h

Changed: Runge and Kutta's fourth-order steps of one size, which differentiate as any tensor does,
in place of an adaptive solver with an adjoint; H enters as 1 - exp(-H), which is bounded, so that
no solution runs off to infinity.

Shapes: R rows, F covariates, H hidden, G points of a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recsys.models.survival.hazard_net import HazardNet, HazardNetwork
from recsys.nn.hazards import Penalty
from recsys.ranges import at_least
from recsys.scoring.predictor import Steps
from recsys.tasks.features import Feature

Slope = Callable[[Tensor, Tensor], Tensor]


class HazardODE(HazardNet):
    """A hazard that is a network of its own integral, too.

    Args:
        features: of a user as of a moment.
        hidden_dim: H.
        num_layers: hidden layers.
        dropout: of hidden layers, one draw a step.
        penalty: added to the loss in training, such as `HazardGradientPenalty`. The hazard's
            gradient is the whole one, with what reaches it through H.
        num_steps: from 0 to a row's duration.
        grid_size: G, times of a curve.
        steps: how the network is trained.
        seed: of weights, batches, dropout and drawn times.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        features: Sequence[Feature] = (),
        hidden_dim: int = 64,
        num_layers: int = 2,
        dropout: float = 0.0,
        penalty: Penalty | None = None,
        num_steps: int = 8,
        grid_size: int = 100,
        steps: Steps = Steps(weight_decay=0.0, batch_size=256, max_epochs=300, patience=15),
        seed: int = 0,
    ) -> None:
        super().__init__(
            features=features,
            hidden_dim=hidden_dim,
            num_layers=num_layers,
            dropout=dropout,
            penalty=penalty,
            grid_size=grid_size,
            steps=steps,
            seed=seed,
        )
        at_least(1, num_steps=num_steps)
        self.num_steps = num_steps

    def _network(self, num_covariates: int, horizon: float) -> HazardNetwork:
        return _Network(
            num_covariates,
            self.hidden_dim,
            self.num_layers,
            self.dropout,
            num_points=self.num_steps,
            horizon=horizon,
        )


class _Network(HazardNetwork):
    """softplus(layers(1 - exp(-H), t, x))."""

    num_state = 1

    def forward(self, until: Tensor, covariates: Tensor) -> tuple[Tensor, Tensor]:
        slope = self._slope(covariates)
        width = until / self.num_points
        cumulative = torch.zeros_like(until)
        for step in range(self.num_points):
            cumulative = runge_kutta(slope, step * width, cumulative, width)
        return slope(until, cumulative), cumulative

    def hazard(self, until: Tensor, covariates: Tensor) -> Tensor:
        return self(until, covariates)[0]

    def cumulative_on(self, grid: Tensor, covariates: Tensor) -> Tensor:
        slope = self._slope(covariates)
        cumulative = [covariates.new_zeros(len(covariates))]
        for start, width in zip(grid[:-1], grid.diff(), strict=True):
            cumulative.append(
                runge_kutta(slope, start.expand_as(cumulative[0]), cumulative[-1], width)
            )
        return torch.stack(cumulative, dim=1)

    def _slope(self, covariates: Tensor) -> Slope:
        """The hazard (R) at times (R), given H (R)."""
        first = self.of_covariates(covariates)

        def slope(times: Tensor, cumulative: Tensor) -> Tensor:
            state = torch.stack([times, -torch.expm1(-cumulative)], dim=1)
            return self._after_first((first + self.of_time(state))[:, None])[:, 0]

        return slope


def runge_kutta(slope: Slope, times: Tensor, value: Tensor, width: Tensor) -> Tensor:
    """The value (R) a step of some width after times (R), by four slopes."""
    half = width / 2
    first = slope(times, value)
    second = slope(times + half, value + half * first)
    third = slope(times + half, value + half * second)
    last = slope(times + width, value + width * third)
    return value + width / 6 * (first + 2 * second + 2 * third + last)
