"""Features of users as of a moment: what a history is before a network has learnt from it.

A feature is a function of a log and rows (`user_id`, `as_of`) to an array (R, F) of float32. It may
use the row's user before the row's moment and nothing later, which is not taken on trust:
`computed` computes every feature a second time, for a sample of rows of each moment, from the log
that ends there, and refuses one that gives other numbers.

Shapes: R rows, F columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast, runtime_checkable

import numpy as np
import polars as pl

from recsys.errors import ConfigError, LeakError
from recsys.log.event_log import BASKET, ITEM, TIME, USER, VALUE, EventLog, runs
from recsys.memory import check_memory
from recsys.ranges import at_least, distinct
from recsys.tasks.as_of import AS_OF, AsOfTable, before
from recsys.tasks.labels import LabelTable

ROW = "row"
MOST_MOMENTS = 64
"""At so many moments, at most, features are computed again."""


@runtime_checkable
class Feature(Protocol):
    """A function of a log and rows (R) with `user_id` and `as_of` to (R, F) float32."""

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray: ...

    def __hash__(self) -> int: ...


@runtime_checkable
class Named(Protocol):
    """A feature whose columns have names."""

    def names(self, log: EventLog, rows: pl.DataFrame) -> list[str]:
        """(F) names of the columns that the feature gives for rows."""
        ...


@runtime_checkable
class Learnt(Protocol):
    """What a model says that has learnt from a log itself: it too may not have looked ahead."""

    @property
    def trained_until(self) -> int | None:
        """The time of the last event that it has learnt from, as `BasketBatch.times` counts."""
        ...


def check_training(table: AsOfTable, learnt: Learnt) -> None:
    """See that a model has learnt from nothing at or after the last moment of a table.

    Raises:
        LeakError: it has.
    """
    last = table.rows[AS_OF].sort()[-1:]
    # In microseconds: a moment may lie just behind the second of the last event.
    unit = 10**6 if last.dtype.is_temporal() else 1
    moment = last.dt.epoch("us") if last.dtype.is_temporal() else last
    if (until := learnt.trained_until) is not None and until * unit >= moment[0]:
        raise LeakError(
            f"{table.name}: {type(learnt).__name__} was trained on events up to second "
            f"{until}, which is not before {last[0]!s}, the last moment of the table; train it on "
            "earlier events"
        )


def computed(table: AsOfTable, feature: Feature, *, sample: int = 32, seed: int = 0) -> np.ndarray:
    """A feature of every row (R, F), computed once for a table and checked.

    Args:
        table: the table.
        feature: equal features, such as `Counts("brand")` and another one, are computed once.
        sample: rows of each moment for which it is computed again from the log up to there; of
            more than 64 moments, 64 are drawn.
        seed: of the sample.

    Raises:
        ConfigError: it gives something else than numbers.
        LeakError: the two differ, or it was trained on what came later.
    """
    if feature not in table.memo:
        if isinstance(feature, Learnt):
            check_training(table, feature)
        values = feature(table.log, table.rows.select(USER, AS_OF))
        _check_values(feature, values, len(table))
        check_leaks(table, feature, values, sample=sample, seed=seed)
        table.memo[feature] = values
    return cast(np.ndarray, table.memo[feature])


def names_of(table: AsOfTable, feature: Feature) -> list[str]:
    """The names of a feature's columns, (F); their numbers where it does not name them."""
    if isinstance(feature, Named):
        return feature.names(table.log, table.rows.select(USER, AS_OF))
    kind = type(feature).__name__ if not isinstance(feature, type) else feature.__name__
    return [f"{kind} {n}" for n in range(computed(table, feature).shape[1])]


def check_features(features: Sequence[object]) -> None:
    """Refuse what is no feature.

    Raises:
        ConfigError: one cannot be called, or not be told from others.
    """
    for place, feature in enumerate(features):
        if not isinstance(feature, Feature):
            raise ConfigError(
                f"features.{place}: {type(feature).__name__} is no feature; name a function of a "
                "log and rows such as recsys.tasks.RFM"
            )


