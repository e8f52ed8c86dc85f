"""HazardNet: a network of time and covariates is the hazard, and Gauss and Legendre integrate it.

Paper: the base of Jung & Kim, "Hazard gradient penalty for survival analysis", arXiv 2205.13717
(see `recsys.nn.HazardGradientPenalty` for what of it could be read), and of Tang et al., "SODEN",
JMLR 2022, there with an ODE solver, which only a hazard that depends on H asks for (`HazardODE`).

    h(t|x) = softplus(layers(t, x)),   H(t|x) = integral of h from 0 to t,   loss = H - e log h

Changed: H by a rule of 15 points, which differentiates twice, as the penalty asks. Time counts in
units of the mean time a training event takes, and training starts from a hazard of one a unit.

Shapes: R rows, F covariates, Q points of time of a row, H hidden, G points of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.devices import place_of
from recsys.models.survival._training import train
from recsys.nn.hazards import (
    Penalty,
    censored_log_likelihood,
    cumulative_on_grid,
    hazard_and_cumulative,
)
from recsys.ranges import at_least, proper_share
from recsys.scoring.predictor import Steps
from recsys.scoring.survival import Durations, SurvivalCurves, SurvivalPredictor
from recsys.tasks.features import Feature

ROWS = 1024
"""So many rows' curves are computed at once."""


class HazardNet(SurvivalPredictor):
    """A hazard that is a network.

    Args:
        features: of a user as of a moment.
        hidden_dim: H.
        num_layers: hidden layers.
        dropout: of hidden layers, one draw for all times of a row.
        penalty: added to the loss in training, such as `HazardGradientPenalty`.
        num_points: of the rule that integrates.
        grid_size: G, times of a curve.
        steps: how the network is trained.
        seed: of weights, batches, dropout and drawn times.

    Raises:
        ConfigError: an option is out of its range.
    """

    holds_out = True

    unit: float
    network: HazardNetwork

    def __init__(
        self,
        *,
        features: Sequence[Feature] = (),
        hidden_dim: int = 64,
        num_layers: int = 2,
        dropout: float = 0.0,
        penalty: Penalty | None = None,
        num_points: int = 15,
        grid_size: int = 100,
        steps: Steps = Steps(weight_decay=0.0, batch_size=256, max_epochs=300, patience=15),
        seed: int = 0,
    ) -> None:
        super().__init__(features=features)
        at_least(1, hidden_dim=hidden_dim, num_layers=num_layers, num_points=num_points)
        at_least(2, grid_size=grid_size)
        proper_share(dropout=dropout)
        self.hidden_dim, self.num_layers, self.dropout = hidden_dim, num_layers, dropout
        self.penalty, self.num_points, self.grid_size = penalty, num_points, grid_size
        self.steps, self.seed = steps, seed
        self.num_epochs = 0

    def _learn(self, train_rows: Durations, held_out: Durations) -> None:
        events = train_rows.observed.sum()
        self.unit = float(train_rows.durations.sum() / events) or 1.0
        horizon = float(train_rows.durations.max()) / self.unit
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.network = self._network(train_rows.covariates.shape[1], horizon)
            self.num_epochs = train(
                self,
                self.network,
                self._loss,
                self._in_units(train_rows),
                self._in_units(held_out),
                self.steps,
            )

    def _network(self, num_covariates: int, horizon: float) -> HazardNetwork:
        return HazardNetwork(
            num_covariates,
            self.hidden_dim,
            self.num_layers,
            self.dropout,
            num_points=self.num_points,
            horizon=horizon,
        )

    def _loss(self, network: nn.Module, rows: Durations) -> Tensor:
        assert isinstance(network, HazardNetwork)
        loss = -_log_likelihood(network, rows).mean()
        if network.training and self.penalty is not None:
            loss = loss + self.penalty(network, rows.covariates)
        return loss

    @torch.no_grad()
    def _curves(self, covariates: Tensor) -> SurvivalCurves:
        device = place_of(self.network)
        grid = torch.linspace(0, self.network.horizon, self.grid_size, device=device)
        parts = covariates.float().to(device).split(ROWS)
        cumulative = torch.cat([self.network.cumulative_on(grid, part) for part in parts])
        return SurvivalCurves((grid * self.unit).cpu(), (-cumulative).exp().cpu())

    @torch.no_grad()
    def _log_likelihood(self, rows: Durations) -> Tensor:
        rows = self._in_units(rows)
        device = place_of(self.network)
        every = torch.arange(len(rows)).split(ROWS)
        parts = [_log_likelihood(self.network, rows.rows(some).to(device)) for some in every]
        # A density in units of time, of what has one in our units.
        return torch.cat(parts).cpu() - rows.observed * math.log(self.unit)

    def _in_units(self, rows: Durations) -> Durations:
        durations = (rows.durations / self.unit).float()
        return Durations(rows.covariates.float(), durations, rows.observed)


