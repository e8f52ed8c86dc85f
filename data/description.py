"""What a log is, and what is odd about it before anyone trains on it.

`describe` gives its size and shape. `audit` looks for what has spoilt published comparisons: order
that carries no behaviour (neighbours in ascending id order, users with one timestamp), baskets
whose id comes again or that last for days, targets that the history holds already, duplicates, rows
out of order, impossible times, gaps, items without words, quantities in other units.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE, EventLog, runs

_TEXT = ("title", "text")
_1990 = 631_152_000  # seconds since 1970


class Spread(NamedTuple):
    """How a count is spread over its owners: its mean, and its quartiles from least to most."""

    mean: float
    quartiles: tuple[int, int, int, int, int]


class Finding(NamedTuple):
    """A row of `audit`: `number` of `total` things are so; what that may mean is in `note`."""

    finding: str
    number: int
    total: int
    note: str


def describe(log: EventLog) -> pl.DataFrame:
    """The size and shape of a log: columns `statistic` and `value`, both text.

    `statistics` gives the same as numbers.

    >>> describe(checkerboard()).head(3).rows()
    [('events', '1,013'), ('users', '60'), ('items', '40')]
    """
    rows = [(name, _as_text(value)) for name, value in statistics(log).items()]
    return pl.DataFrame(rows, schema={"statistic": pl.String, "value": pl.String}, orient="row")


def statistics(log: EventLog) -> dict[str, Any]:
    """Counts, quantiles, times and shares, by name.

    `density` is the share of user-item pairs with an event, `repeats` the share of events whose
    user had the item before. Items are those with an event.

    >>> facts = statistics(checkerboard())
    >>> facts["users"], facts["items"], facts["baskets"], round(facts["density"], 3)
    (60, 40, 360, 0.266)
    """
    events = log.events
    item_ids = events.select(pl.col(ITEM).unique())
    users, items = len(log.users), len(item_ids)
    pairs = events.select(pl.struct(USER, ITEM).n_unique()).item()
    facts: dict[str, Any] = {
        "events": len(events),
        "users": users,
        "items": items,
        "items without an event": len(log.items) - items,
        "events a user": _spread(events.group_by(USER).len()["len"]),
        "events an item": _spread(events.group_by(ITEM).len()["len"]),
        "density": pairs / (users * items),
        "repeats": 1 - pairs / len(events),
        "first event": events[TIME].min(),
        "last event": events[TIME].max(),
    }
    if BASKET in events.columns:
        run = runs(events[USER], events[BASKET])
        baskets = events.select(USER, run=run).group_by(USER, "run").len()
        facts["baskets"] = len(baskets)
        facts["baskets a user"] = _spread(baskets.group_by(USER).len()["len"])
        facts["rows a basket"] = _spread(baskets["len"])
    items_of_events = log.items.join(item_ids, on=ITEM, how="semi")
    facts |= {
        f"items with {c}": _worded(items_of_events[c]).mean()
        for c in _TEXT
        if c in items_of_events.columns
    }
    facts |= {f"{c} in all": events[c].sum() for c in (QUANTITY, VALUE) if c in events.columns}
    return facts


def audit(log: EventLog) -> pl.DataFrame:
    """What is odd about a log: columns `finding`, `count`, `of`, `share` and `note`.

    Every question that the log allows is answered, also where the count is 0.

    >>> audit(checkerboard()).filter(finding="users with a single timestamp")["count", "of"].rows()
    [(0, 60)]
    """
    rows = (*_order(log), *_times(log), *_baskets(log), *_targets(log), *_contents(log))
    schema = {"finding": pl.String, "count": pl.Int64, "of": pl.Int64, "note": pl.String}
    findings = pl.DataFrame(rows, schema=schema, orient="row")
    share = pl.col("count") / pl.col("of")
    note = pl.when(pl.col("count") > 0).then("note").otherwise(pl.lit(""))
    return findings.select("finding", "count", "of", share=share.fill_nan(None), note=note)


def _order(log: EventLog) -> Iterator[Finding]:
    for key in _keys(log):
        ids = log.events.select(ITEM).join(
            log.items.select(ITEM, key=key), on=ITEM, how="left", maintain_order="left"
        )["key"]
        pair = (log.events[USER] == log.events[USER].shift()) & (ids != ids.shift())
        rising, pairs = int((pair & (ids > ids.shift())).sum()), int(pair.sum())
        sorted_by_key = rising > 0.6 * pairs
        note = "; the order of items is the file's, not the user's" if sorted_by_key else ""
        name = f"neighbours in ascending {key} order"
        yield Finding(name, rising, pairs, f"half is by chance{note}")
    single = log.events.group_by(USER).agg(pl.col(TIME).n_unique())[TIME] == 1
    yield Finding(
        "users with a single timestamp",
        int(single.sum()),
        len(single),
        "their order of events is arbitrary",
    )
    yield Finding(
        "rows after a later event of their user",
        log.out_of_order,
        log.num_events,
        "the input was not in order of time; it is now",
    )


def _keys(log: EventLog) -> list[str]:
    """The item id and other columns that tell items apart, such as a shop's number."""
    columns = (c for c in log.items.columns if c not in (ITEM, *_TEXT))
    unique = (c for c in columns if not log.items[c].dtype.is_nested())
    return [ITEM, *(c for c in unique if log.items[c].drop_nulls().n_unique() == len(log.items))]