def _check_values(feature: Feature, values: object, num_rows: int) -> None:
    if (
        not isinstance(values, np.ndarray)
        or (values.ndim, len(values)) != (2, num_rows)
        or values.dtype.kind not in "fiub"
    ):
        shape = f" {values.shape} of {values.dtype}" if isinstance(values, np.ndarray) else ""
        raise ConfigError(
            f"features: {feature} gives {type(values).__name__}{shape}; a feature gives an array "
            f"of numbers with a row for each of the {num_rows:,} rows"
        )


def check_leaks(
    table: AsOfTable, feature: Feature, values: np.ndarray, *, sample: int = 32, seed: int = 0
) -> None:
    """Compare a feature's values (R, F) with what the log up to each moment gives.

    Raises:
        LeakError: they differ; it names the feature, the first moment, and how many rows changed.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(table))
    rows = table.rows.select(USER, AS_OF).with_row_index(ROW)[order]
    moments = rows[AS_OF].unique().sort()
    if len(moments) > MOST_MOMENTS:
        some = np.sort(generator.choice(len(moments), MOST_MOMENTS, replace=False))
        rows = rows.filter(pl.col(AS_OF).is_in(moments[some].implode()))
    rows = rows.group_by(AS_OF, maintain_order=True).head(sample).sort(AS_OF, ROW)
    for (moment,) in rows.select(AS_OF).unique().sort(AS_OF).iter_rows():
        # Earlier rows as well: what the feature learns from them has to be the same.
        until = rows.filter(pl.col(AS_OF) <= moment)
        again = feature(before(table.log, moment), until.select(USER, AS_OF))
        once = values[until[ROW].to_numpy()]
        same = np.zeros(len(once), dtype=bool)
        if once.shape == again.shape:  # else columns were added
            same = np.isclose(once, again, rtol=1e-3, atol=1e-4, equal_nan=True).all(1)
        if not same.all():
            raise LeakError(
                f"{table.name}: {feature} knows what comes after {moment}: {(~same).sum()} of "
                f"{len(same)} rows change when the log ends there; use events before `as_of` only"
            )


def column(name: str) -> str:
    """What a column of the log is called beside ours, so that it may have the name of one."""
    return f"column/{name}"


def past(log: EventLog, rows: pl.DataFrame, columns: Sequence[str]) -> pl.LazyFrame:
    """The events before each row's moment: `row`, `as_of` and what `described` gives."""
    moments = rows.select(USER, AS_OF).with_row_index(ROW).lazy()
    events = described(log, columns)
    return moments.join(events, on=USER).filter(pl.col(TIME) < pl.col(AS_OF))


def described(log: EventLog, columns: Sequence[str]) -> pl.LazyFrame:
    """`user_id`, `timestamp` and columns of the events, by the names that `column` gives them.

    Where the events have none of a name, it is a column of their items.

    Raises:
        ConfigError: neither has it.
    """
    of_items = [column for column in columns if column not in log.events.columns]
    if unknown := [column for column in of_items if column not in log.items.columns]:
        there = ", ".join(dict.fromkeys([*log.events.columns, *log.items.columns]))
        raise ConfigError(f"{log.name} has no column {unknown[0]}; there is {there}")
    events = log.events.lazy()
    if of_items:
        events = events.join(log.items.lazy().select(ITEM, *of_items), on=ITEM, how="left")
    names = sorted(dict.fromkeys(columns))
    return events.select(USER, TIME, *(pl.col(name).alias(column(name)) for name in names))


