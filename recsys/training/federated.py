"""Federated learning: a model is trained where the data are, and only updates leave a client.

A client holds the examples of some users (`clients.py`). In each round the server sends its
weights to some clients (`Order`); each trains them on its own examples (`local_steps.py`) and sends
back how they changed (`Update`, in `messages.py`); the server steps by a weighted mean of the
changes (`aggregation.py`), with clipping and noise as an option (`privacy.py`; McMahan et al., ICLR
2018). The coin is a form of our own of what FedGeo (Park et al., SIGSPATIAL 2023) describes.

Shapes: C clients, P weights of the model in all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import USER
from recsys.ranges import above, at_least
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split
from recsys.training.aggregation import Aggregation, FedAvg
from recsys.training.clients import Clients, OnClients
from recsys.training.local_steps import LocalSteps, flat, train_clients, uniform
from recsys.training.messages import Order, Updates, Weights
from recsys.training.privacy import GaussianNoise
from recsys.types import Scores

logger = logging.getLogger(__name__)


@dataclass
class Coin:
    """Clients of diverse data take part more often; each flips its own coin.

    Heads with probability sigmoid((H - midpoint) / width), H the entropy of the client's targets.
    The midpoint moves towards the clients' median by their coins alone: up where more than half
    were heads, down where fewer were. With noise no epsilon is stated, since coins tell of data.

    Attributes:
        midpoint: in nats, of the first round.
        width: in nats.
        rate: how far a round moves the midpoint, times the share of heads above one half.

    Raises:
        ConfigError: an option is out of its range.
    """

    midpoint: float = 2.0
    width: float = 0.5
    rate: float = 0.5

    def __post_init__(self) -> None:
        above(0, width=self.width)
        at_least(0, midpoint=self.midpoint, rate=self.rate)

    def learn(self, heads: Tensor) -> None:
        """Take the coins of a round's clients (C,) bool."""
        self.midpoint += self.rate * (float(heads.double().mean()) - 0.5)


@dataclass
class Server:
    """Sends orders, takes updates, and holds the weights.

    Attributes:
        weights: of the model, by name.
        aggregation: how it steps.
        coin: whether and how clients decide to take part; None: all do.
        noise: whether changes are clipped and noise is added; None: neither.
        expected_clients: of a round, which noise needs.
        seed: of the noise.
        round: rounds done.

    Raises:
        ConfigError: noise beside what it cannot be counted for.
    """

    weights: Weights
    aggregation: Aggregation = field(default_factory=FedAvg)
    coin: Coin | None = None
    noise: GaussianNoise | None = None
    expected_clients: float = 1.0
    seed: int = 0
    round: int = 0

    def __post_init__(self) -> None:
        name = type(self.aggregation).__name__
        if self.noise is not None and type(self.aggregation).weights is not Aggregation.weights:
            raise ConfigError(
                f"noise goes with a plain mean, not with {name}, whose weights depend on the "
                "changes; choose FedAvg, FedProx or FedAdam"
            )
        if self.noise is not None and self.coin is not None:
            raise ConfigError(
                "noise beside a coin: no epsilon counts what coins tell of the data; leave one out"
            )

    def order(self) -> Order:
        """What the clients of the next round are sent."""
        coin = None if self.coin is None else (self.coin.midpoint, self.coin.width)
        clip = None if self.noise is None else self.noise.clip
        return Order(self.weights, self.round, self.aggregation.proximal, clip, coin)

    def receive(self, updates: Updates) -> None:
        """Take the updates of a round and step; without any the weights stay.

        Raises:
            DataError: training diverges.
        """
        self.round += 1
        if self.coin is not None and len(updates.takes_part):
            self.coin.learn(updates.takes_part)
        changes = flat(updates.changes)
        if not len(changes) and self.noise is None:
            return
        if self.noise is None:
            counts = updates.num_examples[updates.takes_part]
            mean = self.aggregation.weights(changes, counts) @ changes
        else:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.round)
            mean = self.noise.added(changes.sum(0), generator) / self.expected_clients
        if not mean.isfinite().all():
            raise DataError(
                f"round {self.round}: the mean change is not finite; lower the clients' "
                "learning_rate"
            )
        step = _unflat(self.aggregation.step(mean), self.weights)
        self.weights = {name: weight + step[name] for name, weight in self.weights.items()}


