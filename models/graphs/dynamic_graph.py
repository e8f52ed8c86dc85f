"""The dynamic graph of items of DNNTSP, which GLOIE reads too.

Shapes: B users, E events, N nodes, Z = E + 2 N rows of states (see `Timelines`), R rows that a
convolution takes, Q queries, P pairs of a query and a key, S steps of nodes, D dimensions, H heads
of d. A suffix gives those of a tensor: `sums_QHd` is (Q, H, d), and `steady_N11` is (N, 1, 1).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys import ranks
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
        if not (graphs.longest if self.training else len(graphs.items)):
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
    def longest(self) -> int:
        """Baskets of the user who has most of them, among those of all ranks."""
        return int(ranks.largest(F.pad(self.num_baskets(), (0, 1)).max()))  # 0 of no user

    @cached_property
    def state_counts(self) -> Tensor:
        """(E + 2N,) float32, at how many steps of the padded batch each row is the state."""
        counts = [torch.ones_like(self.items), self.absent(), self.longest - self.node_steps]
        return torch.cat(counts).float()

    @cached_property
    def num_states(self) -> int:
        """How many steps of nodes the padded batch has, of all ranks together."""
        return self.longest * ranks.count(len(self.node_items))

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

    Rows stand for several equal ones: mean and variance are weighted, and those of the whole batch,
    on whatever rank its rows are. The bias moves the mean alone, so its gradient is 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        matrix: SparseMatrix,
        share_Z: Tensor,
        states_RD: Tensor,
        weight: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x_ZD = matrix @ (states_RD @ weight.T)
        mean_D = ranks.total(share_Z @ x_ZD)
        x_ZD -= mean_D
        variance_D = ranks.total(share_Z @ x_ZD.square())
        inverse_D = (variance_D + eps).rsqrt()
        x_ZD *= inverse_D
        ctx.matrix = matrix
        ctx.save_for_backward(states_RD, weight, x_ZD, share_Z, gamma * inverse_D)
        mean_D = mean_D + bias
        ctx.mark_non_differentiable(mean_D, variance_D)
        return torch.addcmul(beta, x_ZD, gamma), mean_D, variance_D

    @staticmethod
    def backward(ctx: Any, gradient_ZD: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        states_RD, weight, x_ZD, share_Z, scale = ctx.saved_tensors
        of_beta, of_gamma = gradient_ZD.sum(0), (gradient_ZD * x_ZD).sum(0)
        sums_2D = ranks.total(torch.stack([of_beta, of_gamma]))
        through_ZD = torch.addcmul(sums_2D[0], x_ZD, sums_2D[1]).mul_(share_Z.unsqueeze(1))
        of_product_RD = ctx.matrix.mT @ torch.sub(gradient_ZD, through_ZD).mul_(scale)
        of_weight = of_product_RD.T @ states_RD
        of_bias = torch.zeros_like(of_beta)
        return None, None, of_product_RD @ weight, of_weight, of_bias, of_gamma, of_beta, None


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
        ctx: Any, states_ZD: Tensor, weight: Tensor, num_heads: int, graphs: Timelines
    ) -> tuple[Tensor, ...]:
        num_events, num_nodes = len(graphs.items), len(graphs.node_items)
        query_P, row_P, event_P = graphs.pairs
        qkv = (states_ZD[: num_events + num_nodes] @ weight.T).unflatten(1, (3, num_heads, -1))
        events, absent = qkv.split([num_events, num_nodes])
        q_PHd = qkv[:, 0].index_select(0, row_P)
        k_PHd, v_PHd = (
            (events[:, i] - absent[:, i].index_select(0, graphs.nodes)).index_select(0, event_P)
            for i in (1, 2)  # each (E, H, d)
        )
        logits_PH = _inner(q_PHd, k_PHd) * q_PHd.shape[-1] ** -0.5
        first_QH = graphs.absent_logits.to(q_PHd.dtype).expand(-1, num_heads)
        query_PH = query_P.unsqueeze(1).expand_as(logits_PH)
        largest_QH = first_QH.scatter_reduce(0, query_PH, logits_PH, "amax")
        weights_PH = (logits_PH - largest_QH.index_select(0, query_P)).exp()
        ctx.graphs = graphs
        ctx.save_for_backward(states_ZD, weight, q_PHd, k_PHd, v_PHd, weights_PH)
        ones_QH = (first_QH - largest_QH).exp()
        ctx.mark_non_differentiable(ones_QH)
        sums_QHd = _sum_rows(weights_PH.unsqueeze(-1) * v_PHd, query_P, len(first_QH))
        events_QH = _sum_rows(weights_PH, query_P, len(first_QH))
        return sums_QHd, events_QH, ones_QH, absent[:, 2].contiguous()

    @staticmethod
    def backward(
        ctx: Any, of_sums_QHd: Tensor, of_events_QH: Tensor, _: Any, of_v_absent_NHd: Tensor
    ) -> tuple[Tensor | None, ...]:
        states_ZD, weight, q_PHd, k_PHd, v_PHd, weights_PH = ctx.saved_tensors
        query_P, row_P, event_P = ctx.graphs.pairs
        num_events, num_nodes = len(ctx.graphs.items), len(of_v_absent_NHd)
        num_rows = num_events + num_nodes
        of_sums_PHd = of_sums_QHd.index_select(0, query_P)
        of_weights_PH = _inner(of_sums_PHd, v_PHd) + of_events_QH.index_select(0, query_P)
        of_logits_PH1 = (of_weights_PH * weights_PH * q_PHd.shape[-1] ** -0.5).unsqueeze(-1)
        of_q = _sum_rows(of_logits_PH1 * k_PHd, row_P, num_rows)
        of_k = _sum_rows(of_logits_PH1 * q_PHd, event_P, num_events)
        of_v = _sum_rows(weights_PH.unsqueeze(-1) * of_sums_PHd, event_P, num_events)
        of_k_absent_NHd, of_v_shift_NHd = (
            _sum_rows(x, ctx.graphs.nodes, num_nodes) for x in (of_k, of_v)
        )
        of_k = torch.cat([of_k, -of_k_absent_NHd])
        of_v = torch.cat([of_v, of_v_absent_NHd - of_v_shift_NHd])
        of_qkv = torch.cat([of_q, of_k, of_v], 1).flatten(1)
        of_states_ZD = torch.zeros_like(states_ZD)
        torch.mm(of_qkv, weight, out=of_states_ZD[:num_rows])
        return of_states_ZD, of_qkv.T @ states_ZD[:num_rows], None, None


class _Aggregate(torch.autograd.Function):
    """(N, H, d): the sum of (w c) c over all steps' contexts c = v_a + m sums, heads side by side.

    Args:
        sums, events, absent, v_absent: of `_Attend`; 1 / m = events + n absent.
        w: (H, d), of the pooling.
    """

    @staticmethod
    def forward(
        ctx: Any,
        sums_QHd: Tensor,
        events_QH: Tensor,
        absent_QH: Tensor,
        v_absent_NHd: Tensor,
        w_Hd: Tensor,
        graphs: Timelines,
    ) -> Tensor:
        query_S, node_S, count_S = graphs.steps
        num_queries, num_nodes = len(sums_QHd), len(v_absent_NHd)
        pooled_SH = _inner(sums_QHd, w_Hd).index_select(0, query_S)  # w sums, at each step
        pooled_absent_N = v_absent_NHd.flatten(1) @ w_Hd.flatten()
        ones = w_Hd.new_ones(len(w_Hd))
        count_S1 = count_S.to(w_Hd.dtype).unsqueeze(1)
        m_SH = events_QH.index_select(0, query_S) + count_S1 * absent_QH.index_select(0, query_S)
        m_SH = m_SH.reciprocal_()
        change_S = (m_SH * pooled_SH) @ ones
        total_S1 = (change_S + pooled_absent_N.index_select(0, node_S)).unsqueeze(1)  # w c
        factors_QH1 = _sum_rows(m_SH * total_S1, query_S, num_queries).unsqueeze(-1)
        steady_N = graphs.node_steps * pooled_absent_N + _sum_rows(change_S, node_S, num_nodes)
        steady_N11 = steady_N.view(-1, 1, 1)
        ctx.graphs = graphs
        ctx.save_for_backward(
            sums_QHd, v_absent_NHd, w_Hd, pooled_SH, m_SH, total_S1, factors_QH1, steady_N11
        )
        changing_NHd = _sum_rows(factors_QH1 * sums_QHd, graphs.query_nodes, num_nodes)
        return changing_NHd.addcmul_(steady_N11, v_absent_NHd)

    @staticmethod
    def backward(ctx: Any, gradient_NHd: Tensor) -> tuple[Tensor | None, ...]:
        sums_QHd, v_absent_NHd, w_Hd, pooled_SH, m_SH, total_S1, factors_QH1, steady_N11 = (
            ctx.saved_tensors
        )
        query_S, node_S, _ = ctx.graphs.steps
        num_queries, num_nodes = len(sums_QHd), len(v_absent_NHd)
        ones = w_Hd.new_ones(len(w_Hd))
        of_steady_N = (gradient_NHd * v_absent_NHd).flatten(1).sum(1)
        gradient_QHd = gradient_NHd.index_select(0, ctx.graphs.query_nodes)
        of_factors_SH = _inner(gradient_QHd, sums_QHd).index_select(0, query_S)
        of_total_S = (of_factors_SH * m_SH) @ ones
        of_change_S1 = (of_steady_N.index_select(0, node_S) + of_total_S).unsqueeze(1)
        of_m_SH = of_factors_SH * total_S1 + of_change_S1 * pooled_SH
        of_events_QH = _sum_rows(of_m_SH * m_SH.square(), query_S, num_queries).neg_()
        of_pooled_QH1 = _sum_rows(of_change_S1 * m_SH, query_S, num_queries).unsqueeze(-1)
        of_absent_N = ctx.graphs.node_steps * of_steady_N + _sum_rows(of_total_S, node_S, num_nodes)
        of_pooled_absent_N11 = of_absent_N.view(-1, 1, 1)
        of_sums_QHd = (factors_QH1 * gradient_QHd).addcmul_(of_pooled_QH1, w_Hd)
        of_v_absent_NHd = (steady_N11 * gradient_NHd).addcmul_(of_pooled_absent_N11, w_Hd)
        of_w_Hd = (of_pooled_QH1 * sums_QHd).sum(0) + (of_pooled_absent_N11 * v_absent_NHd).sum(0)
        return of_sums_QHd, of_events_QH, None, of_v_absent_NHd, of_w_Hd, None


def _inner(x: Tensor, y: Tensor) -> Tensor:
    """(R, H, d) and (R, H, d) or (H, d) to (R, H), by a product: short sums take twice as long."""
    return ((x * y).flatten(0, 1) @ x.new_ones(x.shape[-1])).view(x.shape[:2])


def _sum_rows(rows: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """(R, ...) to (num_groups, ...): the sum of each group's rows."""
    return rows.new_zeros(num_groups, *rows.shape[1:]).index_add_(0, group, rows)