def _times(log: EventLog) -> Iterator[Finding]:
    if not log.has_calendar_time:
        return
    times = log.events[TIME].sort()
    seconds, now = times.dt.epoch("s"), int(time.time())
    yield Finding("events in the future", int((seconds > now).sum()), len(times), "")
    early = seconds < _1990
    note = "a missing time, or another unit than was said"
    yield Finding("events before 1990", int(early.sum()), len(times), note)
    if len(times) > 1:
        end = int(seconds.diff().arg_max() or 1)
        ends = times.gather([end - 1, end]).dt.to_string("%Y-%m-%d %H:%M")
        yield Finding(
            "hours of the longest stretch without an event",
            int(seconds[end] - seconds[end - 1]) // 3600,
            int(seconds[-1] - seconds[0]) // 3600,
            " to ".join(ends),
        )


def _baskets(log: EventLog) -> Iterator[Finding]:
    events = log.events
    if BASKET not in events.columns:
        return
    run = runs(events[USER], events[BASKET])
    number = int(run[-1]) + 1
    yield Finding(
        f"baskets whose {BASKET} their user had before",
        number - events.select(pl.struct(USER, BASKET).n_unique()).item(),
        number,
        "an id that comes again, or whose rows others interrupt, is several baskets",
    )
    if log.has_calendar_time:
        spans = (
            events.select(TIME, run=run)
            .group_by("run")
            .agg(pl.col(TIME).max() - pl.col(TIME).min())
        )
        yield Finding(
            "baskets that span more than a day",
            int((spans[TIME] > timedelta(days=1)).sum()),
            number,
            "an id that comes again with nothing between? let basket_id tell visits apart",
        )


def _targets(log: EventLog) -> Iterator[Finding]:
    if BASKET in log.events.columns:
        what, run = "basket", runs(log.events[USER], log.events[BASKET])
    else:
        what, run = "event", pl.int_range(log.num_events, eager=True)
    of_user = log.events.select(USER, run=run).select(pl.col("run").last().over(USER))
    last = run == of_user["run"]
    history, latest = log.events.filter(~last), log.events.filter(last)
    before = history.group_by(USER).agg(before=pl.col(TIME).max())
    begins = latest.group_by(USER).agg(begin=pl.col(TIME).min()).join(before, on=USER)
    yield Finding(
        f"users whose last {what} has the time of the event before",
        int((begins["begin"] == begins["before"]).sum()),
        len(begins),
        "their order is the file's; task=next_basket with a basket_id asks for whole baskets",
    )
    target = latest.unique([USER, ITEM])
    past_targets = target.join(history, on=USER, how="semi")
    repeats = past_targets.join(history, on=[USER, ITEM], how="semi")
    yield Finding(
        f"items of the last {what} that the history holds",
        len(repeats),
        len(past_targets),
        "where the history is masked they cannot be hit",
    )


def _contents(log: EventLog) -> Iterator[Finding]:
    events = log.events
    keys = [c for c in (USER, ITEM, TIME, BASKET) if c in events.columns]
    distinct = events.select(pl.struct(keys).n_unique()).item()
    yield Finding(
        f"rows that repeat their {', '.join(keys)}", len(events) - distinct, len(events), ""
    )
    few = events.group_by(USER).len()["len"] < 3
    yield Finding(
        "users with fewer than 3 events", int(few.sum()), len(few), "leave-last-out asks none"
    )
    items = log.items.join(events.select(ITEM), on=ITEM, how="semi")
    words = items.select(pl.lit(False), *(_worded(items[c]) for c in _TEXT if c in items.columns))
    wordless = len(items) - words.select(pl.any_horizontal(pl.all()).sum()).item()
    yield Finding("items without words", wordless, len(items), "neither title nor text")
    if QUANTITY in events.columns:
        yield from _quantities(events)


def _quantities(events: pl.DataFrame) -> Iterator[Finding]:
    quantity = events[QUANTITY]
    yield Finding("quantities of 0", int((quantity == 0).sum()), len(quantity), "nothing was taken")
    usual = quantity.filter(quantity > 0).median() or 1
    many = quantity > 100 * usual  # type: ignore[operator]
    median, largest = _as_text(usual), _as_text(quantity.max())
    note = f"the median is {median}, the largest {largest}; a weight or volume?"
    yield Finding("quantities above 100 medians", int(many.sum()), len(quantity), note)


def _worded(text: pl.Series) -> pl.Series:
    return text.fill_null("").str.strip_chars().str.len_bytes() > 0


def _spread(counts: pl.Series) -> Spread:
    ordered = counts.sort()
    least, *quarters, most = (int(ordered[(len(counts) - 1) * n // 4]) for n in range(5))
    return Spread(float(counts.mean()), (least, *quarters, most))  # type: ignore[arg-type]


def _as_text(value: Any) -> str:
    match value:
        case Spread():
            return (
                f"mean {_as_text(value.mean)}; quartiles {' '.join(map(_as_text, value.quartiles))}"
            )
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S %Z}".rstrip()
    return str(value)
