"""The dynamic graph of items of DNNTSP, which GLOIE reads too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.batch.graphs import GraphBatch, NodeBatch
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of, pieces
from recsys.batch.sparse import csr, matmul
from recsys.devices import full_precision
from recsys.memory import check_memory
from recsys.nn.embedding import EmbeddingTable
from recsys.precision import wide
from recsys.ranges import at_least, heads

logger = logging.getLogger(__name__)


MAX_EVENTS = 4096
"""No user of the public logs has more."""


BYTES_AT_ONCE = 2**30
"""Of what scoring takes beside the scores."""


class DynamicGraph(nn.Module):
    """What each item of a history becomes through the user's baskets: sections 4.1 to 4.3.

    Args:
        embedding_dim: D, that of the item table.
        num_layers, num_heads: as of `DNNTSP`.

    Raises:
        ConfigError: the heads do not divide D, or there is no layer.
    """

    def __init__(self, embedding_dim: int, *, num_layers: int = 2, num_heads: int = 4) -> None:
        super().__init__()
        heads(num_heads=num_heads, embedding_dim=embedding_dim)
        at_least(1, num_layers=num_layers)
        self.convolutions = nn.ModuleList(Convolution(embedding_dim) for _ in range(num_layers))
        self.attention = GapAttention(embedding_dim, num_heads)

    def forward(self, items: EmbeddingTable, batch: BasketBatch) -> Tensor:
        """(N, D), a vector per node of `GraphBatch.of(batch)`, from an item table of any owner."""
        graphs = Timelines.of(batch)
        states = wide(items(graphs.node_items))
        if not len(graphs.items):
            return states
        graphs.check_memory(states.shape[1])
        # Sums over a few rows each: mixed precision would cost their digits and save no time.
        with full_precision(states.device):
            for layer, convolution in enumerate(self.convolutions):
                states = convolution(states, graphs.propagation if layer else graphs.spread, graphs)
            return self.attention(states, graphs)


class Convolution(nn.Module):
    """ReLU(BatchNorm(A_t h W + b)) for all nodes and steps (eq. 2), on the states that differ."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, states: Tensor, matrix: SparseMatrix, graphs: Timelines) -> Tensor:
        """(R, D) to (E + 2N, D), by a matrix (E + 2N, R)."""
        weight, bias, norm = wide(self.linear.weight), wide(self.linear.bias), self.norm
        gamma, beta = wide(norm.weight), wide(norm.bias)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        if not self.training:
            x = matrix @ (states @ weight.T) + bias
            mean, variance = norm.running_mean.to(x.dtype), norm.running_var.to(x.dtype)
            return F.batch_norm(x, mean, variance, gamma, beta, eps=norm.eps).relu()
        total = graphs.num_states
        share = graphs.state_counts.to(states.dtype) / total
        normed, mean, variance = _Convolve.apply(
            matrix, share, states, weight, bias, gamma, beta, norm.eps
        )
        unbiased = variance * (total / max(total - 1, 1))
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum or 0.0)
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum or 0.0)
        return normed.relu()


