"""Noise on sums of clipped changes, and the epsilon that an accountant counts for it.

A client's change has a norm of at most `clip`; the sum of a round's changes gets Gaussian noise of
the standard deviation `multiplier * clip`. Where each client is in a round by itself with
probability q, Rényi's divergence of order a between the sums with and without one client is at most

    log(sum over k of binom(a, k) (1 - q)^(a - k) q^k exp((k^2 - k) / (2 multiplier^2))) / (a - 1)

(Mironov, Talwar & Zhang 2019, section 3.3, whole orders), rounds add up, and the best order gives

    epsilon = rounds * divergence + log((a - 1) / a) - (log delta + log a) / (a - 1)

(Canonne, Kamath & Steinke 2020, proposition 12). Neighbours are sets of clients that differ by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln, logsumexp
from torch import Tensor

from recsys.errors import ConfigError
from recsys.ranges import above, share

ORDERS = (*range(2, 64), *range(64, 257, 8), 384, 512)


@dataclass(frozen=True)
class GaussianNoise:
    """Clipping on the client, noise on the server: who sees the weights learns little of a client.

    The server itself sees each change, unless secure aggregation adds them up before.

    Attributes:
        clip: largest norm of a client's change.
        multiplier: standard deviation of the noise, in clips.
        delta: the probability with which epsilon may not hold; below 1 / clients.

    Raises:
        ConfigError: an option is out of its range.
    """

    clip: float = 1.0
    multiplier: float = 1.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        above(0, clip=self.clip, multiplier=self.multiplier, delta=self.delta)
        share(delta=self.delta)

    def added(self, total: Tensor, generator: torch.Generator) -> Tensor:
        """(P,) a sum of clipped changes (P,) with noise."""
        noise = torch.randn(total.shape, generator=generator, dtype=total.dtype)
        return total + self.multiplier * self.clip * noise

    def epsilon(self, share: float, num_rounds: int) -> float:
        """What `num_rounds` rounds cost that each ask a client with probability `share`."""
        return epsilon(share, self.multiplier, num_rounds, self.delta)


def epsilon(share: float, multiplier: float, num_rounds: int, delta: float) -> float:
    """The epsilon of the subsampled Gaussian mechanism, by Rényi divergence.

    Args:
        share: q, the probability that a client is in a round.
        multiplier: standard deviation of the noise over the largest norm of a change.
        num_rounds: each with noise of its own.
        delta: as of (epsilon, delta)-differential privacy.

    Raises:
        ConfigError: a share outside of (0, 1].

    >>> round(epsilon(share=0.01, multiplier=1.0, num_rounds=1000, delta=1e-5), 2)
    2.1
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share={share}: expected above 0, to 1")
    orders = np.array(ORDERS, dtype=np.float64)
    divergence = np.array([_divergence(share, multiplier, order) for order in ORDERS])
    total = num_rounds * divergence + np.log1p(-1 / orders)
    bounds = total - (np.log(delta) + np.log(orders)) / (orders - 1)
    return float(max(bounds.min(), 0.0))


def _divergence(share: float, multiplier: float, order: int) -> float:
    """Rényi's divergence of a whole order, of one round."""
    k = np.arange(order + 1)
    growth = (k * k - k) / (2 * multiplier**2)
    if share == 1:
        return float(growth[-1] / (order - 1))
    binomials = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms = binomials + (order - k) * np.log1p(-share) + k * np.log(share) + growth
    return float(logsumexp(terms) / (order - 1))
