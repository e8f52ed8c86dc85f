"""DNNTSP against a plain computation with dense graphs, padding and a state per node and step."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys.batch.examples import Part
from recsys.batch.graphs import NodeBatch
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError, DataError
from recsys.models import DNNTSP, GLOIE
from recsys.models.graphs import Autoencoder, Graph
from recsys.models.graphs.dynamic_graph import Timelines, _Aggregate, _Attend, _Convolve, work
from recsys.nn.distributions import TweedieHead
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split

START = Progress(0, 1)

History = list[list[int]]


class Reference(nn.Module):
    """The authors' computation, a user at a time, with the weights of a `DNNTSP`."""

    def __init__(self, model: DNNTSP) -> None:
        super().__init__()
        self.model = model
        attention = model.graph.attention
        self.heads = attention.num_heads
        self.norms = nn.ModuleList()
        for convolution in model.graph.convolutions:
            norm = nn.BatchNorm1d(convolution.linear.out_features, dtype=torch.float64)
            norm.load_state_dict(convolution.norm.state_dict())
            # The same parameters, so that gradients gather in one place.
            norm.weight, norm.bias = convolution.norm.weight, convolution.norm.bias
            self.norms.append(norm)

    def forward(self, histories: list[History]) -> Tensor:
        longest = max(len(history) for history in histories)
        nodes = [sorted({i for basket in h for i in basket}) for h in histories]
        graphs = [padded_graphs(h, n, longest) for h, n in zip(histories, nodes, strict=True)]
        table = self.model.items.weight
        states = [table[n].expand(longest, -1, -1) for n in nodes]
        for convolution, norm in zip(self.model.graph.convolutions, self.norms, strict=True):
            mixed = [convolution.linear(g @ h) for g, h in zip(graphs, states, strict=True)]
            flat = torch.cat([m.flatten(0, 1) for m in mixed])
            parts = norm(flat).relu().split([m.shape[0] * m.shape[1] for m in mixed])
            states = [p.view_as(m) for p, m in zip(parts, mixed, strict=True)]
        rows = zip(histories, nodes, states, strict=True)
        return torch.stack([self.scores(len(h), n, s) for h, n, s in rows])

    def scores(self, num_steps: int, nodes: list[int], states: Tensor) -> Tensor:
        table = self.model.items.vectors
        vectors = list(table)
        for place, item in enumerate(nodes):
            context = self.attend(states[:, place])[:num_steps]
            pooled = (self.model.graph.attention.pooling(context) * context).sum(0)
            gate = self.model.gate[item]
            vectors[item] = (1 - gate) * table[item] + gate * pooled
        return self.model.output(torch.stack(vectors)).squeeze(1)

    def attend(self, steps: Tensor) -> Tensor:
        """(T, D) to (T, D), each step over itself and those before."""
        projected = self.model.graph.attention.projection(steps)
        future = torch.ones(len(steps), len(steps)).triu(1).bool()
        heads = []
        for q, k, v in zip(*[m.chunk(self.heads, 1) for m in projected.chunk(3, 1)], strict=True):
            logits = (q @ k.T / q.shape[1] ** 0.5).masked_fill(future, -torch.inf)
            heads.append(logits.softmax(1) @ v)
        return torch.cat(heads, 1)


def padded_graphs(history: History, nodes: list[int], longest: int) -> Tensor:
    """(T, N, N): of each basket, then identities."""
    pairs = Counter(pair for basket in history for pair in combinations(sorted(set(basket)), 2))
    largest = max([1, *pairs.values()])
    graphs = torch.eye(len(nodes), dtype=torch.float64).repeat(longest, 1, 1)
    for graph, basket in zip(graphs, history, strict=False):
        graph /= largest
        for i, j in combinations(sorted(set(basket)), 2):
            a, b = nodes.index(i), nodes.index(j)
            graph[a, b] = graph[b, a] = pairs[i, j] / largest
    return graphs


def in_double(graphs: Timelines) -> Timelines:
    """With weights that are not rounded to single precision."""
    largest = (1 / graphs.self_weights).round().double()
    owners = graphs.owners()[graphs.edges()[0][0]]
    weights = (graphs.edge_weights * largest[owners]).round() / largest[owners]
    return replace(graphs, edge_weights=weights, self_weights=1 / largest)


