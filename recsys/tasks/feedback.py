"""Feedback: which items users were shown or had as of moments, and whether they took them up.

A row is a user as of a moment with a list of items, each with a label: bought on a trip or not, of
what was in the shop's mailer; liked or disliked; kept or returned. What may be used for a row is
what any table of users as of moments offers: the events of its user before the moment.

Shapes: R rows, E labelled items of all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.batch.ragged import Ragged, offsets_of
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import BASKET, ITEM, TIME, USER, VALUE, EventLog
from recsys.log.hashing import fingerprint
from recsys.log.time import Moment, moment
from recsys.tasks.as_of import AS_OF, PHASE, UNTIL, AsOfTable, drawn
from recsys.tasks.phases import PHASES, TEST, TRAIN, VALIDATION
from recsys.tasks.tensors import tensor_of

LABEL = "label"
INDEX = "_index"
START, END = "start", "end"
"""Of an exposure: the moments from which and until which an item was shown."""


@dataclass(frozen=True, eq=False)
class FeedbackTable(AsOfTable):
    """A table of labelled items.

    Attributes:
        shown: (R) the items of each row, as rows of `log.items`.
        labels: (E,) bool, of each of them whether the user took it up.

    Raises:
        DataError: the parts are not of one length.
        LeakError: a label of a row is known only after the moment of a later phase.
    """

    shown: Ragged
    labels: Tensor

    def __post_init__(self) -> None:
        lengths = len(self.shown.values), len(self.labels)
        if len(self.rows) != len(self.shown) or len(set(lengths)) > 1:
            raise DataError(
                f"{self.name}: {len(self.rows)} rows, {len(self.shown)} lists, {lengths} items and "
                "labels; give each row its list and each item its label"
            )
        super().__post_init__()

    @property
    def fingerprint(self) -> str:
        """The same for the same rows, items and labels."""
        return fingerprint((self.rows, self.frame()))

    def frame(self) -> pl.DataFrame:
        """A row per labelled item: `row`, `user_id`, `as_of`, `phase`, `item_id`, `label`."""
        owners = self.shown.owners().numpy()
        return self.rows.select(USER, AS_OF, PHASE)[owners].with_columns(
            pl.Series("row", owners),
            self.log.items[ITEM][self.shown.values.numpy()],
            pl.Series(LABEL, self.labels.numpy().astype(np.int8)),
        )

    def labels_of(self, phase: int) -> Tensor:
        """(P,) bool, all labels of a phase."""
        inside = torch.zeros(len(self), dtype=torch.bool)
        inside[self.phase(phase)] = True
        return self.labels[inside[self.shown.owners()]]


def feedback_table(
    log: EventLog,
    name: str,
    rows: pl.DataFrame,
    *,
    validation: Moment,
    test: Moment,
    train: Moment | None = None,
    max_lists: Mapping[str, int] | None = None,
    seed: int = 0,
) -> FeedbackTable:
    """A table of labelled items from a frame of them.

    Items of one user and moment are one list. Those before `validation` train, those from `test` on
    are tested.

    Args:
        log: whose events are the users' histories.
        name: of the table.
        rows: `user_id`, `item_id`, `as_of`, of the type of the log's timestamps, and `label`, 0 or
            1; `until`, the moment at which a label is known, where that is later than `as_of`.
        validation, test: the moments at which these phases begin.
        train: labels before it are left out.
        max_lists: of a phase by its name, `{train: 8000}`; where there are more, they are drawn.
        seed: of the draw.

    Raises:
        ConfigError: moments that are not in order, or a phase that is none.
        DataError: a user or an item that the log does not know, a moment outside of the log,
            another label than 0 and 1, one item with two labels; a phase without rows; training
            without an item taken up, or without one turned down.
        LeakError: a label of a row is known only after the moment of a later phase.

    >>> days = [f"2024-01-0{day}" for day in range(1, 8)]
    >>> rows = {"user_id": [1] * 6 + [2], "item_id": [5, 6] * 3 + [5], "timestamp": days}
    >>> log = EventLog.from_frames(pl.DataFrame(rows))
    >>> likes = log.events.select("user_id", "item_id", pl.col("timestamp").alias("as_of"))
    >>> likes = likes.with_columns(label=pl.col("item_id") == 5)
    >>> table = feedback_table(log, "likes", likes, validation="2024-01-04", test="2024-01-06")
    >>> table.labels.int().tolist(), table.rows["phase"].to_list()
    ([1, 0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 2, 2])
    """
    starts = _starts(log, name, train, validation, test)
    rows = _in_phases(_checked(log, name, rows), starts)
    of_lists = rows.select(USER, AS_OF, PHASE).unique().sort(USER, AS_OF)
    chosen = drawn(of_lists, max_lists or {}, option=f"{name}: max_lists", seed=seed)
    rows = rows.join(chosen, on=[USER, AS_OF], how="semi")
    return _grouped(log, name, rows)


def _in_phases(rows: pl.DataFrame, starts: Sequence[Any]) -> pl.DataFrame:
    """The rows from the beginning of training on, with their phase."""
    if starts[TRAIN] is not None:
        rows = rows.filter(pl.col(AS_OF) >= starts[TRAIN])
    phase = (pl.col(AS_OF) >= starts[VALIDATION]).cast(pl.UInt8)
    return rows.with_columns((phase + (pl.col(AS_OF) >= starts[TEST])).alias(PHASE))


def _grouped(log: EventLog, name: str, rows: pl.DataFrame) -> FeedbackTable:
    """A table of rows `user_id`, `as_of`, `until`, `phase`, `index` of the item, and `label`."""
    lists = (
        rows.sort(USER, AS_OF, INDEX)
        .group_by(USER, AS_OF, PHASE, maintain_order=True)
        .agg(pl.col(UNTIL).max(), INDEX, LABEL)
    )
    _refuse_no_labels(name, lists)
    lengths = tensor_of(lists[LABEL].list.len().cast(pl.Int64))
    return FeedbackTable(
        name,
        log,
        lists.select(USER, AS_OF, UNTIL, PHASE),
        Ragged(tensor_of(lists[INDEX].explode().cast(pl.Int64)), offsets_of(lengths)),
        torch.from_numpy(lists[LABEL].explode().to_numpy().copy()),
    )


def rated(
    log: EventLog,
    name: str,
    *,
    validation: Moment,
    test: Moment,
    up: float = 4.0,
    down: float = 2.0,
    train: Moment | None = None,
    max_lists: Mapping[str, int] | None = None,
    seed: int = 0,
) -> FeedbackTable:
    """Ratings as feedback, each as of its moment.

    Args:
        log: whose `value` is a rating.
        name: of the table.
        up: ratings from here on are taken up.
        down: ratings up to here are turned down; those between say nothing.
        validation, test, train, max_lists, seed: as `feedback_table` takes them.

    Raises:
        ConfigError: `down` is not below `up`, or as `feedback_table`.
        DataError: the log has no values, or as `feedback_table`.
    """
    if down >= up:
        raise ConfigError(f"{name}: down={down:g} is not below up={up:g}; choose a lower one")
    if VALUE not in log.events.columns or not log.events[VALUE].dtype.is_numeric():
        raise DataError(f"{name}: {log.name} has no ratings; name their column as data's `value`")
    value = pl.col(VALUE)
    rows = log.events.filter((value >= up) | (value <= down)).select(
        USER, ITEM, pl.col(TIME).alias(AS_OF), (value >= up).alias(LABEL)
    )
    rows = rows.unique(subset=[USER, ITEM, AS_OF], keep="first", maintain_order=True)
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


def bought(
    log: EventLog,
    name: str,
    exposures: pl.DataFrame,
    *,
    validation: Moment,
    test: Moment,
    train: Moment | None = None,
    by: Sequence[str] = (),
    known: bool = False,
    max_lists: Mapping[str, int] | None = None,
    seed: int = 0,
) -> FeedbackTable:
    """What was shown on a trip, bought on it or not: a list is a basket, as of its first event.

    Args:
        log: of purchases.
        name: of the table.
        exposures: `item_id`, `start` and `end`, moments of the type of the log's timestamps from
            which and until which the item is shown, and the columns `by`.
        by: columns of the events and of the exposures that have to be the same: the shop whose
            mailer it is, or `user_id` for what one user was shown.
        known: take only items that the user had before the trip: what somebody never buys is not
            skipped.
        validation, test, train, max_lists, seed: as `feedback_table` takes them.

    Raises:
        ConfigError: as `feedback_table`.
        DataError: a column `by` that events or exposures have not; nothing was shown on any trip;
            or as `feedback_table`.
    """
    for column in by:
        for frame, of in ((log.events, f"events of {log.name}"), (exposures, "exposures")):
            if column not in frame.columns:
                there = ", ".join(frame.columns)
                raise DataError(f"{name}: by={column}: the {of} have no such column, but {there}")
    _refuse_strangers(name, "exposures' item_id", exposures[ITEM], log.items[ITEM])
    starts = _starts(log, name, train, validation, test)
    trips = _in_phases(_trips(log, by), starts)
    trips = drawn(trips, max_lists or {}, option=f"{name}: max_lists", seed=seed)
    events = log.events.join(trips, on=_trip(log), how="inner").select(USER, AS_OF, ITEM)
    windows = exposures.select(START, END).unique().with_row_index("_window")
    seen = trips.join_where(windows, pl.col(AS_OF) >= pl.col(START), pl.col(AS_OF) < pl.col(END))
    shown = _indexed(log, exposures.join(windows, on=[START, END]))
    seen = seen.join(shown.select(*by, INDEX, "_window").unique(), on=[*by, "_window"])
    if not len(seen):
        raise DataError(f"{name}: nothing was shown on any trip; see that start, end and by match")
    seen = seen.select(USER, AS_OF, PHASE, INDEX).unique()
    if known:
        first = _indexed(log, log.events).group_by(USER, INDEX).agg(pl.col(TIME).min())
        seen = seen.join(first, on=[USER, INDEX]).filter(pl.col(TIME) < pl.col(AS_OF)).drop(TIME)
    taken = _indexed(log, events).select(USER, AS_OF, INDEX).unique().with_columns(label=True)
    rows = seen.join(taken, on=[USER, AS_OF, INDEX], how="left")
    label = pl.col(LABEL).fill_null(False)
    return _grouped(log, name, rows.with_columns(label, pl.col(AS_OF).alias(UNTIL)))


def _indexed(log: EventLog, rows: pl.DataFrame) -> pl.DataFrame:
    """With `index`, the row of `log.items` of each item."""
    return rows.join(log.items.select(ITEM).with_row_index(INDEX), on=ITEM)


def _trip(log: EventLog) -> list[str]:
    return [USER, BASKET if BASKET in log.events.columns else TIME]


def _trips(log: EventLog, by: Sequence[str]) -> pl.DataFrame:
    """What a trip is known by, its moment, and its columns `by`."""
    trip = _trip(log)
    others = [pl.col(c).first() for c in by if c not in trip]
    first = pl.col(TIME).min().alias(AS_OF)
    return log.events.group_by(trip, maintain_order=True).agg(first, *others)


def _starts(
    log: EventLog, name: str, train: Moment | None, validation: Moment, test: Moment
) -> list[Any]:
    """The first moments of training, which may be None, validation and test."""
    given = {"train": train, "validation": validation, "test": test}
    starts = {
        option: moment(log, f"{name}: {option}", when)[0]
        for option, when in given.items()
        if when is not None
    }
    ordered = list(starts.items())
    for (one, earlier), (other, later) in pairwise(ordered):
        if earlier >= later:
            raise ConfigError(
                f"{name}: {other}={given[other]} is not later than {one}={given[one]}; give the "
                "moments in order"
            )
    return [starts.get(option) for option in given]


def _checked(log: EventLog, name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """`user_id`, `item_id`, `as_of`, `until` and `label` as bool, each row once."""
    _refuse_strangers(name, USER, rows[USER], log.users[USER])
    _refuse_strangers(name, ITEM, rows[ITEM], log.items[ITEM])
    wrong = rows[LABEL].filter(~_is_label(rows[LABEL]))
    if len(wrong):
        raise DataError(f"{name}: label {wrong[0]} is neither 0 nor 1; give 1 for yes and 0 for no")
    times = log.events[TIME]
    outside = rows[AS_OF].filter((rows[AS_OF] < times.min()) | (rows[AS_OF] > times.max()))
    if len(outside):
        raise DataError(
            f"{name}: a label is of {outside[0]!s}, and {log.name} lasts from {times.min()!s} to "
            f"{times.max()!s}; leave out labels outside of the log"
        )
    until = pl.col(UNTIL) if UNTIL in rows.columns else pl.col(AS_OF)
    rows = rows.select(
        USER, ITEM, AS_OF, until.cast(times.dtype).alias(UNTIL), pl.col(LABEL).cast(pl.Boolean)
    ).unique(maintain_order=True)
    twice = rows.filter(pl.struct(USER, ITEM, AS_OF).is_duplicated())
    if len(twice):
        user, item, at = twice.select(USER, ITEM, AS_OF).row(0)
        raise DataError(
            f"{name}: user {user} has item {item} twice at {at!s}; give each item one label and "
            "one moment at which it is known"
        )
    return _indexed(log, rows)


def _is_label(labels: pl.Series) -> pl.Series:
    if labels.dtype == pl.Boolean:
        return labels.is_not_null()
    if not labels.dtype.is_numeric():
        return pl.repeat(False, len(labels), dtype=pl.Boolean, eager=True)
    return ((labels == 0) | (labels == 1)).fill_null(False)


def _refuse_strangers(name: str, column: str, ids: pl.Series, known: pl.Series) -> None:
    if ids.dtype != known.dtype:
        raise DataError(
            f"{name}: {column} is {ids.dtype}, and the log's is {known.dtype}; give the log's ids"
        )
    if len(strange := ids.filter(~ids.is_in(known.implode()))):
        raise DataError(
            f"{name}: {column} {strange[0]!r} is not in the log; leave out the {len(strange)} rows "
            "of ids that it does not know"
        )


def _refuse_no_labels(name: str, lists: pl.DataFrame) -> None:
    """See that every phase has rows, and training both labels."""
    for phase, part in enumerate(PHASES):
        labels = lists.filter(pl.col(PHASE) == phase)[LABEL].explode()
        if not len(labels):
            raise DataError(f"{name}: no label is of {part}; move validation or test")
        if phase == TRAIN and labels.n_unique() < 2:
            only = "taken up" if labels[0] else "turned down"
            raise DataError(
                f"{name}: all {len(labels)} items of training are {only}; there is nothing to "
                "tell apart"
            )
