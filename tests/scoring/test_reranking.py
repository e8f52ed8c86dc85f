"""Diversified lists against a loop over the formula, and what they cost nothing or everything."""

import polars as pl
import pytest
import torch

from recsys.errors import ConfigError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.models import EASE, IALS, Popularity
from recsys.retrieval.lists import TopK
from recsys.scoring.reranking import MMR, cosine, mmr, same_value
from recsys.scoring.trained_model import SavedModel
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

SPLIT = last_basket(checkerboard(num_users=40, num_items=20))


def by_a_loop(items: list[int], scores: list[float], k: int, d: float, alike: torch.Tensor) -> list:
    low, high = min(scores), max(scores)
    relevance = {i: (s - low) / (high - low) for i, s in zip(items, scores, strict=True)}
    chosen: list[int] = []
    while len(chosen) < k:
        value = {
            i: (1 - d) * r - d * max((float(alike[i, j]) for j in chosen), default=0.0)
            for i, r in relevance.items()
            if i not in chosen
        }
        chosen.append(max(value, key=lambda i: value[i]))
    return chosen


@pytest.mark.parametrize("diversity", [0.0, 0.3, 0.7, 1.0])
def test_it_is_the_formula(diversity: float) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.rand(30, 4, generator=generator)
    items = torch.stack([torch.randperm(30, generator=generator)[:12] for _ in range(5)])
    scores = torch.rand(5, 12, generator=generator).sort(1, descending=True).values
    lists = mmr(TopK(items, scores), 6, diversity, cosine(vectors))
    directions = vectors / vectors.norm(dim=1, keepdim=True)
    for row in range(5):
        pool = items[row].tolist(), scores[row].tolist()
        assert lists.items[row].tolist() == by_a_loop(
            *pool, 6, diversity, directions @ directions.T
        )
    is_chosen = items[:, None] == lists.items[:, :, None]
    assert lists.scores.equal((is_chosen * scores[:, None]).sum(2))


def test_places_without_an_item_stay_so() -> None:
    pools = TopK(torch.tensor([[3, 1, -1]]), torch.tensor([[2.0, 1.0, -torch.inf]]))
    lists = mmr(pools, 3, 0.5, same_value(pl.Series(["a", "a", "a", "a"])))
    assert lists.items.tolist() == [[3, 1, -1]]
    assert lists.scores.tolist() == [[2.0, 1.0, -torch.inf]]


def test_nulls_are_like_nothing() -> None:
    alike = same_value(pl.Series(["a", None, None, "a"]))(torch.tensor([[0, 1, 2, 3]]))
    assert alike[0].int().tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]


@pytest.mark.parametrize("model", [EASE(), IALS(embedding_dim=4)], ids=["scores", "vectors"])
def test_recommended_and_evaluated_alike(model: EASE | IALS) -> None:
    model.fit(SPLIT)
    saved = SavedModel(model, SPLIT.item_table, SPLIT.users, SPLIT.latest, False)
    colours = dict(SPLIT.item_table.select("item_id", "colour").iter_rows())
    plain = saved.recommend(3, k=6)
    assert saved.recommend(3, k=6, rerank=MMR(0.0, by="colour")).equals(plain)
    mixed = saved.recommend(3, k=6, rerank=MMR(0.9, by="colour"), deny=[2])
    assert len({colours[item] for item in mixed["item_id"][:2]}) == 2
    assert 2 not in mixed["item_id"]
    reranked = MMR(0.9, by="colour").of(model, SPLIT.item_table)
    protocol = Protocol(ks=(6,))
    cost = [evaluate(m, SPLIT.test, protocol).means["recall@6"] for m in (model, reranked)]
    assert cost[1] < cost[0]


def test_what_cannot_tell_items_apart() -> None:
    model = Popularity().fit(SPLIT)
    with pytest.raises(ConfigError, match=r"Popularity has no vectors .*there are: colour, title"):
        MMR().of(model, SPLIT.item_table)
    with pytest.raises(ConfigError, match="by=color: items have colour, title, text"):
        MMR(by="color").of(model, SPLIT.item_table)
    with pytest.raises(ConfigError, match="diversity=2: expected a share"):
        MMR(2)
    with pytest.raises(ConfigError, match="pool=0: expected at least 1"):
        MMR(pool=0)
