"""What a count model says about a user's counts: the Tweedie distribution and the output heads.

A decoder emits one number an item, its *logit*; an `OutputHead` turns the logits into a loss,
expected counts and a distribution. The heads are exchangeable: Tweedie and Gaussian judge each
item's count by itself, multinomial shares the user's events out over the items.

Sources: Jørgensen (1987), exponential dispersion models; Dunn & Smyth (2005), series evaluation of
Tweedie densities; Liang et al. (2018), Mult-VAE, for the multinomial and Gaussian likelihoods.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.distributions import Distribution, Gamma, Independent, Multinomial, Normal, constraints
from torch.distributions.utils import broadcast_all

from recsys.errors import ConfigError
from recsys.ranges import above
from recsys.types import Scores

# Means stay within exp(±12), from one event in 160,000 users to 160,000 events: beyond, mu^(1-p)
# and mu^(2-p) would drown every other gradient long before they overflow.
MAX_LOG_MEAN = 12.0

# An item that no training user has starts at one event in 3,000 users, not at minus infinity.
MIN_INITIAL_LOG_MEAN = -8.0

# The series is summed over 8 standard deviations on either side of its largest term, in steps of
# an eighth of one: 64 steps either way.
_SERIES_WIDTH = 8
_SERIES_STEPS = _SERIES_WIDTH**2

_NO_AXES = torch.Size()


class _TweediePower(constraints.Constraint):
    """The open interval (1, 2)."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 1) & (value < 2)

    def __repr__(self) -> str:
        return "1 < power < 2 (Poisson is power 1, Gamma is power 2)"


class Tweedie(Distribution):
    """Tweedie distribution with power between 1 and 2: a Poisson number of gamma-distributed parts.

    y = x_1 + ... + x_N with N ~ Poisson(rate), so y is exactly 0 where N is, and

        rate          = mean^(2-p) / (dispersion (2-p))
        concentration = (2-p) / (p-1)                     of each part
        scale         = dispersion (p-1) mean^(p-1)       of each part

    which gives E[y] = mean and Var[y] = dispersion mean^p.

    Args:
        mean: expected value, > 0. The three parameters broadcast to the batch shape.
        dispersion: variance in units of mean^power, > 0.
        power: 1 < power < 2; towards 1 the distribution nears (for dispersion 1) the Poisson.

    Raises:
        ValueError: a parameter is out of its range, or `log_prob` gets a negative value.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "mean": constraints.positive,
        "dispersion": constraints.positive,
        "power": _TweediePower(),
    }
    support = constraints.nonnegative
    has_rsample = False

    def __init__(
        self,
        mean: Tensor | float,
        dispersion: Tensor | float,
        power: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self._mean, self.dispersion, self.power = broadcast_all(mean, dispersion, power)
        super().__init__(self._mean.shape, validate_args=validate_args)

    def __repr__(self) -> str:
        parameters = {name: getattr(self, name) for name in self.arg_constraints}
        texts = (
            f"{name}: {value.item() if value.numel() == 1 else value.shape}"
            for name, value in parameters.items()
        )
        return f"Tweedie({', '.join(texts)})"

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Tweedie":
        new = self._get_checked_instance(Tweedie, _instance)
        new._mean = self.mean.expand(batch_shape)
        new.dispersion = self.dispersion.expand(batch_shape)
        new.power = self.power.expand(batch_shape)
        super(Tweedie, new).__init__(new._mean.shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self.dispersion * self.mean**self.power

    @property
    def rate(self) -> Tensor:
        """Expected number of gamma parts."""
        return self.mean ** (2 - self.power) / (self.dispersion * (2 - self.power))

    @property
    def concentration(self) -> Tensor:
        """Shape parameter of one gamma part."""
        return (2 - self.power) / (self.power - 1)

    @property
    def scale(self) -> Tensor:
        """Scale of one gamma part."""
        return self.dispersion * (self.power - 1) * self.mean ** (self.power - 1)

    @property
    def zero_probability(self) -> Tensor:
        """P(y = 0): the probability that there is no part."""
        return torch.exp(-self.rate)

    @torch.no_grad()
    def sample(self, sample_shape: Any = _NO_AXES) -> Tensor:
        parts = torch.poisson(self.rate.expand(self._extended_shape(sample_shape)))
        has_parts = parts > 0
        # Parts of one scale add up to a gamma of their summed concentrations.
        total = Gamma((parts * self.concentration).where(has_parts, 1.0), 1 / self.scale).sample()
        return total.where(has_parts, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at value > 0, log probability at value = 0.

        Evaluated in float64 whatever the parameters' type: the terms are large and cancel.
        """
        if self._validate_args:
            self._validate_sample(value)
        value, mean, dispersion, power = (
            x.double()
            for x in torch.broadcast_tensors(value, self.mean, self.dispersion, self.power)
        )
        exact = Tweedie(mean, dispersion, power, validate_args=False)
        positive = value > 0
        y = value[positive]
        density = (
            _log_series(y, dispersion[positive], power[positive])
            - y / exact.scale[positive]
            - y.log()
        )
        beyond_zero = torch.zeros_like(value).masked_scatter(positive, density)
        return (beyond_zero - exact.rate).to(self.mean.dtype)


