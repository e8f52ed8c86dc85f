"""How much the targets of each domain count in the loss of a model of several domains.

Weights are relative: the model brings them to a mean of 1 over its training targets. Two weightings
measure while training goes on, on training users who are held out of it: how well the last item of
each is predicted from a history in which some domains alone are left.

Shapes: d domains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from math import factorial

import torch
from torch import Tensor

from recsys.ranges import above, at_least, share

Losses = Callable[[Tensor], Tensor]
"""From the domains (d,) bool that a history keeps to the mean loss (d,) of each domain's targets,
NaN for a domain without any."""


class DomainWeighting(ABC):
    """Weights of domains."""

    @abstractmethod
    def start(self, counts: Tensor) -> Tensor:
        """(d,) weights before anything is measured, given how many targets each domain has."""


class MeasuredWeighting(DomainWeighting):
    """Weights that follow from losses on held-out users, every so many steps.

    Attributes:
        every: steps from one measurement to the next.
        num_held_out: training users who are held out, at most a tenth of all.
        momentum: share of the values before that a measurement leaves.
        temperature: by which values are divided; the smaller, the farther weights are apart.
    """

    every: int
    num_held_out: int
    momentum: float
    temperature: float

    def __post_init__(self) -> None:
        at_least(1, every=self.every, num_held_out=self.num_held_out)
        share(momentum=self.momentum)
        above(0, temperature=self.temperature)

    def start(self, counts: Tensor) -> Tensor:
        """(d,): every domain alike."""
        return torch.ones(len(counts))

    @abstractmethod
    def measure(self, losses: Losses, num_domains: int) -> Tensor:
        """(d,): the value of each domain now; a larger one is worth more weight."""

    def weights(self, values: Tensor) -> Tensor:
        """(d,) of values that were averaged over measurements."""
        return (values / self.temperature).softmax(0)


@dataclass(frozen=True)
class Uniform(DomainWeighting):
    """Every target counts alike: plain mixing."""

    def start(self, counts: Tensor) -> Tensor:
        """(d,): ones."""
        return torch.ones(len(counts))


@dataclass(frozen=True)
class InverseFrequency(DomainWeighting):
    """Every domain counts alike, however many targets it has."""

    def start(self, counts: Tensor) -> Tensor:
        """(d,): 1 / count."""
        return 1 / counts.clamp(min=1)


@dataclass(frozen=True)
class TransferGap(MeasuredWeighting):
    """A domain counts the more, the more its targets gain from the other domains' events.

    SyNCRec's (Park et al., SIGIR 2024, arXiv 2407.11245): the loss of a domain's targets with the
    domain's history alone, minus that with the whole history. A domain that others hurt, whose gap
    is negative, counts less.

    Attributes:
        every, num_held_out, momentum, temperature: as of every measured weighting.

    Raises:
        ConfigError: an option is out of its range.
    """

    every: int = 50
    num_held_out: int = 256
    momentum: float = 0.9
    temperature: float = 1.0

    def measure(self, losses: Losses, num_domains: int) -> Tensor:
        """(d,): 0 for a domain that no held-out user has as a target."""
        alone = torch.stack(
            [losses(kept)[place] for place, kept in enumerate(torch.eye(num_domains).bool())]
        )
        return (alone - losses(torch.ones(num_domains).bool())).nan_to_num()


@dataclass(frozen=True)
class Shapley(MeasuredWeighting):
    """A domain counts as much as its events help to predict the targets of all domains.

    CGRec's (Park et al., CIKM 2023, arXiv 2311.13188): Shapley values of domains as parts of the
    history. The worth of a set of domains is minus the mean loss, over the domains of the targets,
    with histories that hold these domains alone. Kept: the values, and weights from their moving
    mean. Changed: the authors' code compares sets that differ in more than the one domain; here a
    set is compared with itself and one domain, along drawn orders of the domains (Castro et al.,
    2009). With all d! orders, where there are no more than are to be drawn, the values are exact.

    Attributes:
        num_orders: orders that are drawn for a measurement.
        every, num_held_out, momentum, temperature: as of every measured weighting.

    Raises:
        ConfigError: an option is out of its range.
    """

    num_orders: int = 6
    every: int = 50
    num_held_out: int = 256
    momentum: float = 0.9
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, num_orders=self.num_orders)

    def measure(self, losses: Losses, num_domains: int) -> Tensor:
        """(d,): their sum is what the whole history is worth more than an empty one."""
        worths: dict[tuple[bool, ...], Tensor] = {}

        def worth(kept: Tensor) -> Tensor:
            key = tuple(kept.tolist())
            if key not in worths:
                worths[key] = -losses(kept).nanmean()
            return worths[key]

        values = torch.zeros(num_domains)
        orders = list(self._orders(num_domains))
        for order in orders:
            kept = torch.zeros(num_domains, dtype=torch.bool)
            before = worth(kept)
            for domain in order:
                kept = kept.clone()
                kept[domain] = True
                values[domain] += float(worth(kept) - before) / len(orders)
                before = worth(kept)
        return values

    def _orders(self, num_domains: int) -> Iterator[tuple[int, ...]]:
        if num_domains <= 8 and factorial(num_domains) <= self.num_orders:
            yield from permutations(range(num_domains))
        else:
            for _ in range(self.num_orders):
                yield tuple(torch.randperm(num_domains).tolist())