class GapAttention(nn.Module):
    """Causal self-attention over the steps of a node, and the sum over steps (eq. 3 to 6).

    At a step up to which the node was absent from n baskets, a query's context is, for each head,

        v_a + m sum_e exp(q k_e) v_e,     1 / m = sum_e exp(q k_e) + n

    over the node's events e so far, with keys and values less those, k_a and v_a, of its absent
    state. From one event to the next there are at most two queries, that of the event and that of
    the absent state, and their sums stay as they are: only n, and with it m, changes by the step.
    Before the first event the context is v_a.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projection = nn.Linear(dim, 3 * dim, bias=False)
        self.pooling = nn.Linear(dim, 1, bias=False)

    def forward(self, states: Tensor, graphs: Timelines) -> Tensor:
        """States (E + 2N, D) to a vector per node (N, D)."""
        pooling = wide(self.pooling.weight).view(self.num_heads, -1)
        contexts = _Attend.apply(states, wide(self.projection.weight), self.num_heads, graphs)
        return _Aggregate.apply(*contexts, pooling, graphs).flatten(1)


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

    def check_memory(self, dim: int) -> None:
        """See that there is memory for `DynamicGraph` of D = `dim`.

        Raises:
            DataError: there is not.
        """
        of_gradients = 2 if torch.is_grad_enabled() else 0
        check_memory(
            (1 + of_gradients) * int(_memory(self._work, dim)),
            f"a batch of {len(self):,} users with {int(self._work[1]):,} pairs of an item's events",
            "lower trainer.batch_size or model.max_events",
        )

    @cached_property
    def _work(self) -> Tensor:
        """(3,), see `work`."""
        return work(self).sum(1)

    @cached_property
    def state_counts(self) -> Tensor:
        """(E + 2N,) float32, at how many steps of the padded batch each row is the state."""
        longest = self.num_baskets().max()
        counts = [torch.ones_like(self.items), self.absent(), longest - self.node_steps]
        return torch.cat(counts).float()

    @cached_property
    def num_states(self) -> int:
        """How many steps of nodes the padded batch has."""
        return int(self.num_baskets().max()) * len(self.node_items)

    @cached_property
    def propagation(self) -> SparseMatrix:
        """(E + 2N, E + 2N): the baskets' graphs; alone, a node has its self loop, 1 if padding."""
        graph = self.adjacency()
        loops = self.self_weights[self.node_owners()]
        rows = torch.arange(1, 2 * len(loops) + 1, device=self.device)
        offsets = torch.cat([graph.crow_indices(), graph.crow_indices()[-1] + rows])
        columns = torch.cat([graph.col_indices(), len(self.items) - 1 + rows])
        weights = torch.cat([graph.values(), loops, torch.ones_like(loops)])
        matrix = csr(Ragged(columns, offsets), len(offsets) - 1, weights)
        return SparseMatrix(matrix, matrix)

    @cached_property
    def spread(self) -> SparseMatrix:
        """(E + 2N, N): `propagation` of states that are still the same at all of a node's steps."""
        matrix = self.propagation.matrix
        nodes = torch.arange(len(self.node_items), device=self.device)
        columns = torch.cat([self.nodes, nodes, nodes])[matrix.col_indices()]
        rows = Ragged(columns, matrix.crow_indices())
        matrix = csr(rows, len(nodes), matrix.values())
        return SparseMatrix(matrix, matrix.t().to_sparse_csr())

    @cached_property
    def node_keys(self) -> Tensor:
        """(N,) int64, ascending: where in a matrix (B, n) each node's score is."""
        return self.node_owners() * self.num_items + self.node_items

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
    def _gaps(self) -> Tensor:
        """(E,) int64: how many baskets without its node follow an event's, up to the next event."""
        order, place, _ = self._ranks
        following = self.baskets[order].roll(-1)[place]
        is_last = self.nodes != self.nodes[order].roll(-1)[place]
        is_last |= place == len(place) - 1
        until = torch.where(is_last, self.node_steps[self.nodes], following)
        return until - self.baskets - 1

    @cached_property
    def _query_events(self) -> Tensor:
        """(Q,) int64: the event that each query is at or after: all E, and those before a gap."""
        events = torch.arange(len(self.items), device=self.device)
        return torch.cat([events, self._gaps.nonzero().squeeze(1)])

    @cached_property
    def query_nodes(self) -> Tensor:
        """(Q,) int64, the node of each query."""
        return self.nodes[self._query_events]

    @cached_property
    def _absences(self) -> Tensor:
        """(Q,) int64: how many baskets without the node each query sees first, 0 or more."""
        before = (self.baskets - self._ranks[2])[self._query_events]
        before[len(self.items) :] += 1
        return before

    @cached_property
    def absent_logits(self) -> Tensor:
        """(Q, 1) float32: 0, or -inf where the absent state is not among a query's keys."""
        return torch.where(self._absences > 0, 0.0, -torch.inf).unsqueeze(1)

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """(P,) int64 each: a query; the row of its state; an event of its node, not after it."""
        order, place, rank = self._ranks
        offsets = offsets_of(rank[self._query_events] + 1)
        query = Ragged(torch.empty(int(offsets[-1])), offsets).owners()
        back = offsets[1:][query] - 1 - torch.arange(len(query), device=self.device)
        event = order[place[self._query_events[query]] - back]
        num_events = len(self.items)
        row = torch.where(query < num_events, query, num_events + self.query_nodes[query])
        return query, row, event

    @cached_property
    def steps(self) -> tuple[Tensor, Tensor, Tensor]:
        """(S,) each: the query and the node of a step, int64, and its absences n, float32."""
        sizes = torch.cat([torch.ones_like(self._gaps), self._gaps[self._gaps > 0]])
        offsets = offsets_of(sizes)
        query = Ragged(torch.empty(int(offsets[-1])), offsets).owners()
        after = torch.arange(len(query), device=self.device) - offsets[query]
        return query, self.query_nodes[query], (self._absences[query] + after).float()


