"""Dynamic co-occurrence graphs of users' baskets, as DNNTSP (Yu et al., KDD 2020) learns from them.

A *node* is an item that occurs in a user's history, and an *event* is a node in a basket that holds
it. A user has one graph per basket; it joins the items of that basket, and an edge weighs as much
in every one of them. The paper's equation 1 leaves the weights open: they are those of the authors'
code. All graphs of all users are one disjoint graph over the events, in flat tensors.

Shapes: B users, E events, N nodes, P edges, as many as the squares of the baskets' sizes add up to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, gather_positions, offsets_of
from recsys.batch.sparse import csr
from recsys.memory import check_memory

_PAIRS_AT_ONCE = 2**19  # what counts them then stays in the cache


@dataclass(frozen=True, eq=False)
class NodeBatch(BasketBatch):
    """Histories of B users with their nodes; an item is in a basket once.

    Attributes:
        nodes: (E,) int64, the node of each event.
        node_items: (N,) int64, the item of each node: users in turn, items ascending.
        node_offsets: (B + 1,) int64, where each user's nodes begin.
    """

    nodes: Tensor
    node_items: Tensor
    node_offsets: Tensor

    @classmethod
    def of(cls, batch: BasketBatch) -> NodeBatch:
        """The nodes of histories; of an item's repeats within a basket the first event stays.

        >>> batch = NodeBatch.of(BasketBatch.from_lists([[[0, 2], [2]]], num_items=3))
        >>> batch.node_items.tolist()
        [0, 2]
        >>> batch.nodes.tolist()
        [0, 1, 1]
        """
        if isinstance(batch, NodeBatch):
            return batch
        batch = batch.where(_first_of_item(batch))
        node, nodes = (batch.owners() * batch.num_items + batch.items).unique(return_inverse=True)
        lengths = torch.bincount(node // batch.num_items, minlength=len(batch))
        return NodeBatch(
            **_values(batch),
            nodes=nodes,
            node_items=node % batch.num_items,
            node_offsets=offsets_of(lengths),
        )

    def rows(self, index: Tensor) -> Self:
        """The users at `index` (B',) int64, in that order, and their nodes."""
        batch = super().rows(index)
        events, _ = gather_positions(self.offsets, index)
        nodes, node_offsets = gather_positions(self.node_offsets, index)
        shift = (node_offsets[:-1] - self.node_offsets[index])[batch.owners()]
        return replace(
            batch,
            nodes=self.nodes[events] + shift,
            node_items=self.node_items[nodes],
            node_offsets=node_offsets,
        )

    def where(self, keep: Tensor) -> BasketBatch:
        """As of any histories: without nodes, and graphs, which count other baskets now."""
        return self._histories().where(keep)

    def latest(self, num_events: int) -> BasketBatch:
        """As of any histories: without nodes, and graphs, where a history is longer."""
        is_cut = (self.lengths() > num_events).any()
        return self._histories().latest(num_events) if is_cut else self

    def _histories(self) -> BasketBatch:
        values = _values(self)
        return BasketBatch(**{f.name: values[f.name] for f in fields(BasketBatch)})

    def num_edges(self) -> Tensor:
        """(B,) int64, as many as the squares of the sizes of a user's baskets add up to."""
        baskets, begins = self.basket_rows()
        edges = offsets_of(begins.diff()[baskets])
        return edges[self.offsets].diff()

    def node_owners(self) -> Tensor:
        """(N,) int64, the row of each node's user."""
        return Ragged(self.node_items, self.node_offsets).owners()

    def absent(self) -> Tensor:
        """(N,) int64, for each node the number of its user's baskets that do not hold it."""
        num_holding = torch.bincount(self.nodes, minlength=len(self.node_items))
        return self.num_baskets()[self.node_owners()] - num_holding


@dataclass(frozen=True, eq=False)
class GraphBatch(NodeBatch):
    """Nodes of B users with the graphs of their baskets.

    Row e of the graph has an edge to each event of e's own basket, in order and to e too, so the
    columns are a range and need not be stored. The edge of items i and j weighs the number of the
    user's baskets that hold both, and 1 where i = j, over the largest such weight of the user.

    Attributes:
        edge_weights: (P,) float32, row after row.
        edge_offsets: (E + 1,) int64, where each row begins.
        self_weights: (B,) float32, the weight of i = j, in (0, 1]. The authors keep it in the
            graphs of baskets without i too. Those loops are not stored; `absent` counts them.
    """

    edge_weights: Tensor
    edge_offsets: Tensor
    self_weights: Tensor

    @classmethod
    def of(cls, batch: BasketBatch) -> GraphBatch:
        """The graphs of histories; of an item's repeats within a basket the first event stays.

        Beside the result it needs memory for the pairs of a few users at a time, and for a cell
        per pair of items of one user.

        Raises:
            DataError: there is not enough memory for as many pairs.
        """
        if isinstance(batch, GraphBatch):
            return batch
        batch = NodeBatch.of(batch)
        weights, edge_offsets = _pair_counts(batch)
        edges = edge_offsets[batch.offsets]
        largest = torch.segment_reduce(weights, "max", offsets=edges, initial=1.0)
        weights /= largest.repeat_interleave(edges.diff(), output_size=len(weights))
        return cls(
            **_values(batch),
            edge_weights=weights,
            edge_offsets=edge_offsets,
            self_weights=1 / largest,
        )

    def rows(self, index: Tensor) -> Self:
        """The users at `index` (B',) int64, in that order, and their graphs."""
        events, _ = gather_positions(self.offsets, index)
        edges, _ = gather_positions(self.edge_offsets[self.offsets], index)
        return replace(
            super().rows(index),
            edge_weights=self.edge_weights[edges],
            edge_offsets=offsets_of(self.edge_offsets.diff()[events]),
            self_weights=self.self_weights[index],
        )

    def edges(self) -> tuple[Tensor, Tensor]:
        """(2, P) int64, the events that each edge joins, row first, and its weight (P,) float32."""
        rows = Ragged(self.edge_weights, self.edge_offsets).owners()
        return torch.stack([rows, self._columns()]), self.edge_weights

    def adjacency(self) -> Tensor:
        """(E, E) in torch's CSR layout, symmetric."""
        rows = Ragged(self._columns(), self.edge_offsets)
        return csr(rows, len(self.items), self.edge_weights)

    def _columns(self) -> Tensor:
        baskets, begins = self.basket_rows()
        return gather_positions(begins, baskets)[0]


def _values(batch: BasketBatch) -> dict[str, Any]:
    """What the fields of a batch hold."""
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def _first_of_item(batch: BasketBatch) -> Tensor:
    """(E,) bool, whether an event is its item's first in the basket."""
    key, order = (batch.basket_rows()[0] * batch.num_items + batch.items).sort(stable=True)
    first = torch.ones_like(key, dtype=torch.bool)
    first[order[1:]] = key.diff() > 0
    return first


def _pair_counts(batch: NodeBatch) -> tuple[Tensor, Tensor]:
    """Edge weights (P,) float32 before they are divided, and the rows' offsets (E + 1,)."""
    baskets, begins = batch.basket_rows()
    edge_offsets = offsets_of(begins.diff()[baskets])
    users = edge_offsets[batch.offsets]
    widths = batch.node_offsets.diff()
    num_edges, widest = int(users[-1]), int(widths.max()) if len(batch) else 0
    check_memory(
        12 * num_edges + 8 * widest**2,
        f"graphs of {len(batch):,} users with {num_edges:,} pairs of items in a basket",
        "read fewer events of each (model.max_events), or leave out the largest baskets",
    )
    # A user's nodes as a square table: where each event's row of it begins, and its column.
    owners = batch.owners()
    columns = batch.nodes - batch.node_offsets[owners]
    table = offsets_of(widths.square())
    begin = table[owners] + columns * widths[owners]
    counts = torch.empty(num_edges, device=batch.device)
    for u, v in _pieces(table + users):
        first, last = batch.offsets[u], batch.offsets[v]
        others, rows = gather_positions(begins, baskets[first:last])
        row = (begin[first:last] - table[u]).repeat_interleave(rows.diff(), output_size=len(others))
        cells = row + columns[others]
        cell_counts = torch.bincount(cells)
        cell_counts[begin[first:last] - table[u] + columns[first:last]] = 1
        counts[users[u] : users[v]] = cell_counts[cells]
    return counts, edge_offsets


def _pieces(costs: Tensor) -> Iterator[tuple[int, int]]:
    """Ranges of users of about the same cost, given as offsets (B + 1,): from, to."""
    changes = (costs[:-1] // _PAIRS_AT_ONCE).diff().nonzero().flatten() + 1
    bounds = [0, *changes.tolist(), len(costs) - 1]
    return pairwise(bounds)
