"""Who does not come back."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recsys.errors import ConfigError
from recsys.log.event_log import USER, EventLog
from recsys.log.time import Moment, days_after
from recsys.tasks.as_of import PHASE
from recsys.tasks.labels import LabelTable
from recsys.tasks.phases import TEST, TRAIN, VALIDATION
from recsys.tasks.windows import (
    between,
    class_table,
    refuse_no_days,
    refuse_one_label,
    windows_of,
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
) -> LabelTable:
    """Whether an active user will not come back: no event in the days after the moment.

    Rows are of the users with an event in the `active_days` before a moment.

    Args:
        log: with calendar time.
        name: of the table.
        train, validation, test: moments.
        active_days: how recent the last event is, at most.
        horizon_days: how long without an event counts as lapsed.

    Raises:
        ConfigError: a moment is none of the log, its days after it are not all in the log, or
            nobody was active before it; or of a phase all users lapse, or none.

    >>> days = [f"2024-01-0{day}" for day in (1, 3, 5, 7, 1, 4)]
    >>> rows = {"user_id": [1, 1, 1, 1, 2, 2], "item_id": [7] * 6, "timestamp": days}
    >>> log = EventLog.from_frames(pl.DataFrame(rows))
    >>> table = lapse(log, "lapse", train=["2024-01-02"], test="2024-01-05", horizon_days=2)
    >>> table.rows["user_id"].to_list(), table.labels.lengths.tolist()
    ([1, 2, 1, 2], [0, 1, 0, 1])
    """
    refuse_no_days(name, active_days=active_days, horizon_days=horizon_days)
    if not train:
        raise ConfigError(f"{name}: train=[] leaves nothing to learn from; give earlier moments")
    frames = []
    for window in windows_of(log, name, train, validation, test, horizon_days):
        active = between(log.events, days_after(window.moment, -active_days), window.moment)
        users = active.select(pl.col(USER).unique().sort())
        window.refuse_nobody(users, f"had an event in the {active_days} days before")
        back = between(log.events, window.moment, window.until)[USER].unique()
        frames.append(window.rows(users).with_columns(lapsed=~pl.col(USER).is_in(back.implode())))
    rows = pl.concat(frames)
    for phase, option in ((TRAIN, f"{train=}"), (VALIDATION, f"{validation=}"), (TEST, f"{test=}")):
        lapsed = rows.filter(pl.col(PHASE) == phase)["lapsed"]
        refuse_one_label(f"{name}: {option}", ~lapsed, f"come back in {horizon_days} days")
    member = rows["lapsed"].to_numpy()[:, None]
    return class_table(name, log, rows.drop("lapsed"), ["lapsed"], member)