@dataclass(frozen=True)
class Counts:
    """How often each value of a column occurs in a history; (R, F) with a column per value.

    The values are those that any user had before the first of all moments, in order.

    Raises DataError where that would take more memory than there is.

    Args:
        column: of the items, or of the events.
        log: whether log(1 + count) is taken.
        normalise: whether a row is divided by its Euclidean length.
        min_users: values of fewer users are left out.
        days: before the moment; None counts the whole history. Moments with unequal time before
            them are alike within a window.

    Raises:
        ConfigError: no user, or no day.
    """

    column: str
    log: bool = True
    normalise: bool = False
    min_users: int = 1
    days: int | None = None

    def __post_init__(self) -> None:
        at_least(1, min_users=self.min_users, days=self.days)

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        value, places = column(self.column), self._places(log, rows)
        recent = past(log, rows, [self.column]).with_columns(_age(log)).filter(_within(self.days))
        counted = recent.join(places, on=value).group_by(ROW, "place").len().collect()
        shape = len(rows), places.select(pl.len()).collect().item()
        # Once here, once beside the other features, and once standardised.
        check_memory(
            3 * 4 * shape[0] * shape[1],
            f"{self} of {shape[0]:,} rows, with {shape[1]:,} values,",
            "raise min_users, or count a column of fewer values",
        )
        counts = np.zeros(shape, dtype=np.float32)
        counts[counted[ROW].to_numpy(), counted["place"].to_numpy()] = counted["len"].to_numpy()
        if self.log:
            np.log1p(counts, out=counts)
        if self.normalise:
            counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)
        return counts

    def names(self, log: EventLog, rows: pl.DataFrame) -> list[str]:
        """`brand Acme` for the count of a value."""
        values = self._places(log, rows).collect()[column(self.column)]
        return [f"{self.column} {value}" for value in values]

    def _places(self, log: EventLog, rows: pl.DataFrame) -> pl.LazyFrame:
        """The values that are counted, in order, each with its `place` among the columns."""
        value = column(self.column)
        first = described(before(log, rows[AS_OF].min()), [self.column])
        users = first.drop_nulls().group_by(value).agg(pl.col(USER).n_unique().alias("users"))
        values = users.filter(pl.col("users") >= self.min_users).select(value)
        return values.sort(value).with_row_index("place")


