"""Lists that are less of the same: maximal marginal relevance over a model's best items.

Paper: Carbonell & Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998.

    next = argmax over the pool, but for what is chosen, of
           (1 - diversity) relevance(i) - diversity max over chosen j of similarity(i, j)

The pool holds a model's best items, more than the list takes. Kept: the greedy choice, one item
after the other, the first by relevance alone. Changed: relevance is the model's score, brought to
0 .. 1 over each user's pool, so that one weight means the same for every model.

Shapes: B users, P items of a pool, n items, D dimensions, k places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.log.event_log import ITEM
from recsys.ranges import at_least, share
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.lists import TopK
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.scorer import Scorer
from recsys.tasks.tensors import tensor_of
from recsys.types import Scores

Similarity = Callable[[Tensor], Tensor]
"""Of pools (B, P) of items how alike any two are, (B, P, P), at most 1."""


@dataclass(frozen=True)
class MMR:
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
        at_least(1, pool=self.pool)

    def of(self, model: Scorer, item_table: pl.DataFrame) -> Reranked:
        """The model with such lists.

        Raises:
            ConfigError: there is no such column, or none is named and the model has no vectors.
        """
        return Reranked(model, self, self._similarity(model, item_table))

    @torch.inference_mode()
    def _similarity(self, model: Scorer, item_table: pl.DataFrame) -> Similarity:
        columns = [c for c, kind in item_table.schema.items() if c != ITEM and not kind.is_nested()]
        if self.by is None:
            if not isinstance(model, VectorScorer):
                there = ", ".join(columns) or "none"
                raise ConfigError(
                    f"{type(model).__name__} has no vectors to tell items apart by; name a column "
                    f"of the items, by=COLUMN (there are: {there})"
                )
            return cosine(model.encode_items())
        if self.by not in columns:
            raise ConfigError(f"by={self.by}: items have {', '.join(columns) or 'no columns'}")
        return same_value(item_table[self.by])


def cosine(vectors: Tensor) -> Similarity:
    """By the vectors (n, D) of all items."""
    directions = F.normalize(vectors.float(), dim=1)

    def similarity(pools: Tensor) -> Tensor:
        of_pool = directions[pools]
        return of_pool @ of_pool.mT

    return similarity


def same_value(column: pl.Series) -> Similarity:
    """By a column (n,) of all items; nulls are like nothing."""
    codes = tensor_of(column.rank("dense").cast(pl.Int64).fill_null(-1))

    def similarity(pools: Tensor) -> Tensor:
        of_pool = codes.to(pools.device)[pools]
        alike = (of_pool[:, :, None] == of_pool[:, None]) & (of_pool >= 0)[:, None]
        return alike.float()

    return similarity


def mmr(pools: TopK, k: int, diversity: float, similarity: Similarity) -> TopK:
    """The k items of each pool (B, P) that MMR chooses, in its order, with the scores they had.

    >>> pools = TopK(torch.tensor([[4, 5, 6]]), torch.tensor([[3.0, 2.9, 1.0]]))
    >>> alike = same_value(pl.Series(["", "", "", "", "tea", "tea", "milk"]))
    >>> [mmr(pools, 2, diversity, alike).items.tolist() for diversity in (0.0, 0.6)]
    [[[4, 5]], [[4, 6]]]
    """
    is_item = pools.items >= 0
    worst = pools.scores.masked_fill(~is_item, torch.inf).amin(1, keepdim=True)
    spread = (pools.scores[:, :1] - worst).clamp(min=torch.finfo(torch.float32).tiny)
    relevance = (pools.scores - worst) / spread
    pairs = similarity(pools.items.clamp(min=0))
    likest = torch.zeros_like(relevance)
    is_open = is_item.clone()
    rows, places = torch.arange(len(relevance), device=relevance.device), []
    for _ in range(k):
        value = (1 - diversity) * relevance - diversity * likest
        place = value.masked_fill(~is_open, -torch.inf).argmax(1)
        place = torch.where(is_open.any(1), place, -1)
        places.append(place)
        is_open[rows, place] = False
        likest = torch.maximum(likest, pairs[rows, place])
    chosen = torch.stack(places, 1)
    none, chosen = chosen < 0, chosen.clamp(min=0)
    return TopK(
        pools.items.gather(1, chosen).masked_fill(none, -1),
        pools.scores.gather(1, chosen).masked_fill(none, -torch.inf),
    )


class Reranked(Scorer):
    """A model whose lists are diversified, to be asked and evaluated as any other.

    Args:
        model: fitted.
        options: how.
        similarity: of items.
    """

    def __init__(self, model: Scorer, options: MMR, similarity: Similarity) -> None:
        super().__init__()
        self.model = model
        self.options = options
        self.similarity = similarity
        self.index: ItemIndex | None = None

    def score(self, batch: BasketBatch) -> Scores:
        return self.model.score(batch)

    def cells_per_user(self, num_items: int) -> int:
        """What the model takes, or the pairs of a pool."""
        pairs = 4 * min(self.options.pool, num_items) ** 2
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
            max(k, min(self.options.pool, batch.num_items)),
            mask_history=mask_history,
            candidates=candidates,
            exclude=exclude,
            index=index or self._index(),
        )
        return mmr(pools, k, self.options.diversity, self.similarity)

    def _index(self) -> ItemIndex | None:
        """Of a model with vectors, made once."""
        if self.index is None and isinstance(self.model, VectorScorer):
            self.index = self.model.item_index()
        return self.index
