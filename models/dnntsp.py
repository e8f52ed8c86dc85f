"""DNNTSP: the next basket from a dynamic graph of the items that a user has had.

Paper: Yu, Sun, Du, Liu, Xiong, Lv, "Predicting Temporal Sets with Deep Neural Networks", KDD 2020.

Kept: everything that the authors' code computes, in scores, loss and gradients: weighted graph
convolutions that share their weights over time, causal self-attention over a node's steps, the
aggregation, the gate, and batch normalisation whose statistics count the steps that the authors pad
short histories with.
Changed: how it is computed. A node has one state at all steps whose basket does not hold it, so
states are kept for events and once for a node's absence, never for every node and step. Attention
runs over the pairs of a node's events; between two events it depends on the step through one
number alone.

Shapes: B users, n items, E events, N nodes (a user's distinct items), D dimensions, H heads of
d = D / H dimensions, P pairs of a node's events, S steps from a node's first event on, T steps of a
user (baskets of the history).
"""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from recsys.batch import BasketBatch
from recsys.embedding import EmbeddingTable
from recsys.graphs import GraphBatch
from recsys.losses import multilabel_soft_margin
from recsys.module import Recommender
from recsys.ragged import Ragged, offsets_of
from recsys.sparse import csr
from recsys.splits import Part, Split
from recsys.types import Scores