def random_histories(seed: int, num_users: int, num_items: int) -> list[History]:
    """1 to 9 baskets of 1 to 4 items that often come back."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    return [
        [
            torch.randperm(num_items, generator=generator)[: draw(1, 5)].tolist()
            for _ in range(draw(1, 10))
        ]
        for _ in range(num_users)
    ]


def model_of(num_items: int, seed: int = 0, scale: float = 1.0) -> DNNTSP:
    """Logits of attention are of the order of `scale` squared."""
    torch.manual_seed(seed)
    model = DNNTSP(num_items, embedding_dim=8, num_heads=2).double()
    with torch.no_grad():
        model.graph.attention.projection.weight *= scale
        for convolution in model.graph.convolutions:
            convolution.norm.weight.uniform_(0.5, 2)
            convolution.norm.bias.normal_()
            convolution.norm.running_mean.normal_()
            convolution.norm.running_var.uniform_(0.5, 2)
    return model


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_scores_loss_gradients_and_statistics_are_those_of_the_plain_computation(
    seed: int, scale: float
) -> None:
    num_items = 12
    histories = random_histories(seed, 6, num_items)
    histories[0] = [[3]]
    histories[1] = [[5, 2]] * 3 + [[7]] + [[2, 5]] * 2
    targets = [[0, 3], [2], [5, 6, 11], [1], [4, 7], [0]]
    labels = torch.stack([torch.eye(num_items)[t].sum(0) for t in targets])

    model = model_of(num_items, seed, scale)
    batch = in_double(Timelines.of(BasketBatch.from_lists(histories, num_items)))
    plain = Reference(deepcopy(model))
    expected = plain(histories)
    loss = nn.MultiLabelSoftMarginLoss()(expected, labels)
    part = Part("train", batch, Ragged.from_lists(targets))
    torch.testing.assert_close(deepcopy(model).score(batch), expected, rtol=1e-5, atol=1e-6)
    ours = model.loss(part, START)
    torch.testing.assert_close(ours, loss)

    values, true = gradients(model, ours), gradients(plain.model, loss)
    assert set(values) == set(true) == {name for name, _ in model.named_parameters()}
    for name, gradient in true.items():
        torch.testing.assert_close(
            values[name], gradient, rtol=1e-5, atol=1e-7, msg=f"gradient of {name}"
        )
    for convolution, norm in zip(model.graph.convolutions, plain.norms, strict=True):
        torch.testing.assert_close(convolution.norm.running_mean, norm.running_mean)
        torch.testing.assert_close(convolution.norm.running_var, norm.running_var)

    with torch.no_grad():
        scores = model.eval().score(batch)
        torch.testing.assert_close(scores, plain.eval()(histories), rtol=1e-5, atol=1e-6)


def test_the_ways_back_that_are_written_out_agree_with_differences() -> None:
    torch.manual_seed(0)
    graphs = in_double(Timelines.of(BasketBatch.from_lists(random_histories(2, 3, 5), 5)))
    num_rows, dim, num_heads = len(graphs.state_counts), 4, 2
    share = graphs.state_counts.double() / graphs.num_states

    def convolve(*inputs: Tensor) -> Tensor:
        return _Convolve.apply(graphs.spread, share, *inputs, 1e-5)[0]

    def attend(states: Tensor, weight: Tensor, pooling: Tensor) -> Tensor:
        return _Aggregate.apply(*_Attend.apply(states, weight, num_heads, graphs), pooling, graphs)

    convolved = [(len(graphs.node_items), dim), (dim, dim), dim, dim, dim]
    attended = [(num_rows, dim), (3 * dim, dim), (num_heads, dim // num_heads)]
    for function, sizes in ((convolve, convolved), (attend, attended)):
        inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
        assert torch.autograd.gradcheck(function, inputs)


def test_a_user_without_history_gets_the_items_own_scores_and_changes_nothing() -> None:
    model = model_of(12)
    histories = random_histories(0, 4, 12)
    expected = deepcopy(model).score(BasketBatch.from_lists(histories, 12))
    with_newcomers = BasketBatch.from_lists([[], *histories[:2], [], *histories[2:]], 12)
    scores = model.score(with_newcomers)
    torch.testing.assert_close(scores[[1, 2, 4, 5]], expected)
    item_scores = model.output(model.items.vectors).squeeze(1)
    torch.testing.assert_close(scores[[0, 3]], item_scores.expand(2, -1))


def test_an_item_twice_in_a_basket_counts_once() -> None:
    model = model_of(6).eval()
    twice = BasketBatch.from_lists([[[1, 2, 1], [2]], [[3, 3]]], 6)
    once = BasketBatch.from_lists([[[1, 2], [2]], [[3]]], 6)
    torch.testing.assert_close(model.score(twice), model.score(once))


def test_batches_of_prepared_users_are_those_of_their_histories(
    split_of: Callable[[list[History], int], Split],
) -> None:
    histories = random_histories(1, 9, 10)
    split = split_of([[*history, [0]] for history in histories], 10)
    model = model_of(10)
    part = model.prepare(split)
    for rows in (torch.tensor([4, 2, 7]), torch.arange(9)):
        batch = part.rows(rows)
        assert Timelines.of(batch.history) is batch.history
        plain = BasketBatch.from_lists([histories[row] for row in rows], 10)
        torch.testing.assert_close(
            deepcopy(model).score(batch.history), deepcopy(model).score(plain)
        )


def build(kind: str, num_items: int, **options: Any) -> DNNTSP | GLOIE:
    """A model with the graph, ready to score."""
    torch.manual_seed(0)
    if kind == "DNNTSP":
        return DNNTSP(num_items, embedding_dim=8, num_heads=2, **options).eval()
    autoencoder = Autoencoder(TweedieHead(), latent_dim=4)
    graph = Graph(num_heads=2, **options)
    return GLOIE(num_items, autoencoder=autoencoder, embedding_dim=8, graph=graph).eval()


def long_histories() -> list[History]:
    """300 events: of one item that is always there, in one basket, and as usual."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randint(6, (150, 2), generator=generator)
    return [[[3]] * 300, [list(range(300))], [sorted(set(b)) for b in mixed.tolist()], [[1], [2]]]


