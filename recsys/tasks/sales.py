"""Sales: a log becomes series of what is sold a day or week, by item, category or any column.

Rolling origins say when forecasts are asked for: a model that is asked at one of them knows what
lies before it. Which series there are is chosen by what lies before the first of all origins.

Shapes: S series, T periods, K numbers known ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

import polars as pl
import torch
from torch import Tensor

from recsys.batch.series import SeriesTable
from recsys.errors import ConfigError, LeakError
from recsys.log.event_log import ITEM, QUANTITY, TIME, USER, VALUE, EventLog
from recsys.ranges import at_least, distinct, share
from recsys.tasks.known_ahead import DAYS, Calendar, Period, of_calendar, of_plan
from recsys.tasks.tensors import tensor_of

Measure = Literal["units", "value", "buyers"]
SEASONS: dict[Period, int] = {"day": 7, "week": 1}


@dataclass(frozen=True, kw_only=True)
class Origins:
    """When forecasts are asked for, and of how long.

    Attributes:
        horizon: periods that are forecast.
        context: periods that a model reads before an origin.
        validation, test: the origins, as dates, or how many: one horizon after the other, the last
            one ending where the series do, those of the test behind those of the validation.

    Raises:
        ConfigError: no origin in a phase, or no period.
    """

    horizon: int = 14
    context: int = 56
    validation: int | Sequence[str] = 3
    test: int | Sequence[str] = 6

    def __post_init__(self) -> None:
        at_least(1, **{"task.origins.horizon": self.horizon, "task.origins.context": self.context})
        for name, given in (("validation", self.validation), ("test", self.test)):
            if (given if isinstance(given, int) else len(given)) < 1:
                raise ConfigError(
                    f"task.origins.{name}={given} asks at no origin; give dates, or how many"
                )

    def places(self, days: Sequence[date], name: str) -> tuple[list[int], list[int]]:
        """The periods of the origins of validation and test.

        Args:
            days: the first day of each period (T).
            name: of the log, for errors.

        Raises:
            ConfigError: an origin comes twice, is no period's first day, or too early to learn from
                a window before it, or its horizon ends behind the series; or the phases overlap.
        """
        if not days:
            raise ConfigError(
                f"task.series: {name} has no period between start and end; choose days of the log"
            )
        test = self._places("test", self.test, days, len(days))
        validation = self._places("validation", self.validation, days, min(test))
        early, late = (validation + test)[0], max(validation + test) + self.horizon
        needed = self.context + self.horizon
        if early >= needed and late > len(days):
            raise ConfigError(
                f"task.origins: the horizon of the last origin, {self.horizon} periods, ends "
                f"{late - len(days)} behind the {len(days)} of {name}; ask earlier, or lower the "
                "horizon"
            )
        if early < needed or late > len(days):
            raise ConfigError(
                f"task.origins: {name} has {len(days)} periods, and {len(validation)} origins of "
                f"validation and {len(test)} of test, each of {self.horizon}, need {needed} before "
                f"the first; it has {max(early, 0)} there; give fewer origins, or lower "
                "task.origins.context or task.origins.horizon"
            )
        if max(validation) + self.horizon > min(test):
            raise ConfigError(
                f"task.origins: the horizon of the validation's last origin, "
                f"{days[max(validation)]}, reaches into the test, from {days[min(test)]}; ask "
                "earlier"
            )
        return validation, test

    def _places(
        self, name: str, given: int | Sequence[str], days: Sequence[date], end: int
    ) -> list[int]:
        if isinstance(given, int):
            return [end - self.horizon * number for number in range(given, 0, -1)]
        number = {day: place for place, day in enumerate(days)}
        wanted = [day_of(f"task.origins.{name}", text) for text in given]
        for day in wanted:
            if day not in number:
                raise ConfigError(
                    f"task.origins.{name}: {day} is no period's first day; they start "
                    f"{days[0]} and end {days[-1]}"
                )
        distinct(**{f"task.origins.{name}": wanted})
        return sorted(number[day] for day in wanted)


@dataclass(frozen=True, eq=False)
class Sales:
    """Series of a log, and when forecasts of them are asked for.

    Attributes:
        name: of the log.
        by: the column whose values the series are.
        measure, every: what is counted, and by which periods.
        ids: (S) what each series is of, ascending.
        days: (T) the first day of each period.
        table: the series.
        validation, test: the periods of the origins.
    """

    name: str
    by: str
    measure: Measure
    every: Period
    ids: pl.Series
    days: Sequence[date]
    table: SeriesTable
    validation: Sequence[int]
    test: Sequence[int]

    @property
    def end(self) -> date:
        """The day after the last period."""
        return self.days[-1] + timedelta(days=DAYS[self.every])

    def to(self, device: torch.device) -> Sales:
        """With the series on a device."""
        return replace(self, table=self.table.to(device))

    def named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame with numbers of series and periods `origin`, `origin + ahead` as ids and days."""
        days = pl.Series("origin", self.days, dtype=pl.Date)
        columns = [self.ids.gather(frame["series"]).alias("series"), days.gather(frame["origin"])]
        if "ahead" in frame.columns:
            columns.append(days.gather(frame["origin"] + frame["ahead"]).alias("day"))
        return frame.with_columns(columns)


