"""What every model has from its base class."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.errors import DataError
from recsys.models import UPCF, Hybrid
from recsys.retrieval.index import ExactIndex
from recsys.scoring import scorer
from recsys.scoring.kinds import (
    Composite,
    ProfileEncoder,
    TextEncoder,
    VectorScorer,
    members_of,
)
from recsys.scoring.recommender import Progress, Recommender
from recsys.scoring.scorer import ClosedForm, Scorer
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.types import ItemVectors, Scores, UserVectors

BATCH = BasketBatch.from_lists([[[0], [3]], [[1, 2]], []], 4)


class Vectors(VectorScorer):
    """Users are the counts of their items; item 3's vector is twice item 0's."""

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        return batch.counts()

    def encode_items(self) -> ItemVectors:
        items = torch.eye(4)
        items[3, 0] = 2.0
        return items


class Counts(ClosedForm):
    counts: Tensor

    def compute(self, split: Split) -> None:
        self.keep("counts", torch.bincount(split.training.items).float())

    def score(self, batch: BasketBatch) -> Scores:
        return self.counts.expand(len(batch), -1)


class Sum(Composite):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Counts(), Counts()

    def members(self) -> Iterable[tuple[str, Scorer]]:
        return [("first", self.first), ("second", self.second)]

    def score(self, batch: BasketBatch) -> Scores:
        return self.first.score(batch) + self.second.score(batch)


class Linear(Recommender):
    def __init__(self) -> None:
        super().__init__(learning_rate=0.3, weight_decay=0.7)
        self.weight = nn.Parameter(torch.ones(2))

    def loss(self, part: Part, progress: Progress) -> Tensor:
        return self.weight.sum()

    def score(self, batch: BasketBatch) -> Scores:
        return self.weight[batch.counts().long().clamp(max=1)]


def test_scores_are_inner_products_of_vectors() -> None:
    model = Vectors()
    assert model.score(BATCH).tolist() == [[1, 0, 0, 3], [0, 1, 1, 0], [0, 0, 0, 0]]


KINDS = {
    Scorer: {"score"},
    ClosedForm: {"score", "compute"},
    Recommender: {"score", "loss"},
    VectorScorer: {"encode_users", "encode_items"},
    TextEncoder: {"encode_users", "encode_items", "encode_texts"},
    ProfileEncoder: {"score", "trained_until", "reads_dates", "read_items", "encode_profiles"},
    Composite: {"score", "members"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_lacks_what_its_kind_does_cannot_be_made(kind: type[Scorer]) -> None:
    for missing in KINDS[kind]:
        model = type("Lacking", (kind,), dict.fromkeys(KINDS[kind] - {missing}))
        with pytest.raises(TypeError, match=rf"Lacking .*{missing}"):
            model()


def test_only_what_a_model_can_do_is_there() -> None:
    for kind in (TextEncoder, ProfileEncoder, Composite, VectorScorer):
        assert not isinstance(Counts(), kind)
        for name in KINDS[kind] - {"score"}:
            assert not hasattr(Scorer, name)


@pytest.mark.parametrize("index", [None, ExactIndex(Vectors().encode_items())])
def test_top_k_by_scores_and_by_index(index: ExactIndex | None) -> None:
    model = Vectors()
    top = model.top_k(BATCH, 2, index=index)
    assert top.items.tolist() == [[3, 0], [1, 2], [0, 1]]
    assert top.scores.tolist() == [[3, 1], [1, 1], [0, 0]]
    masked = model.top_k(BATCH, 3, mask_history=True, index=index)
    assert masked.items.tolist() == [[1, 2, -1], [0, 3, -1], [0, 1, 2]]


POPULAR = torch.tensor([2, 5, 5, 1])
"""Items in this order: 1, 2, 0, 3."""


class Scores4(Scorer):
    """The same scores without vectors."""

    def score(self, batch: BasketBatch) -> Scores:
        return Vectors().score(batch)


@pytest.mark.parametrize("kind", [Vectors, Scores4])
@pytest.mark.parametrize("by_index", [False, True])
def test_where_a_model_says_nothing_popularity_ranks(kind: type[Scorer], by_index: bool) -> None:
    model = kind()
    model.keep("popularity", POPULAR)
    index = ExactIndex(Vectors().encode_items()) if by_index else None
    # The first two users have scores; of the last two, one has none and one has equal ones.
    batch = BasketBatch.from_lists([[[0], [3]], [[1]], [], [[1, 2]]], 4)
    whole = model.top_k(batch, 4, index=index)
    assert whole.items.tolist() == [[3, 0, 1, 2], [1, 0, 2, 3], [1, 2, 0, 3], [1, 2, 0, 3]]
    assert whole.scores[2].tolist() == [5, 5, 2, 1]
    for k in (1, 2, 3):
        assert model.top_k(batch, k, index=index).items.equal(whole.items[:, :k])
    masked = model.top_k(batch, 4, mask_history=True, index=index).items
    # What remains to the second and the fourth user, zeros, tells nothing either.
    assert masked.tolist() == [[1, 2, -1, -1], [2, 0, 3, -1], [1, 2, 0, 3], [0, 3, -1, -1]]


@pytest.mark.parametrize("kind", [Vectors, Scores4])
def test_some_items_alone_are_ranked(kind: type[Scorer]) -> None:
    model = kind()
    model.keep("popularity", POPULAR)
    some = torch.tensor([True, True, False, True])
    batch = BasketBatch.from_lists([[[0], [3]], [[1]], [], [[2]]], 4)
    top = model.top_k(batch, 4, candidates=some).items
    # Of the last two users nothing is known of these items: popularity ranks them.
    assert top.tolist() == [[3, 0, 1, -1], [1, 0, 3, -1], [1, 0, 3, -1], [1, 0, 3, -1]]
    masked = model.top_k(batch, 2, candidates=some, mask_history=True).items
    assert masked.tolist() == [[1, -1], [0, 3], [1, 0], [1, 0]]
    assert model.top_k(batch, 1, candidates=some).items[:, 0].equal(top[:, 0])
    # Where one item alone may be ranked it has the model's score, not the count of its events.
    alone = torch.tensor([False, False, False, True])
    for k in (1, 3):
        only = model.top_k(batch, k, candidates=alone)
        assert only.items[:, 0].tolist() == [3] * 4
        assert only.scores[:, 0].equal(model.score(batch)[:, 3])


def test_a_fitted_model_keeps_the_training_events_of_each_item() -> None:
    split = last_basket(checkerboard())
    expected = torch.bincount(split.training.items, minlength=split.num_items)
    assert Counts().fit(split).popularity.equal(expected)


class Wrong(Vectors):
    """One vector holds a value that it should not."""

    def __init__(self, value: float, of: str) -> None:
        super().__init__()
        self.value, self.of = value, of

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        return self._spoilt(super().encode_users(batch), "user")

    def encode_items(self) -> ItemVectors:
        return self._spoilt(super().encode_items(), "item")

    def _spoilt(self, vectors: Tensor, of: str) -> Tensor:
        if self.of == of:
            vectors[2, 1] = self.value
        return vectors


class WrongScores(Scorer):
    def __init__(self, value: float, of: str) -> None:
        super().__init__()
        self.value = value

    def score(self, batch: BasketBatch) -> Scores:
        scores = torch.ones(len(batch), 4).double()
        scores[2, 1] = self.value
        return scores * 2


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, -3e38])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("kind", "of"), [(Wrong, "user"), (Wrong, "item"), (WrongScores, "user")])
def test_a_score_that_is_not_finite_is_an_error(
    kind: type[Wrong] | type[WrongScores], of: str, value: float, masked: bool
) -> None:
    message = rf"{kind.__name__}: the scores of {of} 2 are not finite; .* lower learning_rate"
    with pytest.raises(DataError, match=message):
        kind(value, of).top_k(BATCH, 2, mask_history=masked)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_equal_vectors_tie_in_any_batch(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 24, generator=generator) for n in (64, 333))
    twin = torch.randperm(333, generator=generator)
    items[twin[:150]] = items[twin[150:300]]

    class Drawn(VectorScorer):
        def encode_users(self, batch: BasketBatch) -> UserVectors:
            return users[batch.users]

        def encode_items(self) -> ItemVectors:
            return items

    every = replace(BasketBatch.from_lists([[]] * 64, 333), users=torch.arange(64))
    for rows in torch.arange(64).split(batch_size):
        batch = every.rows(rows)
        scores = Drawn().score(batch)
        assert scores[:, twin[:150]].equal(scores[:, twin[150:300]])
        ordered = scores.sort(dim=1, descending=True, stable=True).indices
        assert Drawn().top_k(batch, 333).items.equal(ordered)


def test_top_k_leaves_the_gradient_out() -> None:
    assert not Vectors().top_k(BATCH, 1).scores.requires_grad


def test_an_index_is_ignored_by_a_model_without_vectors() -> None:
    model = Counts()
    model.keep("counts", torch.tensor([1.0, 2.0, 3.0, 0.0]))
    top = model.top_k(BATCH, 1, index=ExactIndex(torch.eye(4)))
    assert top.items.tolist() == [[2], [2], [2]]


def test_what_was_computed_loads_into_a_model_that_was_not_fitted() -> None:
    split = last_basket(checkerboard())
    fitted, other = Sum(), Sum()
    fitted.first.fit(split)
    fitted.second.keep("counts", torch.arange(3.0))
    other.load_state_dict(fitted.state_dict())
    assert other.first.counts.equal(fitted.first.counts)
    assert other.second.counts.tolist() == [0, 1, 2]
    # It has its own copy.
    other.second.counts.zero_()
    assert fitted.second.counts.tolist() == [0, 1, 2]


def test_what_was_computed_may_change_its_size() -> None:
    model = Counts()
    model.keep("counts", torch.zeros(7))
    model.fit(split := last_basket(checkerboard()))
    assert model.counts.shape == (split.num_items,)


def test_a_trained_model_learns_by_adamw_from_last_baskets() -> None:
    model = Linear()
    optimizer = model.optimizer(num_steps=1)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["lr"] == 0.3
    assert optimizer.defaults["weight_decay"] == 0.7
    split = last_basket(checkerboard())
    part: Part = model.prepare(split)
    assert part is split.train


def test_a_model_is_made_of_none_but_itself() -> None:
    assert list(members_of(Vectors())) == []
    assert [name for name, _ in members_of(Sum())] == ["first", "second"]


def test_a_composite_model_checks_the_size_of_each_member() -> None:
    class Large(Counts):
        def check_size(self, split: Split) -> None:
            raise DataError("second is too large")

    model = Sum()
    model.second = Large()
    with pytest.raises(DataError, match="second is too large"):
        model.check_size(last_basket(checkerboard()))


def test_as_many_users_at_once_as_their_scores_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "CELLS_AT_ONCE", 10_000)
    monkeypatch.setattr(scorer, "USERS_AT_ONCE", 500)
    assert [Counts().users_at_once(n) for n in (1, 100, 9_999, 20_000)] == [500, 100, 1, 1]
    split = last_basket(checkerboard())
    neighbours = UPCF().fit(split)  # of 60 users
    assert [neighbours.users_at_once(n) for n in (1, 100)] == [166, 100]
    hybrid = Hybrid(members={"a": neighbours, "b": Counts()}, weights={"a": 1.0, "b": 1.0})
    assert [hybrid.users_at_once(n) for n in (1, 100)] == [166, 100]
