"""Which items may be in a list: for everybody, and for each user.

    allow    nothing else is recommended
    deny     is never recommended

Each is some ids of items, for everybody, or a table with the columns `user_id` and `item_id`, a row
for each user and item, or with `item_id` alone. Where a table allows by user, a user without a row
in it may be recommended nothing.

Shapes: B users of a batch, U users that a model knows, n items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, cast

import polars as pl
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM, USER
from recsys.log.frames import AnyFrame, as_polars
from recsys.log.vocabulary import UNKNOWN, Vocabulary
from recsys.scoring.ids import Ids, Unknown, column_of, known
from recsys.tasks.tensors import tensor_of

Filter: TypeAlias = Ids | AnyFrame
"""Ids of items, or a table of them."""


@dataclass(frozen=True, eq=False)
class Filters:
    """What may be recommended.

    Attributes:
        candidates: (n,) bool, what everybody may be recommended; None: all.
        allowed: U rows of what each may be recommended and nothing else; None: all.
        denied: U rows of what each may not; None: nothing.
    """

    candidates: Tensor | None = None
    allowed: Ragged | None = None
    denied: Ragged | None = None

    @property
    def by_user(self) -> bool:
        """Whether users differ."""
        return self.allowed is not None or self.denied is not None

    def excluded(self, batch: BasketBatch) -> Ragged:
        """B rows of the items that are not for each user of a batch, by the tables by user."""
        users, place = batch.users.cpu(), batch.device
        excluded = torch.zeros(len(users), batch.num_items, dtype=torch.bool)
        if self.allowed is not None:
            excluded |= ~self.allowed.rows(users).dense(batch.num_items)
        if self.denied is not None:
            excluded |= self.denied.rows(users).dense(batch.num_items)
        return Ragged(excluded.nonzero()[:, 1], offsets_of(excluded.sum(1))).to(place)


def filters(
    users: Vocabulary,
    items: Vocabulary,
    allow: Filter | None,
    deny: Filter | None,
    unknown: Unknown,
) -> Filters:
    """What may be recommended by what is allowed and denied.

    Raises:
        UnknownIdError: no item is known that would be allowed; or one is not, or a user, and
            `unknown` is "refuse". Where none is known that is denied, nothing is.
        DataError: a table without the column `item_id`.
    """
    candidates, rows = None, {}
    for name, given in (("allow", allow), ("deny", deny)):
        if given is None:
            continue
        table = _table(name, given)
        if USER in table.columns:
            rows[name] = _by_user(name, table, users, items, unknown)
            continue
        index, _ = _known_items(name, table, items, unknown)
        is_named = torch.zeros(len(items), dtype=torch.bool)
        is_named[index] = True
        mask = is_named if name == "allow" else ~is_named
        candidates = mask if candidates is None else candidates & mask
    return Filters(candidates, rows.get("allow"), rows.get("deny"))


def given_items(basket: Filter, keys: pl.Series, items: Vocabulary) -> Ragged:
    """What the next basket of each user holds already: a row of distinct items for each key.

    Args:
        basket: ids of items for everybody, or a table of them, by user where they differ.
        keys: ids of the users, or numbers of histories.
        items: the catalogue.

    Raises:
        UnknownIdError: an item is not known.
        ConfigError: a user has none, or users differ and are histories.
        DataError: a table without the column `item_id`.
    """
    table = _table("basket", basket)
    index, _ = known(items, table[ITEM], f"basket: {ITEM}", "", "refuse")
    if USER not in table.columns:
        rows = torch.arange(len(keys)).repeat_interleave(len(index))
        index = index.repeat(len(keys))
    elif keys.name != USER:
        raise ConfigError("basket by user_id asks for user_ids; histories are nobody's")
    else:
        given = pl.DataFrame({"item": index.numpy(), "key": table[USER].cast(keys.dtype)})
        numbered = keys.rename("key").to_frame().with_row_index("row")
        pairs = numbered.join(given, on="key").sort("row", maintain_order=True)
        rows, index = tensor_of(pairs["row"].cast(pl.Int64)), tensor_of(pairs["item"])
    given_rows = Ragged(index, offsets_of(torch.bincount(rows, minlength=len(keys))))
    if len(without := (given_rows.lengths == 0).nonzero()):
        raise ConfigError(
            f"basket: {keys.name} {keys[int(without[0])]!r} has no item in it; give each user at "
            "least one, or ask without basket"
        )
    return given_rows.distinct(len(items))


def _table(name: str, given: Filter) -> pl.DataFrame:
    if not (isinstance(given, pl.LazyFrame) or hasattr(given, "columns")):
        return column_of(cast(Ids, given)).rename(ITEM).to_frame()
    table = as_polars(given, name)
    if ITEM not in table.columns:
        there = ", ".join(table.columns) or "none"
        raise DataError(f"{name}: no column {ITEM} (there are: {there})")
    return table


def _by_user(
    name: str, table: pl.DataFrame, users: Vocabulary, items: Vocabulary, unknown: Unknown
) -> Ragged:
    """U rows of the items that a table names for each user; of other users it may say anything."""
    table = table.filter(users.index_of(table[USER]) != UNKNOWN)
    index, is_known = _known_items(name, table, items, unknown)
    user = tensor_of(users.index_of(table[USER].filter(is_known)))
    user, order = user.sort(stable=True)
    return Ragged(index[order], offsets_of(torch.bincount(user, minlength=len(users))))


def _known_items(
    name: str, table: pl.DataFrame, items: Vocabulary, unknown: Unknown
) -> tuple[Tensor, pl.Series]:
    is_deny = name == "deny"
    return known(
        items,
        table[ITEM],
        f"{name}: {ITEM}",
        f"{name} goes without them",
        unknown,
        may_be_none=is_deny,
    )


def check_known_users(chosen: Filters) -> None:
    """Refuse filters by user for histories, which are nobody's.

    Raises:
        ConfigError: users differ.
    """
    if chosen.by_user:
        raise ConfigError("allow and deny by user_id ask for user_ids; histories are nobody's")
