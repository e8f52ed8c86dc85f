"""DeepHit: a network gives each interval the probability of the event, and is trained to rank, too.

Paper: Lee et al., "DeepHit: A Deep Learning Approach to Survival Analysis with Competing Risks",
AAAI 2018; here of one kind of event. Changed: an outcome more, of no event within the intervals, so
that censored rows need not have one; means in place of sums, so that `ranking` is a share.

    p(.|x) = softmax(layers(x)),   F_k = p_1 + … + p_k
    loss = (1 - ranking) NLL + ranking mean over pairs of exp((F_k(j) - F_k(i)) / temperature)

over pairs of a row i with its event in interval k and a row j that has had none by its end.

Shapes: R rows, K intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from recsys.models.survival.logistic_hazard import LogisticHazard
from recsys.nn.hazards import mass_log_likelihood
from recsys.ranges import above, share
from recsys.scoring.predictor import Steps
from recsys.scoring.survival import Durations
from recsys.tasks.features import Feature


class DeepHit(LogisticHazard):
    """Probabilities of intervals.

    Args:
        features: of a user as of a moment.
        num_intervals: K, at most.
        hidden_dim: of hidden layers.
        num_layers: hidden layers.
        dropout: of hidden layers.
        ranking: share of the loss that ranks; 0 leaves the likelihood.
        temperature: by which differences are divided.
        steps: how the network is trained; by the likelihood of the rows held out.
        seed: of weights, batches and dropout.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        features: Sequence[Feature] = (),
        num_intervals: int = 20,
        hidden_dim: int = 64,
        num_layers: int = 2,
        dropout: float = 0.0,
        ranking: float = 0.2,
        temperature: float = 0.1,
        steps: Steps = Steps(weight_decay=0.0, batch_size=256, max_epochs=300, patience=15),
        seed: int = 0,
    ) -> None:
        super().__init__(
            features=features,
            num_intervals=num_intervals,
            hidden_dim=hidden_dim,
            num_layers=num_layers,
            dropout=dropout,
            steps=steps,
            seed=seed,
        )
        share(ranking=ranking)
        above(0, temperature=temperature)
        self.ranking, self.temperature = ranking, temperature

    def _num_outputs(self) -> int:
        return len(self.intervals) + 1

    def _loss(self, network: nn.Module, rows: Durations) -> Tensor:
        logits, interval = network(rows.covariates), rows.durations.long()
        loss = -mass_log_likelihood(logits, interval, rows.observed).mean()
        if not network.training or not self.ranking:
            return loss
        ranked = self._ranked(logits.softmax(1).cumsum(1), interval, rows.observed)
        return (1 - self.ranking) * loss + self.ranking * ranked

    def _ranked(self, reached: Tensor, interval: Tensor, observed: Tensor) -> Tensor:
        """The mean over pairs of a batch; reached is F (B, K + 1)."""
        at = reached[:, interval]  # (j, i): F of j by the end of the interval of i
        # Of a censored row `interval` counts those that it has survived.
        pairs = (interval[:, None] > interval) & observed
        value = ((at - at.diagonal()) / self.temperature).exp() * pairs
        return value.sum() / pairs.sum().clamp(min=1)

    def _survival(self, logits: Tensor) -> Tensor:
        mass = logits.softmax(1)[:, :-1]
        return functional.pad(1 - mass.cumsum(1), (1, 0), value=1.0).clamp(min=0)
