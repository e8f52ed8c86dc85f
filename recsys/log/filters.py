"""Fewer events: first contacts only, and minimum counts iterated to a k-core."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM, TIME, USER, EventLog
from recsys.log.time import Moment, moment
from recsys.log.vocabulary import Vocabulary


def filtered(
    log: EventLog,
    *,
    first_only: bool = False,
    min_user_events: int = 0,
    min_item_events: int = 0,
    until: Moment | None = None,
) -> EventLog:
    """The log with `first_events` (if asked for) and then its `k_core`.

    Raises:
        ConfigError: a minimum below 0.
        DataError: nothing or one user is left.

    >>> rows = {"user_id": [1, 1, 2, 2, 3], "item_id": [7, 8, 7, 7, 7], "timestamp": range(5)}
    >>> log = filtered(EventLog.from_frames(pl.DataFrame(rows)), min_user_events=2)
    >>> log.events.rows()
    [(1, 7, 0), (1, 8, 1), (2, 7, 2), (2, 7, 3)]
    """
    check_minimums(min_user_events, min_item_events)
    log = first_events(log) if first_only else log
    return k_core(
        log, min_user_events=min_user_events, min_item_events=min_item_events, until=until
    )


def check_minimums(min_user_events: int, min_item_events: int) -> None:
    """See that minimums are none below 0.

    Raises:
        ConfigError: one is.
    """
    for name, least in {"user": min_user_events, "item": min_item_events}.items():
        if least < 0:
            raise ConfigError(f"min_{name}_events={least} is below 0; 0 keeps every {name}")


def too_few_users(
    name: str, min_user_events: int, min_item_events: int, until: Moment | None
) -> DataError:
    """What is said where minimums leave nothing or one user."""
    before = "" if until is None else f" before {until}"
    return DataError(
        f"{name}: at most one user is left with min_user_events={min_user_events} and "
        f"min_item_events={min_item_events}{before}; lower them"
    )


def first_events(log: EventLog) -> EventLog:
    """Of every user and item, the first event."""
    first = log.events.unique([USER, ITEM], keep="first", maintain_order=True)
    return log.with_events(first)


def k_core(
    log: EventLog, *, min_user_events: int, min_item_events: int, until: Moment | None = None
) -> EventLog:
    """The largest part of the log in which every user and item has so many events.

    Users and items below their minimum are dropped in turn until none is, with all their events.

    Args:
        log: any.
        min_user_events, min_item_events: of a user and of an item; up to 0 drops none.
        until: only events before this moment count, so that what comes later does not decide who
            and what is left; None counts all.

    Raises:
        ConfigError: `until` is no moment of the log, or ranks read parts of it.
        DataError: nothing or one user is left.
    """
    everyone_has = 1 if until is None else 0
    if max(min_user_events, min_item_events) <= everyone_has:
        return log
    log.check_whole()
    users = Vocabulary(log.users[USER]).index_of(log.events[USER]).to_numpy()
    items = Vocabulary(log.items[ITEM]).index_of(log.events[ITEM]).to_numpy()
    is_counted = np.ones(len(users), dtype=bool)
    if until is not None:
        is_counted = (log.events[TIME] < moment(log, "until", until)[0]).to_numpy()
    per_user = np.bincount(users[is_counted], minlength=len(log.users))
    per_item = np.bincount(items[is_counted], minlength=len(log.items))
    keep = np.ones(len(users), dtype=bool)
    while True:
        few = (per_user < min_user_events)[users] | (per_item < min_item_events)[items]
        is_lost = few & keep
        if not is_lost.any():
            break
        keep &= ~is_lost
        is_lost &= is_counted
        per_user -= np.bincount(users[is_lost], minlength=len(per_user))
        per_item -= np.bincount(items[is_lost], minlength=len(per_item))
    has_events = np.bincount(users[keep], minlength=len(log.users)) > 0
    if np.count_nonzero(has_events) < 2:
        raise too_few_users(log.name, min_user_events, min_item_events, until)
    if keep.all():
        return log
    return replace(
        log,
        events=log.events.filter(keep),
        items=log.items.filter(np.bincount(items[keep], minlength=len(log.items)) > 0),
        users=log.users.filter(has_events),
    )
