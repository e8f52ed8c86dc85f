"""Scores as probabilities: against scikit-learn, against known chances, and as they are asked."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of
from recsys.errors import ConfigError, DataError, RunError, UnknownIdError
from recsys.models import EASE, ItemKNN
from recsys.scoring import Calibrated, Calibration, SavedModel, Scorer, calibrate, load, save
from recsys.scoring.calibration import Rows, regression, sampled_pairs
from recsys.scoring.completion import Companions, fit_basket_weight
from recsys.scoring.rules import AtMost
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

SPLIT = last_basket(checkerboard())
MODEL = EASE().fit(SPLIT)
FITTED = fit_basket_weight(
    Calibrated(MODEL, calibrate(MODEL, SPLIT.validation)),
    Companions.of(SPLIT.training),
    SPLIT.validation,
)
SAVED = SavedModel(MODEL, SPLIT.item_table, SPLIT.users, SPLIT.latest, False, calibration=FITTED)


class Fixed(Scorer):
    """Scores that are given, a row for each user."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def score(self, batch: BasketBatch) -> Tensor:
        return self.scores[batch.users]


def part_of(labels: Tensor) -> Part:
    """Users without a history, whose targets are at the labels (U, n)."""
    history = BasketBatch.from_lists([[]] * len(labels), labels.shape[1])
    users = torch.arange(len(labels))
    target = Ragged(labels.nonzero()[:, 1], offsets_of(labels.sum(1)))
    return Part("validation", BasketBatch(**(vars(history) | {"users": users})), target)


def test_the_regression_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    inputs = np.c_[generator.normal(3, 5, 400), generator.exponential(0.01, 400), np.full(400, 7.0)]
    labels = generator.random(400) < 1 / (1 + np.exp(2 - inputs[:, 0] / 4))
    weights = generator.integers(1, 9, 400).astype(float)
    ours, intercept = regression(Rows(inputs, labels, weights), np.full(3, -np.inf))
    theirs = LogisticRegression(C=np.inf, tol=1e-8, max_iter=10_000)
    theirs.fit(inputs[:, :2] * [1, 100], labels, weights)
    assert ours[2] == 0  # what never varied
    assert ours[:2] * [1, 0.01] == pytest.approx(theirs.coef_[0], rel=1e-3, abs=1e-3)
    assert intercept == pytest.approx(theirs.intercept_[0], rel=1e-3)
    bound, _ = regression(Rows(-inputs, labels, weights), np.full(3, 0.5))
    assert (bound[:2] >= 0.5 - 1e-9).all()


def test_chances_that_are_known_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(800, 300, generator=generator) * 2
    scores += torch.randn(800, 1, generator=generator) * 3  # of a user: says nothing of its items
    chances = (scores - scores.logsumexp(1, keepdim=True) + 1.5).sigmoid()
    labels = torch.rand(scores.shape, generator=generator) < chances
    fitted = calibrate(Fixed(scores), part_of(labels))
    found = Calibrated(Fixed(scores), fitted).score(part_of(labels).history).sigmoid()
    assert (found - chances).abs().mean() < 2e-3
    assert found.sum(1).mean() == pytest.approx(float(labels.sum(1).double().mean()), rel=0.03)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_probabilities_keep_the_order_of_the_scores(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(50, 30, generator=generator).round(decimals=1)
    labels = torch.rand(scores.shape, generator=generator) < 0.2  # whatever the scores say
    model = Calibrated(Fixed(scores * scale), calibrate(Fixed(scores * scale), part_of(labels)))
    logits = model.score(part_of(labels).history)
    steps = scores.sort(1).values.diff(dim=1)
    rises = logits.gather(1, scores.argsort(1)).diff(dim=1)
    assert (rises[steps > 0] > 0).all()
    assert (rises[steps == 0].abs() < 1e-9).all()


def test_a_sample_stands_for_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(40, 2000, generator=generator)
    labels = torch.rand(scores.shape, generator=generator) < 0.01
    is_open = torch.rand(scores.shape, generator=generator) < 0.9
    users, items, weights = sampled_pairs(scores, labels, is_open, seed=0)
    assert len(users) < 0.1 * scores.numel()
    assert is_open[users, items].all()
    assert labels[users, items].sum() == (labels & is_open).sum()
    assert weights.sum() == pytest.approx(int(is_open.sum()), rel=0.05)
    # Every pair of a small catalogue counts once.
    assert (sampled_pairs(scores[:, :64], labels[:, :64], is_open[:, :64], 0)[2] == 1).all()


def test_a_user_of_whom_a_model_says_nothing_has_popularity() -> None:
    model = ItemKNN().fit(SPLIT)
    likely = Calibrated(model, calibrate(model, SPLIT.validation))
    probabilities = likely.score(BasketBatch.from_lists([[]], SPLIT.num_items)).sigmoid()[0]
    share = SPLIT.popularity.double() / SPLIT.popularity.sum()
    assert probabilities.allclose(share * likely.calibration.size)


def test_users_without_targets_calibrate_nothing() -> None:
    with pytest.raises(DataError, match="Fixed: no validation user has a target"):
        calibrate(Fixed(torch.rand(3, 4)), part_of(torch.zeros(3, 4, dtype=torch.bool)))


def test_a_calibration_is_kept_with_its_model(tmp_path: Path) -> None:
    save(tmp_path / "model", MODEL, SPLIT, calibration=FITTED)
    again = load(tmp_path, device="cpu")
    assert again.recommend(7, k=3, probability=True).equals(
        SAVED.recommend(7, k=3, probability=True)
    )
    path = tmp_path / "model" / "calibration.json"
    path.write_text(path.read_text().replace('"slopes": [', '"slopes": [-1, '))
    for text in (path.read_text(), "{"):
        path.write_text(text)
        with pytest.raises(RunError, match=r"damaged .*; delete it and calibrate the model again"):
            load(tmp_path)
    save(tmp_path / "model", MODEL, SPLIT)  # another model, maybe
    assert load(tmp_path, device="cpu").calibration is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"slopes": [1.0, -1.0, 1.0, 1.0, 1.0, 1.0]}, "does not rise"),
        ({"knots": []}, "of different lengths"),
        ({"weights": [True, 0, 0]}, "no list of numbers"),
        ({"intercept": float("nan")}, "no finite number"),
        ({"basket_weight": "1"}, "no list of numbers"),
        ({"size": -1.5}, "size=-1.5: the mean number of targets must be above 0"),
        ({"size": 0.0}, "size=0: the mean number of targets must be above 0"),
        ({"intercept": -1e308}, r"intercept holds 1e\+308, above 1e\+30"),
    ],
)
def test_what_is_no_calibration_is_refused(changes: dict[str, object], reason: str) -> None:
    values = json.loads(json.dumps(FITTED.as_dict() | changes))
    with pytest.raises(ValueError, match=reason):
        Calibration.of(values)


