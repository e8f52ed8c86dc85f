"""Prepare a log that need not fit into memory: from Parquet files to a folder of partitions.

    1. rows are divided by a hash of their user, as polars streams them (scatter)
    2. each partition is brought into order (arrange)
    3. for a k-core, events of items are counted until all have enough (encode, item_counts)
    4. then each partition is cut once (cut)

What comes out holds the rows of the log that `table` and `filtered` make of the same files, but for
the order of users.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.preparation import manifest, partitions
from recsys.data.preparation.engines import Engine, EngineName, engine_of
from recsys.data.preparation.events import LargeTable
from recsys.data.preparation.manifest import File, Manifest, described
from recsys.errors import ConfigError, DataError, RunError
from recsys.files import atomic_folder, clear_beside, locked, may_replace
from recsys.log.event_log import ITEM, USER, EventLog, complete, raise_problems
from recsys.log.filters import check_minimums, too_few_users
from recsys.log.time import Moment, moment
from recsys.timing import timed

logger = logging.getLogger(__name__)

ROWS_OF_A_PARTITION = 2_000_000
"""As many as are brought into order at a time by default: about 300 MiB."""
MOST_PARTITIONS = 256
"""By default: each takes memory while rows are divided."""


@dataclass(frozen=True)
class Filters:
    """Which events stay, as `recsys.log.filtered` has it."""

    first_only: bool = False
    min_user_events: int = 0
    min_item_events: int = 0
    until: Moment | None = None

    @property
    def is_core(self) -> bool:
        """Whether users or items may be too few."""
        return max(self.min_user_events, self.min_item_events) > (1 if self.until is None else 0)


def prepare(
    table: LargeTable,
    out: Path,
    *,
    filters: Filters | None = None,
    num_partitions: int | None = None,
    engine: EngineName = "polars",
) -> Manifest:
    """Write a prepared log.

    Args:
        table: the log, as `large_table` finds it.
        out: its folder, which is there when it is whole. One that is there already is replaced if
            it is a prepared log.
        filters: which events stay.
        num_partitions: by default one for 2 million rows, at most 256.
        engine: `polars`, one partition after another; `ray`, many at a time.

    Raises:
        ConfigError: a number that cannot be.
        DataError: rows that no log holds, or filters that leave at most one user.
        RunError: the folder holds something else, or another process is at work on it.
    """
    filters = filters or Filters()
    check_minimums(filters.min_user_events, filters.min_item_events)
    if num_partitions is not None and num_partitions < 1:
        raise ConfigError(f"partitions={num_partitions}: give at least 1")
    if out.exists() and not may_replace(out, manifest.FILES, manifest.NAME):
        raise RunError(f"{out} is there and no prepared log; name another folder")
    with locked(out.with_name(f".{out.name}.lock"), out):
        clear_beside(out)
        with atomic_folder(out) as folder:
            work = _Work(table, folder, filters, engine_of(engine), num_partitions or _count(table))
            with _reading(table):
                done = work.run()
            manifest.write(folder, done)
    return done


@contextmanager
def _reading(table: LargeTable) -> Iterator[None]:
    """What polars says of files that it cannot read, in one line."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{table.name}: its files cannot be read: {reason}") from error


