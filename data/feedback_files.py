"""Feedback from tables of one's own: labels, or what was shown where and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from recsys.data.sources.files import existing_file
from recsys.data.tables.files import read_table
from recsys.errors import DataError
from recsys.log.event_log import ITEM, USER, EventLog, as_numbers
from recsys.log.time import Moment, moments
from recsys.tasks.as_of import AS_OF, UNTIL
from recsys.tasks.feedback import END, LABEL, START, FeedbackTable, bought, feedback_table


def labels_file(
    log: EventLog,
    name: str,
    *,
    path: str,
    columns: Mapping[str, str | None] | None = None,
    validation: Moment,
    test: Moment,
    train: Moment | None = None,
    max_lists: Mapping[str, int] | None = None,
    seed: int = 0,
) -> FeedbackTable:
    """A table of labels: `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet`.

    Args:
        log: whose events are the users' histories.
        name: of the table.
        path: of the file.
        columns: our name -> the file's, for `user_id`, `item_id`, `as_of`, the moment of a label,
            `label`, 0 or 1, and `until`, when a label was known where that is later than `as_of`.
        validation, test, train, max_lists, seed: as `recsys.tasks.feedback_table` takes them.

    Raises:
        ConfigError, LeakError: as `feedback_table`.
        DataError: a column that the file has not, or as `feedback_table`.
    """
    frame = _columns(name, path, [USER, ITEM, AS_OF, LABEL], columns or {}, [UNTIL])
    times = [moments(log, f"{name}: {c}", frame[c]) for c in (AS_OF, UNTIL) if c in frame.columns]
    rows = frame.with_columns(
        _ids(frame[USER], log.users[USER]),
        _ids(frame[ITEM], log.items[ITEM]),
        as_numbers(frame[LABEL]) if frame[LABEL].dtype != pl.Boolean else frame[LABEL],
        *(time.alias(c) for c, time in zip((AS_OF, UNTIL), times, strict=False)),
    )
    return feedback_table(
        log,
        name,
        rows,
        validation=validation,
        test=test,
        train=train,
        max_lists=max_lists,
        seed=seed,
    )


def shown_file(
    log: EventLog,
    name: str,
    *,
    path: str,
    columns: Mapping[str, str | None] | None = None,
    by: Sequence[str] = (),
    known: bool = False,
    validation: Moment,
    test: Moment,
    train: Moment | None = None,
    max_lists: Mapping[str, int] | None = None,
    seed: int = 0,
) -> FeedbackTable:
    """A table of what was shown, labelled by whether it was bought on a trip of that time.

    Args:
        log: of purchases.
        name: of the table.
        path: of the file, as `labels_file` takes it.
        columns: our name -> the file's, for `item_id`, `start`, `end`, and the columns `by`.
        by, known: as `recsys.tasks.bought` takes them.
        validation, test, train, max_lists, seed: as `recsys.tasks.feedback_table` takes them.

    Raises:
        ConfigError: as `bought`.
        DataError: a column that the file has not, or as `bought`.
    """
    frame = _columns(name, path, [ITEM, START, END, *by], columns or {}, [])
    alike = [c for c in by if c in log.events.columns]
    exposures = frame.with_columns(
        _ids(frame[ITEM], log.items[ITEM]),
        *(moments(log, f"{name}: {c}", frame[c]).alias(c) for c in (START, END)),
        *(_ids(frame[c], log.events[c]) for c in alike),
    )
    return bought(
        log,
        name,
        exposures,
        by=by,
        known=known,
        validation=validation,
        test=test,
        train=train,
        max_lists=max_lists,
        seed=seed,
    )


def _columns(
    name: str,
    path: str,
    needed: Sequence[str],
    columns: Mapping[str, str | None],
    others: Sequence[str],
) -> pl.DataFrame:
    """The columns by our names; `others` where the file has them."""
    file = existing_file(Path(path))
    frame = read_table(str(file)).frame
    names = {ours: columns.get(ours) or ours for ours in [*needed, *others]}
    for ours in needed:
        if names[ours] not in frame.columns:
            near = get_close_matches(names[ours], frame.columns, n=1, cutoff=0.5)
            meant = f"; did you mean {near[0]}?" if near else f"; set columns.{ours}=NAME"
            there = ", ".join(frame.columns)
            raise DataError(f"{name}: {file} has no column {names[ours]}, but {there}{meant}")
    in_file = {ours: theirs for ours, theirs in names.items() if theirs in frame.columns}
    return pl.DataFrame([frame[theirs].alias(ours) for ours, theirs in in_file.items()])


def _ids(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Ids as the log's, where they can be; what they are else is told by whom they are given to."""
    cast = ids.cast(known.dtype, strict=False)
    return cast if cast.null_count() == ids.null_count() else ids