def sales_series(
    log: EventLog,
    origins: Origins,
    *,
    by: str = ITEM,
    measure: Measure = "units",
    every: Period = "day",
    time_zone: str | None = None,
    start: str | None = None,
    end: str | None = None,
    min_sold_share: float = 0.2,
    max_sold_share: float = 1.0,
    max_series: int | None = None,
    season: int | None = None,
    calendar: Sequence[Calendar] = ("weekday", "month_day"),
    holidays: Sequence[str] = (),
    closed: Sequence[str] = (),
    plan: pl.DataFrame | None = None,
) -> Sales:
    """The series of a log.

    Args:
        log: with calendar time.
        origins: when forecasts are asked for.
        by: a column of the events, the items or the users; rows without a value are left out.
        measure: `units`, the sum of `quantity`, or the events where a log has none; `value`, the
            sum of `value`; `buyers`, how many users.
        every: `day`, or `week` from Monday to Sunday; a week that the log begins or ends in is
            left out.
        time_zone: of the days; null is the log's own.
        start, end: the first day, and the one after the last; null is where the log does.
        min_sold_share: share of the periods before the first origin in which a series sells, at
            least; each sells in one.
        max_sold_share: and at most, for series of many zeros alone.
        max_series: so many at most, those that sold in most of these periods, and of these most.
        season: periods after which things repeat; null is 7 days, or 1 week.
        calendar: what is known ahead of the periods: the weekday, the day of the month, the month.
        holidays: dates that are known ahead, with the days before each.
        closed: dates that are known to be without sales: no periods. For days only.
        plan: what is known ahead of single series, as `of_plan` says: promotions, prices. Every row
            counts as known at every origin, so it must say what was planned before, and not what
            came of it.

    Raises:
        ConfigError: the log has no calendar time, no such column, or no quantity that is asked for;
            a date is none; no series sells often enough; or as `Origins.places` and `of_plan`.

    >>> days = [f"2024-01-0{day}" for day in (1, 2, 2, 3, 4, 5)]
    >>> rows = {"user_id": [1, 1, 2, 1, 2, 2], "item_id": [7] * 6, "timestamp": days}
    >>> log = EventLog.from_frames(pl.DataFrame(rows))
    >>> sales = sales_series(log, Origins(horizon=1, context=1, validation=1, test=1))
    >>> sales.table.values, sales.validation, sales.test
    (tensor([[1., 2., 1., 1., 1.]]), [3], [4])
    """
    share(
        **{
            "task.series.min_sold_share": min_sold_share,
            "task.series.max_sold_share": max_sold_share,
        }
    )
    at_least(1, **{"task.series.max_series": max_series, "task.series.season": season})
    lists = {"calendar": calendar, "holidays": holidays, "closed": closed}
    distinct(**{f"task.series.{name}": values for name, values in lists.items()})
    if not log.has_calendar_time:
        raise ConfigError(
            f"task.series: {log.name} knows no time but an order, and days are asked about; give a "
            "log with times"
        )
    column = _column(log, by).with_columns(pl.Series("day", days_of(log, time_zone)))
    days = _periods(column["day"], every, start, end, closed)
    validation, test = origins.places(days, log.name)
    sold = _sold(log.name, column, measure, days, every)
    ids = _chosen(sold, by, validation[0], min_sold_share, max_sold_share, max_series)
    table = SeriesTable(
        _dense(sold, ids, len(days)),
        _known(days, origins.horizon, every, calendar, holidays, plan, by, ids),
        origins.context,
        origins.horizon,
        season or SEASONS[every],
    )
    return Sales(log.name, by, measure, every, ids, days, table, validation, test)


