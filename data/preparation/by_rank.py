"""What one of several ranks reads of a prepared log: some partitions, and what all of them hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from recsys import ranks
from recsys.data.preparation.manifest import Manifest
from recsys.errors import ConfigError
from recsys.log.event_log import ITEM, USER, EventLog, Whole


def own(numbers: Sequence[int], about: Manifest) -> list[int]:
    """Of some partitions those of this rank: the largest first, each to whom has fewest rows.

    Raises:
        ConfigError: there are fewer than ranks, or items are what all their events say.
    """
    if about.item_columns:
        raise ConfigError(
            f"data.by_rank=true: {about.item_columns[0]} of an item is what all its events say; "
            "prepare the log with a table of items, or set data.by_rank=false"
        )
    if len(numbers) < ranks.world():
        raise ConfigError(
            f"data.by_rank=true: {len(numbers)} partitions are too few for {ranks.world()} ranks; "
            f"prepare the log with partitions={ranks.world()} or more"
        )
    of_ranks: list[list[int]] = [[] for _ in range(ranks.world())]
    rows = [0] * ranks.world()
    for number in sorted(numbers, key=lambda n: about.partitions[n].rows, reverse=True):
        fewest = rows.index(min(rows))
        of_ranks[fewest].append(number)
        rows[fewest] += about.partitions[number].rows
    return sorted(of_ranks[ranks.rank()])


def with_all(log: EventLog, users: pl.DataFrame, about: Manifest, read: Sequence[int]) -> EventLog:
    """A log of this rank's events with the items and users that have an event on any rank.

    Args:
        log: of the partitions of this rank.
        users: a row for each of all users.
        about: the folder.
        read: the partitions that all ranks have read.
    """
    users = users.with_columns(pl.col(USER).cast(log.users.schema[USER])).sort(USER)
    files = [about.items, about.users, *(about.partitions[number] for number in read)]
    digests = "".join(file.sha256 for file in files)
    return replace(
        log,
        items=_with_events(log.items, log.events[ITEM]),
        users=_with_events(users, log.events[USER]),
        whole=Whole(
            num_ranks=ranks.world(),
            num_events=sum(about.partitions[number].rows for number in read),
            fingerprint=hashlib.sha256(digests.encode()).hexdigest(),
        ),
    )


def _with_events(table: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """The rows of a table whose ids are among those of any rank."""
    is_here = table[ids.name].is_in(ids.unique().implode()).cast(pl.UInt8).to_torch()
    return table.filter(pl.Series(ranks.largest(is_here).numpy() > 0))
