"""TIFUKNN."""

from typing import Any

import numpy as np
import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.data.sources.temporal_sets import tafeng
from recsys.errors import ConfigError
from recsys.evaluation.ranking import evaluate
from recsys.models import TIFUKNN
from recsys.tasks.splits import Split, user_holdout
from recsys.testing.contracts import ModelContract

NUM_ITEMS = 12


class TestContract(ModelContract):
    def config(self, split: Split) -> dict[str, Any]:
        return {"_target_": "recsys.models.TIFUKNN", "num_neighbors": 15, "num_groups": 3}


def own_vector(history: list[list[int]], **options: Any) -> torch.Tensor:
    """The score of a model that leaves neighbours out."""
    model = TIFUKNN(alpha=1.0, num_neighbors=1, **options)
    return model._decayed(BasketBatch.from_lists([history], NUM_ITEMS))


def test_the_last_groups_hold_a_basket_more() -> None:
    # Five baskets in two groups: {0, 1} and {2, 3, 4}.
    weights = own_vector([[t] for t in range(5)], num_groups=2, within_decay=0.9, group_decay=0.5)
    in_first, in_last = 0.5 / 2 / 2, 1 / 3 / 2
    expected = [in_first * 0.9**4, in_first * 0.9**3, in_last * 0.9**2, in_last * 0.9, in_last]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_a_short_history_has_a_group_for_each_basket_from_the_first_on() -> None:
    weights = own_vector([[0, 1], [2]], num_groups=5, within_decay=0.9, group_decay=0.5)
    first, second = 0.9 * 0.5**4 / 2, 0.5**3 / 2
    torch.testing.assert_close(weights, torch.tensor([first, first, second]))


def random_histories(seed: int, num_users: int, longest: int) -> list[list[list[int]]]:
    generator = np.random.default_rng(seed)
    return [
        [
            generator.choice(NUM_ITEMS, generator.integers(1, 6), replace=False).tolist()
            for _ in range(generator.integers(2, longest + 1))
        ]
        for _ in range(num_users)
    ]


def vector_by_loops(history: list[list[int]], m: int, rb: float, rg: float) -> np.ndarray:
    """As the authors' code does it: decay the baskets, cut into groups, average, decay, average."""
    sets = []
    for age, basket in enumerate(reversed(history)):
        vector = np.zeros(NUM_ITEMS)
        vector[basket] = rb**age
        sets.insert(0, vector)
    sizes = [1] * len(sets)
    if len(sets) >= m:
        base, extra = divmod(len(sets), m)
        sizes = [base] * (m - extra) + [base + 1] * extra
    groups, begin = [], 0
    for size in sizes:
        groups.append(np.mean(sets[begin : begin + size], axis=0))
        begin += size
    return sum(rg ** (m - 1 - g) * group for g, group in enumerate(groups)) / len(groups)


@pytest.mark.parametrize(
    ("m", "rb", "rg", "k", "alpha", "with_targets"),
    [(7, 0.9, 0.7, 5, 0.7, False), (3, 0.8, 1.0, 10, 0.1, True), (1, 1.0, 0.5, 40, 0.0, True)],
)
def test_equals_loops_over_users(
    split_of: Any, m: int, rb: float, rg: float, k: int, alpha: float, with_targets: bool
) -> None:
    training, asked = random_histories(0, 40, 12), random_histories(1, 10, 25)
    model = TIFUKNN(
        num_groups=m,
        within_decay=rb,
        group_decay=rg,
        num_neighbors=k,
        alpha=alpha,
        with_targets=with_targets,
    ).fit(split_of(training, NUM_ITEMS))
    corpus = [vector_by_loops(h if with_targets else h[:-1], m, rb, rg) for h in training]
    scores = model.score(BasketBatch.from_lists(asked, NUM_ITEMS)).numpy()
    for row, history in zip(scores, asked, strict=True):
        vector = vector_by_loops(history, m, rb, rg)
        nearest = sorted(corpus, key=lambda other: float(np.linalg.norm(other - vector)))[:k]
        expected = alpha * vector + (1 - alpha) * np.mean(nearest, axis=0)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)


def test_equal_distances_go_to_the_lower_user_index(split_of: Any) -> None:
    split = split_of([[[1], [1]], [[2], [2]], [[3], [3]]], 5)
    model = TIFUKNN(num_neighbors=2, alpha=0.0, within_decay=1.0, group_decay=1.0).fit(split)
    scores = model.score(BasketBatch.from_lists([[[0]], [[0], [4]]], 5))
    assert scores.tolist() == [[0, 0.5, 0.5, 0, 0]] * 2


def test_a_user_is_no_neighbour_of_its_own(split_of: Any) -> None:
    split = split_of([[[0], [1]], [[2], [3]]], 4)
    for k in (1, 2):
        model = TIFUKNN(num_neighbors=k, alpha=0.0, within_decay=1.0, group_decay=1.0).fit(split)
        scores = model.score(split.training)
        assert scores.tolist() == [[0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0]]


def test_a_batch_of_any_size_has_the_same_neighbours(split_of: Any) -> None:
    # Many users with few baskets are equally far from one another.
    training = [h[:2] for h in random_histories(2, 200, 4)]
    model = TIFUKNN(num_neighbors=20, alpha=0.3).fit(split_of(training, NUM_ITEMS))
    batch = BasketBatch.from_lists([h[-2:] for h in random_histories(3, 50, 4)], NUM_ITEMS)
    alone = [model.score(batch.rows(torch.tensor([row]))) for row in range(len(batch))]
    assert model.score(batch).equal(torch.cat(alone))


@pytest.mark.parametrize("option", ["num_groups", "num_neighbors"])
def test_groups_and_neighbours_are_one_or_more(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}=0: expected at least 1"):
        TIFUKNN(**{option: 0})


@pytest.mark.data
def test_the_authors_setting_on_tafeng(public_data: Any) -> None:
    split = user_holdout(tafeng())
    means = evaluate(TIFUKNN(with_targets=False).fit(split), split.test).means
    figures = [means[f"{name}@10"] for name in ("recall", "ndcg", "phr")]
    assert figures == pytest.approx((0.1335, 0.1158, 0.4109), abs=1e-3)
