"""When users come back: how long it takes until a user's next event or basket.

Time counts from moments that are the same for all, or from each visit of a user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import polars as pl
import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.log.event_log import BASKET, TIME, USER, EventLog, runs
from recsys.log.hashing import fingerprint
from recsys.log.time import Moment, at_shares, just_after, moment
from recsys.ranges import above
from recsys.tasks.as_of import AS_OF, PHASE, UNTIL, AsOfTable, drawn
from recsys.tasks.phases import PHASES, TEST, TRAIN, VALIDATION
from recsys.tasks.tensors import tensor_of

Unit = Literal["days", "hours", "steps"]
Since = Literal["moment", "visit"]
Moments = Moment | Sequence[Moment]
Phased = tuple[str, int, pl.Series]
"""A moment, after the option that names it and its phase."""
SECONDS = {"days": 86_400, "hours": 3_600}
NEXT, SINCE = "next", "since"
PROPOSED = {"train": (0.4, 0.5), "validation": (0.65,), "test": (0.8,)}
"""Moments to choose, as shares of a log from its beginning."""


@dataclass(frozen=True, eq=False)
class ReturnTimes(AsOfTable):
    """A table of durations, some of them cut off.

    Attributes:
        durations: (R) float32 units until the user's next event, or until the row's `until` where
            there was none before it.
        observed: (R) bool, whether there was.
        horizon: units after which no row is followed any more.
        unit: of the durations.
        since: from when durations count, the row's moment or the end of the visit before it.

    Raises:
        DataError: the parts are not of one length.
        LeakError: a row is followed beyond the moment of a later phase.
    """

    durations: Tensor
    observed: Tensor
    horizon: float
    unit: Unit
    since: Since = "moment"

    def __post_init__(self) -> None:
        lengths = len(self.rows), len(self.durations), len(self.observed)
        if len(set(lengths)) > 1:
            raise DataError(
                f"{self.name}: {lengths} rows, durations and observed; give each row its own"
            )
        super().__post_init__()

    @property
    def fingerprint(self) -> str:
        """The same for the same rows and durations."""
        columns = {"durations": self.durations.numpy(), "observed": self.observed.numpy()}
        return fingerprint((self.rows, pl.DataFrame(columns)))


def return_time(
    log: EventLog,
    name: str,
    *,
    train: Sequence[Moment] | None = None,
    validation: Moments | None = None,
    test: Moments | None = None,
    horizon: float,
    since: Since = "moment",
    until: Literal["event", "basket"] = "event",
    unit: Unit = "days",
    active: float | None = None,
    max_rows: Mapping[str, int] | None = None,
    seed: int = 0,
) -> ReturnTimes:
    """How long after a moment, or after a visit, a user's next event or basket comes.

    Rows are of the users with an event before a moment, or of every visit that ends between two
    moments, as of just after it. A visit is a basket, or where there are none a moment with events.
    A row is followed until its horizon, the first moment of a later phase or the end of the log,
    whichever comes first: what training rows teach is known before the first test row. An event at
    the moment itself comes after 0.

    Args:
        log: with calendar time, or of an order where `unit` is steps.
        name: of the table.
        train, validation, test: moments, one or several, or from when until when visits end; those
            of a phase before the next phase's.
        horizon: units for which a row is followed, at most; no more than the log lasts.
        since: from when durations count, the moments or the ends of visits.
        until: the next event, or the beginning of the next basket.
        unit: of durations: days of 24 hours, hours, or steps of a log that knows only an order.
        active: units before the moment in which a user had an event; None takes all. Of no use
            where durations count from visits.
        max_rows: of a phase by its name, `train`; where there are more, they are drawn.
        seed: of the draw.

    Raises:
        ConfigError: there are no moments of training or test, or one is none of the log, comes
            twice, or not before those of later phases; nobody was active before it, or no visit
            ends between the two; no training row sees an event; the horizon is longer than the log;
            the log has no baskets, or no such unit.

    >>> days = [f"2024-01-0{day}" for day in (1, 3, 5, 9, 1, 4)]
    >>> rows = {"user_id": [1, 1, 1, 1, 2, 2], "item_id": [7] * 6, "timestamp": days}
    >>> log = EventLog.from_frames(pl.DataFrame(rows))
    >>> table = return_time(log, "back", train=["2024-01-02"], test="2024-01-05", horizon=3.0)
    >>> table.rows["user_id"].to_list(), table.durations.tolist(), table.observed.tolist()
    ([1, 2, 1, 2], [1.0, 2.0, 0.0, 3.0], [True, True, True, False])
    """
    above(0, **{"task.returns.horizon": horizon, "task.returns.active": active})
    _refuse_unit(log, name, unit)
    _refuse_horizon(log, name, horizon, unit)
    begins = _begins(log, name, until)
    moments = _moments(log, name, train, validation, test)
    if since == "visit":
        _refuse_active(name, active)
        frames = _after_visits(log, name, moments)
    else:
        frames = _at_moments(log, moments, unit, active)
    ends = {phase: _end(log, phase, moments) for _, phase, _ in moments}
    option = f"{name}: task.returns.max_rows"
    rows = drawn(pl.concat(frames), max_rows or {}, option=option, seed=seed)
    rows = rows.with_row_index("row").sort(AS_OF)
    rows = rows.join_asof(
        begins, left_on=AS_OF, right_on=TIME, by=USER, strategy="forward", check_sortedness=False
    )
    kind = log.events[TIME].dtype
    known = pl.col(PHASE).replace_strict(ends, return_dtype=kind)
    followed = (pl.col(SINCE) + _span(horizon, unit)).cast(kind)
    rows = rows.with_columns(pl.min_horizontal(followed, known).alias(UNTIL))
    observed = (pl.col(NEXT) < pl.col(UNTIL)).fill_null(False)
    last = pl.when(observed).then(NEXT).otherwise(UNTIL)
    rows = rows.with_columns(
        observed=observed, duration=_units(last - pl.col(SINCE), unit).cast(pl.Float32)
    ).sort("row")
    if not rows.filter(pl.col(PHASE) == TRAIN)["observed"].any():
        raise ConfigError(
            f"{name}: task.returns.train={_words(train)}: no user comes back within "
            f"task.returns.horizon={horizon:g} {unit}; raise it, or "
            "choose earlier moments"
        )
    return ReturnTimes(
        name,
        log,
        rows.select(USER, AS_OF, UNTIL, PHASE),
        tensor_of(rows["duration"]),
        torch.from_numpy(rows["observed"].to_numpy(writable=True)),
        horizon,
        unit,
        since,
    )


def _at_moments(
    log: EventLog, moments: list[Phased], unit: Unit, active: float | None
) -> list[pl.DataFrame]:
    """The rows of whoever had an event before each moment."""
    return [
        _users(log, option, at, unit, active).select(
            USER,
            pl.lit(at).first().alias(AS_OF),
            pl.lit(at).first().alias(SINCE),
            pl.lit(phase, pl.UInt8).alias(PHASE),
        )
        for option, phase, at in moments
    ]


def _after_visits(log: EventLog, name: str, moments: list[Phased]) -> list[pl.DataFrame]:
    """The rows of the visits that end within each phase; two that end together are one."""
    ends = visits(log).select(USER, "end").unique()
    ends = ends.with_columns(just_after(ends["end"]).alias(AS_OF)).sort(USER, AS_OF)
    frames = []
    for phase in sorted({phase for _, phase, _ in moments}):
        of_phase = [at[0] for _, other, at in moments if other == phase]
        if len(of_phase) != 2:
            raise ConfigError(
                f"{name}: task.returns.{PHASES[phase]} names {len(of_phase)} moments; with "
                "task.returns.since=visit give two, from when until when visits end"
            )
        begin, end = sorted(of_phase)
        frames.append(
            ends.filter((pl.col("end") >= begin) & (pl.col("end") < end)).select(
                USER, AS_OF, pl.col("end").alias(SINCE), pl.lit(phase, pl.UInt8).alias(PHASE)
            )
        )
        if frames[-1].is_empty():
            raise ConfigError(
                f"{name}: task.returns.{PHASES[phase]}: no visit ends from {begin!s} to {end!s}; "
                f"{_lasts(log)}"
            )
    return frames


def visits(log: EventLog) -> pl.DataFrame:
    """`user_id`, `begin` and `end` of each visit: a basket, or where there are none a moment."""
    visit = runs(log.events[USER], log.events[BASKET if BASKET in log.events.columns else TIME])
    times = log.events.select(USER, TIME).group_by(USER, visit.alias("visit"))
    return times.agg(begin=pl.col(TIME).min(), end=pl.col(TIME).max()).drop("visit")


def _refuse_active(name: str, active: float | None) -> None:
    if active is not None:
        raise ConfigError(
            f"{name}: task.returns.active={active:g}, and with task.returns.since=visit every "
            "row is just after a visit; leave it out"
        )


def _refuse_unit(log: EventLog, name: str, unit: Unit) -> None:
    if log.has_calendar_time != (unit in SECONDS):
        knows = "calendar time" if log.has_calendar_time else "no time but an order"
        remedy = "days or hours" if log.has_calendar_time else "steps"
        raise ConfigError(
            f"{name}: task.returns.unit={unit}, and {log.name} knows {knows}; choose {remedy}"
        )


def _refuse_horizon(log: EventLog, name: str, horizon: float, unit: Unit) -> None:
    first, last = log.events[TIME].min(), log.events[TIME].max()
    span = pl.lit(last, log.events[TIME].dtype) - pl.lit(first, log.events[TIME].dtype)
    lasts = pl.select(_units(span, unit)).item()
    if not lasts:
        raise ConfigError(
            f"{name}: all events of {log.name} are at {first!s}; give a log of several moments"
        )
    if horizon > lasts:
        raise ConfigError(
            f"{name}: task.returns.horizon={horizon:g}, and {log.name} lasts {lasts:.4g} {unit}, "
            f"from {first!s} to {last!s}; choose one that leaves room for moments, such as "
            f"{lasts / 8:.2g}"
        )


def _begins(log: EventLog, name: str, until: str) -> pl.DataFrame:
    """`user_id`, `timestamp` and `next`, the same, of each event or of the first of each basket."""
    events = log.events.select(USER, TIME)
    if until == "basket":
        if BASKET not in log.events.columns:
            raise ConfigError(
                f"{name}: task.returns.until=basket, and {log.name} has none; name the column by "
                "data.columns.basket_id=COLUMN, or choose event"
            )
        begun = runs(log.events[USER], log.events[BASKET]).diff().fill_null(1) > 0
        events = events.filter(begun)
    return events.with_columns(pl.col(TIME).alias(NEXT)).sort(TIME)


def _moments(
    log: EventLog,
    name: str,
    train: Moments | None,
    validation: Moments | None,
    test: Moments | None,
) -> list[Phased]:
    """Each moment as it is called in errors, with its phase; those of a phase before the next's."""
    phases = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    given = dict(zip(phases, map(_listed, (train, validation, test)), strict=True))
    for option in ("train", "test"):
        if not given[option]:
            raise ConfigError(
                f"{name}: task.returns.{option} names no moment; {log.name} has room for "
                f"{_proposed(log)}"
            )
    listed: list[Phased] = []
    for option, when in [(part, when) for part in given for when in given[part]]:
        phase, at = phases[option], moment(log, f"{name}: task.returns.{option}", when)
        for other, earlier, before in listed:
            if before[0] == at[0] or (earlier < phase and before[0] > at[0]):
                raise ConfigError(
                    f"{name}: task.returns.{option}={when} is not later than "
                    f"{other.partition(': ')[2]}; name each moment once, those of training first, "
                    "the test's last"
                )
        listed.append((f"{name}: task.returns.{option}={when}", phase, at))
    return listed


