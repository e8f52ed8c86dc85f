"""NextPlace: the next item from a few last ones, by a network that is small enough for a phone.

The model of our federated learning: a client trains it on its own events, many clients at once
(`recsys.training.federated`), or one machine trains it on all of them as any other recommender. It
has no paper; the two options are forms of our own of what FedGeo (Park et al., SIGSPATIAL 2023)
describes and of what a user's own counts know.

    x         = sum over the last K items i_k of g_k * E'_{i_k}
    h         = x + W2 relu(W1 x + b1)
    score(j)  = h E'_j + b_j;   with `own`: s1 log of the user's own chain + s2 (h E'_j + b_j)
    E'        = (1 - a) E + a A E   with `adjacency`

A is the row-normalised Gaussian kernel of the distances between places, exp(-d_ij^2 / 2 s^2):
a place that a client has never seen moves with its neighbours. With `own` the network learns what
is left when a user's own counts, which never leave the device, have spoken: a residual, which
starts at nothing, s2 = 0.

Shapes: B rows, K last items, n items, D dimensions.
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
from recsys.models.frequency.own_chain import OwnChain
from recsys.precision import wide
from recsys.ranges import above, at_least
from recsys.scoring.kinds import Divisible
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split
from recsys.types import ItemVectors, Scores

EARTH_RADIUS_KM = 6371.0


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


class NextPlace(Divisible):
    """Ranks by the last few items, and by the user's own counts where `own` is given.

    Args:
        num_items: n.
        embedding_dim: D.
        max_length: K.
        adjacency: of items with `latitude` and `longitude`; None reads no coordinates.
        own: whose log-probabilities the scores start from; None: none.
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
        own: OwnChain | None = None,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        at_least(1, num_items=num_items, embedding_dim=embedding_dim, max_length=max_length)
        self.max_length = max_length
        self.adjacency = adjacency
        self.own = own
        self.items = nn.Parameter(torch.randn(num_items, embedding_dim) / embedding_dim**0.5)
        recent_first = torch.arange(1, max_length + 1).reciprocal()[:, None]
        self.gates = nn.Parameter(recent_first.expand(-1, embedding_dim).clone())
        self.bias = nn.Parameter(torch.zeros(num_items))
        # Of the user's own counts, and of what the network adds to them.
        self.scales = None if own is None else nn.Parameter(torch.tensor([1.0, 0.0]))
        self.inner = nn.Linear(embedding_dim, 2 * embedding_dim)
        self.outer = nn.Linear(2 * embedding_dim, embedding_dim)
        self.register_buffer("neighbours", None)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def prepare(self, split: Split) -> Part:
        """Every training event after a user's first as the target of those before it."""
        if self.adjacency is not None:
            self.keep("neighbours", kernel(split.item_table, self.adjacency.km))
        most = None if self.own is not None else self.max_length
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
        """What `forward` reads of histories: `recent` and, with `own`, `start`."""
        inputs = {"recent": recent_items(batch, self.max_length)}
        return inputs if self.own is None else inputs | {"start": self.own.score(batch).float()}

    def forward(self, recent: Tensor, start: Tensor | None = None) -> Tensor:
        """(B, n) scores, a function of tensors alone (`torch.func`).

        Args:
            recent: (B, K) the last items, latest first, n where there is none.
            start: (B, n) log-probabilities that are added.
        """
        vectors = self._vectors()
        padded = F.pad(vectors, (0, 0, 0, 1))
        x = (F.embedding(recent, padded) * self.gates).sum(-2)
        x = x + self.outer(self.inner(x).relu())
        scores = x @ vectors.T + self.bias
        if start is None or self.scales is None:
            return scores
        return self.scales[0] * start + self.scales[1] * scores

    def row_losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """(B,) the cross-entropy of the items that came next (B,)."""
        return F.cross_entropy(scores, target, reduction="none")

    def loss(self, part: Part, progress: Progress) -> Tensor:
        scores = self(**self.inputs(part.history))
        return ranks.mean(self.row_losses(wide(scores), part.target.values))

    def score(self, batch: BasketBatch) -> Scores:
        return wide(self(**self.inputs(batch)))

    def _vectors(self) -> ItemVectors:
        if self.neighbours is None or self.adjacency is None:
            return self.items
        a = self.adjacency.share
        return (1 - a) * self.items + a * (self.neighbours @ self.items)


def recent_items(batch: BasketBatch, num_events: int) -> Tensor:
    """(B, K) the last items of each history, latest first; n where it has fewer."""
    back = torch.arange(1, num_events + 1, device=batch.device)
    places = batch.offsets[1:, None] - back
    is_there = places >= batch.offsets[:-1, None]
    padded = F.pad(batch.items, (0, 1), value=batch.num_items)
    return torch.where(is_there, padded[places.clamp(min=0)], batch.num_items)


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
