"""Graphs and timed edges, run through PyTorch Geometric's own layers and loader."""

from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.loader import TemporalDataLoader
from torch_geometric.nn import GCNConv, GraphConv, TGNMemory, global_add_pool
from torch_geometric.nn.models.tgn import IdentityMessage, LastAggregator

from recsys import Split
from recsys.batch.graphs import GraphBatch
from recsys.batch.histories import BasketBatch
from recsys.data import snapshots, temporal_data
from recsys.tasks.phases import NEVER, TEST, TRAIN, VALIDATION
from recsys.tasks.splits import global_time, last_basket, user_holdout
from recsys.testing.logs import checkerboard

N = 6
histories = st.lists(
    st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=4), max_size=4), max_size=4
)


@pytest.fixture(scope="module")
def split() -> Split:
    return global_time(checkerboard(), validation_start="2024-01-05", test_start="2024-01-06")


@given(histories)
def test_layers_sum_over_neighbours_as_the_adjacency_does(users: list[list[list[int]]]) -> None:
    graphs = GraphBatch.of(BasketBatch.from_lists(users, N))
    data = snapshots(graphs)
    assert data.validate()
    features = torch.randn(len(graphs.items), 3)
    expected = graphs.adjacency() @ features
    gcn = GCNConv(3, 4, normalize=False, bias=False)
    output = gcn(features, data.edge_index, data.edge_weight)
    torch.testing.assert_close(output, expected @ gcn.lin.weight.T)
    conv = GraphConv(3, 4, bias=False)
    output = conv(features, data.edge_index, data.edge_weight)
    itself = features @ conv.lin_root.weight.T
    torch.testing.assert_close(output, expected @ conv.lin_rel.weight.T + itself)


def test_vertices_know_their_item_basket_user_and_node() -> None:
    batch = BasketBatch.from_lists([[[3, 1], [1]], [], [[1]]], N)
    batch.users[:] = torch.tensor([7, 8, 9])
    batch.times[:] = torch.tensor([50, 50, 60, 40])
    data = snapshots(GraphBatch.of(batch))
    assert data.num_nodes == 4
    assert data.item.tolist() == [3, 1, 1, 1]
    assert data.step.tolist() == [0, 0, 1, 0]
    assert data.time.tolist() == [50, 50, 60, 40]
    assert data.user.tolist() == [7, 7, 7, 9]
    assert data.node.tolist() == [1, 0, 0, 2]
    assert global_add_pool(torch.ones(4, 1), data.batch).flatten().tolist() == [3, 0, 1]
    assert data.has_self_loops()
    assert data.is_undirected()


def rows_of(split: Split, phases: list[int]) -> list[tuple]:
    events = split.events.filter(pl.col("phase").is_in(phases))
    rows = events.select("time", "user", "item", "quantity", "phase", "target").rows()
    return sorted(rows, key=lambda row: row[0])


@pytest.mark.parametrize(
    ("until", "phases"), [(TRAIN, [0]), (VALIDATION, [0, 1]), (TEST, [0, 1, 2]), (NEVER, range(4))]
)
def test_edges_are_the_events_of_the_phases_asked_for(
    split: Split, until: int, phases: list[int]
) -> None:
    data = temporal_data(split, until=until)
    columns = (data.t, data.src, data.dst - len(split.users), data.msg[:, 0], data.phase)
    rows = zip(*(column.tolist() for column in (*columns, data.target)), strict=True)
    assert list(rows) == rows_of(split, list(phases))


@pytest.mark.parametrize(
    "splitter",
    [
        last_basket,
        lambda log: user_holdout(log, column="colour"),
        lambda log: global_time(log, validation_start="2024-01-05", test_start="2024-01-06"),
    ],
    ids=["last_basket", "user_holdout", "global_time"],
)
def test_by_default_no_event_is_one_that_is_asked_for(splitter: Callable) -> None:
    log = checkerboard()
    parts = pl.Series(["train", "validation", "test"])
    colour = parts.gather(pl.Series(range(len(log.users))) % 3)
    split = splitter(replace(log, users=log.users.with_columns(colour=colour)))
    data, training = temporal_data(split), split.training
    assert set(data.phase.tolist()) == {TRAIN}
    pairs = sorted(zip(data.src.tolist(), (data.dst - len(split.users)).tolist(), strict=True))
    owners = training.users[training.owners()].tolist()
    assert pairs == sorted(zip(owners, training.items.tolist(), strict=True))


def test_a_memory_is_carried_through_the_phases(split: Split) -> None:
    data = temporal_data(split, until=TEST)
    num_nodes = len(split.users) + split.num_items
    memory = TGNMemory(num_nodes, 1, 4, 4, IdentityMessage(1, 4, 4), LastAggregator())
    last = torch.full((num_nodes,), -1)
    for phase in (TRAIN, VALIDATION, TEST):
        part = data[data.phase == phase]
        num_events = 0
        for batch in TemporalDataLoader(part, batch_size=50, neg_sampling_ratio=1.0):
            assert (batch.neg_dst >= len(split.users)).all()
            assert batch.n_id.max() < num_nodes
            vectors, _ = memory(batch.n_id)
            assert vectors.shape == (len(batch.n_id), 4)
            assert vectors.isfinite().all()
            memory.update_state(batch.src, batch.dst, batch.t, batch.msg)
            memory.detach()
            num_events += len(batch)
        assert num_events == len(part)
        for nodes in (part.src, part.dst):
            last[nodes] = part.t  # in order, so the latest stays
    node_ids = torch.arange(num_nodes)
    assert (memory(node_ids)[1][last >= 0] == last[last >= 0]).all()
