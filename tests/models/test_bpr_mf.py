"""BPRMF against a step worked by hand, and users that it was not trained on."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.models import BPRMF
from recsys.nn import negatives
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split, last_basket, user_holdout
from recsys.testing.logs import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

START = Progress(0, 1)


@pytest.fixture
def split() -> Split:
    return last_basket(checkerboard())


def part_of(histories: list[list[list[int]]], num_items: int, users: list[int]) -> Part:
    history = BasketBatch.from_lists(histories, num_items)
    history = replace(history, users=torch.tensor(users))
    return Part("train", history, history.ragged.distinct(num_items))


def test_loss_and_gradient_of_a_triple_worked_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One user (1, 2), positive item (3, 1), negative (0, 2): x_ui - x_uj = 5 - 4."""
    model = BPRMF(3, 2, embedding_dim=2)
    with torch.no_grad():
        model.users.weight[1] = torch.tensor([1.0, 2.0])
        model.items.weight[0] = torch.tensor([3.0, 1.0])
        model.items.weight[2] = torch.tensor([0.0, 2.0])
    monkeypatch.setattr(negatives, "uniform", lambda *_: torch.tensor([[2]]))
    loss = model.loss(part_of([[[0]]], 3, users=[1]), START)
    loss.backward()
    miss = 1 / (1 + torch.tensor(1.0).exp())  # sigmoid(-(x_ui - x_uj))
    torch.testing.assert_close(loss, -(1 - miss).log())

    def gradient(weight: Tensor) -> Tensor:
        assert weight.grad is not None
        return weight.grad

    # The paper's update, p. 457: h_i - h_j for w_u, w_u for h_i and -w_u for h_j.
    user = gradient(model.users.weight)
    torch.testing.assert_close(user[1], -miss * torch.tensor([3.0, -1.0]))
    assert not user[[0, 2]].any()
    items = gradient(model.items.weight)
    torch.testing.assert_close(items[0], -miss * torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(items[2], miss * torch.tensor([1.0, 2.0]))
    assert not items[[1, 3]].any()


def test_the_loss_is_a_mean_over_pairs_and_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = BPRMF(6, 3, embedding_dim=4, num_negatives=2)
    negative_items = torch.tensor([[4, 5], [3, 4], [0, 0]])
    monkeypatch.setattr(negatives, "uniform", lambda *_: negative_items)
    # User 2 had item 1 twice: one pair.
    part = part_of([[[0, 1], [1]], [[5]]], 6, users=[2, 0])
    pairs = [(2, 0), (2, 1), (0, 5)]
    users, items = model.users.weight, model.items.weight
    terms = [
        (1 + (users[u] @ (items[j] - items[i])).exp()).log()
        for (u, i), row in zip(pairs, negative_items, strict=True)
        for j in row
    ]
    torch.testing.assert_close(model.loss(part, START), torch.stack(terms).mean())


def test_many_pairs_are_taken_some_at_a_time(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    model = BPRMF(split.num_items, len(split.users), embedding_dim=4, num_negatives=2)
    part = model.prepare(split)

    def learnt() -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(1)  # the same negatives
        model.zero_grad()
        loss = model.loss(part, START)
        loss.backward()
        return loss, *(p.grad.clone() for p in model.parameters())

    whole = learnt()
    at_once: list[int] = []
    pair_losses = model._pair_losses
    monkeypatch.setattr(
        model, "_pair_losses", lambda *p: (at_once.append(len(p[1])), pair_losses(*p))[1]
    )
    monkeypatch.setattr("recsys.models.factors.bpr_mf.VALUES_AT_ONCE", 40)
    for gradient, expected in zip(learnt(), whole, strict=True):
        torch.testing.assert_close(gradient, expected)
    assert max(at_once) == 5


def test_negatives_are_drawn_for_each_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def uniform(positives: Ragged, num_items: int, num_negatives: int) -> Tensor:
        calls.append((positives.values.tolist(), num_items, num_negatives))
        return torch.zeros(len(positives.values), num_negatives, dtype=torch.int64)

    monkeypatch.setattr(negatives, "uniform", uniform)
    model = BPRMF(6, 1, num_negatives=3)
    model.loss(part_of([[[4, 2], [2]]], 6, users=[0]), START)
    assert calls == [([2, 4], 6, 3)]


def test_it_trains_on_all_training_baskets(split: Split) -> None:
    model = BPRMF(split.num_items, len(split.users))
    part = model.prepare(split)
    assert part.history is split.training
    items = split.training.multi_hot()
    assert part.target.lengths.equal(items.sum(1).long())
    assert items[part.target.owners(), part.target.values].all()


def test_users_without_training_events_are_folded_in() -> None:
    """In a hold-out of users the log knows them all, but a third have no training event."""
    log = checkerboard()
    parts = ["train", "validation", "test"]
    named = log.users.with_columns(split=pl.Series([parts[i // 2 % 3] for i in range(60)]))
    split = user_holdout(replace(log, users=named))
    torch.manual_seed(0)
    model = BPRMF(split.num_items, len(split.users), embedding_dim=8, learning_rate=0.05)
    training = TrainingOptions(
        max_epochs=30, batch_size=16, evaluate_every=10, monitor="ndcg@5", device="cpu"
    )
    fit(model, split, training, Protocol(ks=(5,)))
    assert model.trained.sum() == 20
    history = split.test.history
    strangers = replace(history, users=torch.full_like(history.users, -1))
    assert model.encode_users(history).equal(model.encode_users(strangers))
    best = model.top_k(history, 5, mask_history=True).items
    assert (best % 2 == history.users[:, None] % 2).all()


def test_fold_in_by_hand() -> None:
    model = BPRMF(2, 3, embedding_dim=2)
    model.trained[:2] = True
    with torch.no_grad():
        model.items.weight[:2] = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
        model.users.weight[:3] = torch.tensor([[2.0, 2.0], [4.0, 0.0], [9.0, 9.0]])
        batch = BasketBatch.from_lists([[[0], [0, 1]], []], 2)
        # (2 (1, 0) + (0, 3)) / 3 - (1, 3) / 2, and the mean of the trained users.
        expected = torch.tensor([[2 / 3 - 0.5, 1 - 1.5], [3.0, 1.0]])
        torch.testing.assert_close(model.encode_users(batch), expected)
        known_users = replace(batch, users=torch.tensor([1, 0]))
        assert model.encode_users(known_users).tolist() == [[4, 0], [2, 2]]


@pytest.mark.data
def test_ml_100k_as_other_implementations(public_data: Any) -> None:
    """Validation recall@10 / ndcg@10 of others .1230 / .0636, with the history masked."""
    from recsys.data.sources.movielens import ml100k
    from recsys.log.filters import filtered
    from recsys.tasks.splits import leave_last_out

    split = leave_last_out(filtered(ml100k(), first_only=True, min_user_events=3))
    protocol = Protocol(ks=(10,), mask_history=True)
    torch.manual_seed(0)
    model = BPRMF(split.num_items, len(split.users))
    fit(model, split, TrainingOptions(max_epochs=60, evaluate_every=5, device="cpu"), protocol)
    means = evaluate(model, split.validation, protocol).means
    assert means["recall@10"] > 0.123
    assert means["ndcg@10"] > 0.0636


def test_sparse_tables_have_the_gradients_of_dense_ones(split: Split) -> None:
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = BPRMF(split.num_items, len(split.users), embedding_dim=4, sparse=sparse)
        model.loss(model.prepare(split).rows(torch.tensor([3, 8])), START).backward()
        weights = (model.users.weight, model.items.weight)
        gradients.append([weight.grad.to_dense() for weight in weights if weight.grad is not None])
    torch.testing.assert_close(*gradients)


def test_only_users_and_items_of_a_batch_are_stepped(split: Split) -> None:
    model = BPRMF(split.num_items, len(split.users), embedding_dim=4, sparse=True)
    before = model.users.weight.detach().clone()
    optimizer = model.optimizer(1)
    model.loss(model.prepare(split).rows(torch.tensor([3, 8])), START).backward()
    optimizer.step()
    assert model.users.weight.ne(before).any(1).nonzero()[:, 0].tolist() == [3, 8]
