"""Questions that any log can be asked: who its users are, who lapses, what is new to them.

A moment is a date or time in words, "2017-10-30", on the clock of the log's timestamps.

Shapes: R rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys.errors import ConfigError
from recsys.events import ITEM, TIME, USER, EventLog
from recsys.questions import AS_OF, PHASE, TEST, TRAIN, UNTIL, VALIDATION, Questions, before
from recsys.ragged import Ragged, offsets_of
from recsys.vocab import Vocabulary


def profiling(
    log: EventLog,
    name: str,
    *,
    column: str,
    classes: Mapping[str, Sequence[Any]],
    as_of: str | None = None,
) -> Questions:
    """Which attribute a user has, by folds of the users who state it.

    The table's log knows nothing of its users but their events: what they state is the answer.

    Args:
        log: with the attribute in `users`.
        name: of the table.
        column: the attribute.
        classes: of each answer the values of the attribute that it stands for, or for a number the
            two ends of a range `[from, below]`. With one class the question is whether a user is in
            it, and everyone who states the attribute is asked; else those who are in one.
        as_of: the moment; by default after the last event.

    Raises:
        ConfigError: the log's users have no such attribute, or nobody is in a class.
    """
    if column not in log.users.columns or not len(classes):
        there = ", ".join(log.users.columns)
        raise ConfigError(f"{name}: {log.name} has no users' column {column}; there is {there}")
    stated = log.users.drop_nulls(column)
    member = np.stack([_in_class(stated[column], values) for values in classes.values()], axis=1)
    for answer, share in zip(classes, member.mean(0), strict=True):
        if share in (0, 1):
            few = "nobody" if share == 0 else "everybody"
            raise ConfigError(f"{name}: {few} has {column} in {answer}={classes[answer]}")
    asked = np.full(len(member), len(classes) == 1) | member.any(1)
    rows = (
        stated.filter(pl.Series(asked))
        .select(USER)
        .with_columns(pl.lit(_moment(log, as_of)).first().alias(AS_OF))
    )
    anonymous = replace(log, users=log.users.select(USER))
    return Questions(
        name,
        anonymous,
        rows_of(rows, pl.lit(None), pl.lit(TRAIN)),
        Vocabulary(pl.Series(list(classes))),
        chosen(member[asked]),
        no_values(int(asked.sum())),
        ranked=False,
        items=no_values(len(classes)),
    )


def lapse(
    log: EventLog,
    name: str,
    *,
    train: Sequence[str],
    validation: str | None = None,
    test: str,
    active_days: int = 56,
    horizon_days: int = 28,
) -> Questions:
    """Whether an active user will not come back: no event in the days after the moment.

    Asked are the users with an event in the `active_days` before a moment.

    Args:
        log: with calendar time.
        name: of the table.
        train, validation, test: moments.
        active_days: how recent the last event is, at most.
        horizon_days: how long without an event counts as lapsed.
    """
    frames = []
    for phase, moment in _phases(log, train, validation, test):
        active = _within(log.events, moment.dt.offset_by(f"-{active_days}d"), moment)
        until = moment.dt.offset_by(f"{horizon_days}d")
        back = _within(log.events, moment, until)[USER]
        users = active.select(pl.col(USER).unique().sort())
        frames.append(
            rows_of(
                users.with_columns(pl.lit(moment).first().alias(AS_OF)), until, pl.lit(phase)
            ).with_columns(lapsed=~pl.col(USER).is_in(back.unique().implode()))
        )
    rows = pl.concat(frames)
    lapsed = rows["lapsed"].to_numpy()[:, None]
    return Questions(
        name,
        log,
        rows.drop("lapsed"),
        Vocabulary(pl.Series(["lapsed"])),
        chosen(lapsed),
        no_values(len(rows)),
        ranked=False,
        items=no_values(1),
    )


def new_items(
    log: EventLog,
    name: str,
    *,
    column: str = ITEM,
    train: Sequence[str] = (),
    validation: str | None = None,
    test: str,
    horizon_days: int = 28,
    min_users: int = 1,
) -> Questions:
    """What a user has for the first time in the days after the moment.

    Candidates are the column's values that `min_users` users had before the test moment, for the
    rows of every phase, so that what is learnt of one is of use in the next. Asked are users who
    have had a candidate before and have a new one; the ones they had are excluded.

    Args:
        log: with calendar time.
        name: of the table.
        column: of the items: `item_id`, or what groups them.
        train, validation, test: moments.
        horizon_days: how long after the moment.
        min_users: of a candidate before the test moment.
    """
    phases = _phases(log, train, validation, test)
    if column not in log.items.columns:
        raise ConfigError(
            f"{name}: {log.name} has no items' column {column}; there is "
            f"{', '.join(log.items.columns)}"
        )
    of_item = log.items.select(ITEM, pl.col(column).alias("candidate"))
    events = log.events.select(USER, ITEM, TIME).join(of_item, on=ITEM, maintain_order="left")
    firsts = events.drop_nulls("candidate").group_by(USER, "candidate").agg(pl.col(TIME).min())
    known = firsts.filter(pl.col(TIME) < phases[-1][1])
    common = known.group_by("candidate").len().filter(pl.col("len") >= min_users)["candidate"]
    candidates = Vocabulary(common.sort())
    index = candidates.index_of(firsts["candidate"])
    firsts = firsts.with_columns(index.alias("index")).filter(pl.col("index") >= 0)
    frames, answers, excluded = [], [], []
    for phase, moment in phases:
        until = moment.dt.offset_by(f"{horizon_days}d")
        had, new = firsts.filter(pl.col(TIME) < moment[0]), _within(firsts, moment, until)
        users = new.select(pl.col(USER).unique().sort()).join(had, on=USER, how="semi")
        frames.append(
            rows_of(users.with_columns(pl.lit(moment).first().alias(AS_OF)), until, pl.lit(phase))
        )
        answers.append(_by_user(users.sort(USER)[USER], new))
        excluded.append(_by_user(users.sort(USER)[USER], had))
    # What an item is may be told by its events: no later ones than are known when it is asked.
    first_asked = next(moment for phase, moment in phases if phase != TRAIN)
    stands_for = candidates.index_of(before(log, first_asked[0]).items[column])
    return Questions(
        name,
        log,
        pl.concat(frames),
        candidates,
        joined(answers),
        joined(excluded),
        ranked=True,
        items=grouped(stands_for, pl.int_range(len(stands_for), eager=True), len(candidates)),
    )


def grouped(group: pl.Series, values: pl.Series, num_groups: int) -> Ragged:
    """Of each group 0 .. num_groups - 1 its values, ascending; -1 is no group."""
    pairs = pl.DataFrame({"group": group, "value": values.cast(pl.Int64)})
    pairs = pairs.filter(pl.col("group") >= 0).sort("group", "value")
    lengths = np.bincount(pairs["group"].to_numpy(), minlength=num_groups)
    found = torch.from_numpy(pairs["value"].to_numpy(writable=True))
    return Ragged(found, offsets_of(torch.from_numpy(lengths)))


def moment_of(log: EventLog, words: str) -> pl.Series:
    """A date or time in words as one value of the type of the log's timestamps.

    Raises:
        ConfigError: the words are none, or the log knows no time.
    """
    kind = log.events[TIME].dtype
    if not isinstance(kind, pl.Datetime):
        raise ConfigError(f"{log.name} knows no time, so there is no {words}; ask by folds alone")
    text = pl.Series([str(words)])
    read = [text.str.to_datetime(form, strict=False) for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S")]
    found = next((r for r in read if r[0] is not None), None)
    if found is None:
        raise ConfigError(f"{words} is no moment; give it as 2017-10-30 or 2017-10-30 12:00:00")
    return found.dt.replace_time_zone(kind.time_zone).cast(kind)


def _moment(log: EventLog, words: str | None) -> pl.Series:
    if words is not None:
        return moment_of(log, words)
    last = log.events[TIME].max()
    after = pl.Series([last], dtype=log.events[TIME].dtype).to_physical() + 1
    return after.cast(log.events[TIME].dtype)


def _phases(
    log: EventLog, train: Sequence[str], validation: str | None, test: str
) -> list[tuple[int, pl.Series]]:
    """Every moment with its phase, the test's at the end."""
    found = [(TRAIN, words) for words in train]
    found += [] if validation is None else [(VALIDATION, validation)]
    return [(phase, moment_of(log, words)) for phase, words in [*found, (TEST, test)]]


