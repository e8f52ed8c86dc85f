"""A prepared log: a folder that `recsys data prepare` made of files of any size.

recsys data prepare data=table "data.path='log/*.parquet'" out=FOLDER
recsys train data=prepared data.path=FOLDER

The events of all partitions, or of some of them, are read into memory and are then the log that
`table` makes of the same rows. Partitions are of users by chance: some of them are a sample.

Of ranks that train together each may read its own partitions (`by_rank`), and knows the items and
users of all. What they train and evaluate is what a process does that reads all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from recsys.data.preparation import manifest
from recsys.data.preparation.partitions import place
from recsys.data.sources.files import reading
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import BASKET, EventLog, in_time_order
from recsys.memory import check_memory
from recsys.ranges import distinct

BYTES_OF_AN_EVENT = 175
"""What an event of a basket takes while it is read and brought into order with all others."""


def prepared(
    path: str, *, partitions: Sequence[int] | None = None, by_rank: bool = False
) -> EventLog:
    """A prepared log, or what some of its users did.

    Args:
        path: its folder.
        partitions: those to read, by their numbers from 0; None is all. Items and users without an
            event in them are left out.
        by_rank: whether each of several ranks, which have met (`recsys.training.processes.join`),
            reads some of them, of about as many rows: a log of some users' events, and of all items
            and users.

    Raises:
        ConfigError: no such partition, fewer than ranks, or items that events describe by rank.
        DataError: no prepared log, another than was written, or more than fits into memory.
    """
    folder = Path(path).expanduser().absolute()
    about = manifest.read(folder)
    numbers = _numbers(partitions, len(about.partitions))
    if by_rank:
        return _of_rank(folder, about, numbers)
    log = _log(folder, about, numbers)
    return log if len(numbers) == len(about.partitions) else log.with_events(log.events)


def _of_rank(folder: Path, about: manifest.Manifest, numbers: Sequence[int]) -> EventLog:
    from recsys.data.preparation import by_rank  # torch takes seconds to import

    log = _log(folder, about, by_rank.own(numbers, about))
    users = _table(folder / "users.parquet", about.users)
    with reading(folder):
        return by_rank.with_all(log, users, about, numbers)


def _numbers(wanted: Sequence[int] | None, count: int) -> Sequence[int]:
    distinct(**{"data.partitions": wanted})
    if wanted is None:
        return range(count)
    if not wanted:
        raise ConfigError("data.partitions=[] reads nothing; name one, or leave the option out")
    if others := [number for number in wanted if not 0 <= number < count]:
        raise ConfigError(f"data.partitions={others[0]}: the log has 0 to {count - 1}")
    return sorted(wanted)


def _log(folder: Path, about: manifest.Manifest, numbers: Sequence[int]) -> EventLog:
    """The log of some partitions; its checks are those of every log, whoever made the folder."""
    num_rows = sum(about.partitions[number].rows for number in numbers)
    remedy = "read some partitions, such as data.partitions=[0]"
    check_memory(num_rows * BYTES_OF_AN_EVENT, f"{num_rows:,} events", remedy)
    events = [_table(place(folder / "events", n), about.partitions[n]) for n in numbers]
    items = _table(folder / "items.parquet", about.items)
    users = _table(folder / "users.parquet", about.users)
    with reading(folder):
        rows = pl.concat(events)
        del events
        log = EventLog.from_frames(
            rows, items, users, name=about.name, item_columns=about.item_columns
        )
    if BASKET in rows.columns and rows.schema == log.events.schema:
        # Baskets of one moment stay in the order of the whole log: where one began may be cut.
        log = replace(log, events=in_time_order(rows)[0])
    late = sum(about.partitions[number].out_of_order for number in numbers)
    return replace(log, out_of_order=late)


def _table(path: Path, file: manifest.File) -> pl.DataFrame:
    manifest.check(path, file)
    with reading(path):
        frame = pl.read_parquet(path, glob=False)
    if len(frame) != file.rows:
        raise DataError(f"{path} has {len(frame):,} rows, not {file.rows:,}; prepare the log again")
    return frame
