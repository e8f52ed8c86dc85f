"""Figures of a user's list beyond accuracy: serendipity, popularity, diversity, calibration.

They are of each user, and null where a list or a history has nothing that they could be of. A list
shorter than k (item -1) is what it holds. `diversity` and `miscalibration` are by a column of the
items: an item has one value there, several (a list), or none, and is then left out.

    serendipity@k         share of the k places that hold a target which is not among the k most
                          popular items, masked like the list (Ge et al. 2010, with popularity as
                          the primitive recommender)
    popularity@k          mean training events of the list's items, the average recommendation
                          popularity (Yin et al. 2012)
    popularity_lift@k     that over the same mean of the user's history, minus 1 (Abdollahpouri et
                          al. 2020, there of groups of users)
    diversity/c@k         mean distance of all pairs of the list, intra-list diversity (Ziegler et
                          al. 2005): 1 minus the Jaccard index of their values, which is 0 or 1
                          where items have one value
    miscalibration/c@k    C_KL of Steck (2018), the Kullback-Leibler divergence, in nats, of the
                          shares of the values in the list from those in the history; 0 is best

Shapes: U users, k places, n items, W values of an item at most, P users of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.types import Hits, TopItems

Values = Int64[Tensor, "items width"]
PerUser = Float64[Tensor, "users"]
BESIDES = ("serendipity", "popularity", "popularity_lift")
SMOOTHING = 0.01
"""Steck's alpha: so much of the history's shares is added to the list's."""
CELLS_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Beyond:
    """What these figures are taken of.

    Attributes:
        popularity: (n,) training events of each item.
        values: by column, (n, W) the numbers of each item's values, -1 where it has no more.
    """

    popularity: Tensor
    values: Mapping[str, Values]

    @classmethod
    def of(cls, items: pl.DataFrame, popularity: Tensor, columns: Sequence[str]) -> Self:
        """By columns of a table with a row per item.

        Raises:
            ConfigError: there is no such column.
        """
        for column in columns:
            if column not in items.columns:
                raise ConfigError(
                    f"report.beyond: items have no column {column}; there is "
                    f"{', '.join(items.columns)}"
                )
        return cls(popularity, {column: _values(items[column]) for column in columns})

    def names(self, k: int) -> list[str]:
        """Of the figures at a length."""
        return names(list(self.values), k)

    def per_user(
        self,
        items: TopItems,
        hits: Hits,
        history: Ragged,
        ks: Sequence[int],
        *,
        candidates: Tensor | None = None,
        mask_history: bool = False,
    ) -> pl.DataFrame:
        """A row per user, a column per figure and length.

        Args:
            items: (U, K) ranked items.
            hits: (U, K) which of them are targets.
            history: U rows of items.
            ks: lengths of list, at most K.
            candidates: (n,) bool, the items that were ranked; None: all.
            mask_history: whether lists leave out the items of the history.
        """
        order = _places(self.popularity, candidates)
        places = unmasked_places(items, history, order) if mask_history else order[items]
        of_history = self.popularity.double()[history.values]
        had = _mean(history.owners(), of_history, len(history))
        columns: dict[str, PerUser] = {}
        for k in ks:
            top = items[:, :k]
            popularity = mean_popularity(top, self.popularity)
            lift = (popularity / had.where(had > 0, torch.nan)) - 1
            beyond_popular = hits[:, :k] & (places[:, :k] >= k)
            columns[f"serendipity@{k}"] = beyond_popular.sum(1).double() / k
            columns |= {f"popularity@{k}": popularity, f"popularity_lift@{k}": lift}
        for column, values in self.values.items():
            for k, diversity in zip(ks, diversities(items, values, ks), strict=True):
                columns[f"diversity/{column}@{k}"] = diversity
                miscalibration = kl_from_history(items[:, :k], history, values)
                columns[f"miscalibration/{column}@{k}"] = miscalibration
        frame = pl.DataFrame({name: of.numpy() for name, of in columns.items()})
        ordered = [name for k in ks for name in self.names(k)]
        return frame.select(ordered).fill_nan(None)


def names(columns: Sequence[str], k: int) -> list[str]:
    """Of the figures by some columns at a length."""
    by_column = [
        f"{name}/{column}" for column in columns for name in ("diversity", "miscalibration")
    ]
    return [f"{name}@{k}" for name in (*BESIDES, *by_column)]


def mean_popularity(items: TopItems, popularity: Tensor) -> PerUser:
    """Mean popularity of each list; NaN where it is empty."""
    row, place = (items >= 0).nonzero(as_tuple=True)
    return _mean(row, popularity.double()[items[row, place]], len(items))


def unmasked_places(items: TopItems, history: Ragged, order: Tensor) -> TopItems:
    """The place of each item in an order without the user's history; that of -1 means nothing.

    Args:
        items: (U, k) items.
        history: U rows of items.
        order: (n,) int64, the place of each item among all, from 0.
    """
    width = len(order) + 1
    rows = torch.arange(len(items))[:, None] * width
    had = Ragged(order[history.values], history.offsets).distinct(width)
    keys = had.owners() * width + had.values
    before = torch.searchsorted(keys, rows + order[items]) - torch.searchsorted(keys, rows)
    return order[items] - before


