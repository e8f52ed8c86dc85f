"""Logs whose right answer is known."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl

from recsys.log.event_log import EventLog
from recsys.tasks.first_purchases import new_items
from recsys.tasks.labels import LabelTable
from recsys.tasks.user_attributes import profiling

COLOURS = ("black", "white")


def checkerboard(
    *, num_users: int = 60, num_items: int = 40, num_baskets: int = 6, seed: int = 0
) -> EventLog:
    """Users who only take items of their own colour: that of user or item `i` is `COLOURS[i % 2]`.

    Within the colour users have tastes of their own, which they come back to, and some items are
    more popular than others. Every user has one basket a day with two to four items. Ids are
    indices: all items are taken.

    Args:
        num_users: at least `num_items`.
        num_items: even.
        num_baskets: of each user; every split finds its parts in 4.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    taste = generator.normal(scale=0.8, size=(num_users, num_items // 2))
    taste += generator.normal(scale=0.3, size=num_items // 2)
    draws = generator.integers(2, 5, size=num_users * num_baskets)
    basket = np.repeat(np.arange(num_users * num_baskets), draws)
    user = basket // num_baskets
    # The largest of log weights with Gumbel noise is a draw from the weights.
    noisy = taste[user] + generator.gumbel(size=(len(user), num_items // 2))
    item = 2 * noisy.argmax(1) + user % 2
    opening = np.diff(user, prepend=-1) > 0
    item[opening] = np.arange(num_users) % num_items
    day = pl.duration(days=pl.col("basket_id") % num_baskets)
    events = pl.DataFrame({"user_id": user, "item_id": item, "basket_id": basket}).with_columns(
        timestamp=datetime(2024, 1, 1) + day,
        quantity=pl.Series(generator.integers(1, 4, size=len(user))),
    )
    events = events.unique(["basket_id", "item_id"], maintain_order=True)
    return EventLog.from_frames(
        events,
        _coloured("item_id", num_items),
        _coloured("user_id", num_users),
        name="checkerboard",
    )


def _coloured(key: str, count: int) -> pl.DataFrame:
    colour = [COLOURS[i % 2] for i in range(count)]
    texts = [f"a {c} stone, number {i}" for i, c in enumerate(colour)]
    titles = [f"{c} {i}" for i, c in enumerate(colour)]
    return pl.DataFrame({key: range(count), "colour": colour, "title": titles, "text": texts})


def colour_table() -> LabelTable:
    """Which users of the checkerboard are white, by folds."""
    return profiling(checkerboard(), "white", column="colour", classes={"white": ["white"]})


def new_item_table() -> LabelTable:
    """Which items a user of the checkerboard takes for the first time on the days after the 5th."""
    moments = {"train": ["2024-01-03"], "validation": "2024-01-04", "test": "2024-01-05"}
    return new_items(checkerboard(), "new", horizon_days=1, **moments)  # type: ignore[arg-type]
