"""The checkerboard keeps its promises, and the contract fails models that break theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.models import ItemKNN, Popularity
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split, global_time, last_basket, leave_last_out
from recsys.testing.contracts import ModelContract
from recsys.testing.logs import COLOURS, checkerboard
from recsys.types import ItemVectors, Scores, UserVectors


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard())


@pytest.mark.parametrize("sizes", [{}, {"num_users": 10, "num_items": 8, "num_baskets": 4}])
def test_users_take_items_of_their_colour_only(sizes: dict[str, int]) -> None:
    log = checkerboard(**sizes, seed=3)
    coloured = log.events.join(log.items.select("item_id", "colour"), on="item_id").join(
        log.users.select("user_id", users_colour="colour"), on="user_id"
    )
    assert (coloured["colour"] == coloured["users_colour"]).all()
    assert set(coloured["colour"]) == set(COLOURS)
    split = last_basket(log)
    assert split.items.ids.to_list() == list(range(sizes.get("num_items", 40)))
    assert split.users.ids.to_list() == list(range(sizes.get("num_users", 60)))
    assert log.items["text"].str.contains(log.items["colour"]).all()


def test_every_split_finds_its_users() -> None:
    log = checkerboard(num_baskets=4)
    by_time = global_time(log, validation_start="2024-01-03", test_start="2024-01-04")
    for split in (leave_last_out(log), last_basket(log), by_time):
        assert len(split.train) == len(split.validation) == len(split.test) == 60


def test_the_seed_gives_the_log() -> None:
    assert checkerboard(seed=1).events.equals(checkerboard(seed=1).events)
    assert not checkerboard(seed=1).events.equals(checkerboard(seed=2).events)


def test_tastes_are_there_to_be_learnt() -> None:
    """Users come back to what they took, more than to what others of their colour took."""
    split = last_basket(checkerboard())
    had = split.test.history.multi_hot().bool()
    targets = split.test.target
    again = had[targets.owners(), targets.values].double().mean()
    same_colour = (torch.arange(60)[:, None] % 2) == (torch.arange(40) % 2)
    assert again > had[same_colour].double().mean() + 0.1


class NaN(Popularity):
    def score(self, batch: BasketBatch) -> Scores:
        return super().score(batch) / batch.counts().sum(1, keepdim=True) * torch.nan


class OtherColour(ItemKNN):
    def score(self, batch: BasketBatch) -> Scores:
        return super().score(batch).roll(1, dims=1)


class LooksAtNeighboursInTheBatch(ItemKNN):
    def score(self, batch: BasketBatch) -> Scores:
        scores = super().score(batch)
        return scores - scores.mean()


class KnownUsersOnly(ItemKNN):
    def score(self, batch: BasketBatch) -> Scores:
        return super().score(batch) / (batch.users >= 0)[:, None]


class Random(Scorer):
    def __init__(self) -> None:
        super().__init__()
        self.seed = torch.seed()

    def score(self, batch: BasketBatch) -> Scores:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(batch.num_items, generator=generator).expand(len(batch), -1)


class VectorsOfAnotherModel(VectorScorer, ItemKNN):
    score = ItemKNN.score

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        return -self.score(batch)

    def encode_items(self) -> ItemVectors:
        return torch.eye(40)


Contract = ModelContract


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (NaN, Contract.test_scores_are_finite_for_every_user_and_item),
        (OtherColour, Contract.test_best_items_are_of_the_users_colour),
        (OtherColour, Contract.test_best_new_items_are_of_the_users_colour),
        (LooksAtNeighboursInTheBatch, Contract.test_a_user_scores_the_same_in_any_batch),
        (KnownUsersOnly, Contract.test_users_whom_the_log_does_not_know),
        (VectorsOfAnotherModel, Contract.test_vectors_rank_as_scores_do),
    ],
)
def test_a_broken_model_fails(
    broken: type[Any], test: Callable[[Contract, Scorer, Split], None], split: Split
) -> None:
    model = broken().fit(split)
    with pytest.raises(AssertionError):
        test(Contract(), model, split)


def test_a_model_that_draws_without_the_seed_fails(split: Split) -> None:
    class Unseeded(Contract):
        def fitted(self, split: Split) -> Scorer:
            return Random()

    with pytest.raises(AssertionError):
        Unseeded().test_same_seed_gives_the_same_numbers(Random(), split)


def test_a_model_that_forgets_what_it_computed_fails(split: Split, tmp_path: Path) -> None:
    class Shifted(ItemKNN):
        def score(self, batch: BasketBatch) -> Scores:
            return super().score(batch) + 1

    class Forgetful(Contract):
        def config(self, split: Split) -> dict[str, Any]:
            return {"_target_": "recsys.models.ItemKNN"}

    test = Forgetful().test_saved_and_loaded_it_scores_the_same
    test(ItemKNN().fit(split), split, tmp_path)
    with pytest.raises(AssertionError):
        test(Shifted().fit(split), split, tmp_path)
