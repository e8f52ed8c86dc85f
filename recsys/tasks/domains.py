"""Domains: a column of the items divides a log, and a split of it, into departments, apps, sites.

One split of the whole log says what is known when. A part of it, for one domain or several
(`within`), has the events of these items and no others, each with the phase that it has in the
whole. So a model that is trained on a domain alone sees exactly those events of the domain that one
which is trained on everything sees, nothing from the future enters either, and the test users of a
domain are those whose test targets of the whole log have items of it (`having_targets_in`), with
these items as targets. Who had none of the domain in the test basket is not asked about the domain.

Splitting the log of each domain by itself would not do for leave-last-out: a user's last book may
come before a toy that the model of both is trained on, and such a model would know of the
user what happened after the book.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.ragged import Ragged, offsets_of
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM, USER, EventLog, is_worded, runs
from recsys.log.time import Moment
from recsys.log.vocabulary import Vocabulary
from recsys.tasks.phases import TRAIN
from recsys.tasks.splits import Split, checked, global_time, of_last_row, within_user
from recsys.tasks.tensors import tensor_of


def domains_of(
    log: EventLog, *, column: str, largest: int = 5, names: Sequence[str] | None = None
) -> list[str]:
    """The names of the domains.

    Args:
        log: any.
        column: of the items; its values are domains, and items without a value are in none.
        largest: so many, by their events; of equal ones those whose name comes first.
        names: these and no others, in this order; None takes the largest.

    Raises:
        ConfigError: no such column, no such domain, one twice, or fewer than two.

    >>> rows = {"user_id": [1, 1, 2], "item_id": [7, 8, 8], "timestamp": [1, 2, 3]}
    >>> items = pl.DataFrame({"item_id": [7, 8], "shop": ["east", "west"]})
    >>> domains_of(EventLog.from_frames(pl.DataFrame(rows), items), column="shop")
    ['west', 'east']
    """
    if largest < 2:
        raise ConfigError(f"largest={largest}: a comparison takes at least 2 domains")
    counts = log.events.select(ITEM).join(_by_item(log, column), on=ITEM)["domain"].drop_nulls()
    by_size = counts.value_counts().sort("count", "domain", descending=[True, False])
    known = by_size["domain"].to_list()
    chosen = known[:largest] if names is None else [str(name) for name in names]
    if strange := [name for name in chosen if name not in known]:
        raise ConfigError(
            f"{log.name}: no event has {column}={strange[0]}; there is {', '.join(known[:20])}"
        )
    if len(set(chosen)) < max(len(chosen), 2):
        raise ConfigError(
            f"{log.name}: domains {', '.join(chosen) or 'none'} of {column}; expected at least "
            "two, each once"
        )
    return chosen


def log_of_domains(log: EventLog, *, column: str, names: Sequence[str]) -> EventLog:
    """The log with the events of items in these domains alone."""
    items = _by_item(log, column).filter(pl.col("domain").is_in(list(names)))
    return log.with_events(log.events.join(items, on=ITEM, how="semi", maintain_order="left"))


def domain_of_items(split: Split, *, column: str, names: Sequence[str]) -> Tensor:
    """(n,) int64: the place among the names of each item's domain, -1 for an item in none."""
    order = split.items.ids.rename(ITEM).to_frame()
    domains = order.join(_by_item(split.log, column), on=ITEM, how="left", maintain_order="left")
    places = Vocabulary(pl.Series(list(names), dtype=pl.String)).index_of(domains["domain"])
    return tensor_of(places)


def within(split: Split, is_theirs: Tensor, *, name: str | None = None) -> Split:
    """What a split says of some items, as if the log held no others; every phase stays.

    In training the last basket that a user has of these items is the target of those before it.
    Baskets are numbered anew: of a basket the other items are gone.

    Args:
        split: of the whole log.
        is_theirs: (n,) bool, the items.
        name: what reports call the log of these items; None keeps the whole log's name.

    Raises:
        DataError: a phase has no targets left.

    >>> rows = {"user_id": [1] * 5 + [2] * 5, "item_id": [*range(5)] * 2, "timestamp": range(10)}
    >>> split = leave_last_out(EventLog.from_frames(pl.DataFrame(rows)))
    >>> part = within(split, torch.tensor([True, False, True, True, True]))
    >>> part.items.ids.to_list(), part.test.history.lengths().tolist()
    ([0, 2, 3, 4], [3, 3])
    """
    items = Vocabulary(split.items.ids.filter(pl.Series(is_theirs.numpy())))
    is_kept_in_log = split.log.events[ITEM].is_in(items.ids.implode())
    log = split.log.with_events(split.log.events.filter(is_kept_in_log))
    log = replace(log, name=name or log.name)
    users = Vocabulary(log.users[USER])
    new_rows = is_kept_in_log.cast(pl.Int64).cum_sum() - 1
    events = split.events.filter(pl.Series(is_theirs.numpy()[split.events["item"].to_numpy()]))
    user, basket = events["user"], events["basket"]
    events = events.with_columns(
        user=users.index_of(split.users.ids_of(user)),
        item=items.index_of(split.items.ids_of(events["item"])),
        basket=within_user(runs(user, basket).to_numpy(), user),
        log_row=new_rows.gather(events["log_row"]),
    )
    return checked(Split(log, users, items, _with_targets_of_training(events)))


