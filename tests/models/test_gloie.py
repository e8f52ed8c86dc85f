"""GLOIE against a loop over users and items, its features by hand, and its one item table."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.batch.examples import Part, Prefixes
from recsys.batch.graphs import NodeBatch
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.evaluation.metrics import ndcg
from recsys.evaluation.ranking import Protocol
from recsys.models import GLOIE
from recsys.models.factors.count_vae import CountVAE
from recsys.models.graphs.dynamic_graph import Timelines
from recsys.models.graphs.gloie import (
    UNSEEN,
    Alike,
    AlikeUsers,
    Autoencoder,
    Frequency,
    Graph,
    Join,
    PersonalFrequency,
    Ranking,
)
from recsys.scoring import saved_model
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

START = Progress(0, 1)

History = list[list[int]]
N = 7
# One basket; items that come back and one twice in a basket; no history; one event.
HISTORIES: list[History] = [[[3, 1]], [[0, 2], [2, 5, 2], [0], [5, 6, 2]], [], [[4]]]


SECTIONS = {
    "autoencoder": Autoencoder,
    "graph": Graph,
    "join": Join,
    "ranking": Ranking,
    "alike": Alike,
    "frequency": Frequency,
}


def config_of(num_items: int = N, **options: Any) -> dict[str, Any]:
    """Each option in the section that has it."""
    head = {"_target_": "recsys.nn.TweedieHead"}
    settings = {"embedding_dim": 8, "latent_dim": 4, "num_heads": 2, "head": head} | options
    config: dict[str, Any] = {"_target_": "recsys.models.GLOIE", "num_items": num_items}
    for name, kind in SECTIONS.items():
        inner = {f.name: settings.pop(f.name) for f in fields(kind) if f.name in settings}
        config[name] = {"_target_": f"recsys.models.graphs.{kind.__name__}", **inner}
    return config | settings


def model_of(num_items: int = N, **options: Any) -> GLOIE:
    """Nothing in it is still at a start that hides a mistake."""
    torch.manual_seed(0)
    model = saved_model.build(config_of(num_items, **options))
    assert isinstance(model, GLOIE)
    with torch.no_grad():
        for parameter in (model.output, model.bias, model.vae.item_bias, model.vae.input_bias):
            parameter.normal_()
    return model


def part_of(histories: list[History], targets: list[list[int]]) -> Part:
    return Part("train", BasketBatch.from_lists(histories, N), Ragged.from_lists(targets))


def join(model: GLOIE, embeddings: list[Tensor]) -> Tensor:
    """One vector (D,) of one or two."""
    if model.attention is None:
        return sum(embeddings, torch.zeros(8)) / len(embeddings)
    key, query = model.attention.key, model.attention.query.weight[0]
    logits = [(query * torch.tanh(key.weight @ e + key.bias)).sum() for e in embeddings]
    total = sum(logit.exp() for logit in logits)
    return sum((w.exp() / total * e for w, e in zip(logits, embeddings, strict=True)), start=0)


def plain_scores(model: GLOIE, histories: list[History]) -> Tensor:
    """A user and an item at a time, given what the autoencoder and the dynamic graph say."""
    batch = BasketBatch.from_lists(histories, N)
    table, hidden = model.vae.items.vectors, model.vae.hidden(batch)
    nodes: list[Tensor] = []
    if model.local is not None:
        nodes = list(model.local.graph(model.vae.items, Timelines.of(batch)))
    scores = torch.zeros(len(histories), N)
    for user, history in enumerate(histories):
        items = {item for basket in history for item in basket}
        for item in range(N):
            global_embedding = hidden[user] * table[item]
            embedding = global_embedding if model.use_global else table[item]
            if item in items and model.local is not None:
                gate = model.local.gate[item]
                local = (1 - gate) * table[item] + gate * nodes.pop(0)
                embedding = join(model, [global_embedding, local] if model.use_global else [local])
            scores[user, item] = (model.output * embedding).sum() + model.bias[item]
    assert not nodes
    return scores


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": False},
        {"use_local": False},
        {"use_global": False},
        {"use_global": False, "attention": False},
    ],
)
def test_scores_are_those_of_the_formulas(options: dict[str, bool]) -> None:
    model = model_of(**options).eval()
    with torch.no_grad():
        scores = model.score(BasketBatch.from_lists(HISTORIES, N))
        torch.testing.assert_close(scores, plain_scores(model, HISTORIES))


@pytest.mark.parametrize("calendar", [False, True])
def test_the_personal_scorer_adds_to_items_of_the_history_alone(calendar: bool) -> None:
    model = model_of(personal=True, calendar=calendar).eval()
    batch = BasketBatch.from_lists(HISTORIES, N)
    assert model.personal is not None
    model.personal.mean.normal_()
    model.personal.std.uniform_(0.5, 2)
    with torch.no_grad():
        expected = plain_scores(model, HISTORIES)
        nodes = NodeBatch.of(batch)
        places = (nodes.node_owners(), nodes.node_items)
        features = (model.personal.features(nodes) - model.personal.mean) / model.personal.std
        for user, item, feature in zip(*places, features, strict=True):
            score = expected[user, item].clone()
            expected[user, item] += model.personal.perceptron(torch.cat([feature, score[None]]))[0]
        torch.testing.assert_close(model.score(batch), expected)


def test_an_item_outside_the_history_scores_by_its_global_embedding_in_any_order() -> None:
    model = model_of(decay=1.0, personal=True).eval()
    orders = [[[0, 2], [2, 5], [1]], [[1], [5, 2], [2, 0]], [[2, 5], [1], [0, 2]]]
    batch = BasketBatch.from_lists(orders, N)
    with torch.no_grad():
        scores = model.score(batch)
        outside, inside = [3, 4, 6], [0, 1, 2]
        vectors = model.vae.hidden(batch)[0] * model.vae.items.vectors[outside]
        expected = vectors @ model.output + model.bias[outside]
    torch.testing.assert_close(scores[:, outside], expected.expand(3, -1))
    assert not torch.isclose(scores[0, inside], scores[1, inside]).any()


def test_the_order_within_a_basket_and_repeats_there_change_a_personal_score_by_nothing() -> None:
    model = model_of(use_global=False, personal=True).eval()
    one, other = [[[0, 2], [2, 5, 1]]], [[[2, 0], [1, 2, 1, 5]]]
    with torch.no_grad():
        scores = [model.score(BasketBatch.from_lists(users, N)) for users in (one, other)]
    torch.testing.assert_close(*scores)


def test_features_worked_by_hand() -> None:
    """Items 0, 1 and 2 of a user with four baskets and five events."""
    history = [[0, 1], [0], [2], [0]]
    nodes = NodeBatch.of(BasketBatch.from_lists([[], history], N))
    features = PersonalFrequency(N).features(nodes)
    frequencies = [
        [d**3 + d**2 + 1, d**3, d**1] for d in (0.3, 0.6, 0.8, 0.9, 0.97, 1.0)
    ]  # items 0, 1, 2: three, two and no baskets ago; three; one
    expected = [
        *frequencies,
        [1, 4, 2],  # baskets since the last, this one too
        [1 / 1.5, 4 / 4, 2 / 4],  # relative to the mean gap; to all baskets where it came once
        [4, 4, 4],
        [5 / 4] * 3,
    ]
    logs = torch.tensor(expected).log().T
    torch.testing.assert_close(features[:, :-1], logs)
    torch.testing.assert_close(features[:, -1], torch.full((3,), 3 / 5))


def test_calendar_features_worked_by_hand() -> None:
    """Days before the last basket: 20, 10 and 0 of item 0; 20 of item 1; 7 of item 2."""
    batch = BasketBatch.from_lists([[[0, 1], [0], [2], [0]]], N)
    days = torch.tensor([0, 0, 10, 13, 20])
    times = 1_700_000_000 + 86400 * days
    nodes = NodeBatch.of(replace(batch, times=times, users=torch.tensor([0])))
    features = PersonalFrequency(N, calendar=True).features(nodes)
    torch.testing.assert_close(features[:, :-4], PersonalFrequency(N).features(nodes))
    ages = [[20, 10, 0], [20], [7]]
    frequencies = [
        [sum(math.exp(-age / rate) for age in of_item) for rate in (7, 30, 90)] for of_item in ages
    ]
    torch.testing.assert_close(features[:, -4:-1], torch.tensor(frequencies).log())
    torch.testing.assert_close(features[:, -1], torch.tensor([1.0, 21.0, 8.0]).log())


def test_frequencies_by_what_a_basket_weighs_in_ndcg_worked_by_hand() -> None:
    """Baskets of three items, two and one: at k = 2 these weigh 1 / IDCG@2, so much and 1."""
    history = [[0, 1, 2], [0, 1], [0]]
    nodes = NodeBatch.of(BasketBatch.from_lists([history], N))
    features = PersonalFrequency(N, ndcg_at=2).features(nodes)
    assert features.shape[1] == len(PersonalFrequency(N, ndcg_at=2).mean)
    g = 1 / (1 + 1 / math.log2(3))
    frequencies = [
        [g * d**2 + g * d + 1, g * d**2 + g * d, g * d**2] for d in (0.3, 0.6, 0.8, 0.9, 0.97, 1.0)
    ]
    torch.testing.assert_close(features[:, -6:], torch.tensor(frequencies).log().T)
    torch.testing.assert_close(features[:, :-6], PersonalFrequency(N).features(nodes))


def test_a_frequency_that_has_decayed_to_nothing_stays_finite() -> None:
    nodes = NodeBatch.of(BasketBatch.from_lists([[[0], *[[1]] * 200]], N))
    features = PersonalFrequency(N).features(nodes)
    assert features[0, 0] == -6
    assert features.isfinite().all()


@settings(max_examples=30)
@given(st.lists(st.lists(st.lists(st.integers(0, N - 1), min_size=1), max_size=6), max_size=4))
def test_features_are_finite_and_the_users_own(histories: list[History]) -> None:
    personal = PersonalFrequency(N, calendar=True)
    nodes = NodeBatch.of(BasketBatch.from_lists(histories, N))
    features = personal.features(nodes)
    assert features.shape == (len(nodes.node_items), len(personal.mean))
    assert features.isfinite().all()
    alone = [personal.features(NodeBatch.of(BasketBatch.from_lists([h], N))) for h in histories]
    torch.testing.assert_close(features, torch.cat([features[:0], *alone]))


def test_features_are_standardised_by_the_training_histories(
    split_of: Callable[[list[History], int], Split],
) -> None:
    split = split_of([[[0, 1], [0], [2], [0], [1]], [[3], [3, 4], [5]], [[6], [0]]], N)
    model = model_of(personal=True)
    model.prepare(split)
    assert model.personal is not None
    features = model.personal.features(NodeBatch.of(split.train.history))
    scaled = (features - model.personal.mean) / model.personal.std
    torch.testing.assert_close(scaled.mean(0), torch.zeros(features.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(features.shape[1]))


def test_an_items_own_response_by_hand() -> None:
    """Two items of one basket have the same features, and differ by their vectors alone."""
    torch.manual_seed(0)
    personal = PersonalFrequency(N, item_dim=2)
    shared = PersonalFrequency(N)
    shared.perceptron.load_state_dict(personal.perceptron.state_dict())
    nodes = NodeBatch.of(BasketBatch.from_lists([[[1, 4], [1, 4]]], N))
    scores = torch.tensor([0.3, 0.3])
    with torch.no_grad():
        added = personal.eval()(nodes, scores) - shared.eval()(nodes, scores)
        assert personal.response is not None
        inputs = torch.cat([personal.features(nodes)[0], scores[:1]])
        response = torch.tanh(personal.response.weight @ inputs + personal.response.bias)
    torch.testing.assert_close(added, personal.items[[1, 4]].detach() @ response)
    assert added[0] != added[1]


def test_a_feature_that_no_training_history_varies_in_is_not_blown_up(
    split_of: Callable[[list[History], int], Split],
) -> None:
    split = split_of([[[0, 1], [0]], [[3, 4], [5]]], N)  # histories of one basket of two items
    model = model_of(personal=True)
    model.prepare(split)
    assert model.personal is not None
    long = NodeBatch.of(BasketBatch.from_lists([[[0], [1, 2]] * 20], N))
    scaled = (model.personal.features(long) - model.personal.mean) / model.personal.std
    assert scaled.abs().max() < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_global": False, "use_local": False}, "use_local=false leave no embedding; use one"),
        (
            {"calendar": True},
            "calendar=true adds to personal=true, which is false; .*, or calendar=false",
        ),
        ({"item_dim": 4}, "item_dim=4 adds to personal=true, which is false; .*, or item_dim=0"),
        ({"personal": True, "item_dim": -1}, "item_dim=-1: expected at least 0"),
        ({"ndcg_at": 10}, "ndcg_at=10 weighs the targets of softmax=true, .*, or ndcg_at=null"),
        ({"softmax": True, "ndcg_at": 0}, "ndcg_at=0: expected at least 1"),
        ({"num_targets": 0}, "num_targets=0: expected at least 1"),
        ({"num_examples": 0}, "num_examples=0: expected at least 1"),
        ({"localities": [1, 0]}, "localities=0: expected above 0"),
        ({"asymmetry": 2.0}, "asymmetry=2.0"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_of(**options)


def test_days_of_a_log_that_knows_only_an_order(
    split_of: Callable[[list[History], int], Split],
) -> None:
    model = model_of(personal=True, calendar=True)
    with pytest.raises(ConfigError, match="calendar=true: log has no dates; set calendar=false"):
        model.prepare(split_of(BASKETS, N))


BASKETS: list[History] = [[[0], [1]], [[1], [0], [1, 2]], [[4]]]  # the last user is never asked


@pytest.mark.parametrize(("num_targets", "asked"), [(2, [0, 1, 1]), (None, [0, 1, 1])])
def test_it_trains_on_more_than_the_last_basket(
    split_of: Callable[[list[History], int], Split], num_targets: int | None, asked: list[int]
) -> None:
    split = split_of(BASKETS, N)
    part = model_of(num_targets=num_targets).prepare(split)
    assert isinstance(part, Prefixes)
    assert part.owners.tolist() == asked
    assert part.history is split.training


@pytest.mark.parametrize(("use_local", "kind"), [(True, Timelines), (False, NodeBatch)])
def test_it_trains_on_the_last_basket_with_nodes_counted_once(
    split_of: Callable[[list[History], int], Split], use_local: bool, kind: type
) -> None:
    split = split_of(BASKETS, N)
    model = model_of(use_local=use_local)
    part = model.prepare(split)
    assert part.target is split.train.target
    assert type(part.history) is kind
    plain = replace(part, history=split.train.history)
    losses = []
    for asked in (part, plain):
        torch.manual_seed(1)
        losses.append(model.loss(asked.rows(torch.tensor([1, 0])), START))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    ("latest", "counts", "baskets"),
    [
        (False, [2, 3, 1, UNSEEN, 1, UNSEEN, UNSEEN], 6),
        (True, [UNSEEN, 2, 1, UNSEEN, UNSEEN, UNSEEN, UNSEEN], 2),
    ],
)
def test_the_bias_starts_at_the_share_of_baskets(
    split_of: Callable[[list[History], int], Split],
    latest: bool,
    counts: list[float],
    baskets: int,
) -> None:
    model = model_of(latest_popularity=latest)
    model.prepare(split_of(BASKETS, N))
    torch.testing.assert_close(model.bias.detach(), (torch.tensor(counts) / baskets).log())


def test_the_loss_is_the_ranking_loss_and_a_share_of_the_autoencoders() -> None:
    part = part_of(HISTORIES, [[0], [2, 5], [1], [4, 6]])
    losses = []
    for weight in (0.0, 0.5, 1.0):
        torch.manual_seed(1)
        losses.append(model_of(elbo_weight=weight).loss(part, START))
    model = model_of()
    evidence = model.vae.loss(part, START)
    torch.testing.assert_close(losses[2] - losses[0], evidence)
    torch.testing.assert_close(losses[1] - losses[0], evidence / 2)
    labels = part.target.dense(N).float()
    for softmax in (False, True):
        model = model_of(use_global=False, dropout=0.0, softmax=softmax)
        scores = model.score(part.history)
        expected = (
            torch.nn.functional.cross_entropy(scores, labels / labels.sum(1, keepdim=True))
            if softmax
            else torch.nn.functional.multilabel_soft_margin_loss(scores, labels)
        )
        torch.testing.assert_close(model.loss(part, START), expected)


def loss_of(scores: Tensor, targets: Ragged, **options: Any) -> Tensor:
    """The loss of a model with these scores."""
    model = model_of(use_global=False, **options)
    model._score = lambda batch, hidden: scores  # type: ignore[method-assign]
    return model.loss(Part("train", BasketBatch.from_lists([[]] * len(scores), N), targets), START)


def test_targets_weigh_what_they_add_to_ndcg() -> None:
    torch.manual_seed(0)
    scores, sets = torch.randn(3, N), [[1], [0, 4], [0, 2, 5, 6]]
    expected = sum(
        -scores[row].log_softmax(0)[items].sum()
        / sum(1 / math.log2(place + 2) for place in range(min(3, len(items))))
        for row, items in enumerate(sets)
    )
    loss = loss_of(scores, Ragged.from_lists(sets), softmax=True, ndcg_at=3)
    torch.testing.assert_close(loss, expected / 3)


@settings(max_examples=30)
@given(
    st.lists(st.sets(st.integers(0, N - 1), min_size=1), min_size=1, max_size=6),
    st.integers(1, 3),
)
def test_the_order_of_the_least_loss_is_that_of_the_best_expected_ndcg(
    sets: list[set[int]], k: int
) -> None:
    """Users with one history and these next baskets, each as likely: no other order gains more."""
    targets = Ragged.from_lists([sorted(items) for items in sets])
    ideal = [sum(1 / math.log2(place + 2) for place in range(min(k, len(s)))) for s in sets]
    gains = torch.tensor(
        [sum(1 / ideal[i] for i, s in enumerate(sets) if item in s) for item in range(N)]
    )

    def gradient(scores: Tensor) -> Tensor:
        scores = scores.repeat(len(sets), 1).requires_grad_()
        loss_of(scores, targets, softmax=True, ndcg_at=k).backward()
        assert scores.grad is not None
        return scores.grad.sum(0)

    torch.testing.assert_close(gradient((gains + 1e-6).log()), torch.zeros(N), atol=1e-4, rtol=0)

    def expected_ndcg(order: Sequence[int]) -> float:
        found = targets.contains(torch.tensor([order[:k]] * len(sets)), N)
        return float(ndcg(found, targets.lengths).mean())

    best = max(map(expected_ndcg, permutations(range(N), k)))
    order = gradient(torch.zeros(N)).argsort().tolist()  # a step from scores that are all equal
    assert expected_ndcg(order) == pytest.approx(best)


def test_without_global_embeddings_the_autoencoder_is_not_trained() -> None:
    model = model_of(use_global=False)
    model.loss(part_of(HISTORIES, [[0], [2, 5], [1], [4, 6]]), START).backward()
    of_vae = {name for name, p in model.vae.named_parameters() if p.grad is not None}
    assert of_vae == {"items.weight"}
    assert model.bias.grad is not None


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard())


@pytest.mark.parametrize("softmax", [False, True])
def test_steps_lower_the_loss(split: Split, softmax: bool) -> None:
    torch.manual_seed(0)
    model = saved_model.build(config_of(split.num_items, softmax=softmax, learning_rate=0.02))
    assert isinstance(model, GLOIE)
    part, optimizer = model.prepare(split), model.optimizer(num_steps=1)
    losses = []
    for _ in range(6):
        torch.manual_seed(0)  # the same dropout and sample
        loss = model.loss(part, START)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)


def tables(tensors: dict[str, Tensor], num_items: int) -> list[str]:
    return [name for name, t in tensors.items() if t.shape in ((num_items, 8), (num_items + 1, 8))]


TRAINING = TrainingOptions(max_epochs=2, batch_size=20, monitor="ndcg@5", device="cpu")


def test_it_is_one_item_table_that_a_step_moves_once(split: Split) -> None:
    n = split.num_items
    model = model_of(n, learning_rate=0.01)
    assert tables(dict(model.named_parameters()), n) == ["vae.items.weight"]
    optimizer = model.optimizer(num_steps=1)
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in owned}) == len(owned) == len(list(model.parameters()))
    before = model.vae.items.vectors.detach().clone()
    model.loss(model.prepare(split), START).backward()
    optimizer.step()
    # The first step of Adam is as long as the learning rate.
    step = (model.vae.items.vectors.detach() - before).abs()
    torch.testing.assert_close(step, torch.full_like(step, 0.01), rtol=0.1, atol=0)


def test_it_is_one_item_table_after_fit_save_and_load(split: Split, tmp_path: Path) -> None:
    n, everything = split.num_items, {"personal": True, "calendar": True, "num_targets": None}
    model = model_of(n, **everything)
    table = model.vae.items
    start = table.weight.detach().clone()
    fit(model, split, TRAINING, Protocol(ks=(5,)))
    assert model.vae.items is table
    assert not table.weight.equal(start)
    assert tables(model.state_dict(), n) == ["vae.items.weight"]
    config = config_of(n, **everything)
    saved_model.save(tmp_path / "model", model, split, config, mask_history=False)
    loaded = saved_model.load(tmp_path).model
    assert isinstance(loaded, GLOIE)
    assert tables(loaded.state_dict(), n) == ["vae.items.weight"]
    assert loaded.vae.items.weight.equal(table.weight)
    with torch.no_grad():
        assert loaded.score(split.test.history).equal(model.score(split.test.history))


def test_the_kl_term_is_annealed_by_the_steps_of_training(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    reconstruct = CountVAE.reconstruct

    def watched(self: CountVAE, history: BasketBatch, progress: Progress) -> Any:
        steps.append(progress.step)
        assert progress.num_steps == 6
        return reconstruct(self, history, progress)

    monkeypatch.setattr(CountVAE, "reconstruct", watched)
    fit(model_of(split.num_items), split, TRAINING, Protocol(ks=(5,)))
    assert steps == list(range(6))  # two epochs of 60 users


@pytest.mark.parametrize("softmax", [False, True])
def test_items_unseen_in_training_and_short_histories(
    split_of: Callable[[list[History], int], Split], softmax: bool
) -> None:
    """Item 6 has no training event, and every training history is one basket."""
    split = split_of([[[0], [1]], [[2, 3], [4]], [[5], [5]]], N)
    for options in ({}, {"num_targets": None, "latest_popularity": True, "personal": True}):
        model = model_of(softmax=softmax, **options)
        fit(model, split, replace(TRAINING, batch_size=2), Protocol(ks=(5,)))
        with torch.no_grad():
            assert model.score(BasketBatch.from_lists([*HISTORIES, [[6]]], N)).isfinite().all()


def test_a_history_without_dates_takes_the_mean_days_between_baskets() -> None:
    """The same baskets, once a known user's every third day, once a stranger's without dates."""
    lists = [[[0, 1], [1], [2]]]
    stranger = BasketBatch.from_lists(lists, 3)
    known_user = replace(stranger, times=stranger.baskets * 3 * 86400, users=torch.tensor([5]))
    personal = PersonalFrequency(N, calendar=True)
    personal.standardise(NodeBatch.of(known_user))
    assert personal.days_between.item() == pytest.approx(3.0)
    torch.testing.assert_close(
        personal.features(NodeBatch.of(stranger)), personal.features(NodeBatch.of(known_user))
    )


def alike_of(split: Split, **options: Any) -> AlikeUsers:
    alike = AlikeUsers(Alike(**options))
    alike.remember_users(split, NodeBatch.of(split.train.history))
    return alike


def test_evidence_by_hand(split_of: Callable[[list[History], int], Split]) -> None:
    # Training users hold {0, 1} and {0, 2, 3}; the last baskets hold 1 and 2, 3.
    split = split_of([[[0], [0], [1]], [[0], [2, 3]]], 4)
    alike = alike_of(split, localities=(1, 2))
    popularity = torch.tensor([UNSEEN, 1, 1, 1]) / (3 + UNSEEN)
    asked = BasketBatch.from_lists([[[1]]], 4)
    similar = torch.tensor([1 / 2**0.5, 0])
    shares = torch.tensor([[2 / 3, 1 / 3, 0, 0], [1 / 2, 0, 1 / 2, 1 / 2]])
    for locality, evidence in zip((1, 2), alike.evidence(asked), strict=True):
        taken = (similar**locality) @ shares
        expected = (0.95 * taken / taken.sum() + 0.05 * popularity).log() - popularity.log()
        torch.testing.assert_close(evidence[0], expected)


def test_evidence_at_any_locality_is_that_of_the_formula(split: Split) -> None:
    localities = (1, 2.5, 5, 7)
    alike = alike_of(split, localities=localities, asymmetry=0.3)
    users = split.training
    held, asked = users.multi_hot().double(), split.test.history
    shares = users.sum(1 / users.num_baskets()[users.owners()]).double()
    own = asked.multi_hot().double()
    similar = (own @ held.T) / (own.sum(1, keepdim=True) ** 0.3 * held.sum(1) ** 0.7)
    similar[asked.users[:, None] == users.users] = 0
    popularity = alike.share.double()
    for locality, evidence in zip(localities, alike.evidence(asked), strict=True):
        taken = similar**locality @ shares
        taken = taken / taken.sum(1, keepdim=True)
        expected = (0.95 * taken + 0.05 * popularity).log() - popularity.log()
        torch.testing.assert_close(evidence.double(), expected, rtol=1e-4, atol=1e-5)


def test_who_is_like_nobody_has_no_evidence(
    split_of: Callable[[list[History], int], Split],
) -> None:
    alike = alike_of(split_of([[[0], [1]], [[0], [2]]], 5), localities=(1, 5))
    asked = BasketBatch.from_lists([[], [[4], [3]]], 5)
    torch.testing.assert_close(alike.evidence(asked), torch.zeros(2, 2, 5), atol=1e-5, rtol=0)


def test_no_evidence_of_a_training_user_comes_from_its_own_later_baskets(
    split_of: Callable[[list[History], int], Split],
) -> None:
    others: list[History] = [[[0], [1, 2]], [[1], [3], [0]], [[2, 3], [0]]]
    # The user's last basket is the others' popularity too, which both splits have alike.
    evidence = []
    for later in ([[4], [5]], [[6, 4], [5]]):
        split = split_of([*others, [[0], [1], *later]], N)
        first = Prefixes.of("train", split.training, max_events=None).rows(torch.tensor([4]))
        assert first.history.users.tolist() == [3]
        assert first.history.items.tolist() == [0]
        evidence.append(alike_of(split, localities=(1, 5)).evidence(first.history))
    torch.testing.assert_close(*evidence)


def test_the_gate_begins_as_one_weight_for_all(split: Split) -> None:
    alike = alike_of(split, localities=(1, 5))
    nodes = NodeBatch.of(split.test.history)
    torch.testing.assert_close(alike.gates(nodes), torch.full((len(nodes), 2), 0.5))


def test_alike_users_add_to_every_score_and_learn_their_weight(split: Split) -> None:
    model = model_of(split.num_items, localities=[1, 5], personal=True, softmax=True)
    part = model.prepare(split)
    assert model.alike is not None
    model.loss(part, START).backward()
    assert model.alike.weight.grad is not None
    assert model.alike.weight.grad.abs().min() > 0
    model.eval()
    scores = model.score(split.test.history)
    with torch.no_grad():
        model.alike.weight.add_(1.0)
    assert (model.score(split.test.history) != scores).any(0).all()


def test_as_many_last_baskets_as_make_so_many_examples(
    split_of: Callable[[list[History], int], Split],
) -> None:
    users = split_of([[[0]] * 5, [[1]] * 3, [[2], [3]]], N).training  # 4, 2 and 1 targets
    counts = [Ranking(num_examples=number).targets_of(users) for number in (1, 3, 4, 5, 6, 7, 8)]
    assert counts == [1, 1, 2, 2, 3, 4, None]


def test_days_are_0_in_a_log_that_knows_only_an_order(
    split_of: Callable[[list[History], int], Split],
) -> None:
    split = split_of([[[0, 1], [0], [2]], [[3], [3, 4], [5]]], N)
    assert not split.log.has_calendar_time
    model = model_of(personal=True, calendar=None)
    model.prepare(split)
    assert model.personal is not None
    features = model.personal.features(NodeBatch.of(split.train.history))
    count = features[:, len(PersonalFrequency.DECAYS) - 1]
    torch.testing.assert_close(features[:, -4:-1], count[:, None].expand(-1, 3))
    assert not features[:, -1].any()