@pytest.mark.parametrize("kind", ["DNNTSP", "GLOIE"])
def test_of_long_histories_the_latest_events_are_read(
    kind: str, split_of: Callable[..., Split], caplog: pytest.LogCaptureFixture
) -> None:
    histories = long_histories()
    split = split_of([[*history, [0]] for history in histories[:3]], 300)
    model = build(kind, 300, max_events=20)
    whole = BasketBatch.from_lists(histories, 300)
    torch.testing.assert_close(model.score(whole), model.score(whole.latest(20)))
    assert not torch.allclose(model.score(whole), build(kind, 300).score(whole))
    part = model.prepare(split)
    assert [record.message for record in caplog.records] == [
        f"{kind} reads the latest 20 events of 3 training users who have more; "
        "model.max_events says how many"
    ]
    batch = part.rows(torch.arange(len(part)))
    nodes = NodeBatch.of(batch.history)
    # At most 20 events each: squares of 20 edges, pairs and steps, and a little more.
    assert len(nodes.items) <= 20 * len(nodes)
    assert (work(nodes).amax(1) <= torch.tensor([20**2, 20 * 21, 20**2])).all()
    assert model.loss(batch, START).isfinite()


def test_work_is_that_of_what_is_computed() -> None:
    for history in (*long_histories(), *random_histories(3, 8, 9)):
        graphs = Timelines.of(BasketBatch.from_lists([history], 300))
        edges, pairs, steps = work(graphs)[:, 0].tolist()
        assert edges == len(graphs.edge_weights)
        assert len(graphs.pairs[0]) <= pairs
        assert len(graphs.steps[0]) <= steps


@pytest.mark.parametrize("kind", ["DNNTSP", "GLOIE"])
def test_users_are_scored_a_few_at_a_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(kind, 300)
    histories = [*long_histories(), [], *random_histories(2, 6, 300)]
    batch = BasketBatch.from_lists(histories, 300)
    whole = model.score(batch)
    sizes: list[int] = []
    timelines_of = Timelines.of
    monkeypatch.setattr(Timelines, "of", lambda b: (sizes.append(len(b)), timelines_of(b))[1])
    for limit in (1, 50_000, 2**28):
        monkeypatch.setattr("recsys.models.graphs.dynamic_graph.BYTES_AT_ONCE", limit)
        sizes.clear()
        torch.testing.assert_close(model.score(batch), whole)
        assert (max(sizes) < len(batch)) == (limit < 2**28)
    assert model.score(batch.rows(torch.arange(0))).shape == (0, 300)


@pytest.mark.parametrize("kind", ["DNNTSP", "GLOIE"])
def test_a_batch_that_memory_would_not_hold(
    kind: str, split_of: Callable[..., Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(kind, 3)
    split = split_of([[[1]] * 1500, [[1], [2]]], 3)
    part = model.prepare(split)
    monkeypatch.setattr("recsys.memory.available_memory", lambda: 2**28)
    monkeypatch.setattr("recsys.memory.LITTLE", 2**28)
    message = r"a batch of 2 users with 2,\d+,\d+ pairs .* 0\.2 GiB are free; lower trainer.batch_s"
    with pytest.raises(DataError, match=message):
        model.loss(part.rows(torch.arange(2)), START)


def test_a_history_has_an_event() -> None:
    for kind in ("DNNTSP", "GLOIE"):
        with pytest.raises(ConfigError, match="max_events=0: expected at least 1"):
            build(kind, 3, max_events=0)


def test_heads_that_do_not_divide_the_dimension() -> None:
    with pytest.raises(ConfigError, match="num_heads=3 does not divide embedding_dim=8"):
        DNNTSP(6, embedding_dim=8, num_heads=3)


def test_the_learning_rate_falls_when_the_loss_does_not() -> None:
    configured = DNNTSP(5, learning_rate=0.5).optimizer(num_steps=100)
    (group,) = configured["optimizer"].param_groups
    scheduler = configured["lr_scheduler"]["scheduler"]
    for _ in range(11):
        scheduler.step(1.0)
        assert group["lr"] == 0.5
    scheduler.step(1.0)
    assert group["lr"] == pytest.approx(0.05)