def check_leaks(sales: Sales, again: Sales, origin: int) -> None:
    """Hold the series against those of the log that ends at an origin.

    Args:
        sales: of the whole log.
        again: of the log without what lies at the origin or behind it.
        origin: the period.

    Raises:
        LeakError: they are others, or what is known of them before the origin is.
    """
    once, then = sales.table.before(origin), again.table.before(origin)
    pairs = ((once.values, then.values), (once.known, then.known))
    if not sales.ids.equals(again.ids) or not all(torch.equal(*pair) for pair in pairs):
        raise LeakError(
            f"{sales.name}: the series before {sales.days[origin]} change when the log ends there; "
            "choose and scale them by what lies before an origin only"
        )


def cut(log: EventLog, day: date, time_zone: str | None = None) -> EventLog:
    """The log of the events before a day; all items and users are known."""
    events = log.events.filter(days_of(log, time_zone) < day)
    return replace(log, events=events)


def days_of(log: EventLog, time_zone: str | None) -> pl.Series:
    """The day of each event, in a time zone or that of the log.

    Raises:
        ConfigError: there is no such time zone.
    """
    times = log.events[TIME]
    if time_zone is None:
        return times.dt.date()
    zone_of_log = getattr(times.dtype, "time_zone", None)
    try:
        in_utc = times if zone_of_log else times.dt.replace_time_zone("UTC")
        return in_utc.dt.convert_time_zone(time_zone).dt.date()
    except pl.exceptions.PolarsError:
        raise ConfigError(
            f"task.series.time_zone={time_zone} is none; give one such as Europe/London"
        ) from None


def day_of(option: str, text: str) -> date:
    """The day that an option names.

    Raises:
        ConfigError: it names none.
    """
    try:
        return date.fromisoformat(str(text))
    except ValueError:
        raise ConfigError(f"{option}: {text} is no date; give one such as 2017-11-19") from None


def _column(log: EventLog, by: str) -> pl.DataFrame:
    """The events with what they are told apart by as `series`."""
    wanted = [c for c in (USER, QUANTITY, VALUE) if c in log.events.columns]
    if by in log.events.columns:
        return log.events.select(*wanted, series=by)
    for frame, key in ((log.items, ITEM), (log.users, USER)):
        if by in frame.columns:
            of = frame.select(pl.col(key).alias("_key"), series=by)
            events = log.events.select(*wanted, _key=key)
            return events.join(of, on="_key", how="left").drop("_key")
    there = dict.fromkeys([*log.events.columns, *log.items.columns, *log.users.columns])
    raise ConfigError(
        f"task.series.by={by}: {log.name} has no such column; it has {', '.join(there)}"
    )