def _listed(moments: Moments | None) -> list[Moment]:
    if moments is None:
        return []
    return [moments] if isinstance(moments, (str, int, date)) else list(moments)


def _words(moments: Moments | None) -> str:
    """Moments as an option has them."""
    return f"[{','.join(map(str, _listed(moments)))}]"


def _proposed(log: EventLog) -> str:
    """Moments that a log has room for, as options."""
    words = at_shares(log, [share for of_phase in PROPOSED.values() for share in of_phase])
    given = (f"train=[{words[0]},{words[1]}]", f"validation={words[2]}", f"test={words[3]}")
    return " ".join(f"task.returns.{option}" for option in given)


def _users(
    log: EventLog, option: str, at: pl.Series, unit: Unit, active: float | None
) -> pl.DataFrame:
    """`user_id` of whoever had an event before a moment, and not too long before."""
    users = _active(log, at, unit, active)
    if at[0] > log.events[TIME].max() or not len(users):
        raise ConfigError(
            f"{option}: no user had an event before, or {log.name} ends before; {_lasts(log)}"
        )
    return users


def _active(log: EventLog, at: pl.Series, unit: Unit, active: float | None) -> pl.DataFrame:
    recent = pl.lit(True) if active is None else pl.col(TIME) >= at[0] - _span(active, unit)
    return log.events.filter((pl.col(TIME) < at[0]) & recent).select(pl.col(USER).unique().sort())


