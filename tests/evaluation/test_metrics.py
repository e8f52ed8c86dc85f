import math
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional import retrieval as torchmetrics

from recsys.batch.ragged import Ragged
from recsys.errors import CatalogueError, DataError
from recsys.evaluation import metrics
from recsys.retrieval.lists import top_k

INDEPENDENT = {
    "recall": torchmetrics.retrieval_recall,
    "precision": torchmetrics.retrieval_precision,
    "ndcg": torchmetrics.retrieval_normalized_dcg,
    "phr": torchmetrics.retrieval_hit_rate,
    "mrr": torchmetrics.retrieval_reciprocal_rank,
    "map": torchmetrics.retrieval_average_precision,
}


@st.composite
def masks(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Hits (U, k) and as many targets as hits, or more."""
    users, k = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    hits = torch.rand(users, k, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    missed = torch.randint(0, 15, (users,), generator=generator)
    return hits, (hits.sum(1) + missed).clamp(min=1)


@pytest.mark.parametrize("seed", range(3))
def test_equals_torchmetrics_on_rankings_with_ties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    users, n, ks = 60, 30, (1, 5, 10, 30)
    scores = torch.randint(0, 6, (users, n), generator=generator).float()  # six scores, 30 items
    relevant = torch.rand(users, n, generator=generator) < 0.2
    relevant[relevant.sum(1) == 0, 3] = True
    targets = Ragged(
        relevant.nonzero()[:, 1], torch.nn.functional.pad(relevant.sum(1).cumsum(0), (1, 0))
    )

    hits = metrics.hits(top_k(scores, n).items, targets, n)
    ours = metrics.per_user(hits, targets.lengths, ks)

    # Equal scores in order of index, as a plain sort by (-score, index) has them.
    order = [sorted(range(n), key=lambda i, u=u: (-float(scores[u, i]), i)) for u in range(users)]
    ranked = relevant.gather(1, torch.tensor(order))
    falling = torch.arange(n, 0, -1).float()
    for k in ks:
        for name, independent in INDEPENDENT.items():
            expected = torch.stack([independent(falling, row, top_k=k) for row in ranked]).double()
            if name == "map":  # torchmetrics divides by the hits, not by min(k, T)
                expected *= ranked[:, :k].sum(1) / targets.lengths.clamp(max=k)
            torch.testing.assert_close(ours[f"{name}@{k}"], expected, atol=1e-6, rtol=0)


def test_values_worked_out_by_hand() -> None:
    hits = torch.tensor([[False, True, False, True]])  # two of three targets, at places 2 and 4
    values = metrics.per_user(hits, torch.tensor([3]), (2, 4))
    ideal_2 = 1 + 1 / math.log2(3)
    ideal_4 = ideal_2 + 1 / 2
    assert {name: value.item() for name, value in values.items()} == pytest.approx(
        {
            "recall@2": 1 / 3,
            "precision@2": 1 / 2,
            "ndcg@2": (1 / math.log2(3)) / ideal_2,
            "phr@2": 1,
            "mrr@2": 1 / 2,
            "map@2": (1 / 2) / 2,
            "recall@4": 2 / 3,
            "precision@4": 2 / 4,
            "ndcg@4": (1 / math.log2(3) + 1 / math.log2(5)) / ideal_4,
            "phr@4": 1,
            "mrr@4": 1 / 2,
            "map@4": (1 / 2 + 2 / 4) / 3,
        },
        abs=1e-12,
    )


def test_a_hit_beyond_k_does_not_count() -> None:
    values = metrics.per_user(torch.tensor([[False, False, True]]), torch.tensor([1]), (2,))
    assert all(value.item() == 0 for value in values.values())


def test_one_target_at_each_place() -> None:
    k = 5
    values = metrics.per_user(
        torch.eye(k, dtype=torch.bool), torch.ones(k, dtype=torch.int64), (k,)
    )
    place = torch.arange(1, k + 1).double()
    torch.testing.assert_close(values["mrr@5"], 1 / place)
    torch.testing.assert_close(values["map@5"], 1 / place)
    torch.testing.assert_close(values["ndcg@5"], 1 / torch.log2(place + 1))
    torch.testing.assert_close(values["precision@5"], torch.full_like(place, 1 / k))
    assert values["recall@5"].tolist() == values["phr@5"].tolist() == [1] * k


@given(masks())
def test_bounds(case: tuple[Tensor, Tensor]) -> None:
    hits, num_targets = case
    for name, value in metrics.per_user(hits, num_targets, range(1, hits.shape[1] + 1)).items():
        assert value.dtype == torch.float64, name
        assert (value >= 0).all(), name
        assert (value <= 1 + 1e-12).all(), name
        assert ((value > 0) == hits[:, : int(name.split("@")[1])].any(1)).all(), name


@given(masks())
def test_all_targets_first_is_perfect(case: tuple[Tensor, Tensor]) -> None:
    hits, num_targets = case
    k = hits.shape[1]
    perfect = torch.arange(k) < num_targets[:, None]
    for name in ("ndcg", "phr", "mrr", "map"):
        values = metrics.METRICS[name](perfect, num_targets)
        torch.testing.assert_close(values, torch.ones_like(values))


@given(masks())
def test_longer_lists_find_no_less(case: tuple[Tensor, Tensor]) -> None:
    hits, num_targets = case
    for name in ("recall", "phr", "mrr"):
        metric = metrics.METRICS[name]
        at = torch.stack([metric(hits[:, :k], num_targets) for k in range(1, hits.shape[1] + 1)])
        assert (at.diff(dim=0) >= 0).all(), name


@given(masks(), st.data())
def test_a_hit_moved_up_never_costs(case: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    hits, num_targets = case
    place = data.draw(st.integers(0, hits.shape[1] - 1))
    better = hits.clone()
    better[:, [place, 0]] = hits[:, [0, place]]
    rows = ~hits[:, 0]
    for name, metric in metrics.METRICS.items():
        gain = metric(better, num_targets) - metric(hits, num_targets)
        assert (gain[rows] >= -1e-12).all(), name


@given(masks(), st.randoms(use_true_random=False))
def test_users_do_not_affect_each_other(case: tuple[Tensor, Tensor], random: Random) -> None:
    hits, num_targets = case
    order = list(range(len(hits)))
    random.shuffle(order)
    for metric in metrics.METRICS.values():
        expected = metric(hits, num_targets)[order]
        assert metric(hits[order], num_targets[order]).tolist() == expected.tolist()


def test_hits_match_the_own_targets_only() -> None:
    targets = Ragged.from_lists([[2, 0], [], [3]])
    items = torch.tensor([[0, 3, 2], [0, 1, 2], [2, 3, -1]])
    assert metrics.hits(items, targets, 4).tolist() == [
        [True, False, True],
        [False, False, False],
        [False, True, False],
    ]


def test_hits_with_no_target_at_all() -> None:
    hits = metrics.hits(torch.tensor([[0, 1]]), Ragged.from_lists([[]]), 4)
    assert hits.tolist() == [[False, False]]


def test_a_repeated_target_counts_once() -> None:
    targets = Ragged.from_lists([[5, 5, 1]]).distinct(6)
    hits = metrics.hits(torch.tensor([[5, 0]]), targets, 6)
    assert metrics.recall(hits, targets.lengths).item() == 0.5


def test_users_without_targets_are_refused() -> None:
    with pytest.raises(DataError, match="2 users have no target, the first in row 1"):
        metrics.per_user(torch.ones(3, 2, dtype=torch.bool), torch.tensor([1, 0, 0]), (2,))


def test_a_k_beyond_the_ranked_places_is_refused() -> None:
    with pytest.raises(CatalogueError, match="k=20 exceeds the 10 ranked places"):
        metrics.per_user(torch.ones(1, 10, dtype=torch.bool), torch.tensor([1]), (5, 20))


def test_coverage_counts_each_item_once_and_missing_places_never() -> None:
    assert metrics.coverage(torch.tensor([[0, 1], [1, -1]]), 8) == 2 / 8


def test_gini_at_its_ends() -> None:
    n = 5
    assert metrics.gini(torch.arange(n)[:, None], n) == pytest.approx(0)
    assert metrics.gini(torch.zeros(9, 1, dtype=torch.int64), n) == pytest.approx((n - 1) / n)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_gini_is_half_the_relative_mean_difference(recommended: list[int]) -> None:
    n = 6
    counts = torch.bincount(torch.tensor(recommended), minlength=n).double()
    expected = (counts[:, None] - counts).abs().mean() / (2 * counts.mean())
    assert metrics.gini(torch.tensor(recommended)[:, None], n) == pytest.approx(expected.item())


def test_novelty_is_mean_self_information() -> None:
    popularity = torch.tensor([4, 2, 1, 1])  # 1, 2, 3 and 3 bits
    items = torch.tensor([[0, 1], [2, -1]])
    assert metrics.novelty(items, popularity) == pytest.approx((1 + 2 + 3) / 3)


def test_novelty_of_an_item_never_seen_is_finite() -> None:
    assert metrics.novelty(torch.tensor([[1]]), torch.tensor([8, 0])) == pytest.approx(3)


def test_catalogue_metrics_of_empty_lists_are_zero() -> None:
    nothing = torch.full((2, 3), -1)
    assert metrics.coverage(nothing, 4) == 0
    assert metrics.gini(nothing, 4) == 0
    assert metrics.novelty(nothing, torch.tensor([1, 1, 1, 1])) == 0
