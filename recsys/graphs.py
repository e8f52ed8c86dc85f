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
from typing import Any

import torch
from torch import Tensor

from recsys.batch import BasketBatch
from recsys.ragged import Ragged, gather_positions, offsets_of
from recsys.sparse import csr

_PAIRS_AT_ONCE = 2**19  # what counts them then stays in the cache


@dataclass(frozen=True, eq=False)
class GraphBatch(BasketBatch):
    """Histories of B users with their graphs; an item is in a basket once.

    Row e of the graph has an edge to each event of e's own basket, in order and to e too, so the
    columns are a range and need not be stored. The edge of items i and j weighs the number of the
    user's baskets that hold both, and 1 where i = j, over the largest such weight of the user.

    Attributes:
        nodes: (E,) int64, the node of each event.
        node_items: (N,) int64, the item of each node: users in turn, items ascending.
        node_offsets: (B + 1,) int64, where each user's nodes begin.
        edge_weights: (P,) float32, row after row.
        edge_offsets: (E + 1,) int64, where each row begins.
        self_weights: (B,) float32, the weight of i = j, in (0, 1]. The authors keep it in the
            graphs of baskets without i too. Those loops are not stored; `absent` counts them.
    """

    nodes: Tensor
    node_items: Tensor
    node_offsets: Tensor
    edge_weights: Tensor
    edge_offsets: Tensor
    self_weights: Tensor

    @classmethod
    def of(cls, batch: BasketBatch) -> GraphBatch:
        """The graphs of histories; of an item's repeats within a basket the first event stays.

        Beside the result it needs memory for the pairs of a few users at a time, and for a cell
        per pair of items of one user.
        """
        if isinstance(batch, GraphBatch):
            return batch
        batch = batch.where(_first_of_item(batch))
        node, nodes = (batch.owners() * batch.num_items + batch.items).unique(return_inverse=True)
        node_offsets = offsets_of(torch.bincount(node // batch.num_items, minlength=len(batch)))
        weights, edge_offsets = _pair_counts(batch, nodes, node_offsets)
        edges = edge_offsets[batch.offsets]
        largest = torch.segment_reduce(weights, "max", offsets=edges, initial=1.0)
        weights /= largest.repeat_interleave(edges.diff(), output_size=len(weights))
        return cls(
            **_histories(batch),
            nodes=nodes,
            node_items=node % batch.num_items,
            node_offsets=node_offsets,
            edge_weights=weights,
            edge_offsets=edge_offsets,
            self_weights=1 / largest,
        )

    def rows(self, index: Tensor) -> GraphBatch:
        """The users at `index` (B',) int64, in that order, and their graphs."""
        batch = super().rows(index)
        events, _ = gather_positions(self.offsets, index)
        nodes, node_offsets = gather_positions(self.node_offsets, index)
        edges, _ = gather_positions(self.edge_offsets[self.offsets], index)
        shift = (node_offsets[:-1] - self.node_offsets[index])[batch.owners()]
        return replace(
            batch,
            nodes=self.nodes[events] + shift,
            node_items=self.node_items[nodes],
            node_offsets=node_offsets,
            edge_weights=self.edge_weights[edges],
            edge_offsets=offsets_of(self.edge_offsets.diff()[events]),
            self_weights=self.self_weights[index],
        )

    def where(self, keep: Tensor) -> BasketBatch:
        """As of any histories: without graphs, which count other baskets now."""
        return BasketBatch(**_histories(self)).where(keep)

    def edges(self) -> tuple[Tensor, Tensor]:
        """(2, P) int64, the events that each edge joins, row first, and its weight (P,) float32."""
        rows = Ragged(self.edge_weights, self.edge_offsets).owners()
        return torch.stack([rows, self._columns()]), self.edge_weights

    def adjacency(self) -> Tensor:
        """(E, E) in torch's CSR layout, symmetric."""
        rows = Ragged(self._columns(), self.edge_offsets)
        return csr(rows, len(self.items), self.edge_weights)

    def node_owners(self) -> Tensor:
        """(N,) int64, the row of each node's user."""
        return Ragged(self.node_items, self.node_offsets).owners()

    def absent(self) -> Tensor:
        """(N,) int64, how many of its user's `num_baskets` do not hold a node."""
        held = torch.bincount(self.nodes, minlength=len(self.node_items))
        return self.num_baskets()[self.node_owners()] - held

    def _columns(self) -> Tensor:
        baskets, begins = _baskets(self)
        return gather_positions(begins, baskets)[0]


def _histories(batch: BasketBatch) -> dict[str, Any]:
    """The fields that any histories have."""
    return {field.name: getattr(batch, field.name) for field in fields(BasketBatch)}


def _baskets(batch: BasketBatch) -> tuple[Tensor, Tensor]:
    """(E,) int64, each event's basket among the K of all users, and their offsets (K + 1,)."""
    width = batch.baskets.max() + 1 if len(batch.baskets) else 1
    numbers = batch.owners() * width + batch.baskets
    _, baskets, sizes = numbers.unique_consecutive(return_inverse=True, return_counts=True)
    return baskets, offsets_of(sizes)


def _first_of_item(batch: BasketBatch) -> Tensor:
    """(E,) bool, whether an event is its item's first in the basket."""
    key, order = (_baskets(batch)[0] * batch.num_items + batch.items).sort(stable=True)
    first = torch.ones_like(key, dtype=torch.bool)
    first[order[1:]] = key.diff() > 0
    return first


def _pair_counts(batch: BasketBatch, nodes: Tensor, node_offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Edge weights (P,) float32 before they are divided, and the rows' offsets (E + 1,)."""
    baskets, begins = _baskets(batch)
    edge_offsets = offsets_of(begins.diff()[baskets])
    users = edge_offsets[batch.offsets]
    counts = torch.empty(int(users[-1]), device=batch.device)
    widths = node_offsets.diff()
    # A user's nodes as a square table: where each event's row of it begins, and its column.
    owners = batch.owners()
    columns = nodes - node_offsets[owners]
    table = offsets_of(widths.square())
    begin = table[owners] + columns * widths[owners]
    for u, v in _pieces(table + users):
        first, last = batch.offsets[u], batch.offsets[v]
        others, rows = gather_positions(begins, baskets[first:last])
        row = (begin[first:last] - table[u]).repeat_interleave(rows.diff(), output_size=len(others))
        cells = row + columns[others]
        found = torch.bincount(cells)
        found[begin[first:last] - table[u] + columns[first:last]] = 1
        counts[users[u] : users[v]] = found[cells]
    return counts, edge_offsets


def _pieces(costs: Tensor) -> Iterator[tuple[int, int]]:
    """Ranges of users of about the same cost, given as offsets (B + 1,): from, to."""
    changes = (costs[:-1] // _PAIRS_AT_ONCE).diff().nonzero().flatten() + 1
    bounds = [0, *changes.tolist(), len(costs) - 1]
    return pairwise(bounds)
