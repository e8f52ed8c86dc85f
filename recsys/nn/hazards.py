"""Hazards: likelihoods of times that may be cut off, their integrals, and penalties of a network.

A hazard h(t|x) is the rate of events at time t among those that had none before; H(t|x) is its
integral from 0, S(t|x) = exp(-H(t|x)) the share without an event, and h S the density. What is
right-censored has had no event until its duration, and nothing is known beyond.

Shapes: R rows, F covariates, Q points of time of a row, G points of a grid, K intervals, E rows
with an event. Log-likelihoods are those of each row unless a function says that it sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from recsys.ranges import at_least

PerRow = Float[Tensor, " rows"]
Observed = Bool[Tensor, " rows"]


def censored_log_likelihood(
    log_hazard: PerRow, cumulative: PerRow, observed: Observed
) -> Float[Tensor, " rows"]:
    """Of an event the log density, log h - H; of what is censored the log survival, -H.

    >>> rate, days = torch.tensor(0.5), torch.tensor([2.0, 4.0])
    >>> observed = torch.tensor([True, False])
    >>> censored_log_likelihood(rate.log().expand(2), rate * days, observed)
    tensor([-1.6931, -2.0000])
    """
    return torch.where(observed, log_hazard, 0.0) - cumulative


def gauss_legendre(num_points: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Points (Q) in 0 .. 1 and weights (Q) that integrate polynomials of degree 2Q - 1 exactly."""
    points, weights = np.polynomial.legendre.leggauss(num_points)
    return like.new_tensor((points + 1) / 2), like.new_tensor(weights / 2)


def hazard_and_cumulative(
    hazard: Callable[[Tensor], Tensor], until: PerRow, *, num_points: int = 15
) -> tuple[Tensor, Tensor]:
    """A hazard at a time of each row, and its integral from 0 by Gauss and Legendre's rule.

    Args:
        hazard: from times (R, Q) to hazards (R, Q); asked once.
        until: the times (R).
        num_points: of the rule.

    Returns:
        h, H: (R) each.
    """
    points, weights = gauss_legendre(num_points, until)
    times = torch.cat([points * until[:, None], until[:, None]], dim=1)
    hazards = hazard(times)
    return hazards[:, -1], (hazards[:, :-1] @ weights) * until


def cumulative_on_grid(
    hazard: Callable[[Tensor], Tensor], grid: Float[Tensor, " grid"], *, num_points: int = 1
) -> Float[Tensor, "rows grid"]:
    """The integral of a hazard from the first point of a grid to each of its points.

    Args:
        hazard: from times (Q) to hazards (R, Q).
        grid: ascending.
        num_points: of the rule within a cell; 1 takes its middle.
    """
    points, weights = gauss_legendre(num_points, grid)
    width = grid.diff()
    times = grid[:-1, None] + width[:, None] * points
    hazards = hazard(times.flatten()).unflatten(1, times.shape)
    cells = (hazards @ weights) * width
    return functional.pad(cells.cumsum(1), (1, 0))


def discrete_log_likelihood(
    logits: Float[Tensor, "rows intervals"], interval: Int64[Tensor, " rows"], observed: Observed
) -> Float[Tensor, " rows"]:
    """Of hazards that are probabilities, sigmoid(logit), of an event in an interval.

    Source: Gensheimer & Narasimhan, "A scalable discrete-time survival model for neural networks"
    (nnet-survival), PeerJ 2019, eq. 3.

    Args:
        logits: of each interval.
        interval: of the event; of a censored row, how many intervals it has survived, up to K.
        observed: whether there was an event.
    """
    survived = functional.pad(functional.logsigmoid(-logits).cumsum(1), (1, 0))
    last = interval.clamp(max=logits.shape[1] - 1)
    event = functional.logsigmoid(_pick(logits, last))
    return _pick(survived, interval) + torch.where(observed, event, 0.0)


def mass_log_likelihood(
    logits: Float[Tensor, "rows outcomes"], interval: Int64[Tensor, " rows"], observed: Observed
) -> Float[Tensor, " rows"]:
    """Of probabilities, softmax(logits), of an event in each of K intervals or in none (K + 1).

    Source: Lee et al., "DeepHit", AAAI 2018, the first loss, of one kind of event.
    """
    log_mass = logits.log_softmax(1)
    later = log_mass.flip(1).logcumsumexp(1).flip(1)
    return torch.where(observed, _pick(log_mass, interval), _pick(later, interval))


def _pick(values: Tensor, column: Tensor) -> Tensor:
    return values.gather(1, column[:, None])[:, 0]


def breslow(scores: PerRow, durations: PerRow, observed: Observed) -> Float[Tensor, ""]:
    """Cox's log partial likelihood, summed; tied events are each against all that are at risk.

    Source: Breslow, "Covariance analysis of censored survival data", Biometrics 1974.

    >>> days, observed = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([True, True, True])
    >>> breslow(torch.zeros(3), days, observed)  # -log 3 - 2 log 2
    tensor(-2.4849)
    """
    return (scores - _log_at_risk(scores, durations))[observed].sum()


