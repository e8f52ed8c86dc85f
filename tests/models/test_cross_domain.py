"""CrossDomain: its loss is its score, and what weightings make of losses that are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import factorial
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.evaluation.ranking import Protocol
from recsys.log.event_log import EventLog
from recsys.models import CrossDomain, SASRec
from recsys.models.domains import InverseFrequency, Readings, Shapley, TransferGap, Uniform
from recsys.models.domains._weightings import DomainWeighting
from recsys.models.sequences import Encoder
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

START = Progress(step=0, num_steps=10)


@pytest.fixture(scope="module")
def split() -> Split:
    """Ten items of three domains, of which every user has some."""
    log = checkerboard(num_users=60, num_items=10)
    items = log.items.with_columns(shop=pl.Series([*"abcabcabca"]))
    return last_basket(EventLog.from_frames(log.events, items, log.users))


def model_of(split: Split, **options: Any) -> CrossDomain:
    torch.manual_seed(0)
    return CrossDomain(
        split.num_items,
        num_classes=split.num_classes,
        column="shop",
        embedding_dim=8,
        encoder=Encoder(max_length=30),
        **options,
    )


def prefixes_of(part: Part) -> tuple[BasketBatch, Tensor]:
    """Each event but a user's first, as a target (Q,) of what came before it."""
    rows = [items.tolist() for items in part.history.items.split(part.history.lengths().tolist())]
    pairs = [(row[:end], row[end]) for row in rows for end in range(1, len(row))]
    histories = BasketBatch.from_lists([[[item] for item in before] for before, _ in pairs], 10)
    return histories, torch.tensor([target for _, target in pairs])


def plain(split: Split, model: CrossDomain) -> SASRec:
    """SASRec with the items and the encoder of a model."""
    sasrec = SASRec(split.num_items, embedding_dim=8, encoder=Encoder(max_length=30)).eval()
    sasrec.items.id.load_state_dict(model.items.state_dict())  # type: ignore[union-attr]
    sasrec.encoder.load_state_dict(model.encoder.state_dict())
    return sasrec