@dataclass(frozen=True)
class RFM:
    """Recency, frequency and monetary value, with what else a log tells of how a user shops.

    Days since the last and the first visit and between visits; visits, events, distinct items and
    `value` spent, in all and within each window; value a visit; the share of discounts; distinct
    values of columns such as the shop; shares of the hours and of the days of the week among the
    visits. A visit is a basket, as of its first event, or where there are none a moment. What a log
    does not hold is left out; counts and sums are taken as log(1 + x).

    Args:
        windows: days before the moment.
        discounts: columns of the events, negative or positive amounts in units of `value`.
        distinct: columns of the events or items whose distinct values are counted.

    Raises:
        ConfigError: a window of no day, or something is named twice.
    """

    windows: Sequence[int] = (7, 28, 56, 91)
    discounts: Sequence[str] = ()
    distinct: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("windows", "discounts", "distinct"):  # lists have no hash
            object.__setattr__(self, name, tuple(getattr(self, name)))
            distinct(**{name: getattr(self, name)})
        for days in self.windows:
            at_least(1, windows=days)

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        return self.frame(log, rows).to_numpy().astype(np.float32)

    def names(self, log: EventLog, rows: pl.DataFrame) -> list[str]:
        """As `frame` calls its columns."""
        return self.frame(log, rows.head(1)).columns

    def frame(self, log: EventLog, rows: pl.DataFrame) -> pl.DataFrame:
        """The features by name, (R, F)."""
        visit = TIME
        if BASKET in log.events.columns:
            visit, number = BASKET, runs(log.events[USER], log.events[BASKET])
            log = replace(log, events=log.events.with_columns(number.alias(BASKET)))
        money = [VALUE] if VALUE in log.events.columns else []
        columns = [ITEM, visit, *money, *self.discounts, *self.distinct]
        events = past(log, rows, columns).with_columns(_age(log)).collect().lazy()
        kinds = events.collect_schema()
        for name in self.discounts:
            if not (kind := kinds[column(name)]).is_numeric():
                raise ConfigError(f"discounts: {name} of {log.name} is {kind}; name numbers")
        visits = events.group_by(ROW, column(visit)).agg(
            pl.col(TIME).min(),
            pl.col("age").max(),
            pl.len().alias("events"),
            *(_amount(name).sum() for name in money),
            *(_amount(name).abs().sum() for name in self.discounts),
        )
        items = events.group_by(ROW, column(ITEM)).agg(pl.col("age").min())
        windows = self.windows if log.has_calendar_time else ()
        parts = [
            visits.group_by(ROW).agg(*self._of_visits(log, windows, bool(money))),
            items.group_by(ROW).agg(
                *(_within(w).sum().log1p().alias(_named("items", w)) for w in (None, *windows))
            ),
            events.group_by(ROW).agg(
                pl.col(column(c)).n_unique().log1p().alias(f"distinct_{c}") for c in self.distinct
            ),
        ]
        features = pl.LazyFrame({ROW: pl.int_range(len(rows), dtype=pl.UInt32, eager=True)})
        for part in parts:
            features = features.join(part, on=ROW, how="left", maintain_order="left")
        return features.drop(ROW).fill_null(0).fill_nan(0).collect()

    def _of_visits(self, log: EventLog, windows: Sequence[int], money: bool) -> Iterator[pl.Expr]:
        recency = pl.col("age").min()
        yield from (recency.alias("recency"), pl.col("age").max().alias("tenure"))
        for window in (None, *windows):
            inside = _within(window)
            yield inside.sum().log1p().alias(_named("visits", window))
            yield pl.col("events").filter(inside).sum().log1p().alias(_named("events", window))
            if money:
                spent = _amount(VALUE).filter(inside).sum().clip(0)
                yield spent.log1p().alias(_named("spent", window))
        if money:
            yield _amount(VALUE).mean().alias("value_a_visit")
            for name in self.discounts:
                saved = _amount(name).sum()
                yield (saved / (saved + _amount(VALUE).sum())).alias(f"share_{name}")
        when = pl.col(TIME).dt.date().dt.epoch("d") if log.has_calendar_time else pl.col(TIME)
        gaps = when.unique().sort().diff()
        yield from (gaps.mean().alias("gap"), gaps.std().alias("gap_deviation"))
        yield from (gaps.max().alias("gap_longest"), (recency / gaps.mean()).alias("age_in_gaps"))
        if log.has_calendar_time:
            hour, day = pl.col(TIME).dt.hour(), pl.col(TIME).dt.weekday()
            yield from ((hour == h).mean().alias(f"hour_{h}") for h in range(24))
            yield from ((day == d).mean().alias(f"day_{d}") for d in range(1, 8))


def _amount(name: str) -> pl.Expr:
    """A column of numbers, whose sums fit."""
    return pl.col(column(name)).cast(pl.Float64)


def _age(log: EventLog) -> pl.Expr:
    """Days before the moment, or steps of the order where a log knows no time."""
    span = pl.col(AS_OF) - pl.col(TIME)
    days = span.dt.total_seconds() / 86_400 if log.has_calendar_time else span.cast(pl.Float64)
    return days.alias("age")


def _within(window: int | None) -> pl.Expr:
    return pl.col("age") <= (np.inf if window is None else window)


def _named(what: str, window: int | None) -> str:
    return what if window is None else f"{what}_{window}"


@runtime_checkable
class CandidateFeature(Protocol):
    """A function of a table of labels to features of its candidates, (C, G) float32."""

    def __call__(self, table: LabelTable) -> np.ndarray: ...


@dataclass(frozen=True)
class CandidateShares:
    """The share of each value of a column among a candidate's items, and the log of their number.

    Args:
        column: of the items.
    """

    column: str

    def __call__(self, table: LabelTable) -> np.ndarray:
        items, owner = table.items, table.items.owners().numpy()
        values = table.known_items[self.column].cast(pl.String).fill_null("")
        group = values.rank("dense").to_numpy()[items.values.numpy()] - 1
        size = items.lengths.numpy()[:, None].astype(np.float32)
        shares = np.zeros((len(items), values.n_unique()), dtype=np.float32)
        np.add.at(shares, (owner, group), 1)
        return np.hstack([shares / np.maximum(size, 1), np.log1p(size)])
