"""Questions that any log can be asked: who its users are, who lapses, what is new to them.

A moment is a date or time in words, "2017-10-30", on the clock of the log's timestamps. A log is
taken to know everything up to the end of its last day; what a question asks about lies before that.

Shapes: R rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from recsys.errors import ConfigError
from recsys.events import ITEM, TIME, USER, EventLog
from recsys.moments import Moment, days_after, just_after, moment, next_day
from recsys.questions import AS_OF, PHASE, TEST, TRAIN, UNTIL, VALIDATION, Questions, before
from recsys.ragged import Ragged, offsets_of
from recsys.vocab import Vocabulary


def profiling(
    log: EventLog,
    name: str,
    *,
    column: str,
    classes: Mapping[str, Sequence[Any]],
    as_of: Moment | None = None,
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
        ConfigError: the log's users have no such attribute or none states it, there is no class or
            one that is no range of numbers, nobody or everybody is in a class, or the moment is not
            one between the first and the last event.
    """
    if not len(classes):
        raise ConfigError(f"{name}: classes={{}} asks for nothing; give one, as {{old: [60, 120]}}")
    if column not in log.users.columns:
        there = ", ".join(log.users.columns)
        raise ConfigError(f"{name}: {log.name} has no users' column {column}; there is {there}")
    stated = log.users.drop_nulls(column)
    if not len(stated):
        raise ConfigError(f"{name}: no user of {log.name} states {column}; ask about another")
    each = [_in_class(stated[column], f"{name}: {k}", values) for k, values in classes.items()]
    member = np.stack(each, axis=1)
    for answer, share in zip(classes, member.mean(0), strict=True):
        if share in (0, 1):
            few = "nobody" if share == 0 else "everybody"
            raise ConfigError(f"{name}: {few} has {column} in {answer}={classes[answer]}")
    asked = np.full(len(member), len(classes) == 1) | member.any(1)
    rows = (
        stated.filter(pl.Series(asked))
        .select(USER)
        .with_columns(pl.lit(_within_log(log, name, as_of)).first().alias(AS_OF))
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
    train: Sequence[Moment],
    validation: Moment | None = None,
    test: Moment,
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

    Raises:
        ConfigError: a moment is none of the log, its days after it are not all in the log, or
            nobody was active before it; or of a phase all users lapse, or none.
    """
    _refuse_no_days(name, active_days=active_days, horizon_days=horizon_days)
    if not train:
        raise ConfigError(f"{name}: train=[] leaves nothing to learn from; give earlier moments")
    frames = []
    for window in _windows(log, name, train, validation, test, horizon_days):
        active = _between(log.events, days_after(window.moment, -active_days), window.moment)
        users = active.select(pl.col(USER).unique().sort())
        window.refuse_nobody(users, f"had an event in the {active_days} days before")
        back = _between(log.events, window.moment, window.until)[USER].unique()
        frames.append(window.rows(users).with_columns(lapsed=~pl.col(USER).is_in(back.implode())))
    rows = pl.concat(frames)
    for phase, option in ((TRAIN, f"{train=}"), (VALIDATION, f"{validation=}"), (TEST, f"{test=}")):
        lapsed = rows.filter(pl.col(PHASE) == phase)["lapsed"]
        refuse_one_answer(f"{name}: {option}", ~lapsed, f"come back in {horizon_days} days")
    return Questions(
        name,
        log,
        rows.drop("lapsed"),
        Vocabulary(pl.Series(["lapsed"])),
        chosen(rows["lapsed"].to_numpy()[:, None]),
        no_values(len(rows)),
        ranked=False,
        items=no_values(1),
    )


def new_items(
    log: EventLog,
    name: str,
    *,
    column: str = ITEM,
    train: Sequence[Moment] = (),
    validation: Moment | None = None,
    test: Moment,
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

    Raises:
        ConfigError: the items have no such column, no value of it has so many users, a moment is
            none of the log, its days after it are not all in the log, or nobody is asked there.
    """
    _refuse_no_days(name, horizon_days=horizon_days)
    if column not in log.items.columns:
        raise ConfigError(
            f"{name}: {log.name} has no items' column {column}; there is "
            f"{', '.join(log.items.columns)}"
        )
    windows = _windows(log, name, train, validation, test, horizon_days)
    of_item = log.items.select(ITEM, pl.col(column).alias("candidate"))
    events = log.events.select(USER, ITEM, TIME).join(of_item, on=ITEM, maintain_order="left")
    firsts = events.drop_nulls("candidate").group_by(USER, "candidate").agg(pl.col(TIME).min())
    candidates = _candidates(firsts, column, windows[-1], min_users)
    index = candidates.index_of(firsts["candidate"])
    firsts = firsts.with_columns(index.alias("index")).filter(pl.col("index") >= 0)
    frames, answers, excluded = [], [], []
    for window in windows:
        had = firsts.filter(pl.col(TIME) < window.moment[0])
        new = _between(firsts, window.moment, window.until)
        users = new.select(pl.col(USER).unique().sort()).join(had, on=USER, how="semi").sort(USER)
        window.refuse_nobody(users, f"has one {column} before and a new one in {horizon_days} days")
        frames.append(window.rows(users))
        answers.append(_by_user(users[USER], new))
        excluded.append(_by_user(users[USER], had))
    # What an item is may be told by its events: no later ones than are known when it is asked.
    first_asked = next(window.moment for window in windows if window.phase != TRAIN)
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


def _candidates(firsts: pl.DataFrame, column: str, test: Window, min_users: int) -> Vocabulary:
    """What so many users had before the test, of what they had first when (`candidate`)."""
    known = firsts.filter(pl.col(TIME) < test.moment[0])
    counts = known.group_by("candidate").len()
    common = counts.filter(pl.col("len") >= min_users)["candidate"]
    if not len(common):
        most = int(counts["len"].max() or 0)  # type: ignore[arg-type]
        raise ConfigError(
            f"{test.option}: {min_users=}, but the most users of one {column} are {most}; lower it"
        )
    return Vocabulary(common.sort())


def grouped(group: pl.Series, values: pl.Series, num_groups: int) -> Ragged:
    """Of each group 0 .. num_groups - 1 its values, ascending; -1 is no group."""
    pairs = pl.DataFrame({"group": group, "value": values.cast(pl.Int64)})
    pairs = pairs.filter(pl.col("group") >= 0).sort("group", "value")
    lengths = np.bincount(pairs["group"].to_numpy(), minlength=num_groups)
    found = torch.from_numpy(pairs["value"].to_numpy(writable=True))
    return Ragged(found, offsets_of(torch.from_numpy(lengths)))


class Window(NamedTuple):
    """When users are asked, and when their answers are known.

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
        asked = users.with_columns(pl.lit(self.moment).first().alias(AS_OF))
        return rows_of(asked, self.until, pl.lit(self.phase))

    def refuse_nobody(self, users: pl.DataFrame, wanted: str) -> None:
        """Raise a `ConfigError` where there are no users who do what is wanted."""
        if not len(users):
            raise ConfigError(f"{self.option}: no user {wanted}; ask at another moment")


def checked_window(log: EventLog, window: Window) -> Window:
    """A window that lies in a log, some event before it and the end of the last day behind.

    Raises:
        ConfigError: it does not.
    """
    _refuse_no_past(log, window.option, window.moment)
    if window.until[0] > _end(log)[0]:
        raise ConfigError(
            f"{window.option}: what is asked about lasts until {window.until[0]:%Y-%m-%d}, and "
            f"{log.name} ends at {log.events[TIME].max()!s}; ask earlier, or about fewer days"
        )
    return window


def refuse_one_answer(option: str, answers: pl.Series, done: str) -> None:
    """Raise a `ConfigError` where all users who are asked do the same; `answers` are bool."""
    if answers.n_unique() == 1:
        share = "all" if answers[0] else "none"
        raise ConfigError(
            f"{option}: {share} of the {len(answers)} users asked {done}, so there is nothing to "
            "tell apart; ask at other moments"
        )


def _windows(
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
            f"{name}: {log.name} knows no time but an order, and days are asked about"
        )
    given = [("train", TRAIN, when) for when in ([train] if isinstance(train, str) else train)]
    given += [] if validation is None else [("validation", VALIDATION, validation)]
    found: list[Window] = []
    for option, phase, when in [*given, ("test", TEST, test)]:
        at = moment(log, f"{name}: {option}", when)
        # Windows of two phases that overlap are refused with the rows that they would share.
        if any((w.phase, w.moment[0]) == (phase, at[0]) for w in found):
            raise ConfigError(f"{name}: {option} names {when} twice; name it once")
        window = Window(f"{name}: {option}={when}", phase, at, days_after(at, horizon_days))
        found.append(checked_window(log, window))
    return found


def _within_log(log: EventLog, name: str, when: Moment | None) -> pl.Series:
    """A moment with events before it and at most some of its day behind; None is after the last."""
    if when is None:
        return just_after(log.events.select(pl.col(TIME).max())[TIME])
    at = moment(log, f"{name}: {AS_OF}", when)
    if at[0] > _end(log)[0]:
        raise ConfigError(
            f"{name}: {AS_OF}={when} lies after {log.name}, which ends at "
            f"{log.events[TIME].max()!s}; leave it out to ask after the last event"
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
        raise ConfigError(f"{option}: no event of {log.name} lies before; ask later than {first!s}")


def _refuse_no_days(name: str, **options: int) -> None:
    for option, days in options.items():
        if not isinstance(days, int) or days < 1:
            raise ConfigError(f"{name}: {option}={days} is no number of days; give 1 or more")


def _between(frame: pl.DataFrame, start: pl.Series, end: pl.Series) -> pl.DataFrame:
    """Rows from a moment on, and before another."""
    return frame.filter((pl.col(TIME) >= start[0]) & (pl.col(TIME) < end[0]))


def rows_of(users: pl.DataFrame, until: pl.Series | pl.Expr, phase: pl.Expr) -> pl.DataFrame:
    """`user_id` and `as_of` with `until` and `phase`."""
    kind = users[AS_OF].dtype
    known = until if isinstance(until, pl.Expr) else pl.lit(until).first()
    return users.with_columns(known.cast(kind).alias(UNTIL), phase.cast(pl.UInt8).alias(PHASE))


def _in_class(values: pl.Series, name: str, wanted: Sequence[Any]) -> np.ndarray:
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
