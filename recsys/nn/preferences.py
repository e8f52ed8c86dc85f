"""Losses of feedback: what was taken up should become likelier than it was, the rest less so.

All are functions of the reward r(x, y) = beta (log pi(y|x) - log pi_ref(y|x)), how much likelier a
model pi makes an item y after a history x than the reference that it started from, and of whether
y was taken up or turned down.

Papers: BCO, Jung, Han, Nam, On, "Binary Classifier Optimization for Large Language Model
Alignment", ACL 2025 (arXiv 2404.04656); KTO, Ethayarajh et al., ICML 2024 (arXiv 2402.01306); DPO,
Rafailov et al., NeurIPS 2023 (arXiv 2305.18290).

Changed: classes may weigh alike, and do by default. Where far more is turned down than taken up,
as in a log of purchases, a shift that follows all rewards anchors nothing: the many that are turned
down push all rewards down, the shift goes with them, and what the model knew is lost.

Shapes: E labelled items, of B histories.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from recsys.ranges import above


@dataclass(frozen=True, eq=False)
class Preferences:
    """What is known of E labelled items when a loss is taken.

    Attributes:
        log_probabilities: (E,) log pi, of the model that is trained.
        reference: (E,) log pi_ref, of the model that it started from.
        labels: (E,) bool, whether the item was taken up.
        lists: (E,) int64 ascending, the history that each item was shown after.
        odds: (E,) p(up|x) / (1 - p(up|x)) of the item's history; None where nobody has told.
        mismatched, mismatched_reference: (E,) log pi and log pi_ref of items of other histories.
    """

    log_probabilities: Tensor
    reference: Tensor
    labels: Tensor
    lists: Tensor
    odds: Tensor | None = None
    mismatched: Tensor | None = None
    mismatched_reference: Tensor | None = None

    @property
    def log_ratios(self) -> Tensor:
        """(E,)."""
        return self.log_probabilities - self.reference


class PreferenceLoss(nn.Module):
    """A loss of `Preferences`: a scalar.

    Args:
        beta: what a log-ratio is multiplied by: small ones let a model go far from its reference.
        balanced: whether items taken up, all together, weigh as much as those turned down.

    Raises:
        ConfigError: beta is not above 0.
    """

    up_share: Tensor
    needs_odds = False
    needs_mismatched = False
    needs_pairs = False

    def __init__(self, *, beta: float = 0.1, balanced: bool = True) -> None:
        super().__init__()
        above(0, beta=beta)
        self.beta, self.balanced = beta, balanced
        self.register_buffer("up_share", torch.tensor(0.5))

    def start(self, labels: Tensor) -> None:
        """Take the share of (E,) bool labels, all those of training, that are up."""
        self.up_share.copy_(labels.double().mean())

    @abstractmethod
    def forward(self, preferences: Preferences) -> Tensor:
        """A scalar; in training mode what the loss keeps of earlier examples is brought up."""

    @property
    def shift(self) -> float:
        """What rewards are compared with."""
        return 0.0

    def rewards(self, preferences: Preferences) -> Tensor:
        """(E,)."""
        return self.beta * preferences.log_ratios

    def class_weights(self, labels: Tensor) -> Tensor:
        """(E,) for labels (E,): one over twice the share of the label's class, or 1."""
        if not self.balanced:
            return torch.ones_like(labels, dtype=self.up_share.dtype)
        up = self.up_share
        return torch.where(labels, 0.5 / up, 0.5 / (1 - up))

    def _weighted(self, losses: Tensor, weights: Tensor) -> Tensor:
        return (losses * weights.to(losses)).mean()


class BCE(PreferenceLoss):
    """-log sigmoid(r) of an item taken up, -log sigmoid(-r) of one turned down.

    >>> loss = BCE(beta=1.0, balanced=False)
    >>> up, zero = torch.tensor([True, False]), torch.zeros(2)
    >>> loss(Preferences(torch.tensor([1.0, 0.0]), zero, up, torch.arange(2)))
    tensor(0.5032)
    """

    def forward(self, preferences: Preferences) -> Tensor:
        labels, rewards = preferences.labels, self.rewards(preferences)
        losses = F.softplus(torch.where(labels, -1, 1) * (rewards - self._shift(rewards)))
        return self._weighted(losses, self._weights(preferences))

    def _shift(self, rewards: Tensor) -> Tensor | float:
        return 0.0

    def _weights(self, preferences: Preferences) -> Tensor:
        return self.class_weights(preferences.labels)


