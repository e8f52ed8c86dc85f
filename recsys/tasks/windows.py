"""Windows of a log that tables of labels look into, and who is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from recsys.batch.ragged import Ragged, offsets_of
from recsys.errors import ConfigError
from recsys.log.event_log import TIME, USER, EventLog
from recsys.log.time import Moment, days_after, just_after, moment, next_day
from recsys.log.vocabulary import Vocabulary
from recsys.tasks.as_of import AS_OF, PHASE, UNTIL
from recsys.tasks.labels import LabelTable
from recsys.tasks.phases import TEST, TRAIN, VALIDATION
from recsys.tasks.tensors import tensor_of


def grouped(group: pl.Series, values: pl.Series, num_groups: int) -> Ragged:
    """Of each group 0 .. num_groups - 1 its values, ascending; -1 is no group."""
    pairs = pl.DataFrame({"group": group, "value": values.cast(pl.Int64)})
    pairs = pairs.filter(pl.col("group") >= 0).sort("group", "value")
    lengths = np.bincount(pairs["group"].to_numpy(), minlength=num_groups)
    return Ragged(tensor_of(pairs["value"]), offsets_of(torch.from_numpy(lengths)))


class Window(NamedTuple):
    """As of when users have a row, and when its label is known.

    Attributes:
        option: that says so, for errors: `lapse: test=2017-10-30`.
        phase: 0 in training, 1 in validation, 2 in test.
        moment, until: of the log.
    """

    option: str
    phase: int
    moment: pl.Series
    until: pl.Series

    def rows(self, users: pl.DataFrame) -> pl.DataFrame:
        """The rows of `users` (`user_id`)."""
        of_moment = users.with_columns(pl.lit(self.moment).first().alias(AS_OF))
        return rows_of(of_moment, self.until, pl.lit(self.phase))

    def refuse_nobody(self, users: pl.DataFrame, wanted: str) -> None:
        """Raise a `ConfigError` where there are no users who do what is wanted."""
        if not len(users):
            raise ConfigError(f"{self.option}: no user {wanted}; choose another moment")


def checked_window(log: EventLog, window: Window) -> Window:
    """A window that lies in a log, some event before it and the end of the last day behind.

    Raises:
        ConfigError: it does not.
    """
    _refuse_no_past(log, window.option, window.moment)
    if window.until[0] > _end(log)[0]:
        raise ConfigError(
            f"{window.option}: its window lasts until {window.until[0]:%Y-%m-%d}, and {log.name} "
            f"ends at {log.events[TIME].max()!s}; choose an earlier moment, or fewer days"
        )
    return window


def refuse_one_label(option: str, labels: pl.Series, done: str) -> None:
    """Raise a `ConfigError` where all users do the same; `labels` are bool."""
    if labels.n_unique() == 1:
        share = "all" if labels[0] else "none"
        raise ConfigError(
            f"{option}: {share} of the {len(labels)} users {done}, so there is nothing to tell "
            "apart; choose other moments"
        )


def windows_of(
    log: EventLog,
    name: str,
    train: Sequence[Moment],
    validation: Moment | None,
    test: Moment,
    horizon_days: int,
) -> list[Window]:
    """Every moment with its phase and the days after it, the test's at the end."""
    if not log.has_calendar_time:
        raise ConfigError(
            f"{name}: {log.name} knows no time but an order, and the table is of days"
        )
    given = [("train", TRAIN, when) for when in ([train] if isinstance(train, str) else train)]
    given += [] if validation is None else [("validation", VALIDATION, validation)]
    windows: list[Window] = []
    for option, phase, when in [*given, ("test", TEST, test)]:
        at = moment(log, f"{name}: {option}", when)
        # Windows of two phases that overlap are refused with the rows that they would share.
        if any((w.phase, w.moment[0]) == (phase, at[0]) for w in windows):
            raise ConfigError(f"{name}: {option} names {when} twice; name it once")
        window = Window(f"{name}: {option}={when}", phase, at, days_after(at, horizon_days))
        windows.append(checked_window(log, window))
    return windows


def within_log(log: EventLog, name: str, when: Moment | None) -> pl.Series:
    """A moment with events before it and at most some of its day behind; None is after the last."""
    if when is None:
        return just_after(log.events.select(pl.col(TIME).max())[TIME])
    at = moment(log, f"{name}: {AS_OF}", when)
    if at[0] > _end(log)[0]:
        raise ConfigError(
            f"{name}: {AS_OF}={when} lies after {log.name}, which ends at "
            f"{log.events[TIME].max()!s}; leave it out for the moment after the last event"
        )
    _refuse_no_past(log, f"{name}: {AS_OF}={when}", at)
    return at


