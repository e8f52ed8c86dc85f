"""Fewer events: first contacts only, and minimum counts iterated to a k-core."""

from __future__ import annotations

import numpy as np

from recsys.errors import DataError
from recsys.events import ITEM, USER, EventLog
from recsys.vocab import Vocabulary


def filtered(
    log: EventLog, *, first_only: bool = False, min_user_events: int = 0, min_item_events: int = 0
) -> EventLog:
    """The log with `first_events` (if asked for) and then its `k_core`."""
    log = first_events(log) if first_only else log
    return k_core(log, min_user_events=min_user_events, min_item_events=min_item_events)


def first_events(log: EventLog) -> EventLog:
    """Of every user and item, the first event."""
    first = log.events.unique([USER, ITEM], keep="first", maintain_order=True)
    return log.with_events(first)


def k_core(log: EventLog, *, min_user_events: int, min_item_events: int) -> EventLog:
    """The largest part of the log in which every user and item has so many events.

    Users and items below their minimum are dropped in turn until none is.

    Raises:
        DataError: nothing or one user is left.
    """
    if min_user_events <= 1 and min_item_events <= 1:
        return log
    users = Vocabulary(log.users[USER]).index_of(log.events[USER]).to_numpy()
    items = Vocabulary(log.items[ITEM]).index_of(log.events[ITEM]).to_numpy()
    rows = np.arange(len(users))
    while True:
        enough = (np.bincount(users) >= min_user_events)[users]
        enough &= (np.bincount(items) >= min_item_events)[items]
        if enough.all():
            break
        users, items, rows = users[enough], items[enough], rows[enough]
    if not len(users) or users.min() == users.max():
        raise DataError(
            f"{log.name}: at most one user is left with min_user_events={min_user_events} and "
            f"min_item_events={min_item_events}; lower them"
        )
    return log if len(rows) == log.num_events else log.with_events(log.events[rows])