@dataclass(frozen=True)
class Rounds:
    """How many rounds, and who is asked in each.

    Attributes:
        num_rounds: of the whole training.
        clients_a_round: asked by chance; with noise each client is asked by itself with the
            probability that makes this the mean, as the accountant counts it.
        seed: of who is asked, of the clients' examples and of noise.
        averaged: the model ends with the mean of the server's weights after so many last rounds,
            which clients of a single round move less (Polyak & Juditsky 1992).

    Raises:
        ConfigError: an option is out of its range.
    """

    num_rounds: int = 100
    clients_a_round: int = 40
    seed: int = 0
    averaged: int = 1

    def __post_init__(self) -> None:
        at_least(1, num_rounds=self.num_rounds, clients_a_round=self.clients_a_round)
        at_least(1, averaged=self.averaged)
        if self.averaged > self.num_rounds:
            raise ConfigError(
                f"averaged={self.averaged}: expected at most num_rounds={self.num_rounds}"
            )

    def share_of(self, num_clients: int) -> float:
        """Of the clients that a round asks."""
        return min(self.clients_a_round / num_clients, 1.0)

    def sample(self, num_clients: int, number: int, *, independent: bool) -> Tensor:
        """(C,) int64 ascending: the clients of a round."""
        chance = torch.from_numpy(uniform(self.seed, number, -2, np.arange(num_clients), 0))
        if independent:
            return (chance < self.share_of(num_clients)).nonzero()[:, 0]
        return chance.argsort(stable=True)[: self.clients_a_round].sort().values


def train_federated(
    model: Recommender,
    split: Split,
    *,
    column: str = USER,
    rounds: Rounds = Rounds(),
    local: LocalSteps = LocalSteps(),
    aggregation: Aggregation | None = None,
    coin: Coin | None = None,
    noise: GaussianNoise | None = None,
    after_round: Callable[[int], object] = lambda number: None,
) -> Clients:
    """Train a recommender on the clients of a split, all in this process.

    Args:
        model: as `OnClients`; it ends with the server's weights, or their mean over rounds.
        split: whose training users hold the examples.
        column: of the users, whose values are the clients.
        rounds: how many, and who is asked.
        local: how a client trains.
        aggregation: how the server steps; None: FedAvg.
        coin: whether and how clients decide to take part.
        noise: whether changes are clipped and noise is added.
        after_round: called with the number of the round, with the model's weights in place.

    Returns:
        the clients.

    Raises:
        ConfigError, DataError: as of `Clients.of`, `Server` and `train_clients`.
    """
    model.keep_popularity(split)
    clients = Clients.of(model, split, column=column)
    own = {name: parameter.detach() for name, parameter in model.named_parameters()}
    expected = rounds.share_of(len(clients)) * len(clients)
    server = Server(
        {name: weight.clone() for name, weight in own.items()},
        aggregation or FedAvg(),
        coin,
        noise,
        expected,
        rounds.seed,
    )
    mean = {name: torch.zeros_like(weight) for name, weight in own.items()}
    for number in range(rounds.num_rounds):
        some = rounds.sample(len(clients), number, independent=noise is not None)
        updates = train_clients(model, server.order(), clients.rows(some), local, seed=rounds.seed)
        server.receive(updates)
        for name, weight in own.items():
            weight.copy_(server.weights[name])
            if number >= rounds.num_rounds - rounds.averaged:
                mean[name].add_(weight, alpha=1 / rounds.averaged)
        after_round(number)
    for name, weight in own.items():
        weight.copy_(mean[name])
    if noise is not None:
        epsilon = noise.epsilon(rounds.share_of(len(clients)), rounds.num_rounds)
        logger.info("epsilon %.3f at delta %g", epsilon, noise.delta)
    return clients


def _unflat(flat: Tensor, like: Weights) -> Weights:
    pieces = flat.split([weight.numel() for weight in like.values()])
    return {n: piece.view_as(w) for (n, w), piece in zip(like.items(), pieces, strict=True)}


class OnClient(Scorer):
    """A model that each client has trained further by itself; what it learns never leaves it.

    Args:
        model: trained on clients, or not at all: then each client learns alone.
        clients: of `train_federated`, or `Clients.of`.
        local: how each trains.
        seed: of the order of its examples.
    """

    def __init__(
        self, model: Recommender, clients: Clients, local: LocalSteps, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.model = model
        if model.popularity is not None:
            self.keep("popularity", model.popularity)
        weights = {name: w.detach() for name, w in model.named_parameters()}
        updates = train_clients(model, Order(weights), clients, local, seed=seed)
        rows = updates.takes_part.cumsum(0) - 1
        self.row_of_user = torch.where(updates.takes_part[clients.users], rows[clients.users], -1)
        # A user whose client holds nothing has the model as it was.
        self.weights = {
            name: torch.cat([weights[name] + change, weights[name][None]])
            for name, change in updates.changes.items()
        }

    def cells_per_user(self, num_items: int) -> int:
        return sum(weight[0].numel() for weight in self.weights.values())

    def score(self, batch: BasketBatch) -> Scores:
        rows, model = self.row_of_user[batch.users], cast(OnClients, self.model)
        own = {name: weight[rows] for name, weight in self.weights.items()}
        inputs = {name: value[:, None] for name, value in model.inputs(batch).items()}
        return model.scores_of(own, inputs)[:, 0]