def _end(log: EventLog) -> pl.Series:
    """When the last day of a log ends; of an order, what follows the last event."""
    last = log.events.select(pl.col(TIME).max())[TIME]
    return next_day(last) if log.has_calendar_time else just_after(last)


def _refuse_no_past(log: EventLog, option: str, at: pl.Series) -> None:
    first = log.events[TIME].min()
    if at[0] <= first:
        raise ConfigError(
            f"{option}: no event of {log.name} lies before; choose one after {first!s}"
        )


def refuse_no_days(name: str, **options: int) -> None:
    """Refuse lengths of time that are no whole days from 1."""
    for option, days in options.items():
        if not isinstance(days, int) or days < 1:
            raise ConfigError(f"{name}: {option}={days} is no number of days; give 1 or more")


def between(frame: pl.DataFrame, start: pl.Series, end: pl.Series) -> pl.DataFrame:
    """Rows from a moment on, and before another."""
    return frame.filter((pl.col(TIME) >= start[0]) & (pl.col(TIME) < end[0]))


def rows_of(users: pl.DataFrame, until: pl.Series | pl.Expr, phase: pl.Expr) -> pl.DataFrame:
    """`user_id` and `as_of` with `until` and `phase`."""
    kind = users[AS_OF].dtype
    known = until if isinstance(until, pl.Expr) else pl.lit(until).first()
    return users.with_columns(known.cast(kind).alias(UNTIL), phase.cast(pl.UInt8).alias(PHASE))


def in_class(values: pl.Series, name: str, wanted: Sequence[Any]) -> np.ndarray:
    """Whether each value is in a range, or one of those that are wanted, as text says them."""
    wanted = list(wanted)
    if values.dtype.is_numeric() and len(wanted) == 2:
        if not all(isinstance(end, int | float) for end in wanted):
            raise ConfigError(
                f"{name}={wanted}: {values.name} is a number; give the range [from, below]"
            )
        return ((values >= wanted[0]) & (values < wanted[1])).to_numpy()
    text = values.cast(pl.String)
    if all(isinstance(value, bool) for value in wanted):  # True in one file, and true in another
        text, wanted = text.str.to_lowercase(), [str(value).lower() for value in wanted]
    return text.is_in([str(value) for value in wanted]).to_numpy()


def by_user(users: pl.Series, pairs: pl.DataFrame) -> Ragged:
    """Of each user the candidates, ascending, that `pairs` (`user_id`, `index`) name."""
    return grouped(Vocabulary(users).index_of(pairs[USER]), pairs["index"], len(users))


def chosen(member: np.ndarray) -> Ragged:
    """The columns at which each row of (R, C) bool is true."""
    values = torch.from_numpy(member.nonzero()[1])
    return Ragged(values, offsets_of(torch.from_numpy(member.sum(1))))


def no_values(num_rows: int) -> Ragged:
    """Rows without values."""
    return Ragged.from_lists([[]] * num_rows)


def class_table(
    name: str, log: EventLog, rows: pl.DataFrame, classes: Sequence[str], member: np.ndarray
) -> LabelTable:
    """A table that tells rows apart by classes, given which they are in, (R, C) bool."""
    return LabelTable(
        name,
        log,
        rows,
        Vocabulary(pl.Series(list(classes))),
        chosen(member),
        no_values(len(rows)),
        ranked=False,
        items=no_values(len(classes)),
    )


class RankedRows(NamedTuple):
    """Some rows of a table that ranks candidates.

    Attributes:
        rows: as `LabelTable.rows`.
        labels, excluded: of each row candidates.
    """

    rows: pl.DataFrame
    labels: Ragged
    excluded: Ragged


def ranking_table(
    name: str, log: EventLog, candidates: Vocabulary, parts: Sequence[RankedRows], items: Ragged
) -> LabelTable:
    """A table that ranks candidates, of the rows of all parts."""
    rows, labels, excluded = zip(*parts, strict=True)
    return LabelTable(
        name,
        log,
        pl.concat(rows),
        candidates,
        joined(labels),
        joined(excluded),
        ranked=True,
        items=items,
    )


def joined(parts: Sequence[Ragged]) -> Ragged:
    """The rows of all parts, one part after the other."""
    values = torch.cat([part.values for part in parts])
    return Ragged(values, offsets_of(torch.cat([part.lengths for part in parts])))