@pytest.mark.parametrize("whole", [0.0, 0.3, 1.0])
def test_the_loss_is_of_both_readings(whole: float, split: Split) -> None:
    """Against each prefix by itself, the own reading on a history that holds one domain alone."""
    model = model_of(split, readings=Readings(whole_in_loss=whole, rank=2)).eval()
    part = model.prepare(split).rows(torch.arange(7))
    for parameter in (model.newcomers, *model.experts.parameters()):
        torch.nn.init.normal_(parameter)
    sasrec, (histories, targets) = plain(split, model), prefixes_of(part)
    of_whole = F.cross_entropy(sasrec.score(histories), targets)
    of_own = []
    for row, target in enumerate(targets.tolist()):
        domain = target % 3
        history = histories.rows(torch.tensor([row]))
        history = history.where(history.items % 3 == domain)
        state = sasrec.encode_users(history)[0] if len(history.items) else model.newcomers[domain]
        state = state + model.experts[domain](state)
        logits = (model.items.vectors @ state)[domain::3]
        of_own.append(F.cross_entropy(logits, torch.tensor(target // 3)))
    expected = whole * of_whole + (1 - whole) * torch.stack(of_own).mean()
    assert model.loss(part, START).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_score_is_a_probability_and_its_domain_that_of_the_whole_reading(split: Split) -> None:
    model = model_of(split).eval()
    histories, _ = prefixes_of(model.prepare(split).rows(torch.arange(7)))
    shares = model.score(histories).exp()
    assert shares.sum(1).tolist() == pytest.approx([1.0] * len(shares), rel=1e-4)
    of_whole = plain(split, model).score(histories).softmax(1)
    for domain in range(3):
        assert shares[:, domain::3].sum(1).allclose(of_whole[:, domain::3].sum(1), rtol=1e-4)


def test_within_a_domain_only_its_own_events_rank_where_the_whole_counts_nothing(
    split: Split,
) -> None:
    model = model_of(split, readings=Readings(whole_in_score=0.0)).eval()
    model.prepare(split)
    history = BasketBatch.from_lists([[[0], [1], [3], [4]], [[0], [3]]], 10)
    with_others, alone = model.score(history)[:, 0::3].log_softmax(1)
    assert with_others.allclose(alone, atol=1e-5)
    model.readings = Readings(whole_in_score=0.5)
    with_others, alone = model.score(history)[:, 0::3].log_softmax(1)
    assert not with_others.allclose(alone, atol=1e-3)


def test_who_is_new_to_a_domain_gets_the_list_of_its_newcomers(split: Split) -> None:
    model = model_of(split, readings=Readings(whole_in_score=0.0)).eval()
    model.prepare(split)
    torch.nn.init.normal_(model.newcomers)
    scores = model.score(BasketBatch.from_lists([[[0], [3]]], 10))[0, 1::3].log_softmax(0)
    logits = model.items.vectors @ model.newcomers[1] + model.log_popularity[0]
    assert scores.tolist() == pytest.approx(logits[1::3].log_softmax(0).tolist(), abs=1e-5)


def test_popularity_is_that_of_the_time_around(split: Split) -> None:
    """Item 1 has all of its events in the first half of the training, item 4 in the second."""
    times = torch.arange(1600)
    items = torch.where(times < 800, 1, 4)
    history = replace(
        BasketBatch.from_lists([[[int(item)] for item in items]], 10), times=times + 5000
    )
    model = model_of(split, readings=Readings(whole_in_score=0.0)).eval()
    model._keep_popularity_by_period(history)
    assert model.period_starts.tolist() == list(range(5100, 6600, 100))
    early, late = model.log_popularity[0].exp(), model.log_popularity[-1].exp()
    weights = [torch.exp(torch.tensor(-0.5 * (gap / 2) ** 2)) for gap in range(8)]
    assert float(early[1]) == pytest.approx(100 * float(sum(weights)) + 80.1, rel=1e-4)
    assert float(late[4]) == pytest.approx(float(early[1]), rel=1e-4)
    assert float(early[4]) < 0.5 * float(early[1])
    model.prepare(split)
    model._keep_popularity_by_period(history)
    of_others = BasketBatch.from_lists([[[0], [3]]] * 2, 10)
    of_others = replace(of_others, times=torch.tensor([5000, 5050, 5000, 6590]))
    scores = model.score(of_others)
    assert scores[0, 1] > scores[0, 4]
    assert scores[1, 4] > scores[1, 1]


def test_with_one_domain_it_is_sasrec() -> None:
    """The same numbers in training, dropout too, the same gradients and the same lists."""
    log = checkerboard(num_users=40, num_items=10)
    items = log.items.with_columns(shop=pl.lit("a"))
    split = last_basket(EventLog.from_frames(log.events, items, log.users))
    model = model_of(split)
    sasrec = plain(split, model).train()
    part = model.prepare(split)
    assert part.history.items.equal(sasrec.prepare(split).history.items)
    results = []
    of: CrossDomain | SASRec
    for of in (model, sasrec):
        torch.manual_seed(1)
        loss = of.loss(part, START)
        loss.backward()
        gradients = [parameter.grad for parameter in of.encoder.parameters()]
        results.append((loss.item(), gradients))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        assert ours is not None
        assert theirs is not None
        assert ours.allclose(theirs, atol=1e-6)
    table = sasrec.items.id
    assert table is not None
    assert table.weight.grad is not None
    assert model.items.weight.grad is not None
    assert model.items.weight.grad.allclose(table.weight.grad, atol=1e-6)
    ours = model.eval().score(split.test.history)
    theirs = sasrec.eval().score(split.test.history).log_softmax(1)
    assert ours.allclose(theirs, atol=1e-5)


def test_domains_are_read_from_the_column(split: Split) -> None:
    model = model_of(split)
    model.prepare(split)
    assert model.domain_of_item.tolist() == [0, 1, 2] * 3 + [0]


def test_every_domain_counts_alike_by_inverse_frequency(split: Split) -> None:
    model = model_of(split, weighting=InverseFrequency())
    part = model.prepare(split)
    counts = torch.bincount(model.domain_of_item[part.history.items])
    assert (model.domain_weights * counts).tolist() == pytest.approx([1.0] * 3)
    model.domain_weights.copy_(torch.tensor([1.0, 0.0, 1.0]))
    model.loss(part.rows(torch.arange(9)), START).backward()
    # What counts nothing teaches nothing to those who are new to it.
    assert model.newcomers.grad is not None
    assert (model.newcomers.grad.abs().sum(1) > 0).tolist() == [True, False, True]


WORTH = {(): 0.0, (0,): 1.0, (1,): 2.0, (2,): 0.5, (0, 1): 2.5, (0, 2): 3.0, (1, 2): 2.0}
WORTH |= {(0, 1, 2): 4.0}


def losses_of(kept: Tensor) -> Tensor:
    """The third domain is nobody's target."""
    worth = WORTH[tuple(kept.nonzero().flatten().tolist())]
    return torch.tensor([-worth - 1, -worth + 1, torch.nan])


def test_shapley_values_are_those_of_exact_enumeration() -> None:
    """By subsets: sum over S without j of |S|! (d - |S| - 1)! / d! times what j adds to S."""
    exact = []
    for j in range(3):
        others = [domain for domain in range(3) if domain != j]
        exact.append(0.0)
        for size in range(3):
            share = factorial(size) * factorial(2 - size) / factorial(3)
            for subset in combinations(others, size):
                exact[j] += share * (WORTH[tuple(sorted((*subset, j)))] - WORTH[subset])
    values = Shapley(num_orders=6).measure(losses_of, 3)
    assert values.tolist() == pytest.approx(exact)
    assert float(values.sum()) == pytest.approx(WORTH[0, 1, 2])
    torch.manual_seed(0)
    drawn = torch.stack([Shapley(num_orders=5).measure(losses_of, 3) for _ in range(200)])
    assert drawn.mean(0).tolist() == pytest.approx(exact, abs=0.05)
    assert drawn.sum(1).tolist() == pytest.approx([4.0] * 200, abs=1e-5)


def test_the_gap_is_the_loss_alone_minus_that_together() -> None:
    gap = TransferGap().measure(losses_of, 3)
    assert gap.tolist() == pytest.approx([4.0 - 1.0, 4.0 - 2.0, 0.0])
    weights = TransferGap(temperature=0.5).weights(gap)
    assert weights.tolist() == pytest.approx((gap * 2).softmax(0).tolist())


@pytest.mark.parametrize("weighting", [TransferGap(every=2), Shapley(every=2, num_orders=2)])
def test_weights_are_measured_on_users_who_do_not_train(
    weighting: DomainWeighting, split: Split
) -> None:
    model = model_of(split, weighting=weighting)
    part = model.prepare(split)
    assert model.held_out is not None
    held_out = set(model.held_out.history.users.tolist())
    assert len(held_out) == 6  # a tenth of sixty
    assert held_out.isdisjoint(part.history.users.tolist())
    assert int(model.held_out.history.times.max()) <= split.trained_until
    model.train()
    model.loss(part, Progress(step=1, num_steps=10))
    assert model.domain_weights.tolist() == [1, 1, 1]  # not yet
    model.loss(part, Progress(step=2, num_steps=10))
    assert model.training
    assert model.domain_values.abs().min() > 0
    assert float(model.domain_weights.sum()) == pytest.approx(1)
    state = model.state_dict()
    again = model_of(split, weighting=weighting)
    again.load_state_dict(state)
    assert again.domain_values.equal(model.domain_values)


def test_training_with_shapley_gives_the_same_numbers_again(split: Split) -> None:
    options = TrainingOptions(max_epochs=2, batch_size=16, monitor="ndcg@5", device="cpu")
    scores = [
        fit(
            model_of(split, weighting=Shapley(every=2, num_orders=2), learning_rate=0.01),
            split,
            options,
            Protocol(ks=(5,)),
        ).score(split.test.history)
        for _ in range(2)
    ]
    assert scores[0].equal(scores[1])


def test_a_column_that_items_have_not() -> None:
    with pytest.raises(ConfigError, match="column=shop: items have no such column; there is col"):
        CrossDomain(3, num_classes={"colour": 2}, column="shop")


def test_an_item_without_a_domain() -> None:
    rows = {"user_id": [1, 2] * 4, "item_id": [5, 5, 6, 6, 7, 7, 8, 8], "timestamp": range(8)}
    items = pl.DataFrame({"item_id": [5, 6, 7, 8], "shop": ["a", "b", None, "b"]})
    log = EventLog.from_frames(pl.DataFrame(rows), items, name="shops")
    model = CrossDomain(4, num_classes={"shop": 2}, column="shop")
    with pytest.raises(DataError, match="shops: 1 items have no shop; give each item a domain"):
        model.prepare(last_basket(log))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"every": 0}, "every=0"),
        ({"num_held_out": 0}, "num_held_out=0"),
        ({"momentum": 1.5}, "momentum=1.5"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
@pytest.mark.parametrize("kind", [TransferGap, Shapley])
def test_options_out_of_range(kind: Any, option: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        kind(**option)
    with pytest.raises(ConfigError, match="num_orders=0"):
        Shapley(num_orders=0)


@pytest.mark.parametrize("option", [{"whole_in_loss": 1.5}, {"whole_in_score": -0.1}, {"rank": -1}])
def test_readings_out_of_range(option: dict[str, Any]) -> None:
    (said,) = (f"{name}={value}" for name, value in option.items())
    with pytest.raises(ConfigError, match=said):
        Readings(**option)


def test_uniform_is_ones() -> None:
    assert Uniform().start(torch.tensor([3.0, 9.0])).tolist() == [1, 1]
