"""Features of when a user comes: gaps between visits, and what the clock and the calendar show.

Shapes: R rows, F columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.log.event_log import BASKET, TIME, USER, EventLog, runs
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
    """Of each row's visits before its moment `row`, `timestamp`, `age` and the last `event`."""
    numbered = rows.select(USER, AS_OF).with_row_index(ROW).lazy()
    events = log.events.select(USER, TIME)
    basket = runs(log.events[USER], log.events[BASKET]) if BASKET in log.events.columns else None
    visit = log.events[TIME] if basket is None else basket
    past = (
        numbered.join(events.with_columns(visit.alias("visit")).lazy(), on=USER)
        .filter(pl.col(TIME) < pl.col(AS_OF))
        .group_by(ROW, "visit", AS_OF)
        .agg(pl.col(TIME).min(), pl.col(TIME).max().alias("event"))
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