def first_in_domain(
    log: EventLog, *, column: str, validation_start: Moment, test_start: Moment
) -> Split:
    """As `global_time`, with what users take from domains that are new to them as the targets.

    The targets of a user are, of each domain without an earlier event, the items of the first
    basket that has some from the start on. Nothing of a window is history of its targets.

    Args:
        log: any.
        column: of the items; its values are domains, and items without a value are no targets.
        validation_start, test_start: as of `global_time`.

    Raises:
        ConfigError: no such column, or as of `global_time`.
        DataError: nobody takes from a new domain.

    >>> rows = {"user_id": [1, 1, 1, 2, 2, 2], "item_id": [7, 7, 8] * 2, "timestamp": range(6)}
    >>> log = EventLog.from_frames(
    ...     pl.DataFrame(rows), pl.DataFrame({"item_id": [7, 8], "shop": ["east", "west"]})
    ... )
    >>> split = first_in_domain(log, column="shop", validation_start=2, test_start=5)
    >>> split.validation.history.users.tolist(), split.validation.target.values.tolist()
    ([0], [1])
    """
    split = global_time(log, validation_start=validation_start, test_start=test_start)
    domains = split.items.ids.rename(ITEM).to_frame()
    domains = domains.join(_by_item(log, column), on=ITEM, how="left", maintain_order="left")
    is_training = pl.col("phase") == TRAIN
    # In a window all but the targets are seen from the next phase on.
    window = pl.when(is_training | pl.col("target")).then("phase").otherwise(pl.col("phase") - 1)
    events = split.events.with_columns(
        window=window, domain=domains["domain"].gather(split.events["item"])
    )
    first = pl.col("basket").min().over("user", "domain") == pl.col("basket")
    is_known = pl.col("window").min().over("user") < pl.col("window")
    is_new = first & is_known & pl.col("domain").is_not_null()
    events = events.with_columns(target=pl.when(is_training).then("target").otherwise(is_new))
    phase = pl.when(is_training | pl.col("target")).then("window").otherwise(pl.col("window") + 1)
    events = events.with_columns(phase.cast(pl.UInt8).alias("phase")).drop("window", "domain")
    return checked(replace(split, events=events))


def having_targets_in(part: Part, is_theirs: Tensor) -> Part:
    """The users who have targets among some items (n,) bool, with these targets alone."""
    target = part.target
    is_kept = is_theirs[target.values]
    count = torch.bincount(target.owners()[is_kept], minlength=len(target))
    (users,) = (count > 0).nonzero(as_tuple=True)
    kept = Ragged(target.values[is_kept], offsets_of(count[users]))
    return replace(part.rows(users), target=kept)


def _with_targets_of_training(events: pl.DataFrame) -> pl.DataFrame:
    """In training the last basket is the target, unless it is a user's first."""
    is_training = events["phase"] == TRAIN
    training = events.filter(is_training)
    basket = training["basket"].to_numpy()
    target = events["target"].to_numpy().copy()
    if len(training):
        is_last = basket == of_last_row(basket, training["user"])
        target[is_training.to_numpy()] = is_last & (basket > 0)
    return events.with_columns(target=pl.Series(np.asarray(target)))


def _by_item(log: EventLog, column: str) -> pl.DataFrame:
    """`item_id` and `domain`, as text."""
    if column not in log.items.columns or column == ITEM:
        others = [name for name in log.items.columns if name != ITEM]
        raise ConfigError(
            f"{log.name}: items have no column {column!r} to divide them by; there is "
            f"{', '.join(others) or 'none'}"
        )
    if log.items[column].dtype.is_nested() or not is_worded(log.items[column]):
        raise DataError(
            f"{log.name}: items.{column} is {log.items[column].dtype}; a domain is one value, text "
            "or a number"
        )
    return log.items.select(ITEM, domain=pl.col(column).cast(pl.String))