def diversities(items: TopItems, values: Values, ks: Sequence[int]) -> list[PerUser]:
    """Mean distance of the pairs of each list, by its length; NaN where there is no pair.

    The distance of two items is 1 minus the Jaccard index of their values.
    """
    width = items.shape[1]
    step = max(1, CELLS_AT_ONCE // (width * width))
    pieces = [_pair_means(piece, values, ks) for piece in items.split(step)]
    return [torch.cat(of_k) for of_k in zip(*pieces, strict=True)]


def _pair_means(items: TopItems, values: Values, ks: Sequence[int]) -> Iterator[PerUser]:
    of_places = _values_of(items, values)  # (P, K, W)
    size = (of_places >= 0).sum(2)
    common = torch.zeros(*items.shape, items.shape[1], dtype=torch.int64)
    for first in of_places.unbind(2):
        for second in of_places.unbind(2):
            common += (first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]
    union = size[:, :, None] + size[:, None, :] - common
    has_both = (size[:, :, None] > 0) & (size[:, None, :] > 0)
    is_pair = has_both & torch.ones_like(has_both[0]).triu(1)
    distance = (1 - common.double() / union.clamp(min=1)) * is_pair
    for k in ks:
        total, count = (of[:, :k, :k].sum((1, 2)) for of in (distance, is_pair))
        yield total / count  # 0 / 0 is NaN


def kl_from_history(items: TopItems, history: Ragged, values: Values) -> PerUser:
    """C_KL of Steck (2018, eq. 4) of each list, alpha = 0.01; NaN where it or a history is empty.

    Every event of the history and every place of the list counts alike, and an item with several
    values counts as so many equal parts of one.
    """
    num_values, num_users = int(values.max()) + 1, len(items)
    row, place = (items >= 0).nonzero(as_tuple=True)
    keys, wanted = _shares(history.owners(), history.values, values, num_values)
    other_keys, given = _shares(row, items[row, place], values, num_values)
    if not len(keys) or not len(other_keys):
        return torch.full((num_users,), torch.nan, dtype=torch.float64)
    at = torch.searchsorted(other_keys, keys).clamp(max=len(other_keys) - 1)
    shares = given[at] * (other_keys[at] == keys)
    smoothed = (1 - SMOOTHING) * shares + SMOOTHING * wanted
    divergence = torch.zeros(num_users, dtype=torch.float64)
    divergence.index_add_(0, keys // num_values, wanted * (wanted / smoothed).log())
    has_both = torch.zeros(2, num_users, dtype=torch.bool)
    has_both[0, keys // num_values], has_both[1, other_keys // num_values] = True, True
    return divergence.where(has_both.all(0), torch.nan)


def _shares(
    owners: Tensor, items: Tensor, values: Values, num_values: int
) -> tuple[Tensor, Tensor]:
    """Keys `owner * num_values + value`, ascending, and the value's share among the owner's items.

    Of items that have a value.
    """
    of_items = values[items]  # (E, W)
    has_value = of_items >= 0
    weights = has_value.double() / has_value.sum(1, keepdim=True).clamp(min=1)
    keys = (owners[:, None] * num_values + of_items)[has_value]
    distinct, place = keys.unique(return_inverse=True)
    total = torch.zeros(len(distinct), dtype=torch.float64).index_add_(0, place, weights[has_value])
    owner = distinct // num_values
    of_owner = torch.zeros(int(owner.max()) + 1 if len(owner) else 0, dtype=torch.float64)
    return distinct, total / of_owner.index_add_(0, owner, total)[owner]


def _values(column: pl.Series) -> Values:
    """(n, W) the numbers of a column's values, -1 where an item has no more."""
    lists = column.to_frame("value").with_row_index("item")
    if not isinstance(column.dtype, pl.List):
        lists = lists.with_columns(pl.concat_list("value"))
    each = lists.explode("value").drop_nulls("value").unique(maintain_order=True)
    number = (pl.col("value").rank("dense") - 1).cast(pl.Int64)
    place = pl.int_range(pl.len()).over("item")
    each = each.select(pl.col("item").cast(pl.Int64), place.alias("place"), number.alias("number"))
    table = np.full((len(column), 1 + int(each["place"].max() or 0)), -1)  # type: ignore[arg-type]
    table[each["item"].to_numpy(), each["place"].to_numpy()] = each["number"].to_numpy()
    return torch.from_numpy(table)


def _values_of(items: TopItems, values: Values) -> Tensor:
    """(U, k, W) the values of the items of lists, none where a list is short."""
    return values[items].masked_fill((items < 0)[:, :, None], -1)


def _places(popularity: Tensor, candidates: Tensor | None) -> Tensor:
    """(n,) int64: each item's place by popularity, equal ones by index.

    What is no candidate is behind all others.
    """
    key = popularity.double() if candidates is None else popularity.double().where(candidates, -1)
    order = key.sort(descending=True, stable=True).indices
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))


def _mean(owners: Tensor, values: Tensor, num_users: int) -> PerUser:
    """(U,) float64: the mean of each owner's values; NaN where there is none."""
    total = torch.zeros(num_users, dtype=torch.float64).index_add_(0, owners, values)
    return total / torch.bincount(owners, minlength=num_users)
