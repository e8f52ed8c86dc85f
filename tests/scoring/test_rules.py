"""Rules of a business against lists that are made by hand."""

import polars as pl
import pytest
import torch

from recsys.errors import ConfigError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.models import EASE
from recsys.retrieval.lists import TopK
from recsys.scoring import MMR, AtLeast, AtMost, Boost, SavedModel
from recsys.scoring.reranking import Reranking
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

SPLIT = last_basket(checkerboard(num_users=40, num_items=20))
MODEL = EASE().fit(SPLIT)
ITEMS = pl.DataFrame(
    {
        "item_id": range(7),
        "kind": ["tea", "tea", "tea", "milk", "milk", None, None],
        "own": [False, False, True, False, True, False, None],
        "shelf": [1, 1, 2, 2, 3, 3, None],
        "tags": [["a"]] * 7,
    }
)
POOL = TopK(torch.arange(7)[None], torch.tensor([[10.0, 9, 8, 7, 6, 5, 0]]))


def order(rule: Reranking, k: int, pool: TopK = POOL) -> list[int]:
    lists = rule.step(MODEL, ITEMS)(pool, k)
    assert lists.items.shape == pool.items.shape
    return lists.items[0, :k].tolist()


def test_at_most_of_a_value_and_nulls_are_not_counted() -> None:
    assert order(AtMost(1, "kind"), 4) == [0, 3, 5, 6]
    assert order(AtMost(2, "kind"), 5) == [0, 1, 3, 4, 5]
    assert order(AtMost(1, "kind"), 6) == [0, 3, 5, 6, -1, -1]  # there are no more
    scores = AtMost(1, "kind").step(MODEL, ITEMS)(POOL, 6).scores[0]
    assert scores[:4].tolist() == [10, 7, 5, 0]
    assert scores[4:].isinf().all()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (AtLeast(1, "own", True), [0, 1, 2]),
        (AtLeast(2, "own", "true"), [0, 2, 4]),
        (AtLeast(3, "own", True), [0, 2, 4]),  # as many as there are
        (AtLeast(2, "shelf", 3), [0, 4, 5]),
        (AtLeast(9, "kind", "tea"), [0, 1, 2]),
        (Boost(0.15, "kind", "milk"), [0, 1, 3]),  # 7 + 1.5 is before 8
        (Boost(1, "own", True), [2, 4, 0]),
        (Boost(-1, "kind", "tea"), [3, 4, 5]),
    ],
)
def test_quotas_and_boosts(rule: Reranking, expected: list[int]) -> None:
    assert order(rule, 3) == expected


def test_places_without_an_item_stay_last() -> None:
    pool = TopK(torch.tensor([[3, 2, -1]]), torch.tensor([[2.0, 1.0, -torch.inf]]))
    for rule in (AtMost(1, "kind"), AtLeast(1, "own", True), Boost(1, "own", True)):
        assert order(rule, 3, pool)[2] == -1


def test_rules_follow_one_another() -> None:
    saved = SavedModel(MODEL, SPLIT.item_table, SPLIT.users, SPLIT.latest, False)
    rules = [MMR(0.1, by="colour"), AtLeast(4, "colour", "white"), AtMost(5, "colour")]
    lists = saved.recommend([3, 8], k=8, rerank=rules).join(SPLIT.item_table, on="item_id")
    counts = lists.group_by("user_id", "colour").len()
    assert counts["len"].max() <= 5
    assert counts.filter(colour="white")["len"].min() >= 3 + 1
    assert lists.group_by("user_id").len()["len"].to_list() == [8, 8]
    assert saved.recommend(3, k=8, rerank=[]).equals(saved.recommend(3, k=8))


def test_a_rule_costs_accuracy_where_it_changes_lists() -> None:
    ruled = AtMost(3, "colour").of(MODEL, SPLIT.item_table)
    means = [evaluate(m, SPLIT.test, Protocol(ks=(6,))).means["recall@6"] for m in (MODEL, ruled)]
    assert means[1] < means[0]


def test_what_no_rule_can_be() -> None:
    for rule, message in (
        (AtMost(1, "color"), "by=color: items have kind, own, shelf"),
        (AtMost(1, "tags"), "by=tags: items have kind"),
        (Boost(1, "kind", "jam"), "kind=jam: no item has it; there is milk, tea"),
    ):
        with pytest.raises(ConfigError, match=message):
            rule.of(MODEL, ITEMS)
    with pytest.raises(ConfigError, match=r"by=kind: items have no columns; .*data\.items_path"):
        AtMost(1, "kind").of(MODEL, ITEMS.select("item_id"))
    with pytest.raises(ConfigError, match="count=0: expected at least 1"):
        AtMost(0, "kind")
    with pytest.raises(ConfigError, match="pool=0: expected at least 1"):
        AtLeast(1, "kind", "tea", pool=0)
    with pytest.raises(ConfigError, match="weight=inf"):
        Boost(float("inf"), "kind", "tea")
