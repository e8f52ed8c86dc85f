"""GraphBatch against graphs that plain Python builds from dictionaries of pair counts."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import recsys.batch.graphs
from recsys.batch.graphs import GraphBatch
from recsys.batch.histories import BasketBatch
from recsys.errors import DataError

N = 6
History = list[list[int]]
histories = st.lists(
    st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=4), max_size=5), max_size=5
)


def graphs_of(users: list[History], device: str = "cpu") -> GraphBatch:
    return GraphBatch.of(BasketBatch.from_lists(users, N).to(device))


def without_repeats(users: list[History]) -> list[History]:
    return [[list(dict.fromkeys(basket)) for basket in user] for user in users]


def pair_weights(user: History) -> tuple[dict[tuple[int, int], float], float]:
    """What each pair of different items weighs, and an item with itself."""
    counts = Counter(pair for basket in user for pair in combinations(sorted(set(basket)), 2))
    largest = max([1, *counts.values()])
    return {pair: count / largest for pair, count in counts.items()}, 1 / largest


def same(left: GraphBatch, right: GraphBatch) -> None:
    assert left.num_items == right.num_items
    assert type(left) is type(right) is GraphBatch
    for name, tensor in vars(left).items():
        if name != "num_items":
            other = getattr(right, name)
            torch.testing.assert_close(tensor, other, rtol=0, atol=0, equal_nan=True)


@given(histories)
def test_an_item_is_in_a_basket_once_and_the_first_event_stays(users: list[History]) -> None:
    batch = BasketBatch.from_lists(users, N)
    batch.quantities[:] = torch.arange(len(batch.items))
    graphs = GraphBatch.of(batch)
    once = BasketBatch.from_lists(without_repeats(users), N)
    for name in ("items", "baskets", "times", "offsets", "users"):
        assert getattr(graphs, name).tolist() == getattr(once, name).tolist()
    places = [b.index(i) for user in users for b in user for i in dict.fromkeys(b)]
    begins = torch.tensor([len(b) for user in users for b in user], dtype=torch.int64)
    sizes = torch.tensor([len(set(b)) for user in users for b in user], dtype=torch.int64)
    first = (begins.cumsum(0) - begins).repeat_interleave(sizes)
    assert graphs.quantities.tolist() == (first + torch.tensor(places)).tolist()


@given(histories)
def test_nodes_are_the_distinct_items_of_each_user(users: list[History]) -> None:
    graphs = graphs_of(users)
    distinct = [sorted({i for basket in user for i in basket}) for user in users]
    assert graphs.node_items.tolist() == [i for items in distinct for i in items]
    assert graphs.node_offsets.diff().tolist() == [len(items) for items in distinct]
    assert graphs.node_offsets[0] == 0
    assert graphs.node_items[graphs.nodes].tolist() == graphs.items.tolist()
    assert graphs.node_owners()[graphs.nodes].tolist() == graphs.owners().tolist()


@given(histories)
def test_weights_are_the_pair_counts_of_a_loop(users: list[History]) -> None:
    graphs = graphs_of(users)
    users = without_repeats(users)
    expected: dict[tuple[int, int], float] = {}
    edge_weights: list[float] = []
    sizes, event = [], 0
    for user in users:
        weights, itself = pair_weights(user)
        edge_weights.append(itself)
        for basket in user:
            for a, i in enumerate(basket):
                for b, j in enumerate(basket):
                    weight = itself if i == j else weights[min(i, j), max(i, j)]
                    expected[event + a, event + b] = weight
            event += len(basket)
            sizes += [len(basket)] * len(basket)
    index, weights = graphs.edges()
    weight_of = dict(zip(map(tuple, index.T.tolist()), weights.tolist(), strict=True))
    assert list(weight_of) == list(expected)
    assert list(weight_of.values()) == pytest.approx(list(expected.values()))
    assert graphs.edge_offsets.diff().tolist() == sizes
    assert graphs.self_weights.tolist() == pytest.approx(edge_weights)


@given(histories)
def test_adjacency_is_the_matrix_of_the_edges(users: list[History]) -> None:
    graphs = graphs_of(users)
    (rows, columns), weights = graphs.edges()
    expected = torch.zeros(len(graphs.items), len(graphs.items))
    expected[rows, columns] = weights
    matrix = graphs.adjacency()
    assert matrix.layout == torch.sparse_csr
    dense = matrix.to_dense()
    torch.testing.assert_close(dense, expected, rtol=0, atol=0)
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=0)


@given(histories)
def test_absent_baskets_are_those_that_do_not_hold_a_node(users: list[History]) -> None:
    expected = [
        sum(item not in basket for basket in user)
        for user in users
        for item in sorted({i for basket in user for i in basket})
    ]
    assert graphs_of(users).absent().tolist() == expected


def test_a_basket_whose_events_are_gone_is_one_without_the_node() -> None:
    batch = BasketBatch.from_lists([[[0, 1], [2], [0]]], N)
    graphs = GraphBatch.of(batch.where(batch.items != 2))
    assert graphs.node_items.tolist() == [0, 1]
    assert graphs.absent().tolist() == [1, 2]


def test_weights_of_a_history_by_hand() -> None:
    graphs = graphs_of([[[4, 1], [1, 4, 2, 1], [4]], [], [[3]]])
    assert graphs.items.tolist() == [4, 1, 1, 4, 2, 4, 3]
    assert graphs.nodes.tolist() == [2, 0, 0, 2, 1, 2, 3]
    assert graphs.node_offsets.tolist() == [0, 3, 3, 4]
    assert graphs.self_weights.tolist() == [0.5, 1, 1]
    first, second, third = [[0.5, 1], [1, 0.5]], [[0.5, 1, 0.5], [1, 0.5, 0.5], [0.5] * 3], [[0.5]]
    expected = torch.block_diag(*map(torch.tensor, (first, second, third, [[1.0]])))
    assert graphs.adjacency().to_dense().tolist() == expected.tolist()


@given(histories.filter(len), st.data())
def test_rows_of_graphs_are_graphs_of_rows(users: list[History], data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(users) - 1), max_size=7))
    rows = torch.tensor(index, dtype=torch.int64)
    batch = BasketBatch.from_lists(users, N)
    same(GraphBatch.of(batch).rows(rows), GraphBatch.of(batch.rows(rows)))


@given(histories)
def test_graphs_of_graphs_and_on_a_device_stay(users: list[History]) -> None:
    graphs = graphs_of(users)
    assert GraphBatch.of(graphs) is graphs
    same(graphs.to("cpu"), graphs)


@given(histories, st.integers(1, 3))
def test_events_that_are_left_out_take_the_graphs_with_them(
    users: list[History], count: int
) -> None:
    graphs = graphs_of(users)
    last = graphs.last(count)
    assert type(last) is BasketBatch
    expected = BasketBatch.from_lists(without_repeats(users), N).last(count)
    assert last.items.tolist() == expected.items.tolist()
    assert last.baskets.tolist() == expected.baskets.tolist()


@pytest.mark.parametrize("pairs", [1, 10, 40])
def test_users_are_counted_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    users = [[[0, 1], [1, 2, 0]], [], [[3, 4]] * 3, [[5]], [], [[0, 5, 2]], []]
    whole = graphs_of(users)
    monkeypatch.setattr(recsys.batch.graphs, "_PAIRS_AT_ONCE", pairs)
    same(graphs_of(users), whole)


def test_of_a_longer_history_the_latest_events_are_left_without_graphs() -> None:
    batch = BasketBatch.from_lists([[[0, 1], [1], [2, 1]], [[3]]], 4)
    graphs = GraphBatch.of(batch)
    assert graphs.latest(5) is graphs
    for cut in (graphs.latest(3), batch.latest(3)):
        assert type(cut) is BasketBatch
        assert cut.items.tolist() == [1, 2, 1, 3]
        assert cut.baskets.tolist() == [0, 1, 1, 0]


def test_graphs_that_memory_would_not_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.memory.available_memory", lambda: 2**31)
    baskets = [[list(range(50_000))], [[0], [1]]]
    message = r"2 users with 2,500,000,002 pairs .* take 47 GiB .* 2\.0 GiB are free; .*max_events"
    with pytest.raises(DataError, match=message):
        GraphBatch.of(BasketBatch.from_lists(baskets, 50_000))
    GraphBatch.of(BasketBatch.from_lists(baskets, 50_000).latest(1000))


def test_pieces_are_of_users_with_about_the_same_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recsys.batch.graphs, "_PAIRS_AT_ONCE", 5)
    costs = torch.tensor([3, 0, 6, 1, 2, 18, 0])
    pieces = recsys.batch.graphs._pieces(torch.nn.functional.pad(costs.cumsum(0), (1, 0)))
    assert list(pieces) == [(0, 3), (3, 4), (4, 6), (6, 7)]


@pytest.mark.gpu
def test_a_gpu_builds_the_same_graphs() -> None:
    users = [[[0, 1], [1, 2, 0, 0]], [], [[3, 4]] * 3, [[5]]]
    graphs = graphs_of(users, device="cuda")
    same(graphs.to("cpu"), graphs_of(users))
    rows = torch.tensor([2, 0, 1, 0])
    same(graphs.rows(rows.cuda()).to("cpu"), graphs_of(users).rows(rows))
    dense = graphs_of(users).adjacency().to_dense()
    assert graphs.adjacency().to_dense().cpu().tolist() == dense.tolist()
    assert graphs.absent().tolist() == graphs_of(users).absent().tolist()
