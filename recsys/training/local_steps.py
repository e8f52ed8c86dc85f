"""What a client does in a round: some steps of SGD on its own examples, one client or many at once.

Clients are trained side by side, with weights that have an axis of clients: a step of forty of them
is a few large products where a loop would have thousands of small ones. Each gets the numbers that
it would get alone, in another process or on another machine.

Shapes: C clients, B examples of a step, P weights of the model in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from recsys.ranges import above, at_least
from recsys.scoring.recommender import Recommender
from recsys.training.clients import Clients, OnClients
from recsys.training.messages import Order, Updates, Weights


@dataclass(frozen=True)
class LocalSteps:
    """How a client trains: plain SGD, whose state ends with the round.

    Attributes:
        epochs: passes over its examples of a round.
        batch_size: examples a step.
        max_examples: of a client with more, a round takes so many by chance; None: all.
        learning_rate: of SGD.

    Raises:
        ConfigError: an option is out of its range.
    """

    epochs: int = 2
    batch_size: int = 32
    max_examples: int | None = 256
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, batch_size=self.batch_size, max_examples=self.max_examples)
        above(0, learning_rate=self.learning_rate)

    def examples_of(self, clients: Clients) -> Tensor:
        """(C,) int64: how many examples of each client a round takes."""
        most = self.max_examples
        return clients.num_examples if most is None else clients.num_examples.clamp(max=most)


def train_clients(
    model: Recommender,
    order: Order,
    clients: Clients,
    local: LocalSteps,
    *,
    seed: int = 0,
    clients_at_once: int = 64,
) -> Updates:
    """What clients send back: one of them, or many as one computation.

    Args:
        model: as `OnClients`; its own weights are not read.
        order: from the server.
        clients: whose examples.
        local: how each trains.
        seed: of the clients' random numbers. A real client has a secret one of its own.
        clients_at_once: that are computed together; the numbers do not depend on it.

    Returns:
        their updates, in the order of `clients`.
    """
    takes_part = clients.num_examples > 0
    if order.coin is not None:
        takes_part &= _coins(clients, order, seed)
    (index,) = takes_part.nonzero(as_tuple=True)
    changes = {name: w.new_empty(len(index), *w.shape) for name, w in order.weights.items()}
    # Clients of about as many steps share a computation.
    by_size = clients.num_examples[index].argsort(descending=True, stable=True)
    for places in by_size.split(clients_at_once) if len(index) else ():
        some = clients.rows(index[places])
        for name, change in _trained(cast(OnClients, model), order, some, local, seed).items():
            changes[name][places] = change
    if order.clip is not None:
        changes = _clipped(changes, order.clip)
    counts = local.examples_of(clients) * takes_part
    return Updates(takes_part, counts if order.clip is None else counts.clamp(max=1), changes)


def _trained(
    model: OnClients, order: Order, clients: Clients, local: LocalSteps, seed: int
) -> Weights:
    """(C, …) the changes of clients, most examples first, trained side by side."""
    counts = local.examples_of(clients)
    steps_per_epoch = -(-counts // local.batch_size)
    weights = {n: w.expand(len(clients), *w.shape).clone() for n, w in order.weights.items()}
    chosen = _chosen(clients, counts, order.round, seed)
    for epoch in range(local.epochs):
        rows = _shuffled(clients, counts, chosen, order.round, epoch, seed)
        for step in range(int(steps_per_epoch[0])):
            active = int((steps_per_epoch > step).sum())  # they come first
            begin = step * local.batch_size
            places = torch.arange(begin, min(begin + local.batch_size, rows.shape[1]))
            is_row = places < counts[:active, None]
            batch = {
                name: tensor[rows[:active, places]] for name, tensor in clients.examples.items()
            }
            now = {name: weight[:active] for name, weight in weights.items()}
            rates = local.learning_rate * is_row / is_row.sum(1, keepdim=True)
            pull = _pull(order, now, local.learning_rate)
            target = batch.pop("target")
            model.descend(now, batch, target, rates)
            for name, change in pull.items():
                now[name].sub_(change)
    return {name: weight.sub_(order.weights[name]) for name, weight in weights.items()}


def _pull(order: Order, weights: Weights, learning_rate: float) -> Weights:
    """What FedProx subtracts in a step: of the way from the server's weights to these a share."""
    if not order.proximal:
        return {}
    share = learning_rate * order.proximal
    return {name: share * (weight - order.weights[name]) for name, weight in weights.items()}


def _chosen(clients: Clients, counts: Tensor, number: int, seed: int) -> np.ndarray:
    """(C, most of a round) int64: which rows a client takes in a round, whoever is beside it.

    Of a client with fewer, the first are its own.
    """
    own, most = clients.num_examples.numpy()[:, None], int(counts.max())
    place = np.arange(own.max())[None]
    if own.max() == most:
        return place.repeat(len(own), 0)
    keys = uniform(seed, number, 0, clients.numbers.numpy()[:, None], place)
    return np.where(place < own, keys, np.inf).argsort(1)[:, :most]


def _shuffled(
    clients: Clients, counts: Tensor, chosen: np.ndarray, number: int, epoch: int, seed: int
) -> Tensor:
    """(C, most of a round) int64: the chosen rows in random order, whoever is beside the client."""
    keys = uniform(seed, number, 1 + epoch, clients.numbers.numpy()[:, None], chosen)
    is_row = np.arange(chosen.shape[1]) < counts.numpy()[:, None]
    order = np.where(is_row, keys, np.inf).argsort(1, kind="stable")
    places = torch.from_numpy(np.take_along_axis(chosen, order, 1))
    last = clients.num_examples[:, None] - 1
    return clients.offsets[:-1, None] + torch.minimum(places, last)


def _coins(clients: Clients, order: Order, seed: int) -> Tensor:
    """(C,) bool: heads with probability sigmoid((H - midpoint) / width), H the entropy of targets.

    Flipped on the client: of H only the coin is told.
    """
    assert order.coin is not None
    midpoint, width = order.coin
    heads = torch.sigmoid((clients.entropies() - midpoint) / width)
    return torch.from_numpy(uniform(seed, order.round, -1, clients.numbers.numpy(), 0)) < heads


def uniform(
    seed: int, number: int, purpose: int, client: np.ndarray, place: np.ndarray | int
) -> np.ndarray:
    """Uniform in [0, 1): a function of its arguments alone, so that company changes nothing.

    SplitMix64 (Steele, Lea & Flood 2014) of a combination of the numbers.
    """
    state = np.zeros(1, dtype=np.uint64)
    for value in (seed, number, purpose, client, place):
        state = _mixed(state ^ np.asarray(value, dtype=np.int64).astype(np.uint64))
    return (state >> np.uint64(11)) * 2.0**-53


def _mixed(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _clipped(changes: Weights, clip: float) -> Weights:
    """Changes whose norm over all weights together is at most `clip`."""
    norms = flat(changes).norm(dim=1)
    factor = (clip / norms.clamp(min=1e-12)).clamp(max=1)
    return {n: c * factor.view(-1, *(1,) * (c.dim() - 1)) for n, c in changes.items()}


def flat(changes: Weights) -> Tensor:
    """(C, P)."""
    return torch.cat([change.flatten(1) for change in changes.values()], dim=1)