class BCO(BCE):
    """BCE of r - delta, delta being the mean of all rewards since the first step.

    For every delta the loss of a pair is at least DPO's, and the gap is least where delta is the
    mean of the two rewards (theorem 3 and equation 11 of the paper). The mean is of the items of
    all ranks; it is kept in the checkpoint, without which a run that goes on would start it anew.

    Args:
        beta, balanced: as of `PreferenceLoss`.
        matching: weigh each item turned down by the odds that its history's items are taken up,
            in 0.5 .. 10 (section 4 of the paper): an item that nobody with this history could have
            been expected to take teaches less.

    >>> loss = BCO(beta=1.0, balanced=False)
    >>> rewards = torch.tensor([3.0, 1.0])
    >>> value = loss(Preferences(rewards, torch.zeros(2), rewards > 2, torch.arange(2)))
    >>> round(loss.shift, 6), value
    (2.0, tensor(0.3133))
    """

    total: Tensor
    count: Tensor
    ODDS = (0.5, 10.0)

    def __init__(self, *, beta: float = 0.1, balanced: bool = True, matching: bool = False) -> None:
        super().__init__(beta=beta, balanced=balanced)
        self.matching = self.needs_odds = matching
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def shift(self) -> float:
        return float(self.total / self.count.clamp(min=1))

    def _shift(self, rewards: Tensor) -> Tensor | float:
        if self.training:
            now = torch.stack(
                [rewards.detach().double().sum(), rewards.new_tensor(len(rewards)).double()]
            )
            if distributed.is_available() and distributed.is_initialized():
                distributed.all_reduce(now)
            self.total += now[0]
            self.count += now[1]
        return (self.total / self.count.clamp(min=1)).to(rewards)

    def _weights(self, preferences: Preferences) -> Tensor:
        weights = self.class_weights(preferences.labels)
        if not self.matching:
            return weights
        assert preferences.odds is not None
        odds = preferences.odds.clamp(*self.ODDS)
        return torch.where(preferences.labels, weights, weights * odds.to(weights))


class KTO(PreferenceLoss):
    """1 - sigmoid(r - z) of an item taken up, 1 - sigmoid(z - r) of one turned down.

    z estimates beta KL(pi || pi_ref), and is at least 0: the mean reward of items that were shown
    after other histories (section 4.1 of the paper), over the batch and all ranks.

    >>> loss, zero = KTO(balanced=False), torch.zeros(2)
    >>> labels = torch.tensor([True, False])
    >>> loss(Preferences(zero, zero, labels, zero.long(), None, zero, zero))
    tensor(0.5000)
    """

    needs_mismatched = True

    def __init__(self, *, beta: float = 0.1, balanced: bool = True) -> None:
        super().__init__(beta=beta, balanced=balanced)
        self._divergence = 0.0

    @property
    def shift(self) -> float:
        """Of the last batch."""
        return self._divergence

    def forward(self, preferences: Preferences) -> Tensor:
        assert preferences.mismatched is not None
        assert preferences.mismatched_reference is not None
        others = preferences.mismatched.detach() - preferences.mismatched_reference
        divergence = (self.beta * others.double().mean()).reshape(1)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(divergence)
            divergence /= distributed.get_world_size()
        self._divergence = float(divergence.clamp(min=0))
        sign = torch.where(preferences.labels, 1, -1)
        gained = torch.sigmoid(sign * (self.rewards(preferences) - self._divergence))
        return self._weighted(1 - gained, self.class_weights(preferences.labels))


class DPO(PreferenceLoss):
    """-log sigmoid(r_up - r_down), a mean over the pairs of every list that has both.

    Args:
        beta: as of `PreferenceLoss`.

    >>> loss, lists = DPO(beta=1.0), torch.tensor([0, 0, 1])
    >>> labels = torch.tensor([True, False, True])
    >>> loss(Preferences(torch.tensor([1.0, 1.0, 5.0]), torch.zeros(3), labels, lists))
    tensor(0.6931)
    """

    needs_pairs = True

    def __init__(self, *, beta: float = 0.1) -> None:
        super().__init__(beta=beta, balanced=False)

    def forward(self, preferences: Preferences) -> Tensor:
        rewards, up, down = self.rewards(preferences), *pairs(preferences)
        if not len(up):
            return rewards.sum() * 0.0
        return F.softplus(rewards[down] - rewards[up]).mean()


class SFT(PreferenceLoss):
    """-log pi of the items taken up, a mean: what is turned down teaches nothing.

    >>> loss, labels = SFT(), torch.tensor([True, False])
    >>> loss(Preferences(torch.tensor([-2.0, -9.0]), torch.zeros(2), labels, torch.arange(2)))
    tensor(2.)
    """

    def __init__(self) -> None:
        super().__init__(balanced=False)

    def forward(self, preferences: Preferences) -> Tensor:
        up = preferences.labels.to(preferences.log_probabilities)
        return -(preferences.log_probabilities * up).sum() / up.sum().clamp(min=1)


def pairs(preferences: Preferences) -> tuple[Tensor, Tensor]:
    """(P,) int64 each: the places of every item taken up with every one turned down of its list."""
    (up,) = preferences.labels.nonzero(as_tuple=True)
    (down,) = (~preferences.labels).nonzero(as_tuple=True)
    of_up, of_down = preferences.lists[up], preferences.lists[down].contiguous()
    starts = torch.searchsorted(of_down, of_up)
    counts = torch.searchsorted(of_down, of_up, side="right") - starts
    first = counts.cumsum(0) - counts
    places = torch.arange(int(counts.sum()), device=up.device)
    rows = torch.arange(len(up), device=up.device).repeat_interleave(counts)
    return up[rows], down[places - first[rows] + starts[rows]]
