"""DecayedPersonal."""

from typing import Any

import pytest
import torch

from recsys.batch import BasketBatch
from recsys.errors import ConfigError
from recsys.models import DecayedPersonal, PersonalTop
from recsys.splits import Split
from recsys.testing import ModelContract


class TestContract(ModelContract):
    finds_new_items = False
    ranks_newcomers = True
    k = 1  # most users have few items of their own

    def config(self, split: Split) -> dict[str, Any]:
        return {"_target_": "recsys.models.DecayedPersonal"}


TRAINING = [[[3], [3, 1]], [[0], [1, 2]]]  # targets hold 1 twice, 2 and 3 once


def test_the_formula(split_of: Any) -> None:
    model = DecayedPersonal(decay=0.5, popularity_weight=0.1).fit(split_of(TRAINING, 4))
    batch = BasketBatch.from_lists([[[0, 1], [2], [1]], []], 4)
    expected = [[0.25, 0.25 + 1 + 0.1, 0.5 + 0.05, 0.05], [0, 0.1, 0.05, 0.05]]
    torch.testing.assert_close(model.score(batch), torch.tensor(expected))


def test_without_decay_and_popularity_it_is_personal_top(split_of: Any) -> None:
    split = split_of(TRAINING, 4)
    decayed = DecayedPersonal(decay=1.0, popularity_weight=0.0).fit(split)
    personal = PersonalTop(fill=False).fit(split)
    batch = BasketBatch.from_lists([[[0], [0, 3], [1]], [[2]]], 4)
    torch.testing.assert_close(decayed.score(batch), personal.score(batch).float())


@pytest.mark.parametrize("decay", [0.0, 1.1])
def test_a_decay_is_a_share(decay: float) -> None:
    with pytest.raises(ConfigError, match=rf"decay={decay}: expected above 0, to 1"):
        DecayedPersonal(decay=decay)