def _lasts(log: EventLog) -> str:
    times = log.events[TIME]
    return f"it lasts from {times.min()!s} to {times.max()!s}, choose a moment within"


def everyone_as_of(
    table: ReturnTimes, when: Moment | None = None, *, active: float | None = None
) -> ReturnTimes:
    """The training rows of a table, and every user as of a moment as a test row.

    Nothing is known yet of the test rows: they last 0 units and are not observed.

    Args:
        table: with training rows.
        when: not before the last training row is known, nor behind the end of the log; None is just
            after the log's last event.
        active: as `return_time` takes it.

    Raises:
        ConfigError: a moment of another kind, or one outside of these; or nobody was active; or
            durations count from visits.
    """
    if table.since == "visit":
        raise ConfigError(
            f"{table.name}: task.returns.since=visit: its model counts from visits, and cannot say "
            "as of a day; train one with task.returns.since=moment"
        )
    log, train = table.log, table.phase(TRAIN)
    last = just_after(log.events.select(pl.col(TIME).max())[TIME])
    at = last if when is None else moment(log, "as_of", when)
    rows = table.rows[train.numpy()]
    known = rows[UNTIL].max()
    if at[0] < known or at[0] > last[0]:
        raise ConfigError(
            f"as_of={when}: training rows are known at {known!s}, and the log ends at "
            f"{log.events[TIME].max()!s}; choose a moment between"
        )
    users = _active(log, at, table.unit, active)
    if not len(users):
        raise ConfigError(f"as_of={when}: nobody was active before; choose another moment")
    test = users.with_columns(
        pl.lit(at).first().alias(AS_OF),
        pl.lit(at).first().alias(UNTIL),
        pl.lit(TEST, pl.UInt8).alias(PHASE),
    )
    nothing = torch.zeros(len(users))
    return replace(
        table,
        rows=pl.concat([rows, test]),
        durations=torch.cat([table.durations[train], nothing]),
        observed=torch.cat([table.observed[train], nothing.bool()]),
    )


def _end(log: EventLog, phase: int, moments: list[Phased]) -> object:
    """Until when the rows of a phase may be followed: what comes earlier is known."""
    later = [at[0] for _, other, at in moments if other > phase]
    after_the_last = just_after(log.events.select(pl.col(TIME).max())[TIME])
    return min([*later, after_the_last[0]])


def _span(count: float, unit: Unit) -> pl.Expr:
    if unit == "steps":
        return pl.lit(round(count), pl.Int64)
    return pl.duration(microseconds=round(count * SECONDS[unit] * 10**6), time_unit="us")


def _units(span: pl.Expr, unit: Unit) -> pl.Expr:
    if unit == "steps":
        return span.cast(pl.Float64)
    return span.dt.total_microseconds() / (SECONDS[unit] * 10**6)
