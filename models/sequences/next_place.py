"""NextPlace: the next item from a few last ones, by a network that is small enough for a phone.

The model of our federated learning: a client trains it on its own events, many clients at once
(`recsys.training.federated`), or one machine trains it on all of them as any other recommender. It
has no paper; the adjacency is a form of our own of what FedGeo (Park et al., SIGSPATIAL 2023)
describes.

    x         = sum over the last K items i_k of g_k * E'_{i_k}
    h         = x + W2 relu(W1 x + b1)
    score(j)  = h E'_j + b_j
    E'        = (1 - a) E + a A E   with `adjacency`

A is the row-normalised Gaussian kernel of the distances between places, exp(-d_ij^2 / 2 s^2):
a place that a client has never seen moves with its neighbours. With `own` the score is log p(j) of
`OwnPointer`, whose q(j) is the softmax of the scores above: the user's own events speak first, and
the network of what they do not say.

Shapes: C clients, each with weights of its own, B rows, K last items, n items, D dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys import ranges, ranks
from recsys.batch.bounds import check_tensor
from recsys.batch.examples import Part, Prefixes
from recsys.batch.histories import BasketBatch
from recsys.errors import DataError
from recsys.memory import check_memory
from recsys.models.sequences._own_pointer import NEVER, OwnPointer
from recsys.models.sequences._recent import recent_items
from recsys.precision import wide
from recsys.ranges import above, at_least
from recsys.scoring.kinds import Separable
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split
from recsys.types import Scores

EARTH_RADIUS_KM = 6371.0
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Adjacency:
    """How much the vector of a place is that of the places around it.

    Attributes:
        share: a, of the neighbours.
        km: s, the width of the kernel.

    Raises:
        ConfigError: an option is out of its range.
    """

    share: float = 0.5
    km: float = 1.0

    def __post_init__(self) -> None:
        ranges.share(share=self.share)
        above(0, km=self.km)


class NextPlace(Separable):
    """Ranks by the last few items, and by the user's own events where `own` is given.

    Args:
        num_items: n.
        embedding_dim: D.
        max_length: K.
        adjacency: of items with `latitude` and `longitude`; None reads no coordinates.
        own: which of a user's own events it repeats; None: the network alone ranks.
        learning_rate, weight_decay: of AdamW, where it is trained in one place.

    Raises:
        ConfigError: an option is out of its range.

    >>> model = NextPlace(4, embedding_dim=8)
    >>> histories = BasketBatch.from_lists([[[0], [2]], []], num_items=4)
    >>> model.score(histories).shape
    torch.Size([2, 4])
    """

    uses_every_weight = True
    neighbours: Tensor | None

    def __init__(
        self,
        num_items: int,
        *,
        embedding_dim: int = 16,
        max_length: int = 8,
        adjacency: Adjacency | None = None,
        own: OwnPointer | None = None,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        at_least(1, num_items=num_items, embedding_dim=embedding_dim, max_length=max_length)
        self.num_items = num_items
        self.max_length = max_length
        self.adjacency = adjacency
        self.own = own
        self.items = nn.Parameter(torch.randn(num_items, embedding_dim) / embedding_dim**0.5)
        recent_first = torch.arange(1, max_length + 1).reciprocal()[:, None]
        self.gates = nn.Parameter(recent_first.expand(-1, embedding_dim).clone())
        self.bias = nn.Parameter(torch.zeros(num_items))
        self.inner = nn.Linear(embedding_dim, 2 * embedding_dim)
        self.outer = nn.Linear(2 * embedding_dim, embedding_dim)
        self.register_buffer("neighbours", None)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def prepare(self, split: Split) -> Part:
        """Every training event after a user's first as the target of those before it."""
        if self.adjacency is not None:
            self.keep("neighbours", kernel(split.item_table, self.adjacency.km))
        most = max(self.max_length, 0 if self.own is None else self.own.max_events)
        begins = split.training.offsets[:-1][split.training.lengths() > 0]
        is_target = torch.ones(len(split.training.items), dtype=torch.bool)
        is_target[begins] = False
        return Prefixes.of_events("train", split.training, is_target, max_events=most)

    def check_size(self, split: Split) -> None:
        if self.adjacency is not None:
            what = f"adjacency of {split.num_items:,} places"
            check_memory(4 * 8 * split.num_items**2, what, "set adjacency=null, or take cells")

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        if self.neighbours is not None:
            size = histories.num_items
            check_tensor("neighbours", self.neighbours, torch.float32, size, size)

    def inputs(self, batch: BasketBatch) -> dict[str, Tensor]:
        """What `scores_of` and `descend` read of B histories: `recent`, and what `own` reads."""
        inputs = {"recent": recent_items(batch, self.max_length)}
        return inputs if self.own is None else inputs | self.own.inputs(batch)

    def scores_of(self, weights: Weights, inputs: Weights) -> Tensor:
        """(C, B, n), a function of tensors alone.

        Args:
            weights: by name, each (C, …).
            inputs: as of `inputs`, each (C, B, …).
        """
        vectors = self._vectors(weights["items"])
        scores = _Network.of(weights, vectors, inputs["recent"]).scores
        if self.own is None:
            return scores
        events, rest = self._pointer(weights, inputs)
        most = torch.maximum(events.amax(-1), rest)[..., None]
        items = inputs["own_items"].long()
        shares = F.pad((rest[..., None] - most + wide(scores).log_softmax(-1)).exp(), (0, 1))
        shares = shares.scatter_add(-1, items, (events - most).exp())[..., :-1]
        return shares.clamp(min=torch.finfo(shares.dtype).tiny).log()

    @torch.no_grad()
    def descend(self, weights: Weights, inputs: Weights, target: Tensor, rates: Tensor) -> None:
        """Subtract from the weights the slopes of sum over rows of rate * cross-entropy, in place.

        Slopes by hand, and a product that adds to the vectors as it is made: half the time of
        PyTorch's graph, which makes an array of slopes as large as all weights and then reads it.

        Args:
            weights, inputs: as of `scores_of`.
            target: (C, B) the items that came next.
            rates: (C, B) learning rates.
        """
        own = {name: weights[name] for name in weights if name.startswith("own.")}
        network = _Network.of(weights, self._vectors(weights["items"]), inputs["recent"])
        p = torch.softmax(network.scores, -1, out=network.scores)  # row by row: in place is safe
        if self.own is not None:
            rates = self._descend_own(own, inputs, target, rates, p)
        to_scores = p.mul_(-rates[..., None]).scatter_add_(-1, target[..., None], rates[..., None])
        if self.adjacency is None:
            network.add_slopes(weights, to_scores, weights["items"])
            return
        to_vectors = torch.zeros_like(network.vectors)
        network.add_slopes(weights, to_scores, to_vectors)
        weights["items"].add_(self._vectors(to_vectors, transposed=True))

    def _descend_own(
        self, own: Weights, inputs: Weights, target: Tensor, rates: Tensor, p: Tensor
    ) -> Tensor:
        """Step the pointer's weights; returns (C, B) rates of the network's own cross-entropy."""
        smallest = torch.finfo(p.dtype).tiny
        log_q = p.gather(-1, target[..., None])[..., 0].clamp(min=smallest).log()
        with torch.enable_grad():
            leaves = {name: weight.detach().requires_grad_() for name, weight in own.items()}
            log_q = log_q.requires_grad_()
            events, rest = self._pointer(leaves, inputs)
            is_target = inputs["own_items"] == target[..., None]
            right = torch.cat(
                [events.masked_fill(~is_target, NEVER), (rest + log_q)[..., None]], -1
            )
            every = torch.cat([events, rest[..., None]], -1)
            loss = ((every.logsumexp(-1) - right.logsumexp(-1)) * rates).sum()
        *slopes, to_log_q = torch.autograd.grad(loss, [*leaves.values(), log_q])
        for weight, slope in zip(own.values(), slopes, strict=True):
            weight.sub_(slope)
        return -to_log_q

    def loss(self, part: Part, progress: Progress) -> Tensor:
        losses = F.cross_entropy(self.score(part.history), part.target.values, reduction="none")
        return ranks.mean(losses)

    def num_terms(self, part: Part) -> int:
        return len(part)

    def score(self, batch: BasketBatch) -> Scores:
        return wide(self.scores_of(*self._of_one(batch))[0])

    def _of_one(self, batch: BasketBatch) -> tuple[Weights, Weights]:
        """The weights and the inputs of a single client, who holds every row."""
        weights = {name: weight[None] for name, weight in self.named_parameters()}
        return weights, {name: value[None] for name, value in self.inputs(batch).items()}

    def _pointer(self, weights: Weights, inputs: Weights) -> tuple[Tensor, Tensor]:
        assert self.own is not None
        own = {
            name.removeprefix("own."): w for name, w in weights.items() if name.startswith("own.")
        }
        return self.own(own, inputs, self.num_items)

    def _vectors(self, items: Tensor, *, transposed: bool = False) -> Tensor:
        """(C, n, D) E' of E; transposed, the slopes of E of those of E'."""
        if self.neighbours is None or self.adjacency is None:
            return items
        a, near = self.adjacency.share, self.neighbours.T if transposed else self.neighbours
        # One product for all clients.
        mixed = (near @ items.transpose(0, 1).flatten(1)).unflatten(1, (len(items), -1))
        return torch.lerp(items, mixed.transpose(0, 1), a)