def efron(scores: PerRow, durations: PerRow, observed: Observed) -> Float[Tensor, ""]:
    """Cox's log partial likelihood, summed; of d tied events the l-th leaves l/d of them out.

    Source: Efron, "The efficiency of Cox's likelihood function for censored data", JASA 1977.

    >>> days, observed = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([True, True, True])
    >>> efron(torch.zeros(3), days, observed)  # -log 3 - log 2 - log 1
    tensor(-1.7918)
    """
    at_risk = _log_at_risk(scores, durations)[observed]
    scores, durations = scores[observed], durations[observed]
    group, part = ties(durations)
    most = scores.new_full((len(scores),), -torch.inf)
    most = most.scatter_reduce(0, group, scores.detach(), "amax")[group]
    tied = torch.zeros_like(scores).index_add(0, group, (scores - most).exp())[group]
    share = part * (tied.log() + most - at_risk).exp()
    return (scores - at_risk - torch.log1p(-share)).sum()


def ties(durations: Float[Tensor, " events"]) -> tuple[Tensor, Tensor]:
    """Of events (E) the number of the time that they share, and Efron's l/d (E) among its d."""
    _, group, count = durations.unique(return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    first = count.cumsum(0) - count
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - first[group[order]]
    return group, place / count[group]


def _log_at_risk(scores: Tensor, durations: Tensor) -> Tensor:
    """(R) the log sum of exp(score) of the rows whose durations are no less."""
    order = durations.argsort(descending=True)
    summed = scores[order].logcumsumexp(0)
    shorter = torch.searchsorted(durations.sort().values, durations)
    return summed[len(durations) - 1 - shorter]


def draw_times(
    cumulative: Float[Tensor, "rows grid"], grid: Float[Tensor, " grid"], uniform: PerRow
) -> Float[Tensor, " rows"]:
    """A time of each row by the inverse of its distribution on a grid, given that it lies there.

    Args:
        cumulative: H at the grid's points, 0 at the first.
        grid: ascending.
        uniform: numbers in 0 .. 1.
    """
    reached = -torch.expm1(-cumulative)
    wanted = (uniform * reached[:, -1])[:, None]
    after = torch.searchsorted(reached, wanted).clamp(1, len(grid) - 1)
    low, high = reached.gather(1, after - 1), reached.gather(1, after)
    share = ((wanted - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)).clamp(0, 1)
    start = grid[after - 1]
    return (start + share * (grid[after] - start))[:, 0]


@runtime_checkable
class Hazard(Protocol):
    """A network of a hazard, as penalties ask it; times count as the network's do."""

    horizon: float

    def hazard(self, until: Tensor, covariates: Tensor) -> Tensor:
        """The hazard (R) at a time of each row (R), given covariates (R, F)."""
        ...

    def cumulative_on(self, grid: Tensor, covariates: Tensor) -> Tensor:
        """The integral of the hazard (R, G) at times that all rows share."""
        ...

    def weights(self) -> list[nn.Parameter]:
        """The matrices that are multiplied by what comes in; no biases."""
        ...


@runtime_checkable
class Penalty(Protocol):
    """What is added to the mean negative log-likelihood of a batch."""

    def __call__(self, network: Hazard, covariates: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class L1:
    """The sum of the absolute weights, biases left out.

    Args:
        weight: that it is multiplied by.
    """

    weight: float = 1e-4

    def __post_init__(self) -> None:
        at_least(0, weight=self.weight)

    def __call__(self, network: Hazard, covariates: Tensor) -> Tensor:
        return self.weight * torch.stack([w.abs().sum() for w in network.weights()]).sum()


@dataclass(frozen=True)
class HazardGradientPenalty:
    """How fast the hazard changes with the covariates: the mean of || grad_x h(t|x) ||.

    Paper: Jung & Kim, "Hazard gradient penalty for survival analysis", arXiv 2205.13717. Read were
    its abstract and its first page: the gradient of the hazard with respect to the covariates, at
    times that are sampled, is added to the negative log-likelihood with a weight. Our reading of
    what they leave open: the 2-norm, not squared; one time a row, drawn from the model's own
    density by inverting its distribution on a grid from 0 to the longest duration, given that the
    event comes by then. No gradient passes through the drawn time.

    Args:
        weight: that it is multiplied by.
        num_points: of the grid.
    """

    weight: float = 0.03
    num_points: int = 64

    def __post_init__(self) -> None:
        at_least(0, weight=self.weight)
        at_least(2, num_points=self.num_points)

    def __call__(self, network: Hazard, covariates: Tensor) -> Tensor:
        times = self.times(network, covariates)
        with torch.enable_grad():
            covariates = covariates.detach().requires_grad_()
            hazard = network.hazard(times, covariates)
            (gradient,) = torch.autograd.grad(hazard.sum(), covariates, create_graph=True)
        return self.weight * torch.linalg.vector_norm(gradient, dim=1).mean()

    @torch.no_grad()
    def times(self, network: Hazard, covariates: Tensor) -> Tensor:
        """A time of each row (R), from the density that the network gives it."""
        steps = torch.arange(self.num_points, device=covariates.device, dtype=covariates.dtype)
        grid = steps * (network.horizon / (self.num_points - 1))
        uniform = torch.rand(len(covariates), device=covariates.device, dtype=covariates.dtype)
        return draw_times(network.cumulative_on(grid, covariates), grid, uniform)