def test_a_calibration_that_lacks_something_says_what() -> None:
    values = FITTED.as_dict()
    del values["size"], values["knots"]
    with pytest.raises(ValueError, match="it lacks knots, size"):
        Calibration.of(values)


def test_lists_and_pairs_have_the_same_probabilities() -> None:
    lists = SAVED.recommend([7, 12], k=5, probability=True)
    pairs = SAVED.score(lists.drop("score", "probability"), probability=True)
    assert pairs["probability"].to_list() == pytest.approx(lists["probability"].to_list())
    falls = lists.select(pl.col("probability").diff().over("user_id")).drop_nulls()
    assert (falls["probability"] < 0).all()
    reranked = SAVED.recommend(
        7, k=5, probability=True, rerank=AtMost(5, "title"), mask_history=True
    )
    assert len(reranked) == 5
    of_history = SAVED.recommend(histories=[[[7, 9], [11]]], k=2, probability=True)
    assert of_history.columns == ["history", "rank", "item_id", "title", "score", "probability"]


def test_a_basket_is_the_beginning_of_the_list() -> None:
    basket = SAVED.next_basket([7, 12])
    for (user,), rows in basket.group_by("user_id", maintain_order=True):
        assert rows["item_id"].equals(SAVED.recommend(user, k=len(rows))["item_id"])
        every = pl.DataFrame({"user_id": user, "item_id": range(SPLIT.num_items)})
        total = SAVED.score(every, probability=True)["probability"].sum()
        assert rows["size"].to_list() == pytest.approx([total] * len(rows))


def test_what_is_in_the_basket_is_in_no_list() -> None:
    given = pl.DataFrame({"user_id": [12, 7, 7, 99], "item_id": [2, 1, 3, 5]})
    for options in ({}, {"rerank": AtMost(40, "title")}, {"deny": [5]}, {"mask_history": True}):
        lists = SAVED.recommend([7, 12], k=37, basket=given, **options)
        assert not len(lists.join(given, on=["user_id", "item_id"]))
        assert not options.get("deny") or 5 not in lists["item_id"]
    everybody = SAVED.recommend([7, 12], k=40, basket=[1, 3, 3])
    assert everybody["user_id"].value_counts()["count"].to_list() == [38, 38]
    one = SAVED.recommend(histories=[[[7]], []], k=5, basket=[9])
    assert 9 not in one["item_id"]


def test_questions_that_cannot_be_answered() -> None:
    plain = SavedModel(MODEL, SPLIT.item_table, SPLIT.users, SPLIT.latest, False)
    pairs = pl.DataFrame({"user_id": [7], "item_id": [1]})
    for ask in (
        lambda: plain.recommend(7, probability=True),
        lambda: plain.recommend(7, basket=[1]),
        lambda: plain.next_basket(7),
        lambda: plain.score(pairs, probability=True),
    ):
        with pytest.raises(ConfigError, match="EASE is not calibrated"):
            ask()
    with pytest.raises(UnknownIdError, match="basket: item_id 99 is not among the 40"):
        SAVED.recommend(7, basket=[1, 99])
    with pytest.raises(ConfigError, match="basket: user_id 12 has no item in it"):
        SAVED.recommend([7, 12], basket=pairs)
    with pytest.raises(ConfigError, match="histories are nobody's"):
        SAVED.recommend(histories=[[1]], basket=pairs)
    with pytest.raises(ConfigError, match="probability=True is of whole baskets"):
        SAVED.recommend(7, basket=[1], probability=True)
    with pytest.raises(ConfigError, match="not for texts"):
        SAVED.recommend(texts=[["a stone"]], basket=[1])
    alone = Calibration.of(FITTED.as_dict() | {"basket_weight": None})
    of_single_items = SavedModel(
        MODEL, SPLIT.item_table, SPLIT.users, SPLIT.latest, False, calibration=alone
    )
    with pytest.raises(ConfigError, match="no validation user of the model's log had two targets"):
        of_single_items.recommend(7, basket=[1])
