"""Hybrid."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.data.sources.amazon_sequences import scientific
from recsys.errors import ConfigError, DataError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.models import BPRMF, EASE, Hybrid, ItemKNN, Markov, Popularity, TextTFIDF
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split, leave_last_out
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions


class Constant(ClosedForm):
    """Gives every user in turn the next row of `scores`."""

    def __init__(self, scores: list[list[float]]) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)
        self.fitted = 0

    def compute(self, split: Split) -> None:
        self.fitted += 1

    def score(self, batch: BasketBatch) -> Tensor:
        return self.scores


def hybrid(first: list[list[float]], second: list[list[float]]) -> Hybrid:
    members = {"first": Constant(first), "second": Constant(second)}
    return Hybrid(members=members, weights={"first": 1.0, "second": 0.5})


BATCH = BasketBatch.from_lists([[[0]], [[1]]], 3)


def test_each_member_is_divided_by_the_users_maximum() -> None:
    model = hybrid([[2, 4, 0], [1, 0, 0]], [[10, 5, 0], [0, 0, 0.1]])
    assert model.score(BATCH).tolist() == [[1.0, 1.25, 0.0], [1.0, 0.0, 0.5]]


def test_a_member_without_scores_for_a_user_adds_nothing() -> None:
    model = hybrid([[0, 0, 0], [0, 3, 0]], [[1, 2, 0], [0, 0, 0]])
    assert model.score(BATCH).tolist() == [[0.25, 0.5, 0.0], [0.0, 1.0, 0.0]]


def test_negative_scores_keep_their_order() -> None:
    model = hybrid([[-1, -2, -4], [2, -4, 1]], [[0, 0, 0], [0, 0, 0]])
    assert model.score(BATCH).tolist() == [[-0.25, -0.5, -1.0], [0.5, -1.0, 0.25]]


def test_members_are_fitted_once_each_in_its_own_way(split_of: Any) -> None:
    split = split_of([[[0], [1]], [[1], [2]]], 3)
    closed = Constant([[1, 0, 0], [0, 1, 0]])
    learnt = BPRMF(3, len(split.users), embedding_dim=2)
    before = {name: value.clone() for name, value in learnt.state_dict().items()}
    model = Hybrid(
        members={"closed": closed, "learnt": learnt}, weights={"closed": 1.0, "learnt": 1.0}
    )
    training = TrainingOptions(max_epochs=1, monitor="ndcg@1", device="cpu")
    fit(model, split, training, Protocol(ks=(1,)))
    assert closed.fitted == 1
    after = learnt.state_dict()
    assert any(not value.equal(after[name]) for name, value in before.items())


def test_state_has_the_members_places_before_it(split_of: Any) -> None:
    split = split_of([[[0], [1]], [[1], [2]]], 3)

    def made() -> Hybrid:
        inner = Hybrid(members={"markov": Markov()}, weights={"markov": 1.0})
        return Hybrid(
            members={"knn": ItemKNN(), "popularity": Popularity(), "inner": inner},
            weights={"knn": 1.0, "popularity": 0.1, "inner": 2.0},
        )

    model = made()
    fit(model, split, TrainingOptions(), Protocol())
    state = model.state_dict()
    assert {"scorers.0.values", "scorers.1.popularity", "scorers.2.scorers.0.values"} < set(state)
    loaded = made()
    loaded.load_state_dict(state)
    assert loaded.score(split.training).equal(model.score(split.training))


def test_a_member_too_large_is_refused_before_the_others_are_fitted(
    split_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_of([[[0], [1]], [[1], [2]]], 7000)
    monkeypatch.setattr("recsys.memory.available_memory", lambda: 2**30)
    first = Constant([[1, 0, 0]])
    members = {"first": first, "inner": Hybrid(members={"ease": EASE()}, weights={"ease": 1.0})}
    model = Hybrid(members=members, weights={"first": 1.0, "inner": 1.0})
    with pytest.raises(DataError, match=r"EASE on 7,000 items would take 1 GiB"):
        fit(model, split, TrainingOptions(), Protocol())
    assert first.fitted == 0


def test_a_member_may_be_called_anything(split_of: Any) -> None:
    split = split_of([[[0], [1]], [[1], [2]]], 3)
    names = ["type", "prod.cat", "pop", "", "training", "ü"]
    weights = {name: 2.0**place for place, name in enumerate(names)}
    model, loaded = (
        Hybrid(members={name: Markov() for name in names}, weights=weights) for _ in range(2)
    )
    fit(model, split, TrainingOptions(), Protocol())
    loaded.load_state_dict(model.state_dict())
    assert [name for name, _ in loaded.members()] == names
    alone = Hybrid(members={"": Markov().fit(split)}, weights={"": sum(weights.values())})
    assert loaded.score(split.training).equal(alone.score(split.training))


@pytest.mark.parametrize(("members", "weights"), [("a", ""), ("a", "ab"), ("a", "b"), ("", "")])
def test_every_member_has_a_weight(members: str, weights: str) -> None:
    with pytest.raises(ConfigError, match=rf"members \[.*\] with weights .*{weights[-1:]}"):
        Hybrid(members={name: Markov() for name in members}, weights=dict.fromkeys(weights, 1.0))


@pytest.mark.data
@pytest.mark.parametrize(
    ("masked", "recall", "ndcg"), [(False, 0.1157, 0.0769), (True, 0.1337, 0.0952)]
)
def test_reference_on_scientific(
    public_data: Any, masked: bool, recall: float, ndcg: float
) -> None:
    split = leave_last_out(scientific())
    members = {"item_knn": ItemKNN(), "text_tfidf": TextTFIDF(), "markov": Markov()}
    weights = {"item_knn": 1.0, "text_tfidf": 1.0, "markov": 0.5}
    model = fit(Hybrid(members=members, weights=weights), split, TrainingOptions(), Protocol())
    means = evaluate(model, split.test, Protocol(ks=(10,), mask_history=masked)).means
    assert means["recall@10"] == pytest.approx(recall, abs=0.003)
    assert means["ndcg@10"] == pytest.approx(ndcg, abs=0.003)