class DNNTSP(Recommender):
    """Scores an item by its own vector, mixed with what its node in the user's graphs became.

    An item that a user has not had scores the same for every user.

    Args:
        num_items: n.
        embedding_dim: D, of items, states and attention.
        num_layers: graph convolutions.
        num_heads: H, of the attention; divides D.
        learning_rate: of Adam, a tenth after ten epochs in which the training loss has not fallen.
    """

    def __init__(
        self,
        num_items: int,
        *,
        embedding_dim: int = 32,
        num_layers: int = 2,
        num_heads: int = 4,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=0.0)
        self.items = EmbeddingTable(num_items, embedding_dim, std=1.0)
        self.graph = DynamicGraph(embedding_dim, num_layers=num_layers, num_heads=num_heads)
        self.gate = nn.Parameter(torch.rand(num_items))
        self.output = nn.Linear(embedding_dim, 1)

    def prepare(self, split: Split) -> Part:
        """The graphs of all training users are counted once."""
        return Part("train", Timelines.of(split.train.history), split.train.target)

    def loss(self, part: Part) -> Tensor:
        """Multi-label soft margin, a mean over users and items (section 4.5)."""
        return multilabel_soft_margin(self.score(part.history), part.target).mean()

    def score(self, batch: BasketBatch) -> Scores:
        graphs = Timelines.of(batch)
        vectors = self.items(graphs.node_items)
        gate = self.gate.index_select(0, graphs.node_items).unsqueeze(1)
        own = self.output(torch.lerp(vectors, self.graph(self.items, graphs), gate)).squeeze(1)
        base = self.output(self.items.vectors).squeeze(1)
        place = graphs.node_owners() * len(base) + graphs.node_items
        return base.repeat(len(graphs)).index_put((place,), own).view(-1, len(base))

    def configure_optimizers(self) -> Any:
        optimizer = Adam(self.parameters(), lr=self.learning_rate, fused=True)
        scheduler = {"scheduler": ReduceLROnPlateau(optimizer), "monitor": "train/loss"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class DynamicGraph(nn.Module):
    """What each item of a history becomes through the user's baskets: sections 4.1 to 4.3.

    Args:
        embedding_dim: D, that of the item table.
        num_layers, num_heads: as of `DNNTSP`.
    """

    def __init__(self, embedding_dim: int, *, num_layers: int = 2, num_heads: int = 4) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(Convolution(embedding_dim) for _ in range(num_layers))
        self.attention = GapAttention(embedding_dim, num_heads)

    def forward(self, items: EmbeddingTable, batch: BasketBatch) -> Tensor:
        """(N, D), a vector per node of `GraphBatch.of(batch)`, from an item table of any owner."""
        graphs = Timelines.of(batch)
        if not len(graphs.items):
            return items(graphs.node_items)
        states = items(graphs.node_items).index_select(0, graphs.state_nodes)
        for convolution in self.convolutions:
            states = convolution(states, graphs)
        return self.attention(states, graphs)


class Convolution(nn.Module):
    """ReLU(BatchNorm(W A_t h + b)) for all nodes and steps (eq. 2), on the states that differ."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.norm = WeightedBatchNorm(dim)

    def forward(self, states: Tensor, graphs: Timelines) -> Tensor:
        """(E + 2N, D) to (E + 2N, D)."""
        mixed = _SymmetricProduct.apply(graphs.propagation.to(states.dtype), states)
        return self.norm(self.linear(mixed), graphs.state_counts.to(states.dtype)).relu()


class WeightedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of rows that stand for several equal ones."""

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        """Rows (R, D), and how many each stands for (R,)."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        total = counts.sum()
        normed, mean, variance = _WeightedNorm.apply(
            x, counts / total, self.weight, self.bias, self.eps
        )
        unbiased = variance * (total / (total - 1).clamp(min=1))
        self.running_mean.lerp_(mean, self.momentum or 0.0)
        self.running_var.lerp_(unbiased, self.momentum or 0.0)
        return normed


class GapAttention(nn.Module):
    """Causal self-attention over the steps of a node, and the sum over steps (eq. 3 to 6).

    At a step up to which the node was absent from n baskets, a query's context is, for each head,

        (sum_e exp(q k_e) v_e + n exp(q k_a) v_a) / (sum_e exp(q k_e) + n exp(q k_a))
        = v_a + m sum_e exp(q k_e) (v_e - v_a),     1 / m = sum_e exp(q k_e) + n exp(q k_a)

    over the node's events e so far and its absent state a. From an event to the next one there are
    two queries, that of the event itself and that of the absent state, and their sums stay as they
    are: only n, and with it m, changes by the step. Before the first event the context is v_a.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projection = nn.Linear(dim, 3 * dim, bias=False)
        self.pooling = nn.Linear(dim, 1, bias=False)

    def forward(self, states: Tensor, graphs: Timelines) -> Tensor:
        """States (E + 2N, D) to a vector per node (N, D)."""
        sizes = [len(graphs.items), len(graphs.node_items)]
        qkv = self.projection(states[: sum(sizes)]).unflatten(1, (3, self.num_heads, -1))
        events, absent = qkv.split(sizes)
        sums, factors = self._attend(events, absent.index_select(0, graphs.nodes), graphs)
        return self._aggregate(sums, factors, absent[:, 2].flatten(1), graphs)

    def _attend(self, events: Tensor, absent: Tensor, graphs: Timelines) -> tuple[Tensor, Tensor]:
        """Sums for each event's two queries, up to a factor of each query that cancels.

        Args:
            events: (E, 3, H, d), queries, keys and values of the events.
            absent: (E, 3, H, d), those of the absent state of each event's node.

        Returns:
            (E, 2, H, d + 1): sum_e exp(q k_e) (v_e - v_a), and in the last column sum_e exp(q k_e).
            (E, 2, H): exp(q k_a).
        """
        query, key = graphs.pairs
        q, k, v = events.unbind(1)
        q_absent, k_absent, v_absent = absent.unbind(1)
        q = torch.stack([q, q_absent], 1) * k.shape[-1] ** -0.5
        logits = (q.index_select(0, query) * k.index_select(0, key).unsqueeze(1)).sum(-1)
        of_absent = (q * k_absent.unsqueeze(1)).sum(-1)
        of_absent = of_absent.masked_fill(graphs.always_present, -torch.inf)
        with torch.no_grad():
            place = query[:, None, None].expand_as(logits)
            largest = of_absent.scatter_reduce(0, place, logits, "amax")
        weights = (logits - largest.index_select(0, query)).exp()
        values = F.pad(v - v_absent, (0, 1), value=1.0).index_select(0, key)
        weighted = weights.unsqueeze(-1) * values.unsqueeze(1)
        sums = weighted.new_zeros(len(events), *weighted.shape[1:]).index_add(0, query, weighted)
        return sums, (of_absent - largest).exp()

    def _aggregate(
        self, sums: Tensor, absent: Tensor, v_absent: Tensor, graphs: Timelines
    ) -> Tensor:
        """(N, D): the sum of (w c) c over all steps' contexts c, with c = v_a + m sums."""
        num_events, num_nodes = len(graphs.items), len(graphs.node_items)
        query, count = graphs.steps
        sums, present = sums.flatten(0, 1).split([sums.shape[-1] - 1, 1], -1)
        w = self.pooling.weight.view(self.num_heads, -1)
        pooled_absent = self.pooling(v_absent).squeeze(1)
        per_query = [present.squeeze(-1), absent.flatten(0, 1), (sums * w).sum(-1)]
        present, absent, pooled = torch.stack(per_query, 1).index_select(0, query).unbind(1)
        m = 1 / (present + count.to(absent.dtype).unsqueeze(1) * absent)
        change = (m * pooled).sum(1)  # w c - w v_a
        total = change + pooled_absent.index_select(0, graphs.step_nodes)
        of_step = torch.cat([m * total.unsqueeze(1), change.unsqueeze(1)], 1)
        of_query = of_step.new_zeros(2 * num_events, self.num_heads + 1).index_add(
            0, query, of_step
        )
        factors, change = of_query.split([self.num_heads, 1], 1)
        of_query = torch.cat([(factors.unsqueeze(-1) * sums).flatten(1), change], 1)
        of_event = of_query.view(num_events, 2, -1).sum(1)
        of_node = of_event.new_zeros(num_nodes, of_event.shape[1])
        of_node = of_node.index_add(0, graphs.nodes, of_event)
        steady = graphs.node_steps * pooled_absent + of_node[:, -1]
        return torch.addcmul(of_node[:, :-1], steady.unsqueeze(1), v_absent)


class Timelines(GraphBatch):
    """Graphs with what the computation above asks of their times, computed once a batch.

    Rows of states: an event each, then a node's state in baskets without it, then in padding.
    """

    @classmethod
    def of(cls, batch: BasketBatch) -> Timelines:
        if isinstance(batch, cls):
            return batch
        graphs = GraphBatch.of(batch)
        return cls(**{field.name: getattr(graphs, field.name) for field in fields(graphs)})

    @cached_property
    def state_nodes(self) -> Tensor:
        """(E + 2N,) int64, the node of each row."""
        nodes = torch.arange(len(self.node_items), device=self.device)
        return torch.cat([self.nodes, nodes, nodes])

    @cached_property
    def state_counts(self) -> Tensor:
        """(E + 2N,) float32, at how many steps of the padded batch each row is the state."""
        longest = self.num_baskets().max()
        counts = [torch.ones_like(self.items), self.absent(), longest - self.node_steps]
        return torch.cat(counts).float()

    @cached_property
    def propagation(self) -> Tensor:
        """(E + 2N, E + 2N) CSR: the baskets' graphs; alone, a node has its self loop, 1 if padding.

        Symmetric.
        """
        graph = self.adjacency()
        loops = self.self_weights[self.node_owners()]
        rows = torch.arange(1, 2 * len(loops) + 1, device=self.device)
        offsets = torch.cat([graph.crow_indices(), graph.crow_indices()[-1] + rows])
        columns = torch.cat([graph.col_indices(), len(self.items) - 1 + rows])
        weights = torch.cat([graph.values(), loops, torch.ones_like(loops)])
        return csr(Ragged(columns, offsets), len(offsets) - 1, weights)

    @cached_property
    def node_steps(self) -> Tensor:
        """(N,) int64, T of each node's user."""
        return self.num_baskets()[self.node_owners()]

    @cached_property
    def _ranks(self) -> tuple[Tensor, Tensor, Tensor]:
        """(E,) int64 each: events by node and time, an event's place there, and within its node."""
        order = self.nodes.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=self.device)
        begins = offsets_of(torch.bincount(self.nodes, minlength=len(self.node_items)))
        return order, place, place - begins[self.nodes]

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """(P,) int64 each: an event, and an event of the same node at its time or before."""
        order, place, rank = self._ranks
        offsets = offsets_of(rank + 1)
        query = Ragged(torch.empty(int(offsets[-1])), offsets).owners()
        back = offsets[1:][query] - 1 - torch.arange(len(query), device=self.device)
        return query, order[place[query] - back]

    @cached_property
    def _absences(self) -> Tensor:
        """(E,) int64: how many baskets of the user up to the event's do not hold its node."""
        return self.baskets - self._ranks[2]

    @cached_property
    def always_present(self) -> Tensor:
        """(E, 2, 1) bool: which of an event's two queries have no absent state among their keys."""
        none = self._absences == 0
        return torch.stack([none, torch.zeros_like(none)], 1).unsqueeze(-1)

    @cached_property
    def steps(self) -> tuple[Tensor, Tensor]:
        """(S,) int64 each: a step's query, 2e at event e, 2e + 1 after it; and its absences n."""
        order, place, _ = self._ranks
        following = self.baskets[order].roll(-1)[place]
        is_last = self.nodes != self.nodes[order].roll(-1)[place]
        is_last |= place == len(place) - 1
        until = torch.where(is_last, self.node_steps[self.nodes], following)
        offsets = offsets_of(until - self.baskets)
        event = Ragged(torch.empty(int(offsets[-1])), offsets).owners()
        after = torch.arange(len(event), device=self.device) - offsets[event]
        return 2 * event + (after > 0), self._absences[event] + after

    @cached_property
    def step_nodes(self) -> Tensor:
        """(S,) int64, the node of each step."""
        return self.nodes[self.steps[0] // 2]


class _WeightedNorm(torch.autograd.Function):
    """Rows less their weighted mean, over their weighted deviation; with mean and variance.

    Written out because autograd's way back through the statistics takes three times as long.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, share: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = share @ x
        x = x - mean
        variance = share @ x.square()
        inverse = (variance + eps).rsqrt()
        x *= inverse
        ctx.save_for_backward(x, share, weight * inverse)
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(bias, x, weight), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, share, scale = ctx.saved_tensors
        of_bias, of_weight = gradient.sum(0), (gradient * x).sum(0)
        through = torch.addcmul(of_bias, x, of_weight) * share.unsqueeze(1)
        return (gradient - through) * scale, None, of_weight, of_bias, None


class _SymmetricProduct(torch.autograd.Function):
    """A constant symmetric sparse matrix times a dense one; torch's own backward transposes it."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, dense: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, ctx.matrix @ gradient
