"""Federated learning: a model is trained where the data are, and only updates leave a client.

A client holds the examples of some users. In each round the server sends its weights to some
clients (`Order`); each trains them on its own examples and sends back how they changed (`Update`);
the server steps by a weighted mean of the changes (`Aggregation`). In one process the clients of a
round are trained together, as one computation over stacked weights (`torch.func.vmap`); each client
gets the numbers that it would get alone (`train_clients` of one), in another process or on another
machine.

How the server steps is in `aggregation.py`, clipping and noise (McMahan et al., ICLR 2018) in
`privacy.py`. The coin is a form of our own of what FedGeo (Park et al., SIGSPATIAL 2023) describes.

Shapes: C clients, B examples of a step, P weights of the model in all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, cast

import numpy as np
import polars as pl
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from recsys.batch.examples import Part, Prefixes
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import offsets_of, ranges
from recsys.errors import ConfigError, DataError, RunError
from recsys.log.event_log import USER
from recsys.ranges import above, at_least
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split
from recsys.training.aggregation import Aggregation, FedAvg
from recsys.training.privacy import GaussianNoise
from recsys.types import Scores

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]
ROWS_AT_ONCE = 1024


class OnClients(Protocol):
    """What a recommender needs beside `prepare` to be trained on clients.

    Its `forward(**inputs)` makes scores (B, n), and is a function of tensors alone.
    """

    def inputs(self, batch: BasketBatch) -> dict[str, Tensor]:
        """What `forward` reads of B histories, a row each."""
        ...

    def row_losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """(B,) of scores (B, n) and the items that came next (B,)."""
        ...


@dataclass(frozen=True, eq=False)
class Clients:
    """The examples of C clients, which each of them holds by itself.

    Attributes:
        examples: what the model reads, by name, and `target`: rows by client.
        offsets: (C + 1,) int64, where each client's rows begin.
        numbers: (C,) int64, of the clients, which their random numbers depend on.
        ids: (C,) what the clients are called.
        users: (U,) int64, the client of each of a split's users, -1 of a user without one.
    """

    examples: Mapping[str, Tensor]
    offsets: Tensor
    numbers: Tensor
    ids: pl.Series
    users: Tensor

    @classmethod
    def of(cls, model: Recommender, split: Split, *, column: str = USER) -> Clients:
        """The training examples of a split by the values of a column of its users.

        Args:
            model: reads histories, as `OnClients`.
            split: whose training events.
            column: `user_id`, or an attribute of the users such as a store.

        Raises:
            ConfigError: a model that cannot be trained on clients.
            DataError: no such column, or users without a value.
        """
        if not hasattr(model, "inputs"):
            raise ConfigError(
                f"{type(model).__name__} cannot be trained on clients; choose one with `inputs` "
                "and `row_losses`, such as NextPlace"
            )
        ids, client_of_user = _clients_of_users(split, column)
        part = model.prepare(split)
        owners = part.owners if isinstance(part, Prefixes) else torch.arange(len(part))
        clients = client_of_user[part.history.users[owners]]
        order = clients.argsort(stable=True)
        pieces = [_examples(model, part.rows(rows)) for rows in order.split(ROWS_AT_ONCE)]
        examples = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        counts = torch.bincount(clients, minlength=len(ids))
        return cls(examples, offsets_of(counts), torch.arange(len(ids)), ids, client_of_user)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def num_examples(self) -> Tensor:
        """(C,) int64."""
        return self.offsets.diff()

    def rows(self, index: Tensor) -> Self:
        """The clients at `index` (C',) int64, with their rows alone."""
        places, offsets = ranges(self.offsets[index], self.num_examples[index])
        examples = {name: tensor[places] for name, tensor in self.examples.items()}
        ids, numbers = self.ids[index.numpy()], self.numbers[index]
        return replace(self, examples=examples, offsets=offsets, numbers=numbers, ids=ids)

    def entropies(self) -> Tensor:
        """(C,) float64: of each client's own targets, in nats; it never leaves the client."""
        targets = self.examples["target"]
        owners = torch.arange(len(self)).repeat_interleave(self.num_examples)
        width = int(targets.max()) + 1 if len(targets) else 1
        cells, counts = (owners * width + targets).unique(return_counts=True)
        client = cells // width
        p = counts.double() / self.num_examples[client]
        return torch.zeros(len(self), dtype=torch.float64).index_add_(0, client, -p * p.log())


def _examples(model: Recommender, part: Part) -> dict[str, Tensor]:
    return cast(OnClients, model).inputs(part.history) | {"target": part.target.values}


def _clients_of_users(split: Split, column: str) -> tuple[pl.Series, Tensor]:
    """The ids of the clients, and (U,) the client of each user."""
    users = split.users.ids.rename(USER).to_frame()
    if column not in split.log.users.columns:
        raise DataError(
            f"users have no column {column!r}; clients are values of one of "
            f"{', '.join(split.log.users.columns)}"
        )
    values = users.join(split.log.users.select(USER, client=column), on=USER, maintain_order="left")
    if nulls := values["client"].null_count():
        raise DataError(f"users.{column} is missing for {nulls} users; fill it, or choose another")
    ids = values["client"].unique().sort()
    return ids, torch.from_numpy(ids.search_sorted(values["client"]).to_numpy().astype(np.int64))


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


@dataclass(frozen=True, eq=False)
class Order:
    """What the server sends to a client.

    Attributes:
        weights: to start from.
        round: the number of the round.
        proximal: FedProx's mu: half of it times the squared distance from `weights` is added to
            the loss.
        clip: largest norm of the change that is sent back; None does not clip.
        coin: midpoint and width of the coin's probability; None: who is asked takes part.
    """

    weights: Weights
    round: int = 0
    proximal: float = 0.0
    clip: float | None = None
    coin: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Update:
    """What leaves a client in a round. Nothing else does.

    Attributes:
        takes_part: how the client's coin fell.
        num_examples: that it trained on; 0 where it takes no part, 1 where changes are clipped,
            since privacy covers what a client holds and how much of it.
        change: its weights minus the server's, by name; empty where it takes no part.
    """

    takes_part: bool
    num_examples: int
    change: Weights

    def to_bytes(self) -> bytes:
        """As safetensors: tensors, and the two other fields as their metadata."""
        about = {"takes_part": self.takes_part, "num_examples": self.num_examples}
        tensors = {name: tensor.contiguous() for name, tensor in self.change.items()}
        return save(tensors, {"update": json.dumps(about)})

    @classmethod
    def from_bytes(cls, message: bytes) -> Update:
        """Read a message, which may come from anybody: nothing in it is run.

        Raises:
            RunError: it is no update.
        """
        try:
            length = int.from_bytes(message[:8], "little")
            about = json.loads(json.loads(message[8 : 8 + length])["__metadata__"]["update"])
            change = load(message)
            is_update = set(about) == {"takes_part", "num_examples"}
        except Exception as error:
            raise RunError(f"a message of {len(message)} bytes is no update ({error})") from error
        takes_part, count = (about["takes_part"], about["num_examples"]) if is_update else (0, 0)
        if not isinstance(takes_part, bool) or type(count) is not int or count < 0:
            raise RunError(f"an update says {about}; expected takes_part and num_examples alone")
        return cls(takes_part, count, change)


@dataclass(frozen=True, eq=False)
class Updates:
    """The updates of C clients, side by side.

    Attributes:
        takes_part: (C,) bool.
        num_examples: (C,) int64.
        changes: by name, a row for each client that takes part.
    """

    takes_part: Tensor
    num_examples: Tensor
    changes: Weights

    @classmethod
    def of(cls, messages: list[Update], weights: Weights) -> Updates:
        """Those that came as messages, for a server with these weights.

        Raises:
            RunError: a change is of other weights, or not finite.
        """
        with_change = [message for message in messages if message.takes_part]
        for message in with_change:
            _check_change(message.change, weights)
        takes_part = torch.tensor([message.takes_part for message in messages])
        counts = torch.tensor([message.num_examples for message in messages])
        changes = {
            name: torch.stack([message.change[name] for message in with_change])
            if with_change
            else tensor.new_zeros(0, *tensor.shape)
            for name, tensor in weights.items()
        }
        return cls(takes_part, counts, changes)

    def messages(self) -> list[Update]:
        """One for each client."""
        places = self.takes_part.cumsum(0) - 1
        return [
            Update(part, count, {n: c[place] for n, c in self.changes.items()} if part else {})
            for part, count, place in zip(
                self.takes_part.tolist(), self.num_examples.tolist(), places.tolist(), strict=True
            )
        ]


def _check_change(change: Weights, weights: Weights) -> None:
    for name in {*change, *weights}:
        here, there = weights.get(name), change.get(name)
        if here is None or there is None or here.shape != there.shape or here.dtype != there.dtype:
            raise RunError(f"an update's {name} is not of the server's weights; send their change")
        if not there.isfinite().all():
            raise RunError(f"an update's {name} is not finite; lower the clients' learning_rate")


def train_clients(
    model: nn.Module,
    order: Order,
    clients: Clients,
    local: LocalSteps,
    *,
    seed: int = 0,
    clients_at_once: int = 64,
) -> Updates:
    """What clients send back: one of them, or many as one computation.

    Args:
        model: whose `forward` is the loss; its own weights are not read.
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
    # Clients of about as many steps share a computation.
    by_size = index[clients.num_examples[index].argsort(descending=True, stable=True)]
    trained = [
        _trained(model, order, clients.rows(some), local, seed)
        for some in by_size.split(clients_at_once)
        if len(some)  # nobody is one piece
    ]
    back = by_size.argsort()
    changes = {
        name: torch.cat([piece[name] for piece in trained])[back]
        if trained
        else weight.new_zeros(0, *weight.shape)
        for name, weight in order.weights.items()
    }
    if order.clip is not None:
        changes = _clipped(changes, order.clip)
    counts = local.examples_of(clients) * takes_part
    return Updates(takes_part, counts if order.clip is None else counts.clamp(max=1), changes)


def _trained(
    model: nn.Module, order: Order, clients: Clients, local: LocalSteps, seed: int
) -> Weights:
    """(C, …) the changes of clients, most examples first, trained side by side."""
    counts = local.examples_of(clients)
    steps_per_epoch = -(-counts // local.batch_size)
    weights = {n: w.expand(len(clients), *w.shape).clone() for n, w in order.weights.items()}
    gradient = vmap(grad(_loss(model, order)))
    for epoch in range(local.epochs):
        rows = _shuffled(clients, counts, order.round, epoch, seed)
        for step in range(int(steps_per_epoch[0])):
            active = int((steps_per_epoch > step).sum())  # they come first
            places = torch.arange(step * local.batch_size, (step + 1) * local.batch_size)
            is_row = places < counts[:active, None]
            picked = rows[:active, places.clamp(max=rows.shape[1] - 1)]
            batch = {name: tensor[picked] for name, tensor in clients.examples.items()}
            batch["weight"] = is_row.float()
            now = {name: weight[:active] for name, weight in weights.items()}
            for name, slope in gradient(now, batch).items():
                now[name].sub_(slope, alpha=local.learning_rate)
    return {name: weight - order.weights[name] for name, weight in weights.items()}


def _loss(model: nn.Module, order: Order) -> Callable[[Weights, Weights], Tensor]:
    """The loss of one client's weights on a batch."""

    def loss(weights: Weights, batch: Weights) -> Tensor:
        target, weight = batch["target"], batch["weight"]
        inputs = {name: batch[name] for name in batch if name not in ("target", "weight")}
        scores = functional_call(model, weights, (), inputs)
        value = (cast(OnClients, model).row_losses(scores, target) * weight).sum() / weight.sum()
        if order.proximal:
            pairs = ((weight, order.weights[name]) for name, weight in weights.items())
            value = value + order.proximal / 2 * sum((a - b).square().sum() for a, b in pairs)
        return value

    return loss


def _shuffled(clients: Clients, counts: Tensor, number: int, epoch: int, seed: int) -> Tensor:
    """(C, most examples) int64: a client's rows in random order, whoever is beside it.

    Of more than it trains on in a round, those of the round come first, in every epoch.
    """
    own = clients.num_examples
    place = np.arange(int(own.max()))
    client = clients.numbers.numpy()[:, None]
    is_row = place < own.numpy()[:, None]
    chosen = _random(seed, number, 0, client, place)
    rank = np.where(is_row, chosen, np.inf).argsort(1).argsort(1)
    is_chosen = rank < counts.numpy()[:, None]
    keys = np.where(is_chosen, _random(seed, number, 1 + epoch, client, place), np.inf)
    order = torch.from_numpy(keys.argsort(1, kind="stable"))[:, : int(counts.max())]
    return clients.offsets[:-1, None] + order.clamp(max=own[:, None] - 1)


def _coins(clients: Clients, order: Order, seed: int) -> Tensor:
    """(C,) bool: heads with probability sigmoid((H - midpoint) / width), H the entropy of targets.

    Flipped on the client: of H only the coin is told.
    """
    assert order.coin is not None
    midpoint, width = order.coin
    heads = torch.sigmoid((clients.entropies() - midpoint) / width)
    return torch.from_numpy(_random(seed, order.round, -1, clients.numbers.numpy(), 0)) < heads


def _random(
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
    norms = _flat(changes).norm(dim=1)
    factor = (clip / norms.clamp(min=1e-12)).clamp(max=1)
    return {n: c * factor.view(-1, *(1,) * (c.dim() - 1)) for n, c in changes.items()}


def _flat(changes: Weights) -> Tensor:
    """(C, P)."""
    return torch.cat([change.flatten(1) for change in changes.values()], dim=1)


def _unflat(flat: Tensor, like: Weights) -> Weights:
    pieces = flat.split([weight.numel() for weight in like.values()])
    return {n: piece.view_as(w) for (n, w), piece in zip(like.items(), pieces, strict=True)}


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
        changes = _flat(updates.changes)
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

    Raises:
        ConfigError: an option is out of its range.
    """

    num_rounds: int = 100
    clients_a_round: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, num_rounds=self.num_rounds, clients_a_round=self.clients_a_round)

    def share_of(self, num_clients: int) -> float:
        """Of the clients that a round asks."""
        return min(self.clients_a_round / num_clients, 1.0)

    def sample(self, num_clients: int, number: int, *, independent: bool) -> Tensor:
        """(C,) int64 ascending: the clients of a round."""
        chance = torch.from_numpy(_random(self.seed, number, -2, np.arange(num_clients), 0))
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
        model: as `OnClients`; it ends with the server's weights.
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
    for number in range(rounds.num_rounds):
        some = rounds.sample(len(clients), number, independent=noise is not None)
        updates = train_clients(model, server.order(), clients.rows(some), local, seed=rounds.seed)
        server.receive(updates)
        for name, weight in own.items():
            weight.copy_(server.weights[name])
        after_round(number)
    if noise is not None:
        epsilon = noise.epsilon(rounds.share_of(len(clients)), rounds.num_rounds)
        logger.info("epsilon %.3f at delta %g", epsilon, noise.delta)
    return clients


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
        rows = self.row_of_user[batch.users]
        own = {name: weight[rows] for name, weight in self.weights.items()}
        inputs = {
            name: value[:, None]
            for name, value in cast(OnClients, self.model).inputs(batch).items()
        }

        def of_one(weights: Weights, inputs: Weights) -> Tensor:
            return functional_call(self.model, weights, (), inputs)

        return vmap(of_one)(own, inputs)[:, 0]
