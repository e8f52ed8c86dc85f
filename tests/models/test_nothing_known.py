"""Users of whom a model knows nothing are ranked by popularity, after it was saved too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.batch.histories import BasketBatch
from recsys.evaluation.ranking import Protocol
from recsys.models import EASE, IALS, TIFUKNN, UPCF, Hybrid, ItemKNN, Markov, PersonalTop
from recsys.scoring import saved_model
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

TRAINING = [[[3], [3, 1], [1, 2]], [[1], [3]], [[1]]]
POPULAR = [1, 3, 2, 0, 4]
"""Taken 4, 3 and 1 times; 0 and 4 never in training."""


@pytest.fixture(scope="module")
def split(split_of: Callable[..., Split]) -> Split:
    return split_of(TRAINING, 5)


def both() -> Hybrid:
    return Hybrid(
        members={"ease": EASE(), "markov": Markov()}, weights={"ease": 1.0, "markov": 1.0}
    )


@pytest.mark.parametrize("build", [EASE, IALS, ItemKNN, Markov, both])
def test_a_history_that_training_never_saw(build: Callable[[], Scorer], split: Split) -> None:
    model = fit(build(), split, TrainingOptions(), Protocol())
    unseen = BasketBatch.from_lists([[[4]], [[0], [4]], [[3], [1]]], 5)
    assert model.top_k(unseen, 5).items[:2].tolist() == [POPULAR, POPULAR]
    masked = model.top_k(unseen, 5, mask_history=True).items
    assert masked[:2].tolist() == [[1, 3, 2, 0, -1], [1, 3, 2, -1, -1]]
    assert model.score(unseen)[2].unique().numel() > 1


@pytest.mark.parametrize("build", [PersonalTop, TIFUKNN, UPCF])
def test_what_remains_when_the_own_items_are_masked(
    build: Callable[[], Scorer], split: Split
) -> None:
    model = fit(build(), split, TrainingOptions(), Protocol())
    unseen = BasketBatch.from_lists([[[4]]], 5)
    assert model.top_k(unseen, 1).items.tolist() == [[4]]
    assert model.top_k(unseen, 1, mask_history=True).items.tolist() == [[1]]


def test_a_saved_model(split: Split, tmp_path: Path) -> None:
    config: dict[str, Any] = {"_target_": "recsys.models.EASE"}
    saved_model.save(tmp_path / "model", EASE().fit(split), split, config, mask_history=False)
    lists = saved_model.load(tmp_path).recommend(histories=[[]], k=3)
    assert lists["item_id"].to_list() == [1, 3, 2]
