"""Popularity."""

from typing import Any

import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.data.sources.temporal_sets import dc
from recsys.errors import ConfigError
from recsys.evaluation.ranking import evaluate
from recsys.models import Popularity
from recsys.tasks.splits import Split, user_holdout
from recsys.testing.contracts import ModelContract


class TestContract(ModelContract):
    finds_colours = finds_new_items = False
    ranks_newcomers = True

    def config(self, split: Split) -> dict[str, Any]:
        return {"_target_": "recsys.models.Popularity", "decay": 0.5}


TRAINING = [[[0, 1], [1], [2]], [[1, 3], [0]]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2, 3, 1, 1, 0]),
        ({"targets_only": True}, [1, 0, 1, 0, 0]),
        ({"decay": 0.5}, [1 + 0.25, 0.25 + 0.5 + 0.5, 1, 0.5, 0]),
    ],
)
def test_counts_training_baskets(split_of: Any, options: dict[str, Any], expected: Any) -> None:
    model = Popularity(**options).fit(split_of(TRAINING, 5))
    batch = BasketBatch.from_lists([[[4]], []], 5)
    torch.testing.assert_close(model.score(batch), torch.tensor([expected] * 2).float())


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5])
def test_a_decay_is_a_share(decay: float) -> None:
    with pytest.raises(ConfigError, match=rf"decay={decay}: expected above 0, to 1"):
        Popularity(decay=decay)


def test_targets_have_no_age() -> None:
    with pytest.raises(ConfigError, match=r"decay=0\.9 changes nothing"):
        Popularity(targets_only=True, decay=0.9)


@pytest.mark.data
@pytest.mark.parametrize(
    ("targets_only", "expected"),
    [(False, (0.1618, 0.0880, 0.2274)), (True, (0.1659, 0.0892, 0.2324))],
)
def test_known_figures_on_dc(public_data: Any, targets_only: bool, expected: Any) -> None:
    split = user_holdout(dc())
    means = evaluate(Popularity(targets_only=targets_only).fit(split), split.test).means
    figures = [means[f"{name}@10"] for name in ("recall", "ndcg", "phr")]
    assert figures == pytest.approx(expected, abs=5e-5)