def work(nodes: NodeBatch) -> Tensor:
    """(3, B) int64, by which a user's graphs take time and memory.

    How many edges there are, pairs of a query and a key at most, and steps of nodes.
    """
    num_events = torch.bincount(nodes.nodes, minlength=len(nodes.node_items))
    owners = nodes.node_owners()
    # A query at an event and one behind it, each of the events up to there.
    of_nodes = torch.stack([num_events * (num_events + 1), nodes.num_baskets()[owners]])
    summed = of_nodes.new_zeros(2, len(nodes)).index_add(1, owners, of_nodes)
    return torch.cat([nodes.num_edges()[None], summed])


def _memory(work: Tensor, dim: int) -> Tensor:
    """Bytes, about, that `DynamicGraph` takes for work (3, …)."""
    return 48 * work[0] + (24 + 16 * dim) * work[1] + 64 * work[2]


def in_pieces(batch: BasketBatch, dim: int) -> Iterator[tuple[BasketBatch, NodeBatch]]:
    """The users a few at a time, whose graphs in D = `dim` take little memory, and their nodes."""
    nodes = NodeBatch.of(batch)
    row_groups = pieces(_memory(work(nodes), dim), BYTES_AT_ONCE)
    if len(row_groups) < 2:
        yield batch, nodes
    else:
        yield from ((batch.rows(rows), nodes.rows(rows)) for rows in row_groups)


def check_max_events(max_events: int) -> None:
    """Refuse a history of no event.

    Raises:
        ConfigError: `max_events` is not positive.
    """
    at_least(1, max_events=max_events)


def say_who_is_cut(history: BasketBatch, max_events: int, reader: str) -> None:
    """Say on one line how many users have more events than are read of them."""
    if num_cut := int((history.lengths() > max_events).sum()):
        logger.warning(
            "%s reads the latest %s events of %s training users who have more; model.max_events "
            "says how many",
            reader,
            f"{max_events:,}",
            f"{num_cut:,}",
        )


@dataclass(frozen=True)
class SparseMatrix:
    """A constant (R, C) in CSR, and its transpose: torch's own backward would make it each time."""

    matrix: Tensor
    transpose: Tensor

    def __matmul__(self, dense: Tensor) -> Tensor:
        """(C, D) to (R, D)."""
        return matmul(self.matrix, dense)

    @property
    def mT(self) -> SparseMatrix:
        return SparseMatrix(self.transpose, self.matrix)


