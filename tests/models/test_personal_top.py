"""PersonalTop."""

from typing import Any

import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.data.sources.temporal_sets import dc
from recsys.evaluation.ranking import evaluate
from recsys.models import PersonalTop
from recsys.tasks.splits import Split, user_holdout
from recsys.testing.contracts import ModelContract


class TestContract(ModelContract):
    finds_new_items = False
    k = 1  # most users have few items of their own

    def config(self, split: Split) -> dict[str, Any]:
        return {"_target_": "recsys.models.PersonalTop"}


TRAINING = [[[3], [3], [3, 1]], [[1], [2]]]  # popularity 0 2 1 3 0
ASKED = [[[0, 4], [4], [1]], []]


def test_own_counts_come_first_and_popularity_settles_ties(split_of: Any) -> None:
    model = PersonalTop().fit(split_of(TRAINING, 5))
    batch = BasketBatch.from_lists(ASKED, 5)
    assert model.top_k(batch, 5).items.tolist() == [[4, 1, 0, 3, 2], [3, 1, 2, 0, 4]]


def test_without_fill_ties_go_to_the_lower_index(split_of: Any) -> None:
    model = PersonalTop(fill=False).fit(split_of(TRAINING, 5))
    batch = BasketBatch.from_lists(ASKED, 5)
    assert model.score(batch).tolist() == [[1, 1, 0, 0, 2], [0, 0, 0, 0, 0]]
    # Who has had nothing gets popularity.
    assert model.top_k(batch, 5).items.tolist() == [[4, 0, 1, 2, 3], [3, 1, 2, 0, 4]]
    masked = model.top_k(batch, 3, mask_history=True).items
    assert masked.tolist() == [[3, 2, -1], [3, 1, 2]]


def test_popularity_never_outweighs_a_basket_nor_is_lost_beside_many(split_of: Any) -> None:
    popular = [[[0]] * 400, [[1]] * 399]
    model = PersonalTop().fit(split_of(popular, 4))
    batch = BasketBatch.from_lists([[[3]] + [[0, 1]] * 300], 4)
    assert model.top_k(batch, 4).items.tolist() == [[0, 1, 3, 2]]
    assert model.score(batch).dtype == torch.float64


@pytest.mark.data
@pytest.mark.parametrize(
    ("fill", "expected"),
    [(False, (0.4128, 0.3242, 0.5069)), (True, (0.4576, 0.3381, 0.5557))],
)
def test_known_figures_on_dc(public_data: Any, fill: bool, expected: Any) -> None:
    split = user_holdout(dc())
    means = evaluate(PersonalTop(fill=fill).fit(split), split.test).means
    figures = [means[f"{name}@10"] for name in ("recall", "ndcg", "phr")]
    assert figures == pytest.approx(expected, abs=5e-5)
