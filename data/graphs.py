"""The log as PyTorch Geometric sees it: graphs of baskets, and a stream of timed edges."""

from __future__ import annotations

import polars as pl
from torch_geometric.data import Data, TemporalData

from recsys.batch.graphs import GraphBatch
from recsys.tasks.phases import TRAIN
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of


def snapshots(graphs: GraphBatch) -> Data:
    """The graphs of all baskets of all users as one disjoint graph, a vertex per event.

    An edge and its weight are those of `GraphBatch`; they hold the loops already, so a layer adds
    none and does not normalise again: `GCNConv(..., normalize=False)`.

    Returns:
        `edge_index` (2, P) and `edge_weight` (P,); of each vertex (E,) its `item`, the number of
        its basket (`step`) and its `time`, its `user` (-1 where the log knows none), the row of the
        user (`batch`, for pooling), and its `node`: the same in all baskets of a user that hold the
        item, for layers that follow an item through time.
    """
    edge_index, edge_weight = graphs.edges()
    owners = graphs.owners()
    return Data(
        edge_index=edge_index,
        edge_weight=edge_weight,
        num_nodes=len(graphs.items),
        item=graphs.items,
        step=graphs.baskets,
        time=graphs.times,
        user=graphs.users[owners],
        batch=owners,
        node=graphs.nodes,
    )


def temporal_data(split: Split, *, until: int = TRAIN) -> TemporalData:
    """Events as edges from a user to an item, oldest first; equal times in the order of the users.

    Users are the nodes 0 .. U - 1 and items follow them, U + n nodes in all, whichever phases are
    asked for. With `until=TEST` a memory (TGN, ...) is carried through the phases in turn:

        data = temporal_data(split, until=TEST)
        train, validation, test = (data[data.phase == p] for p in (TRAIN, VALIDATION, TEST))

    There the events with `target` are the answers, and the others of their phase are known before
    them. Only `global_time` keeps the phases apart in time: elsewhere a training event may come
    after another user's test target, so train on one phase, then on the next, as above.

    Args:
        split: any.
        until: the last phase whose events are given; the default leaves out every event that
            validation or test asks for.

    Returns:
        `src`, `dst`, `t` (E,) int64, `t` as in `Split.events`; `msg` (E, 1) float32, the quantity;
        `phase` (E,) int64 and `target` (E,) bool.
    """
    events = split.events.filter(pl.col("phase") <= until).sort("time", maintain_order=True)
    return TemporalData(
        src=tensor_of(events["user"]),
        dst=tensor_of(events["item"]) + len(split.users),
        t=tensor_of(events["time"]),
        msg=tensor_of(events["quantity"])[:, None],
        phase=tensor_of(events["phase"]),
        target=tensor_of(events["target"]),
    )