def _within(frame: pl.DataFrame, start: pl.Series, end: pl.Series) -> pl.DataFrame:
    """Rows from a moment on, and before another."""
    return frame.filter((pl.col(TIME) >= start[0]) & (pl.col(TIME) < end[0]))


def rows_of(users: pl.DataFrame, until: pl.Series | pl.Expr, phase: pl.Expr) -> pl.DataFrame:
    """`user_id` and `as_of` with `until` and `phase`."""
    kind = users[AS_OF].dtype
    known = until if isinstance(until, pl.Expr) else pl.lit(until).first()
    return users.with_columns(known.cast(kind).alias(UNTIL), phase.cast(pl.UInt8).alias(PHASE))


def _in_class(values: pl.Series, wanted: Sequence[Any]) -> np.ndarray:
    wanted = list(wanted)
    if values.dtype.is_numeric() and len(wanted) == 2:
        return ((values >= wanted[0]) & (values < wanted[1])).to_numpy()
    return values.cast(pl.String).is_in([str(value) for value in wanted]).to_numpy()


def _by_user(users: pl.Series, pairs: pl.DataFrame) -> Ragged:
    """Of each user the candidates, ascending, that `pairs` (`user_id`, `index`) name."""
    return grouped(Vocabulary(users).index_of(pairs[USER]), pairs["index"], len(users))


def chosen(member: np.ndarray) -> Ragged:
    """The columns at which each row of (R, C) bool is true."""
    values = torch.from_numpy(member.nonzero()[1])
    return Ragged(values, offsets_of(torch.from_numpy(member.sum(1))))


def no_values(num_rows: int) -> Ragged:
    """Rows without values."""
    return Ragged.from_lists([[]] * num_rows)


def joined(parts: Sequence[Ragged]) -> Ragged:
    """The rows of all parts, one part after the other."""
    values = torch.cat([part.values for part in parts])
    return Ragged(values, offsets_of(torch.cat([part.lengths for part in parts])))
