"""Rules of a business for lists: no more than some of a kind, at least some, some further up.

Each looks at a column of the items, and chooses from a model's best items, `pool` of them. Items
keep the model's order among themselves, but for what a rule asks.

Shapes: B users, P items of a pool, n items, k places.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TypeAlias

import polars as pl
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.ranges import above, at_least, integers
from recsys.retrieval.lists import TopK
from recsys.scoring.reranking import Reranking, Step, codes_of, in_order, spread_of, values_of
from recsys.scoring.scorer import Scorer
from recsys.tasks.tensors import tensor_of

Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class AtMost(Reranking):
    """No more than some items of one value: the best of each, and the next of others after them.

    Attributes:
        count: of a value in a list.
        by: a column of the items; those with a null in it are not counted.
        pool: so many of the model's best items are chosen from. Where they hold too few values for
            k places, a list is shorter.

    Raises:
        ConfigError: one of them is below 1.
    """

    count: int
    by: str
    pool: int = 100

    def __post_init__(self) -> None:
        integers(count=self.count, pool=self.pool)
        at_least(1, count=self.count, pool=self.pool)

    def step(self, model: Scorer, item_table: pl.DataFrame) -> Step:
        codes = codes_of(values_of(item_table, self.by))

        def step(pools: TopK, k: int) -> TopK:
            of_pool = codes.to(pools.items.device)[pools.items.clamp(min=0)]
            stays = (nth_of_value(of_pool) < self.count) | (of_pool < 0)
            lists = in_front(pools, stays)
            is_left = stays.sum(1, keepdim=True) > _places(pools)
            return TopK(
                lists.items.masked_fill(~is_left, -1), lists.scores.masked_fill(~is_left, -inf)
            )

        return step


@dataclass(frozen=True)
class AtLeast(Reranking):
    """A quota: at least some items of a value, in the place of the list's last others.

    Attributes:
        count: of the value in a list.
        by: a column of the items.
        value: of the items that are to be there.
        pool: so many of the model's best items are chosen from. Where they hold fewer items of
            the value, so does a list.

    Raises:
        ConfigError: a count or pool below 1.
    """

    count: int
    by: str
    value: Value
    pool: int = 100

    def __post_init__(self) -> None:
        integers(count=self.count, pool=self.pool)
        at_least(1, count=self.count, pool=self.pool)

    def step(self, model: Scorer, item_table: pl.DataFrame) -> Step:
        has_value = with_value(item_table, self.by, self.value)

        def step(pools: TopK, k: int) -> TopK:
            is_due = _has(has_value, pools)
            is_due &= is_due.cumsum(1) <= self.count
            others = ~is_due
            others &= others.cumsum(1) <= k - is_due.sum(1, keepdim=True)
            return in_front(pools, is_due | others)

        return step


@dataclass(frozen=True)
class Boost(Reranking):
    """Items of a value score more: they move up, as far as the weight says.

    Attributes:
        weight: that is added to their scores, as a share of what lies between the best and the
            last of the pool: 1 puts all of them before the others; below 0 they move down.
        by: a column of the items.
        value: of the items that move.
        pool: so many of the model's best items are chosen from.

    Raises:
        ConfigError: a weight that is infinite, or a pool below 1.
    """

    weight: float
    by: str
    value: Value
    pool: int = 100

    def __post_init__(self) -> None:
        above(-inf, weight=self.weight)
        integers(pool=self.pool)
        at_least(1, pool=self.pool)

    def step(self, model: Scorer, item_table: pl.DataFrame) -> Step:
        has_value = with_value(item_table, self.by, self.value)

        def step(pools: TopK, k: int) -> TopK:
            _, spread = spread_of(pools)
            scores = pools.scores + self.weight * spread * _has(has_value, pools)
            scores = scores.masked_fill(pools.items < 0, -inf)
            return in_order(TopK(pools.items, scores), -scores)

        return step


def with_value(item_table: pl.DataFrame, by: str, value: Value) -> Tensor:
    """(n,) bool: the items with a value in a column, text or what the text spells.

    Raises:
        ConfigError: there is no such column, or nothing with this value in it.
    """
    column = values_of(item_table, by)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    has_value = (column.cast(pl.String) == text).fill_null(False)
    if not has_value.any():
        there = ", ".join(column.drop_nulls().unique().sort().head(5).cast(pl.String))
        raise ConfigError(f"{by}={text}: no item has it; there is {there or 'nothing'}")
    return tensor_of(has_value)


def nth_of_value(codes: Tensor) -> Tensor:
    """(B, P): how many before it in its row are equal.

    >>> nth_of_value(torch.tensor([[7, 3, 7, 7, 3]])).tolist()
    [[0, 0, 1, 2, 1]]
    """
    in_turn, order = codes.sort(dim=1, stable=True)
    place = torch.arange(codes.shape[1], device=codes.device).expand_as(codes)
    begins = torch.ones_like(codes, dtype=torch.bool)
    begins[:, 1:] = in_turn[:, 1:] != in_turn[:, :-1]
    since = place - torch.where(begins, place, 0).cummax(1).values
    return torch.empty_like(codes).scatter_(1, order, since)


def in_front(pools: TopK, chosen: Tensor) -> TopK:
    """The pools (B, P), what is chosen before the rest, both in the order that they had."""
    return in_order(pools, _places(pools) + ~chosen * pools.items.shape[1])


def _places(pools: TopK) -> Tensor:
    """(1, P): the number of each place."""
    return torch.arange(pools.items.shape[1], device=pools.items.device)[None]


def _has(mask: Tensor, pools: TopK) -> Tensor:
    """(B, P) bool: which items of the pools are at the mask (n,)."""
    return mask.to(pools.items.device)[pools.items.clamp(min=0)] & (pools.items >= 0)