class HazardNetwork(nn.Module):
    """softplus(layers(t, x)).

    Args:
        num_covariates: F.
        hidden_dim: H.
        num_layers: hidden layers.
        dropout: of hidden values.
        num_points: of the rule that integrates, or steps of a solver.
        horizon: the longest training duration.
    """

    num_state: int = 0
    """What a hazard depends on besides time and covariates."""

    def __init__(
        self,
        num_covariates: int,
        hidden_dim: int,
        num_layers: int,
        dropout: float,
        *,
        num_points: int,
        horizon: float,
    ) -> None:
        super().__init__()
        self.horizon, self.num_points, self.dropout = horizon, num_points, dropout
        self.of_covariates = nn.Linear(num_covariates, hidden_dim)
        self.of_time = nn.Linear(1 + self.num_state, hidden_dim, bias=False)
        hidden = [nn.Linear(hidden_dim, hidden_dim) for _ in range(num_layers - 1)]
        self.hidden = nn.ModuleList(hidden)
        self.last = nn.Linear(hidden_dim, 1)
        nn.init.constant_(self.last.bias, math.log(math.expm1(1.0)))  # softplus of it is 1

    def forward(self, until: Tensor, covariates: Tensor) -> tuple[Tensor, Tensor]:
        """The hazard and its integral (R) at a time of each row (R), given covariates (R, F)."""
        first = self.of_covariates(covariates)
        return hazard_and_cumulative(
            lambda times: self._hazard(times, first), until, num_points=self.num_points
        )

    def hazard(self, until: Tensor, covariates: Tensor) -> Tensor:
        return self._hazard(until[:, None], self.of_covariates(covariates))[:, 0]

    def cumulative_on(self, grid: Tensor, covariates: Tensor) -> Tensor:
        first = self.of_covariates(covariates)
        return cumulative_on_grid(lambda t: self._hazard(t.expand(len(first), -1), first), grid)

    def weights(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.ndim > 1]

    def _hazard(self, times: Tensor, first: Tensor) -> Tensor:
        """The hazard (R, Q) at times (R, Q), given the first layer of the covariates (R, H)."""
        return self._after_first(first[:, None] + times[..., None] * self.of_time.weight[:, 0])

    def _after_first(self, hidden: Tensor) -> Tensor:
        """The hazard (R, Q) given the first layer (R, Q, H)."""
        for layer in self.hidden:
            hidden = layer(_dropped(functional.silu(hidden), self.dropout, self.training))
        hidden = _dropped(functional.silu(hidden), self.dropout, self.training)
        return functional.softplus(self.last(hidden))[..., 0]


def _dropped(hidden: Tensor, dropout: float, training: bool) -> Tensor:
    """Dropout of (R, Q, H), one draw for all Q: a row then has one hazard, and not noise."""
    if not training or not dropout:
        return hidden
    return hidden * functional.dropout(torch.ones_like(hidden[:, :1]), dropout)


def _log_likelihood(network: nn.Module, rows: Durations) -> Tensor:
    hazard, cumulative = network(rows.durations, rows.covariates)
    return censored_log_likelihood(hazard.clamp(min=1e-30).log(), cumulative, rows.observed)
