"""Features of when a user comes: gaps between visits, and what the clock and the calendar show.

Shapes: R rows, F columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.log.event_log import BASKET, TIME, USER, VALUE, EventLog, runs
from recsys.ranges import at_least, share
from recsys.tasks.as_of import AS_OF
from recsys.tasks.features import ROW


@dataclass(frozen=True)
class Gaps:
    """Days between a user's visits before the moment, or steps of a log that knows only an order.

    In order: the last gap, the mean and the standard deviation of gaps, log(1 + their number), and
    how long ago the last visit was. What a history is too short for is 0. A visit is a basket, as
    of its first event, or where there are none a moment with events.
    """

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        visits = _visits_before(log, rows).sort(ROW, TIME)
        gap = pl.col("age").diff().neg()
        by_row = visits.group_by(ROW).agg(
            last=gap.last(),
            mean=gap.mean(),
            spread=gap.std(),
            number=gap.count().log1p(),
            since=pl.col("age").last(),
        )
        return _of_rows(by_row, rows)


@dataclass(frozen=True)
class RecentGaps:
    """How a user's gaps between visits lie, each as log(1 + days), or steps of an order.

    In order: the last gaps, the latest first; means of the last few; quantiles of all; the standard
    deviation. A gap that a history is too short for is the mean of those that it has, and 0 of a
    user without one.

    Args:
        last: so many single gaps.
        means: over how many of the last gaps means are taken.
        quantiles: from 0 to 1.

    Raises:
        ConfigError: no gap, a mean of none, or a quantile outside of 0 to 1.
    """

    last: int = 5
    means: Sequence[int] = (3, 5, 10, 30)
    quantiles: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9)

    def __post_init__(self) -> None:
        for name in ("means", "quantiles"):  # lists have no hash
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for count in (self.last, *self.means):
            at_least(1, **{"last and means": count})
        for quantile in self.quantiles:
            share(quantiles=quantile)

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        visits = _visits_before(log, rows).sort(ROW, TIME)
        gaps = visits.select(ROW, pl.col("age").diff().over(ROW).neg().log1p().alias("gap"))
        gap, latest = pl.col("gap"), pl.col("gap").reverse()
        by_row = (
            gaps.drop_nulls()
            .group_by(ROW)
            .agg(
                *(
                    latest.get(place, null_on_oob=True).alias(f"last {place}")
                    for place in range(self.last)
                ),
                *(gap.tail(count).mean().alias(f"mean {count}") for count in self.means),
                *(gap.quantile(of, "linear").alias(f"quantile {of}") for of in self.quantiles),
                spread=gap.std(ddof=0),
                mean=gap.mean(),
            )
        )
        filled = by_row.with_columns(pl.all().exclude(ROW).fill_null(pl.col("mean")))
        return _of_rows(filled.drop("mean"), rows)


@dataclass(frozen=True)
class LastVisit:
    """The size of a user's last visit, alone and against the user's mean: two columns, or four.

    The number of events and, where a log has it, `value`, each as log(1 + x); what is given back
    counts as 0. Of a user without a visit they are 0.
    """

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        visits = _visits_before(log, rows).sort(ROW, TIME)
        sizes = ["events", *([VALUE] if VALUE in visits.columns else [])]
        by_row = visits.group_by(ROW, maintain_order=True).agg(
            part
            for size in (pl.col(name).clip(0).log1p() for name in sizes)
            for part in (size.last(), (size.last() - size.mean()).name.suffix(" against mean"))
        )
        return _of_rows(by_row, rows)


@dataclass(frozen=True)
class Clock:
    """Weekday and hour of the moment and of the user's last event, on circles: eight columns.

    Of each a sine and a cosine, so that Sunday lies beside Monday. Of a user without an event the
    last four are 0; a log that knows only an order has no columns.
    """

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        if not log.has_calendar_time:
            return np.zeros((len(rows), 0), dtype=np.float32)
        last = _visits_before(log, rows).group_by(ROW).agg(pl.col("event").max())
        of_moment = rows.select(*_on_circles(AS_OF)).to_numpy().astype(np.float32)
        of_last = last.select(ROW, *_on_circles("event"))
        return np.hstack([of_moment, _of_rows(of_last, rows)])


def _visits_before(log: EventLog, rows: pl.DataFrame) -> pl.DataFrame:
    """Of each row's visits before its moment `row`, `timestamp`, `age` and the last `event`.

    Beside them stand the number of `events` and, where the log has it, their `value`.
    """
    numbered = rows.select(USER, AS_OF).with_row_index(ROW).lazy()
    money = [VALUE] if VALUE in log.events.columns else []
    events = log.events.select(USER, TIME, *money)
    basket = runs(log.events[USER], log.events[BASKET]) if BASKET in log.events.columns else None
    visit = log.events[TIME] if basket is None else basket
    past = (
        numbered.join(events.with_columns(visit.alias("visit")).lazy(), on=USER)
        .filter(pl.col(TIME) < pl.col(AS_OF))
        .group_by(ROW, "visit", AS_OF)
        .agg(
            pl.col(TIME).min(),
            pl.col(TIME).max().alias("event"),
            pl.len().alias("events"),
            *(pl.col(name).sum() for name in money),
        )
    )
    span = pl.col(AS_OF) - pl.col(TIME)
    days = span.dt.total_microseconds() / 86_400e6 if log.has_calendar_time else span
    return past.with_columns(days.cast(pl.Float64).alias("age")).collect()


def _on_circles(name: str) -> list[pl.Expr]:
    time = pl.col(name)
    hour = time.dt.hour() + time.dt.minute() / 60
    angles = {"weekday": time.dt.weekday() / 7, "hour": hour / 24}
    return [
        of(angle * (2 * np.pi)).alias(f"{name}/{part}/{of.__name__}")
        for part, angle in angles.items()
        for of in (pl.Expr.sin, pl.Expr.cos)
    ]


def _of_rows(by_row: pl.DataFrame, rows: pl.DataFrame) -> np.ndarray:
    """The columns of `by_row` for every row (R, F), 0 where there is none."""
    every = pl.DataFrame({ROW: pl.int_range(len(rows), dtype=pl.UInt32, eager=True)})
    gaps = every.join(by_row, on=ROW, how="left", maintain_order="left").drop(ROW)
    return gaps.fill_null(0).fill_nan(0).to_numpy().astype(np.float32)
