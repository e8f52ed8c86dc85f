"""How a server of federated learning steps, given the changes of its clients.

FedAvg: McMahan et al., AISTATS 2017. FedProx: Li et al., MLSys 2020. FedAdam: Reddi et al., ICLR
2021. Geometric median: Pillutla et al., IEEE TSP 2022. The weights by distance are a form of our
own of what FedGeo (Park et al., SIGSPATIAL 2023) describes.

Shapes: C clients, P weights of the model in all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.ranges import above, at_least, share


class Aggregation:
    """How the server steps: by the mean of the clients' changes, weighted by `weights`.

    Attributes:
        proximal: FedProx's mu, for the clients.
    """

    proximal: float = 0.0

    def weights(self, changes: Tensor, num_examples: Tensor) -> Tensor:
        """(C,) summing to 1, of changes (C, P); by default in proportion to the examples."""
        return num_examples.to(changes) / num_examples.sum()

    def step(self, mean: Tensor) -> Tensor:
        """(P,) what is added to the server's weights, given the mean change (P,)."""
        return mean


class FedAvg(Aggregation):
    """The mean change, clients weighted by their examples.

    Args:
        learning_rate: what the mean is multiplied by; 1 in the paper.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(self, *, learning_rate: float = 1.0) -> None:
        above(0, learning_rate=learning_rate)
        self.learning_rate = learning_rate

    def step(self, mean: Tensor) -> Tensor:
        return self.learning_rate * mean


class FedProx(FedAvg):
    """FedAvg whose clients are held near the server's weights.

    Args:
        proximal: mu.
        learning_rate: as of FedAvg.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(self, *, proximal: float = 0.01, learning_rate: float = 1.0) -> None:
        super().__init__(learning_rate=learning_rate)
        at_least(0, proximal=proximal)
        self.proximal = proximal


class FedAdam(Aggregation):
    """Adam on the server, with the mean change in place of a descent direction.

    Without the correction of the moments' start, as in the paper (algorithm 2).

    Args:
        learning_rate, beta1, beta2, tau: of the paper; tau keeps steps finite.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        learning_rate: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
    ) -> None:
        above(0, learning_rate=learning_rate, tau=tau)
        share(beta1=beta1, beta2=beta2)
        self.learning_rate, self.beta1, self.beta2, self.tau = learning_rate, beta1, beta2, tau
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def step(self, mean: Tensor) -> Tensor:
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(mean), torch.full_like(mean, self.tau**2)
        self.first = self.beta1 * self.first + (1 - self.beta1) * mean
        self.second = self.beta2 * self.second + (1 - self.beta2) * mean.square()
        return self.learning_rate * self.first / (self.second.sqrt() + self.tau)


class DistanceWeighted(FedAvg):
    """FedAvg in which clients far from the mean change count less, against drift.

    w_c ~ n_c exp(-d_c / (temperature * mean of d)), d_c the distance of a client's change from the
    mean change of all; a form of our own of FedGeo's aggregation.

    Args:
        temperature: large ones are FedAvg.
        learning_rate: as of FedAvg.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(self, *, temperature: float = 1.0, learning_rate: float = 1.0) -> None:
        super().__init__(learning_rate=learning_rate)
        above(0, temperature=temperature)
        self.temperature = temperature

    def weights(self, changes: Tensor, num_examples: Tensor) -> Tensor:
        by_examples = super().weights(changes, num_examples)
        distance = (changes - by_examples @ changes).norm(dim=1)
        scale = self.temperature * distance.mean().clamp(min=1e-12)
        weights = by_examples * (-distance / scale).exp()
        return weights / weights.sum()


class GeometricMedian(FedAvg):
    """The point with the least weighted sum of distances to the changes, by Weiszfeld's steps.

    Args:
        iterations: of Weiszfeld's.
        smallest: distance that a change counts as having, as in RFA.
        learning_rate: as of FedAvg.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self, *, iterations: int = 10, smallest: float = 1e-6, learning_rate: float = 1.0
    ) -> None:
        super().__init__(learning_rate=learning_rate)
        at_least(1, iterations=iterations)
        above(0, smallest=smallest)
        self.iterations, self.smallest = iterations, smallest

    def weights(self, changes: Tensor, num_examples: Tensor) -> Tensor:
        by_examples = weights = super().weights(changes, num_examples)
        for _ in range(self.iterations):
            distance = (changes - weights @ changes).norm(dim=1).clamp(min=self.smallest)
            weights = by_examples / distance
            weights = weights / weights.sum()
        return weights
