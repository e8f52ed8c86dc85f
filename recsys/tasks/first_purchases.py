"""What a user takes for the first time."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recsys.errors import ConfigError
from recsys.log.event_log import ITEM, TIME, USER, EventLog
from recsys.log.time import Moment
from recsys.log.vocabulary import Vocabulary
from recsys.tasks.as_of import before
from recsys.tasks.labels import LabelTable
from recsys.tasks.phases import TRAIN
from recsys.tasks.windows import (
    RankedRows,
    Window,
    between,
    by_user,
    grouped,
    ranking_table,
    refuse_no_days,
    windows_of,
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
) -> LabelTable:
    """What a user has for the first time in the days after the moment.

    Candidates are the column's values that `min_users` users had before the test moment, for the
    rows of every phase, so that what is learnt of one is of use in the next. Rows are of users
    who have had a candidate before and have a new one; the ones they had are excluded.

    Args:
        log: with calendar time.
        name: of the table.
        column: of the items: `item_id`, or what groups them.
        train, validation, test: moments.
        horizon_days: how long after the moment.
        min_users: of a candidate before the test moment.

    Raises:
        ConfigError: the items have no such column, no value of it has so many users, a moment is
            none of the log, its days after it are not all in the log, or nobody has a row there.
    """
    refuse_no_days(name, horizon_days=horizon_days)
    if column not in log.items.columns:
        raise ConfigError(
            f"{name}: {log.name} has no items' column {column}; there is "
            f"{', '.join(log.items.columns)}"
        )
    windows = windows_of(log, name, train, validation, test, horizon_days)
    of_item = log.items.select(ITEM, pl.col(column).alias("candidate"))
    events = log.events.select(USER, ITEM, TIME).join(of_item, on=ITEM, maintain_order="left")
    firsts = events.drop_nulls("candidate").group_by(USER, "candidate").agg(pl.col(TIME).min())
    candidates = _candidates(firsts, column, windows[-1], min_users)
    index = candidates.index_of(firsts["candidate"])
    firsts = firsts.with_columns(index.alias("index")).filter(pl.col("index") >= 0)
    parts = []
    for window in windows:
        had = firsts.filter(pl.col(TIME) < window.moment[0])
        new = between(firsts, window.moment, window.until)
        users = new.select(pl.col(USER).unique().sort()).join(had, on=USER, how="semi").sort(USER)
        window.refuse_nobody(users, f"has one {column} before and a new one in {horizon_days} days")
        labels, excluded = by_user(users[USER], new), by_user(users[USER], had)
        parts.append(RankedRows(window.rows(users), labels, excluded))
    # What an item is may be told by its events: no later ones than are known at the first moment.
    first = next(window.moment for window in windows if window.phase != TRAIN)
    stands_for = candidates.index_of(before(log, first[0]).items[column])
    items = grouped(stands_for, pl.int_range(len(stands_for), eager=True), len(candidates))
    return ranking_table(name, log, candidates, parts, items)


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