class _Convolve(torch.autograd.Function):
    """x gamma + beta, where x is A h W' + b less its mean, over its deviation; mean and variance.

    Rows stand for several equal ones: mean and variance are weighted. The bias moves the mean
    alone, so its gradient is 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        matrix: SparseMatrix,
        share: Tensor,
        states: Tensor,
        weight: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = matrix @ (states @ weight.T)
        mean = share @ x
        x -= mean
        variance = share @ x.square()
        inverse = (variance + eps).rsqrt()
        x *= inverse
        ctx.matrix = matrix
        ctx.save_for_backward(states, weight, x, share, gamma * inverse)
        mean = mean + bias
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(beta, x, gamma), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        states, weight, x, share, scale = ctx.saved_tensors
        of_beta, of_gamma = gradient.sum(0), (gradient * x).sum(0)
        through = torch.addcmul(of_beta, x, of_gamma).mul_(share.unsqueeze(1))
        of_product = ctx.matrix.mT @ torch.sub(gradient, through).mul_(scale)
        of_weight = of_product.T @ states
        of_bias = torch.zeros_like(of_beta)
        return None, None, of_product @ weight, of_weight, of_bias, of_gamma, of_beta, None


class _Attend(torch.autograd.Function):
    """Of each query and head, the sums of exp(q k_e) v_e and of exp(q k_e); and 1 as the absent's.

    All three are over the same factor of the query, which cancels in a context, so that none
    overflows; where no absent state is a key, the third is 0.

    Args:
        states: (E + 2N, D).
        weight: (3D, D), of queries, keys and values.

    Returns:
        (Q, H, d), (Q, H) and, without a gradient, (Q, H); and v_a of each node (N, H, d).
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, num_heads: int, graphs: Timelines
    ) -> tuple[Tensor, ...]:
        num_events, num_nodes = len(graphs.items), len(graphs.node_items)
        query, row, event = graphs.pairs
        qkv = (states[: num_events + num_nodes] @ weight.T).unflatten(1, (3, num_heads, -1))
        events, absent = qkv.split([num_events, num_nodes])
        q = qkv[:, 0].index_select(0, row)
        k, v = (
            (events[:, i] - absent[:, i].index_select(0, graphs.nodes)).index_select(0, event)
            for i in (1, 2)
        )
        logits = _inner(q, k) * q.shape[-1] ** -0.5
        first = graphs.absent_logits.to(q.dtype).expand(-1, num_heads)
        largest = first.scatter_reduce(0, query.unsqueeze(1).expand_as(logits), logits, "amax")
        weights = (logits - largest.index_select(0, query)).exp()
        ctx.graphs = graphs
        ctx.save_for_backward(states, weight, q, k, v, weights)
        ones = (first - largest).exp()
        ctx.mark_non_differentiable(ones)
        sums = _sum_rows(weights.unsqueeze(-1) * v, query, len(first))
        return sums, _sum_rows(weights, query, len(first)), ones, absent[:, 2].contiguous()

    @staticmethod
    def backward(
        ctx: Any, of_sums: Tensor, of_events: Tensor, _: Any, of_v_absent: Tensor
    ) -> tuple[Tensor | None, ...]:
        states, weight, q, k, v, weights = ctx.saved_tensors
        query, row, event = ctx.graphs.pairs
        num_events, num_nodes = len(ctx.graphs.items), len(of_v_absent)
        num_rows = num_events + num_nodes
        of_sums = of_sums.index_select(0, query)
        of_weights = _inner(of_sums, v) + of_events.index_select(0, query)
        of_logits = (of_weights * weights * q.shape[-1] ** -0.5).unsqueeze(-1)
        of_q = _sum_rows(of_logits * k, row, num_rows)
        of_k = _sum_rows(of_logits * q, event, num_events)
        of_v = _sum_rows(weights.unsqueeze(-1) * of_sums, event, num_events)
        of_k_absent, of_v_shift = (_sum_rows(x, ctx.graphs.nodes, num_nodes) for x in (of_k, of_v))
        of_k = torch.cat([of_k, -of_k_absent])
        of_v = torch.cat([of_v, of_v_absent - of_v_shift])
        of_qkv = torch.cat([of_q, of_k, of_v], 1).flatten(1)
        of_states = torch.zeros_like(states)
        torch.mm(of_qkv, weight, out=of_states[:num_rows])
        return of_states, of_qkv.T @ states[:num_rows], None, None


