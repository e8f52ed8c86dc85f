"""DNNTSP: the next basket from a dynamic graph of the items that a user has had.

Paper: Yu, Sun, Du, Liu, Xiong, Lv, "Predicting Temporal Sets with Deep Neural Networks", KDD 2020.

Kept: everything that the authors' code computes, in scores, loss and gradients: weighted graph
convolutions that share their weights over time, causal self-attention over a node's steps, the
aggregation, the gate, and batch normalisation whose statistics count the steps that the authors pad
short histories with.
Changed: how it is computed. A node has one state at all steps whose basket does not hold it, so
states are kept for events and once for a node's absence, never for every node and step. Attention
runs over the pairs of a node's events; between two events it depends on the step through one
number alone. Of a history of more than `max_events` the latest are read, as if it began there.

Shapes: B users, n items, E events, N nodes (a user's distinct items), D dimensions, H heads of
d = D / H dimensions, Q queries, P pairs of a query and a key, S steps from a node's first event on,
T steps of a user (baskets of the history).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from recsys import ranks
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.devices import full_precision
from recsys.models.graphs.dynamic_graph import (
    MAX_EVENTS,
    DynamicGraph,
    Timelines,
    check_max_events,
    in_pieces,
    say_who_is_cut,
)
from recsys.nn.embedding import EmbeddingTable
from recsys.precision import wide
from recsys.ranges import at_least
from recsys.scoring.kinds import Divisible
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split
from recsys.types import Scores


class DNNTSP(Divisible):
    """Scores an item by its own vector, mixed with what its node in the user's graphs became.

    An item that a user has not had scores the same for every user; a user without a history gets
    these scores alone.

    Args:
        num_items: n.
        embedding_dim: D, of items, states and attention.
        num_layers: graph convolutions.
        num_heads: H, of the attention; divides D.
        max_events: of a longer history the latest are read; the work grows with their square.
        learning_rate: of Adam, a tenth after ten epochs in which the training loss has not fallen.

    Raises:
        ConfigError: `num_heads` does not divide `embedding_dim`, or an option is out of its range.
        DataError: a batch would take more memory than there is.
    """

    uses_every_weight = True

    def __init__(
        self,
        num_items: int,
        *,
        embedding_dim: int = 32,
        num_layers: int = 2,
        num_heads: int = 4,
        max_events: int = MAX_EVENTS,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=0.0)
        check_max_events(max_events)
        at_least(1, num_items=num_items, embedding_dim=embedding_dim)
        self.max_events = max_events
        self.items = EmbeddingTable(num_items, embedding_dim, std=1.0)
        self.graph = DynamicGraph(embedding_dim, num_layers=num_layers, num_heads=num_heads)
        self.gate = nn.Parameter(torch.rand(num_items))
        self.output = nn.Linear(embedding_dim, 1)

    def prepare(self, split: Split) -> Part:
        """The graphs of all training users are counted once."""
        say_who_is_cut(split.train.history, self.max_events, type(self).__name__)
        history = split.train.history.latest(self.max_events)
        return Examples.of(replace(split.train, history=history))

    def loss(self, part: Part, progress: Progress) -> Tensor:
        """Multi-label soft margin, a mean over users and items (section 4.5)."""
        examples = Examples.of(part)
        scores = self._distinct_scores(examples.history)
        times, hits = examples.times_scored.to(scores.dtype), examples.hits.to(scores.dtype)
        mean = (F.softplus(scores) @ times - scores @ hits) / times.sum().clamp(min=1)
        return ranks.weighed(mean, len(examples))

    def score(self, batch: BasketBatch) -> Scores:
        batches = in_pieces(batch.latest(self.max_events), self.items.embedding_dim)
        return torch.cat([self._score(Timelines.of(nodes)) for _, nodes in batches])

    def _score(self, graphs: Timelines) -> Scores:
        base, node_scores = self._distinct_scores(graphs).split(
            [graphs.num_items, len(graphs.node_items)]
        )
        scores = base.repeat(len(graphs)).index_put((graphs.node_keys,), node_scores)
        return scores.view(len(graphs), graphs.num_items)

    def _distinct_scores(self, graphs: Timelines) -> Tensor:
        """(n + N,): each item's score where a user has not had it, then each node's.

        The output is linear: it mixes with the gate as the vectors would.
        """
        with full_precision(graphs.device):  # as the graph is
            output = wide(self.output.weight), wide(self.output.bias)
            base = F.linear(wide(self.items.vectors), *output).squeeze(1)
            of_nodes = F.linear(self.graph(self.items, graphs), *output).squeeze(1)
            gate = wide(self.gate).index_select(0, graphs.node_items)
            node_scores = torch.lerp(base.index_select(0, graphs.node_items), of_nodes, gate)
            return torch.cat([base, node_scores])

    def optimizer(self, num_steps: int) -> Any:
        optimizer = Adam(self.parameters(), lr=self.learning_rate, fused=True)
        scheduler = {"scheduler": ReduceLROnPlateau(optimizer), "monitor": "train/loss"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


@dataclass(frozen=True, eq=False)
class Examples(Part):
    """Users to train on. Of the (B, n) scores n + N differ: an item's where it is no node's."""

    history: Timelines

    @classmethod
    def of(cls, part: Part) -> Examples:
        if isinstance(part, cls):
            return part
        return cls(part.name, Timelines.of(part.history), part.target)

    def to(self, device: torch.device | str, **_: object) -> Examples:
        return self.of(super().to(device))

    def rows(self, index: Tensor) -> Examples:
        return self.of(super().rows(index))

    @cached_property
    def times_scored(self) -> Tensor:
        """(n + N,) float32: how many users have an item's own score, then 1 for each node."""
        items, num_items = self.history.node_items, self.history.num_items
        without = len(self) - torch.bincount(items, minlength=num_items)
        return torch.cat([without, torch.ones_like(items)]).float()

    @cached_property
    def hits(self) -> Tensor:
        """(n + N,) float32: how many targets have each score."""
        num_items, nodes = self.history.num_items, self.history.node_keys
        keys = self.target.owners() * num_items + self.target.values
        node = torch.searchsorted(nodes, keys)
        of_node = torch.isin(keys, nodes)
        places = torch.where(of_node, num_items + node, self.target.values)
        return torch.bincount(places, minlength=num_items + len(nodes)).float()


# The ways back below are written out: autograd's, an operation at a time, take about three times as
# long on batches as small as these. A gradient `of_x` is that of the loss by x.