@dataclass(frozen=True, eq=False)
class _Network:
    """The layers of C clients' networks for B rows, and how slopes go back through them."""

    vectors: Tensor  # (C, n, D) E'
    rows: Tensor  # (C * B * K,) of the last items in all clients' vectors
    is_there: Tensor  # (C, B, K, 1)
    last: Tensor  # (C, B, K, D), 0 where there is none
    x: Tensor  # (C, B, D)
    inner: Tensor  # (C, B, 2 D)
    h: Tensor  # (C, B, D)
    scores: Tensor  # (C, B, n)

    @classmethod
    def of(cls, weights: Weights, vectors: Tensor, recent: Tensor) -> _Network:
        clients, n = torch.arange(len(vectors), device=recent.device), vectors.shape[1]
        rows = (clients[:, None, None] * n + recent.clamp(max=n - 1)).flatten()
        is_there = (recent < n)[..., None]
        last = vectors.flatten(0, 1).index_select(0, rows).unflatten(0, recent.shape) * is_there
        x = (last * weights["gates"][:, None]).sum(-2)
        inner = _linear(x, weights["inner.weight"], weights["inner.bias"]).relu()
        h = x + _linear(inner, weights["outer.weight"], weights["outer.bias"])
        scores = wide(_linear(h, vectors, weights["bias"]))
        return cls(vectors, rows, is_there, last, x, inner, h, scores)

    def add_slopes(self, weights: Weights, to_scores: Tensor, vectors: Tensor) -> None:
        """Add the slopes of scores * `to_scores` (C, B, n) to the weights, and to these vectors."""
        gates, inner, outer = (weights[n] for n in ("gates", "inner.weight", "outer.weight"))
        to_h = to_scores @ self.vectors
        to_inner = (to_h @ outer) * (self.inner > 0)
        to_x = torch.baddbmm(to_h, to_inner, inner)[:, :, None]
        to_last = to_x * gates[:, None] * self.is_there
        vectors.baddbmm_(to_scores.mT, self.h)
        vectors.flatten(0, 1).index_add_(0, self.rows, to_last.flatten(0, 2))
        gates.add_((to_x * self.last).sum(1))
        inner.baddbmm_(to_inner.mT, self.x)
        outer.baddbmm_(to_h.mT, self.inner)
        for name, slope in (("inner", to_inner), ("outer", to_h)):
            weights[f"{name}.bias"].add_(slope.sum(1))
        weights["bias"].add_(to_scores.sum(1))


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(C, B, out) of x (C, B, in), a layer (C, out, in) for each client and its bias (C, out)."""
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


def kernel(items: pl.DataFrame, km: float) -> Tensor:
    """(n, n) float32: row-normalised Gaussian kernel of the distances between places.

    Args:
        items: with `latitude` and `longitude` in degrees, a row per item.
        km: the standard deviation.

    Raises:
        DataError: places without coordinates.

    >>> items = pl.DataFrame({"latitude": [0.0, 0.0, 9.0], "longitude": [0.0, 0.0, 0.0]})
    >>> kernel(items, km=1.0)[0].tolist()
    [0.5, 0.5, 0.0]
    """
    names = ["latitude", "longitude"]
    if missing := [name for name in names if name not in items.columns]:
        raise DataError(f"items have no {missing[0]}; adjacency needs it; set adjacency=null")
    degrees = items.select(pl.col(names).cast(pl.Float64))
    if nulls := degrees.null_count().sum_horizontal().item():
        raise DataError(f"{nulls} coordinates of items are missing; set adjacency=null")
    latitude, longitude = (degrees[name].to_torch() * (math.pi / 180) for name in names)
    half = (latitude[:, None] - latitude) / 2
    across = (longitude[:, None] - longitude) / 2
    cosines = latitude.cos()[:, None] * latitude.cos()
    haversine = half.sin().square() + cosines * across.sin().square()
    distance = 2 * EARTH_RADIUS_KM * haversine.clamp(max=1).sqrt().asin()
    return torch.softmax(-(distance / km).square() / 2, dim=1).float()