class _Aggregate(torch.autograd.Function):
    """(N, H, d): the sum of (w c) c over all steps' contexts c = v_a + m sums, heads side by side.

    Args:
        sums, events, absent, v_absent: of `_Attend`; 1 / m = events + n absent.
        w: (H, d), of the pooling.
    """

    @staticmethod
    def forward(
        ctx: Any,
        sums: Tensor,
        events: Tensor,
        absent: Tensor,
        v_absent: Tensor,
        w: Tensor,
        graphs: Timelines,
    ) -> Tensor:
        query, node, count = graphs.steps
        num_queries, num_nodes = len(sums), len(v_absent)
        pooled = _inner(sums, w).index_select(0, query)  # w sums, at each step
        pooled_absent = v_absent.flatten(1) @ w.flatten()
        ones = w.new_ones(len(w))
        count = count.to(w.dtype).unsqueeze(1)
        m = (events.index_select(0, query) + count * absent.index_select(0, query)).reciprocal_()
        change = (m * pooled) @ ones
        total = (change + pooled_absent.index_select(0, node)).unsqueeze(1)  # w c
        factors = _sum_rows(m * total, query, num_queries).unsqueeze(-1)
        steady = graphs.node_steps * pooled_absent + _sum_rows(change, node, num_nodes)
        steady = steady.view(-1, 1, 1)
        ctx.graphs = graphs
        ctx.save_for_backward(sums, v_absent, w, pooled, m, total, factors, steady)
        return _sum_rows(factors * sums, graphs.query_nodes, num_nodes).addcmul_(steady, v_absent)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        sums, v_absent, w, pooled, m, total, factors, steady = ctx.saved_tensors
        query, node, _ = ctx.graphs.steps
        num_queries, num_nodes = len(sums), len(v_absent)
        ones = w.new_ones(len(w))
        of_steady = (gradient * v_absent).flatten(1).sum(1)
        gradient_q = gradient.index_select(0, ctx.graphs.query_nodes)
        of_factors = _inner(gradient_q, sums).index_select(0, query)
        of_total = (of_factors * m) @ ones
        of_change = (of_steady.index_select(0, node) + of_total).unsqueeze(1)
        of_m = of_factors * total + of_change * pooled
        of_events = _sum_rows(of_m * m.square(), query, num_queries).neg_()
        of_pooled = _sum_rows(of_change * m, query, num_queries).unsqueeze(-1)
        of_pooled_absent = ctx.graphs.node_steps * of_steady + _sum_rows(of_total, node, num_nodes)
        of_pooled_absent = of_pooled_absent.view(-1, 1, 1)
        of_sums = (factors * gradient_q).addcmul_(of_pooled, w)
        of_v_absent = (steady * gradient).addcmul_(of_pooled_absent, w)
        of_w = (of_pooled * sums).sum(0) + (of_pooled_absent * v_absent).sum(0)
        return of_sums, of_events, None, of_v_absent, of_w, None


def _inner(x: Tensor, y: Tensor) -> Tensor:
    """(R, H, d) and (R, H, d) or (H, d) to (R, H), by a product: short sums take twice as long."""
    return ((x * y).flatten(0, 1) @ x.new_ones(x.shape[-1])).view(x.shape[:2])


def _sum_rows(rows: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """(R, ...) to (num_groups, ...): the sum of each group's rows."""
    return rows.new_zeros(num_groups, *rows.shape[1:]).index_add_(0, group, rows)