def _periods(
    days: pl.Series, every: Period, start: str | None, end: str | None, closed: Sequence[str]
) -> list[date]:
    """The first day of each period between two days."""
    opening, closing = days.min(), days.max()
    assert isinstance(opening, date)
    assert isinstance(closing, date)
    first = day_of("task.series.start", start) if start else opening
    last = day_of("task.series.end", end) if end else closing + timedelta(days=1)
    if every == "week":
        first += timedelta(days=-first.weekday() % 7)
        if closed:
            raise ConfigError(
                f"task.series.closed={list(closed)} goes with every=day; leave it out"
            )
    left_out = {day_of("task.series.closed", day) for day in closed}
    number = max(0, (last - first).days // DAYS[every])
    periods = (first + timedelta(days=DAYS[every] * n) for n in range(number))
    return [day for day in periods if day not in left_out]


def _sold(
    name: str, events: pl.DataFrame, measure: Measure, days: Sequence[date], every: Period
) -> pl.DataFrame:
    """`series`, `period` and `sold`, a row where something was."""
    if measure == "value" and VALUE not in events.columns:
        raise ConfigError(
            f"task.series.measure=value: {name} has no column value; name the file's by "
            "data.columns.value=COLUMN, or choose units or buyers"
        )
    counted = {
        "units": pl.col(QUANTITY).sum() if QUANTITY in events.columns else pl.len(),
        "value": _stated(VALUE).sum() if VALUE in events.columns else pl.len(),
        "buyers": pl.col(USER).n_unique(),
    }[measure]
    day = pl.col("day")
    first = day if every == "day" else day.dt.truncate("1w")  # Monday
    periods = pl.DataFrame({"day": days}, schema={"day": pl.Date}).with_row_index("period")
    events = events.filter(pl.col("series").is_not_null()).with_columns(day=first)
    events = events.join(periods, on="day")
    return events.group_by("series", "period").agg(sold=counted.cast(pl.Float64))


def _stated(column: str) -> pl.Expr:
    """Numbers, without what is none: a sum with it would be none either."""
    return pl.col(column).cast(pl.Float64).fill_nan(None)


def _chosen(
    sold: pl.DataFrame,
    by: str,
    before: int,
    min_sold_share: float,
    max_sold_share: float,
    max_series: int | None,
) -> pl.Series:
    """The series that sell often enough in the periods before the first origin."""
    early = sold.filter((pl.col("period") < before) & (pl.col("sold") > 0))
    often = early.group_by("series").agg(periods=pl.len(), total=pl.col("sold").sum())
    shares = pl.col("periods") / before
    enough = often.filter(shares.is_between(min_sold_share, max_sold_share))
    if enough.is_empty() and max_sold_share < 1:
        raise ConfigError(
            f"task.series.max_sold_share={max_sold_share}: no {by} sells in {min_sold_share} to "
            f"{max_sold_share} of the {before} periods before the first origin; widen them"
        )
    if enough.is_empty():
        most = int(often["periods"].max() or 0)  # type: ignore[arg-type]
        if not most:
            raise ConfigError(
                f"task.series.by={by}: nothing is sold of any {by} in the {before} periods before "
                "the first origin; see what its column and task.series.measure hold, or ask later"
            )
        raise ConfigError(
            f"task.series.min_sold_share={min_sold_share}: no {by} sells in that share of the "
            f"{before} periods before the first origin; the most is {most}; lower it"
        )
    ranked = enough.sort("periods", "total", "series", descending=[True, True, False])
    return ranked.head(max_series)["series"].sort() if max_series else ranked["series"].sort()


def _dense(sold: pl.DataFrame, ids: pl.Series, num_periods: int) -> Tensor:
    """(S, T), 0 where nothing was sold."""
    number = pl.DataFrame({"series": ids}).with_row_index("row")
    rows = sold.join(number, on="series")
    values = torch.zeros(len(ids), num_periods)
    values[tensor_of(rows["row"]), tensor_of(rows["period"])] = tensor_of(rows["sold"]).float()
    return values


def _known(
    days: Sequence[date],
    horizon: int,
    every: Period,
    calendar: Sequence[Calendar],
    holidays: Sequence[str],
    plan: pl.DataFrame | None,
    by: str,
    ids: pl.Series,
) -> Tensor:
    """(T + H, K), or with a plan (S, T + H, K): of the periods and the horizon behind them."""
    after = [days[-1] + timedelta(days=DAYS[every] * n) for n in range(1, horizon + 1)]
    periods = [*days, *after]
    dates = [day_of("task.series.holidays", text) for text in holidays]
    of_all = of_calendar(periods, every, calendar, dates)
    if plan is None:
        return of_all
    of_each = of_plan(plan, by, ids, periods, every)
    return torch.cat([of_all.expand(len(ids), -1, -1), of_each], dim=-1)
