"""What is known ahead of the periods of series: the calendar, holidays, and plans of single series.

Shapes: S series, P periods, K numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.tasks.tensors import tensor_of

Period = Literal["day", "week"]
Calendar = Literal["weekday", "month_day", "month"]
DAYS: dict[Period, int] = {"day": 1, "week": 7}
DAYS_BEFORE = 3
"""A holiday shows on so many days before it, too."""
_MONDAY = "1w"


def of_calendar(
    periods: Sequence[date], every: Period, calendar: Sequence[Calendar], holidays: Sequence[date]
) -> Tensor:
    """(P, K): what the calendar says of periods, by their first days."""
    length = DAYS[every]
    parts = [np.zeros((len(periods), 0))]
    if "weekday" in calendar and every == "day":
        parts.append(np.eye(7)[[day.weekday() for day in periods]])
    if "month_day" in calendar:
        turn = 2 * np.pi * np.array([day.day for day in periods]) / 31
        parts.append(np.stack([np.sin(turn), np.cos(turn), np.sin(2 * turn), np.cos(2 * turn)], 1))
    if "month" in calendar:
        parts.append(np.eye(12)[[day.month - 1 for day in periods]])
    if holidays:
        first = np.array(periods, dtype="datetime64[D]").astype(int)
        days_to = np.array(holidays, dtype="datetime64[D]").astype(int) - first[:, None]
        lead = range(DAYS_BEFORE + 1) if every == "day" else range(1)
        parts.append(np.stack([((days_to >= n) & (days_to < n + length)).any(1) for n in lead], 1))
    return torch.from_numpy(np.hstack(parts)).float()


def of_plan(
    plan: pl.DataFrame, by: str, ids: pl.Series, periods: Sequence[date], every: Period
) -> Tensor:
    """(S, P, K): what a plan says of each series and period.

    At an origin the rows of the horizon count as known, as a promotion is that was decided on
    before; nothing in a frame shows whether they were. What was sold, or what was paid since, does
    not belong into a plan. Rows of the past are what was done.

    Args:
        plan: a column named as `by`; `day`, or `week`, any day of one from Monday to Sunday; and
            columns of numbers. What has no row is 0. Rows of weeks hold on each of their days, and
            those of days are averaged over a week.
        by: the column whose values the series are.
        ids: (S) what each series is of.
        periods: (P) their first days.
        every: what a period is.

    Raises:
        ConfigError: no such columns, what is no date or no finite number, two rows of one series
            and time, or rows of none of the series.

    >>> plan = pl.DataFrame({"item": 7, "day": ["2024-01-01", "2024-01-03"], "off": [0.2, 0.5]})
    >>> days = [date(2024, 1, day) for day in (1, 2, 3)]
    >>> of_plan(plan, "item", pl.Series([7]), days, "day")[0, :, 0]
    tensor([0.2000, 0.0000, 0.5000])
    """
    rows, names, time = _checked(plan, by)
    if time == "day" and every == "week":
        weeks = rows.group_by("series", pl.col("first").dt.truncate(_MONDAY))
        rows = weeks.agg(pl.col(names).sum() / DAYS["week"])
    first = pl.col("first")
    starts = pl.DataFrame({"first": periods}, schema={"first": pl.Date}).with_row_index("period")
    starts = starts.with_columns(first.dt.truncate(_MONDAY) if time == "week" else first)
    series = pl.DataFrame({"series": ids.cast(pl.String)}).with_row_index("row")
    rows = rows.join(series, on="series")
    if rows.is_empty():
        raise ConfigError(
            f"task.series.plan: none of its rows is of a series, {by}={ids[0]} or another; give "
            "the same ids"
        )
    rows = rows.join(starts, on="first")
    values = torch.zeros(len(ids), len(periods), len(names))
    numbers = torch.from_numpy(rows.select(names).to_numpy().astype(np.float32))
    values[tensor_of(rows["row"]), tensor_of(rows["period"])] = numbers
    return values


def _checked(plan: pl.DataFrame, by: str) -> tuple[pl.DataFrame, list[str], str]:
    """`series`, `first` and the numbers; the numbers' names; `day` or `week`."""
    times = [name for name in ("day", "week") if name in plan.columns]
    names = [name for name in plan.columns if name not in (by, *times)]
    if by not in plan.columns or len(times) != 1 or not names:
        raise ConfigError(
            f"task.series.plan has the columns {', '.join(plan.columns)}; expected {by}, day or "
            "week, and numbers"
        )
    time = times[0]
    # A plan's columns may have any name, `series` too.
    numbers = [f"number of {name}" for name in names]
    first = pl.col(time).cast(pl.String).str.slice(0, 10).str.to_date(strict=False)
    rows = plan.select(
        pl.col(by).cast(pl.String).alias("series"),
        (first.dt.truncate(_MONDAY) if time == "week" else first).alias("first"),
        *(
            pl.col(name).cast(pl.Float64, strict=False).alias(number)
            for name, number in zip(names, numbers, strict=True)
        ),
    )
    finite = rows.select("series", "first", *(_finite(name) for name in numbers))
    for name, column in zip((by, time, *names), finite.iter_columns(), strict=True):
        if column.has_nulls():
            raise ConfigError(
                f"task.series.plan: {name} is missing in a row, or none; expected a series, a date "
                "such as 2024-01-01, and finite numbers"
            )
    twice = rows.filter(pl.struct("series", "first").is_duplicated())
    if len(twice):
        raise ConfigError(
            f"task.series.plan: two rows of {by}={twice['series'][0]} and the {time} "
            f"{twice['first'][0]}; give one"
        )
    return rows, numbers, time


def _finite(name: str) -> pl.Expr:
    return pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)