def _log_series(
    y: Float64[Tensor, " n"], dispersion: Float64[Tensor, " n"], power: Float64[Tensor, " n"]
) -> Float64[Tensor, " n"]:
    """Log of sum_j z^j / (j! Gamma(j concentration)), j = 1, 2, ... for y > 0.

    The terms rise to j = y^(2-p) / (dispersion (2-p)) and fall off around it like a normal density
    of variance j (p-1) (Dunn & Smyth). Where that is wide, the sum is taken with a stride of an
    eighth of a standard deviation instead of 1: a trapezoid sum of a smooth bell loses nothing by
    it, and every y costs the same 129 terms.
    """
    concentration = (2 - power) / (power - 1)
    log_rate = -torch.log(dispersion * (2 - power))
    log_z = log_rate + concentration * torch.log(y / (dispersion * (power - 1)))
    with torch.no_grad():
        largest = y ** (2 - power) / (dispersion * (2 - power))
        stride = (largest * (power - 1)).sqrt().div(_SERIES_WIDTH).clamp_min(1)
        first = (largest.round() - _SERIES_STEPS * stride).clamp_min(1)
        j = torch.arange(2 * _SERIES_STEPS + 1, dtype=y.dtype, device=y.device)
        j = first[:, None] + stride[:, None] * j
    terms = j * log_z[:, None] - torch.lgamma(j + 1) - torch.lgamma(j * concentration[:, None])
    return torch.logsumexp(terms, dim=-1) + stride.log()


def tweedie_loss(
    log_mean: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"], power: float
) -> Float[Tensor, "*shape"]:
    """Tweedie negative log-likelihood up to terms free of the mean, times the dispersion.

    With eta = log_mean: -y exp((1-p) eta) / (1-p) + exp((2-p) eta) / (2-p); its gradient in eta is
    mu^(1-p) (mu - y). A quasi-likelihood: compare values at one power only, and use
    `Tweedie.log_prob` across powers. Outside ±MAX_LOG_MEAN the loss goes on along its tangent: the
    gradient is that at the bound, never infinite and never dead.

    Args:
        log_mean: any real number.
        target: >= 0.
        power: 1 < power < 2.

    Returns:
        One value an element, not reduced.

    Raises:
        ConfigError: power is not between 1 and 2.
    """
    _check_power(power)
    eta = log_mean.clamp(-MAX_LOG_MEAN, MAX_LOG_MEAN)
    missed = target * torch.exp((1 - power) * eta)
    expected = torch.exp((2 - power) * eta)
    tangent = (expected - missed) * (log_mean - eta)
    return expected / (2 - power) - missed / (1 - power) + tangent


@runtime_checkable
class OutputHead(Protocol):
    """What a decoder's logits mean: one logit, and one count, for every user and item."""

    def loss(self, logits: Scores, counts: Scores) -> Float[Tensor, " users"]:
        """Negative log-likelihood up to terms free of the logits, summed over items."""

    def mean(self, logits: Scores) -> Scores:
        """Expected counts, by which a user's items are ranked."""

    def initial_bias(self, item_means: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        """Bias at which the decoder predicts the items' mean counts."""

    def distribution(self, logits: Scores) -> Distribution:
        """Distribution of a user's counts: batch shape (users,), event shape (items,)."""


@dataclass(frozen=True, kw_only=True)
class TweedieHead:
    """Zero-inflated, long-tailed counts; a logit is the log of the expected count.

    Raises:
        ConfigError: power is not between 1 and 2, or dispersion is not positive.

    >>> head = TweedieHead(power=1.5)
    >>> head.mean(torch.tensor([[0.0, 1.0]]))
    tensor([[1.0000, 2.7183]])
    >>> head.loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 3.0]]))
    tensor([10.9366])
    """

    power: float = 1.5
    dispersion: float = 1.0

    def __post_init__(self) -> None:
        _check_power(self.power)
        above(0, dispersion=self.dispersion)

    def loss(self, logits: Scores, counts: Scores) -> Float[Tensor, " users"]:
        return tweedie_loss(logits, counts, self.power).sum(-1) / self.dispersion

    def mean(self, logits: Scores) -> Scores:
        return logits.clamp(-MAX_LOG_MEAN, MAX_LOG_MEAN).exp()

    def initial_bias(self, item_means: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        return item_means.log().clamp_min(MIN_INITIAL_LOG_MEAN)

    def distribution(self, logits: Scores) -> Distribution:
        return Independent(Tweedie(self.mean(logits), self.dispersion, self.power), 1)


@dataclass(frozen=True)
class MultinomialHead:
    """A user's events as draws from one softmax over the items (Liang et al., equation 2).

    The number of events is given, not modelled: `mean` and `distribution` are those of one event.

    >>> MultinomialHead().loss(torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    tensor([1.3863])
    """

    def loss(self, logits: Scores, counts: Scores) -> Float[Tensor, " users"]:
        return -(counts * logits.log_softmax(-1)).sum(-1)

    def mean(self, logits: Scores) -> Scores:
        return logits.softmax(-1)

    def initial_bias(self, item_means: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        return item_means.log().clamp_min(MIN_INITIAL_LOG_MEAN)

    def distribution(self, logits: Scores) -> Distribution:
        return Multinomial(1, logits=logits)


@dataclass(frozen=True, kw_only=True)
class GaussianHead:
    """Counts with normal noise (Liang et al., equation 3); a logit is the expected count itself.

    Raises:
        ConfigError: variance is not positive.
    """

    variance: float = 1.0

    def __post_init__(self) -> None:
        above(0, variance=self.variance)

    def loss(self, logits: Scores, counts: Scores) -> Float[Tensor, " users"]:
        return (counts - logits).square().sum(-1) / (2 * self.variance)

    def mean(self, logits: Scores) -> Scores:
        return logits

    def initial_bias(self, item_means: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        return item_means

    def distribution(self, logits: Scores) -> Distribution:
        return Independent(Normal(logits, sqrt(self.variance)), 1)


def _check_power(power: float) -> None:
    if not 1 < power < 2:
        raise ConfigError(
            f"power={power} is not between 1 and 2; 1.5 is usual, 1 is Poisson, 2 is gamma"
        )