def _count(table: LargeTable) -> int:
    rows = table.events.count()
    return min(MOST_PARTITIONS, max(1, -(-rows // ROWS_OF_A_PARTITION)))


@dataclass(frozen=True, eq=False)
class _Work:
    """One log on its way into a folder."""

    table: LargeTable
    folder: Path
    filters: Filters
    engine: Engine
    num_partitions: int

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def numbers(self) -> range:
        return range(self.num_partitions)

    def run(self) -> Manifest:
        """Write everything but the manifest."""
        self._scatter()
        final = self.folder / "events"
        with timed(logger, "arranged %s partitions", self.num_partitions):
            files = self._arrange(self.scratch / "events" if self.filters.is_core else final)
        shutil.rmtree(self.scratch / "scattered")
        is_cut = self.filters.first_only
        if self.filters.is_core:
            with timed(logger, "cut to the k-core"):
                cut = self._cut(files)
            is_cut, files = is_cut or _rows(cut) < _rows(files), cut
        items, users = self._write_items(final, is_cut), self._write_users(final)
        shutil.rmtree(self.scratch, ignore_errors=True)
        table, filters = self.table, vars(self.filters)
        until = self.filters.until
        said = filters | {"until": until if isinstance(until, int | None) else str(until)}
        return Manifest(table.name, table.item_columns, said, tuple(files), items, users)

    def _scatter(self) -> None:
        pieces = self.table.events.parts(self.engine.workers)
        with timed(logger, "divided rows in %s pieces", len(pieces)):
            calls = (
                (piece, self.scratch / "scattered" / f"{number:05}", self.num_partitions)
                for number, piece in enumerate(pieces)
            )
            list(self.engine.run(partitions.scatter, calls))

    def _arrange(self, target: Path) -> list[File]:
        """The files of all partitions, in order."""
        table, scattered = self.table, self.scratch / "scattered"
        kinds = table.events.kinds
        calls = ((kinds, scattered, n, target, self.filters.first_only) for n in self.numbers)
        arranged = list(self.engine.run(partitions.arrange, calls))
        good = [file for _, file in arranged if file is not None]
        if len(good) < len(arranged):
            raise_problems(table.name, table.events.problems(), table.called)
        if len(good) < len(arranged) or sum(n for n, _ in arranged) != table.events.count():
            raise DataError(f"{table.name}: its files changed while they were read; try again")
        if not _rows(good):
            raise DataError(f"{table.name}: no events: the log has no rows")
        if sum(file.users for file in good) < 2:
            only = "user_id: one user only; a recommender learns from at least two"
            raise_problems(table.name, [only], table.called)
        return good

    def _cut(self, files: Sequence[File]) -> list[File]:
        """The files of all partitions, with what is left of them."""
        events, coded = self.scratch / "events", self.scratch / "coded"
        items, filters, run = self.scratch / "items.parquet", self.filters, self.engine.run
        ids = _merged(self.scratch / "items_of", ITEM)
        ids.write_parquet(items)
        until = self._until(ids)
        list(run(partitions.encode, ((events, n, items, coded, until) for n in self.numbers)))
        stays, least = np.ones(len(ids), dtype=bool), filters.min_user_events
        while True:
            calls = ((coded, number, stays, least) for number in self.numbers)
            counts = sum(run(partitions.item_counts, calls), np.zeros(len(ids), dtype=np.int64))
            still = stays & (counts >= filters.min_item_events)
            if (still == stays).all():
                break
            stays = still
        target = self.folder / "events"
        calls_to_cut = (
            (events, coded, number, stays, least, target, file.out_of_order)
            for number, file in enumerate(files)
        )
        cut = list(run(partitions.cut, calls_to_cut))
        if sum(file.users for file in cut) < 2:
            minimums = filters.min_user_events, filters.min_item_events
            raise too_few_users(self.table.name, *minimums, filters.until)
        return cut

    def _until(self, items: pl.DataFrame) -> pl.Series | None:
        """The moment up to which events count."""
        if self.filters.until is None:
            return None
        kinds = self.table.events.kinds
        log = EventLog(self.table.name, pl.DataFrame(schema=kinds), items, items)
        return moment(log, "until", self.filters.until)

    def _write_items(self, events: Path, is_cut: bool) -> File:
        """The table of items: those of the events alone where the log is cut."""
        ids = _merged(events.with_name("items_of"), ITEM)
        items = complete(ids[ITEM], self.table.items, keep_unseen=not is_cut)
        return self._write_table(items, "items")

    def _write_users(self, events: Path) -> File:
        ids = _merged(events.with_name("users_of"), USER)
        users = complete(ids[USER], self.table.users, keep_unseen=False)
        return self._write_table(users, "users")

    def _write_table(self, frame: pl.DataFrame, kind: str) -> File:
        path = self.folder / f"{kind}.parquet"
        partitions.write(frame, path)
        shutil.rmtree(self.folder / f"{kind}_of")
        return described(path, rows=len(frame))


def _rows(files: Sequence[File]) -> int:
    return sum(file.rows for file in files)


def _merged(folder: Path, column: str) -> pl.DataFrame:
    """The ids that partitions have written, each once, in order."""
    ids = pl.scan_parquet(sorted(folder.glob("*.parquet")), glob=False).unique().sort(column)
    return ids.collect(engine="streaming")
