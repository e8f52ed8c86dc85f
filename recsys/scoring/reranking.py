"""Lists in another order than a model's: chosen from its best items, by one step or several.

Maximal marginal relevance gives lists that are less of the same; rules of a business are in
`recsys.scoring.rules`.

Paper: Carbonell & Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998.

    next = argmax over the pool, but for what is chosen, of
           (1 - diversity) relevance(i) - diversity max over chosen j of similarity(i, j)

The pool holds a model's best items, more than the list takes. Kept: the greedy choice, one item
after the other, the first by relevance alone. Changed: relevance is the model's score, brought to
0 .. 1 over each user's pool, so that one weight means the same for every model.

Shapes: B users, P items of a pool, n items, D dimensions, k places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.log.event_log import ITEM
from recsys.ranges import at_least, integers, share
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.lists import TopK
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.scorer import Scorer
from recsys.tasks.tensors import tensor_of
from recsys.types import Scores

Step = Callable[[TopK, int], TopK]
"""Of pools (B, P), best first, and k: the same items, of which the first k are the list."""
Similarity = Callable[[Tensor], Tensor]
"""Of pools (B, P) of items how alike any two are, (B, P, P), at most 1."""


class Reranking(ABC):
    """A way to choose lists from a model's best items.

    Attributes:
        pool: so many of them are chosen from.
    """

    pool: int

    @abstractmethod
    def step(self, model: Scorer, item_table: pl.DataFrame) -> Step:
        """What is done with pools of a model's items.

        Raises:
            ConfigError: the items or the model have not what it needs.
        """

    def of(self, model: Scorer, item_table: pl.DataFrame) -> Reranked:
        """The model with such lists.

        Raises:
            ConfigError: as `step`.
        """
        return reranked(model, [self], item_table)


@dataclass(frozen=True)
class MMR(Reranking):
    """How lists are diversified.

    Attributes:
        diversity: 0, which changes nothing, to 1, which asks for nothing but difference.
        by: a column of the items: two are alike, 1, where they have one value in it, and 0
            otherwise; nulls are like nothing. None: the cosine of the model's vectors.
        pool: so many of the model's best items are chosen from.

    Raises:
        ConfigError: one of them is out of its range.
    """

    diversity: float = 0.1
    by: str | None = None
    pool: int = 100

    def __post_init__(self) -> None:
        share(diversity=self.diversity)
        integers(pool=self.pool)
        at_least(1, pool=self.pool)

    def step(self, model: Scorer, item_table: pl.DataFrame) -> Step:
        similarity = self._similarity(model, item_table)
        return lambda pools, k: marginal(pools, k, self.diversity, similarity)

    @torch.inference_mode()
    def _similarity(self, model: Scorer, item_table: pl.DataFrame) -> Similarity:
        if self.by is not None:
            return same_value(values_of(item_table, self.by))
        if not isinstance(model, VectorScorer):
            raise ConfigError(
                f"{type(model).__name__} has no vectors to tell items apart by; name a column of "
                f"the items, by=COLUMN (there are: {', '.join(_columns(item_table)) or 'none'})"
            )
        return cosine(model.encode_items())


def values_of(item_table: pl.DataFrame, by: str) -> pl.Series:
    """A column (n,) of the items that may be compared.

    Raises:
        ConfigError: there is no such column.
    """
    columns = _columns(item_table)
    if not columns:
        raise ConfigError(
            f"by={by}: items have no columns; train on a log with a table of them, such as by "
            "data.items_path"
        )
    if by not in columns:
        raise ConfigError(f"by={by}: items have {', '.join(columns)}; name one of these")
    return item_table[by]


def _columns(item_table: pl.DataFrame) -> list[str]:
    return [c for c, kind in item_table.schema.items() if c != ITEM and not kind.is_nested()]


def cosine(vectors: Tensor) -> Similarity:
    """By the vectors (n, D) of all items."""
    directions = F.normalize(vectors.float(), dim=1)

    def similarity(pools: Tensor) -> Tensor:
        of_pool = directions[pools]
        return of_pool @ of_pool.mT

    return similarity


def same_value(column: pl.Series) -> Similarity:
    """By a column (n,) of all items; nulls are like nothing."""
    codes = codes_of(column)

    def similarity(pools: Tensor) -> Tensor:
        of_pool = codes.to(pools.device)[pools]
        alike = (of_pool[:, :, None] == of_pool[:, None]) & (of_pool >= 0)[:, None]
        return alike.float()

    return similarity


def codes_of(column: pl.Series) -> Tensor:
    """(n,) int64: equal where the values are; -1 where there is none."""
    return tensor_of(column.rank("dense").cast(pl.Int64).fill_null(-1))


def mmr(pools: TopK, k: int, diversity: float, similarity: Similarity) -> TopK:
    """The k items of each pool (B, P) that MMR chooses, in its order, with the scores they had.

    >>> pools = TopK(torch.tensor([[4, 5, 6]]), torch.tensor([[3.0, 2.9, 1.0]]))
    >>> alike = same_value(pl.Series(["", "", "", "", "tea", "tea", "milk"]))
    >>> [mmr(pools, 2, diversity, alike).items.tolist() for diversity in (0.0, 0.6)]
    [[[4, 5]], [[4, 6]]]
    """
    return first(marginal(pools, k, diversity, similarity), k)


def marginal(pools: TopK, k: int, diversity: float, similarity: Similarity) -> TopK:
    """The pools (B, P) with what `mmr` chooses in front, and the rest as it was behind it."""
    is_open = pools.items >= 0
    relevance = relevances(pools)
    pairs = similarity(pools.items.clamp(min=0))
    likest = torch.zeros_like(relevance)
    width = pools.items.shape[1]
    place = torch.arange(width, device=relevance.device).repeat(len(relevance), 1) + width
    rows = torch.arange(len(relevance), device=relevance.device)
    for step in range(k):
        value = (1 - diversity) * relevance - diversity * likest
        best = value.masked_fill(~is_open, -torch.inf).argmax(1)
        place[rows, best] = torch.where(is_open[rows, best], step, place[rows, best])
        is_open[rows, best] = False
        likest = torch.maximum(likest, pairs[rows, best])
    return in_order(pools, place)


def relevances(pools: TopK) -> Tensor:
    """(B, P): the scores of each pool brought to 0 .. 1."""
    worst, spread = spread_of(pools)
    return (pools.scores - worst) / spread


def spread_of(pools: TopK) -> tuple[Tensor, Tensor]:
    """(B, 1) each: the lowest score of a pool, and how far the highest is above it."""
    worst = pools.scores.masked_fill(pools.items < 0, torch.inf).amin(1, keepdim=True)
    spread = pools.scores.amax(1, keepdim=True) - worst
    return worst, spread.clamp(min=torch.finfo(torch.float32).tiny)


def in_order(pools: TopK, place: Tensor) -> TopK:
    """The pools (B, P) with their items in the order of a number (B, P) of each."""
    order = place.argsort(dim=1, stable=True)
    return TopK(pools.items.gather(1, order), pools.scores.gather(1, order))


def first(lists: TopK, k: int) -> TopK:
    """The first k places of each list."""
    return TopK(lists.items[:, :k], lists.scores[:, :k])


def reranked(model: Scorer, rerankings: Sequence[Reranking], item_table: pl.DataFrame) -> Reranked:
    """A model with its lists chosen in some ways, one after the other.

    Raises:
        ConfigError: the items or the model have not what one of them needs.
    """
    steps = [reranking.step(model, item_table) for reranking in rerankings]
    return Reranked(model, steps, max(reranking.pool for reranking in rerankings))


class Reranked(Scorer):
    """A model whose lists are chosen from its best items, to be asked and evaluated as any other.

    Args:
        model: fitted.
        steps: how they are chosen.
        pool: how many of the best items they are chosen from.
    """

    def __init__(self, model: Scorer, steps: Sequence[Step], pool: int) -> None:
        super().__init__()
        self.model = model
        self.steps = steps
        self.pool = pool
        self.index: ItemIndex | None = None

    def score(self, batch: BasketBatch) -> Scores:
        return self.model.score(batch)

    def cells_per_user(self, num_items: int) -> int:
        """What the model takes, or the pairs of a pool."""
        pairs = 4 * min(self.pool, num_items) ** 2
        return max(self.model.cells_per_user(num_items), pairs)

    @torch.inference_mode()
    def top_k(
        self,
        batch: BasketBatch,
        k: int,
        *,
        mask_history: bool = False,
        candidates: Tensor | None = None,
        exclude: Ragged | None = None,
        index: ItemIndex | None = None,
    ) -> TopK:
        pools = self.model.top_k(
            batch,
            max(k, min(self.pool, batch.num_items)),
            mask_history=mask_history,
            candidates=candidates,
            exclude=exclude,
            index=index or self._index(),
        )
        for step in self.steps:
            pools = step(pools, k)
        return first(pools, k)

    def _index(self) -> ItemIndex | None:
        """Of a model with vectors, made once."""
        if self.index is None and isinstance(self.model, VectorScorer):
            self.index = self.model.item_index()
        return self.index
