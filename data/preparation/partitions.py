"""What is done with one partition of a log: functions of paths and numbers, that write files.

    scatter      rows of some files          -> scattered/PIECE/NUMBER/*.parquet
    arrange      a partition of all pieces   -> events, in order of time within a user
    encode       its events                  -> users and items as numbers, to count with
    item_counts  those, and items that stay  -> events of each item
    cut          its events, and items       -> events of the k-core

A partition holds all events of its users. So an order within users, first contacts and events of a
user are found in it alone; of a k-core, partitions share which items stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.data.preparation.events import LargeEvents
from recsys.data.preparation.manifest import File, described
from recsys.log.event_log import (
    BASKET,
    ITEM,
    QUANTITY,
    REQUIRED,
    TIME,
    USER,
    VALUE,
    baskets_together,
    in_time_order,
    unused,
)
from recsys.log.vocabulary import Vocabulary

KEY = "partition"
ROWS_AT_ONCE = 2**15
"""Rows of each partition that wait in memory while rows are divided."""
ROW_GROUP = 2**20
"""Rows that are written at a time, whatever number of threads there is."""


def place(folder: Path, number: int) -> Path:
    """The file of a partition in a folder."""
    return folder / f"{number:05}.parquet"


def scatter(events: LargeEvents, folder: Path, num_partitions: int) -> None:
    """Divide rows by a hash of their user, in their order."""
    key = unused([KEY, *events.columns])
    number = (pl.col(USER).hash(seed=0) % num_partitions).cast(pl.UInt32)
    by_user = pl.PartitionBy(
        folder,
        key=number.alias(key),
        include_key=False,
        approximate_bytes_per_file=2**62,
        file_path_provider=lambda file: (
            f"{file.partition_keys[key][0]}/{file.index_in_partition:08}.parquet"
        ),
    )
    events.scan().sink_parquet(
        by_user,
        compression="lz4",
        statistics=False,
        row_group_size=ROWS_AT_ONCE,
        mkdir=True,
        engine="streaming",
    )


def arrange(
    kinds: Mapping[str, Any], scattered: Path, number: int, target: Path, first_only: bool
) -> tuple[int, File | None]:
    """Bring a partition into order.

    Args:
        kinds: of its columns.
        scattered: folder of pieces.
        number: of the partition.
        target: folder of events, beside which those of users and items are written.
        first_only: whether only the first event of a user and an item stays.

    Returns:
        How many rows were read; the file, None where one of the rows is none of a log's.
    """
    pieces = sorted(scattered.glob(f"*/{number}/*.parquet"))
    frames = [pl.read_parquet(piece, hive_partitioning=False, glob=False) for piece in pieces]
    rows = pl.concat([pl.DataFrame(schema=kinds), *frames])
    if _is_bad(rows):
        return len(rows), None
    ordered, out_of_order = in_time_order(rows)
    ordered = baskets_together(ordered)
    if first_only:
        ordered = ordered.unique([USER, ITEM], keep="first", maintain_order=True)
    return len(rows), _written(ordered, target, number, out_of_order)


def _is_bad(rows: pl.DataFrame) -> bool:
    """Whether there is a row that no log holds; which, the source tells."""
    if any(rows[c].null_count() for c in (*REQUIRED, BASKET, QUANTITY) if c in rows.columns):
        return True
    if QUANTITY in rows.columns:
        number = rows[QUANTITY].cast(pl.Float64)
        if not (number.is_finite() & (number >= 0)).all():
            return True
    return VALUE in rows.columns and bool(rows[VALUE].cast(pl.Float64).is_infinite().any())


def _written(events: pl.DataFrame, folder: Path, number: int, out_of_order: int) -> File:
    """A partition's events, and beside their folder which users and items they are of."""
    users = events.select(pl.col(USER).set_sorted().unique(maintain_order=True))
    items = events.select(pl.col(ITEM).unique())
    for kind, frame in (("users", users), ("items", items)):
        frame.write_parquet(place(folder.parent / f"{kind}_of", number), mkdir=True)
    path = place(folder, number)
    path.parent.mkdir(exist_ok=True)
    write(events, path)
    return described(path, rows=len(events), users=len(users), out_of_order=out_of_order)


def write(frame: pl.DataFrame, path: Path) -> None:
    """A Parquet file; the same bytes whatever number of threads there is."""
    # Level 1 takes half the time of the usual 3, for one byte in seventy more.
    frame.rechunk().write_parquet(
        path, compression_level=1, row_group_size=ROW_GROUP, statistics=False
    )


def encode(events: Path, number: int, items: Path, target: Path, until: pl.Series | None) -> None:
    """Users of a partition counted from 0, items by their rows in a table, and what counts."""
    columns = [USER, ITEM] if until is None else [USER, ITEM, TIME]
    frame = pl.read_parquet(place(events, number), columns=columns, glob=False)
    vocabulary = Vocabulary(pl.read_parquet(items, columns=[ITEM], glob=False)[ITEM])
    user = frame[USER].rle_id()
    item = vocabulary.index_of(frame[ITEM]).cast(pl.UInt32)
    counts = pl.repeat(True, len(frame), eager=True) if until is None else frame[TIME] < until[0]
    coded = pl.DataFrame({"user": user, "item": item, "counts": counts})
    coded.write_parquet(place(target, number), compression="lz4", statistics=False, mkdir=True)


def item_counts(coded: Path, number: int, stays: np.ndarray, min_user_events: int) -> np.ndarray:
    """Counted events of each item, of users who have enough events of items that stay."""
    frame = pl.read_parquet(place(coded, number), glob=False)
    left = _left(frame, stays, min_user_events) & frame["counts"].to_numpy()
    return np.bincount(frame["item"].to_numpy()[left], minlength=len(stays))


def cut(
    events: Path,
    coded: Path,
    number: int,
    stays: np.ndarray,
    min_user_events: int,
    target: Path,
    out_of_order: int,
) -> File:
    """The events of items that stay and of users who then have enough."""
    left = _left(pl.read_parquet(place(coded, number), glob=False), stays, min_user_events)
    frame = pl.read_parquet(place(events, number), glob=False).filter(pl.Series(left))
    return _written(frame, target, number, out_of_order)


def _left(coded: pl.DataFrame, stays: np.ndarray, min_user_events: int) -> np.ndarray:
    """Which events are of items that stay and of users with enough counted ones of those."""
    user, item = coded["user"].to_numpy(), coded["item"].to_numpy()
    left = stays[item]
    counted = np.bincount(user[left & coded["counts"].to_numpy()], minlength=_size(user))
    return left & (counted >= min_user_events)[user]


def _size(user: np.ndarray) -> int:
    return int(user[-1]) + 1 if len(user) else 0
