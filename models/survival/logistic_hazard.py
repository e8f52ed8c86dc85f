"""Logistic hazard: a network gives each interval of time the probability of an event in it.

Paper: Gensheimer & Narasimhan, "A scalable discrete-time survival model for neural networks"
(nnet-survival), PeerJ 2019. Changed: intervals hold as many events each; between their ends, for a
density, hazards are constant, and training stops by the rows held out.

    P(event in k | none before, x) = sigmoid(layers(x)_k)

Shapes: R rows, K intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.devices import place_of
from recsys.models.survival._intervals import Intervals
from recsys.models.survival._training import Layers, train
from recsys.nn.hazards import discrete_log_likelihood
from recsys.ranges import at_least, proper_share
from recsys.scoring.predictor import Steps
from recsys.scoring.survival import Durations, SurvivalCurves, SurvivalPredictor
from recsys.tasks.features import Feature


class LogisticHazard(SurvivalPredictor):
    """Hazards of intervals.

    Args:
        features: of a user as of a moment.
        num_intervals: K, at most.
        hidden_dim: of hidden layers.
        num_layers: hidden layers.
        dropout: of hidden layers.
        steps: how the network is trained.
        seed: of weights, batches and dropout.

    Raises:
        ConfigError: an option is out of its range.
    """

    holds_out = True

    intervals: Intervals
    network: Layers

    def __init__(
        self,
        *,
        features: Sequence[Feature] = (),
        num_intervals: int = 20,
        hidden_dim: int = 64,
        num_layers: int = 2,
        dropout: float = 0.0,
        steps: Steps = Steps(weight_decay=0.0, batch_size=256, max_epochs=300, patience=15),
        seed: int = 0,
    ) -> None:
        super().__init__(features=features)
        at_least(1, num_intervals=num_intervals, hidden_dim=hidden_dim)
        at_least(0, num_layers=num_layers)
        proper_share(dropout=dropout)
        self.num_intervals, self.hidden_dim, self.num_layers = num_intervals, hidden_dim, num_layers
        self.dropout, self.steps, self.seed = dropout, steps, seed

    def _learn(self, train_rows: Durations, held_out: Durations) -> None:
        self.intervals = Intervals.of(train_rows, self.num_intervals)
        hidden = [self.hidden_dim] * self.num_layers
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            sizes = [train_rows.covariates.shape[1], *hidden, self._num_outputs()]
            self.network = Layers(sizes, self.dropout)
            train(
                self,
                self.network,
                self._loss,
                self._placed(train_rows),
                self._placed(held_out),
                self.steps,
            )

    def _num_outputs(self) -> int:
        return len(self.intervals)

    def _placed(self, rows: Durations) -> Durations:
        """Rows whose durations are numbers of intervals."""
        interval = self.intervals.interval(rows).float()
        return Durations(rows.covariates.float(), interval, rows.observed)

    def _loss(self, network: nn.Module, rows: Durations) -> Tensor:
        logits = network(rows.covariates)
        return -discrete_log_likelihood(logits, rows.durations.long(), rows.observed).mean()

    @torch.no_grad()
    def _curves(self, covariates: Tensor) -> SurvivalCurves:
        logits = self.network(covariates.float().to(place_of(self.network))).cpu()
        return SurvivalCurves(self.intervals.cuts.float(), self._survival(logits))

    def _survival(self, logits: Tensor) -> Tensor:
        """(R, K + 1) at the ends of intervals."""
        return functional.pad(functional.logsigmoid(-logits).cumsum(1), (1, 0)).exp()
