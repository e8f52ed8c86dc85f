"""Fewer events: first contacts only, and minimum counts iterated to a k-core."""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys.errors import DataError
from recsys.events import ITEM, USER, EventLog


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
    users, items = _codes(log.events[USER]), _codes(log.events[ITEM])
    rows = np.arange(len(users))
    while True:
        enough = np.bincount(users)[users] >= min_user_events
        enough &= np.bincount(items)[items] >= min_item_events
        if enough.all():
            break
        users, items, rows = users[enough], items[enough], rows[enough]
    if len(np.unique(users)) < 2:
        raise DataError(
            f"{log.name}: at most one user is left with min_user_events={min_user_events} and "
            f"min_item_events={min_item_events}; lower them"
        )
    return log if len(rows) == log.num_events else log.with_events(log.events[rows])


def _codes(ids: pl.Series) -> np.ndarray:
    """A small integer per id."""
    lookup = ids.unique().to_frame().with_row_index("code")
    return (
        ids.to_frame()
        .join(lookup, on=ids.name, how="left", maintain_order="left")["code"]
        .to_numpy()
    )
