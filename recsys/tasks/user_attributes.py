"""What a user is, of what is known of some: who has children, of what age somebody is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from recsys.errors import ConfigError
from recsys.log.event_log import USER, EventLog
from recsys.log.time import Moment
from recsys.tasks.as_of import AS_OF
from recsys.tasks.labels import LabelTable
from recsys.tasks.phases import TRAIN
from recsys.tasks.windows import class_table, in_class, rows_of, within_log


def profiling(
    log: EventLog,
    name: str,
    *,
    column: str,
    classes: Mapping[str, Sequence[Any]],
    as_of: Moment | None = None,
) -> LabelTable:
    """Which attribute a user has, by folds of the users who state it.

    The table's log knows nothing of its users but their events: what they state is the label.

    Args:
        log: with the attribute in `users`.
        name: of the table.
        column: the attribute.
        classes: of each label the values of the attribute that it stands for, or for a number the
            two ends of a range `[from, below]`. With one class the label is whether a user is in
            it, and everyone who states the attribute has a row; else those who are in one.
        as_of: the moment; by default after the last event.

    Raises:
        ConfigError: the log's users have no such attribute or none states it, there is no class or
            one that is no range of numbers, nobody or everybody is in a class, or the moment is not
            one between the first and the last event.

    >>> rows = {"user_id": [1, 2], "item_id": [7, 8], "timestamp": ["2024-01-01", "2024-01-02"]}
    >>> users = pl.DataFrame({"user_id": [1, 2], "age": [31, 64]})
    >>> log = EventLog.from_frames(pl.DataFrame(rows), users=users)
    >>> table = profiling(log, "old", column="age", classes={"yes": [60, 120]})
    >>> table.labels.lengths.tolist()
    [0, 1]
    """
    if not len(classes):
        raise ConfigError(f"{name}: classes={{}} names no label; give one, as {{old: [60, 120]}}")
    if column not in log.users.columns:
        there = ", ".join(log.users.columns)
        raise ConfigError(f"{name}: {log.name} has no users' column {column}; there is {there}")
    stated = log.users.drop_nulls(column)
    if not len(stated):
        raise ConfigError(f"{name}: no user of {log.name} states {column}; choose another")
    each = [in_class(stated[column], f"{name}: {k}", values) for k, values in classes.items()]
    member = np.stack(each, axis=1)
    for label, share in zip(classes, member.mean(0), strict=True):
        if share in (0, 1):
            few = "nobody" if share == 0 else "everybody"
            raise ConfigError(f"{name}: {few} has {column} in {label}={classes[label]}")
    has_row = np.full(len(member), len(classes) == 1) | member.any(1)
    users = (
        stated.filter(pl.Series(has_row))
        .select(USER)
        .with_columns(pl.lit(within_log(log, name, as_of)).first().alias(AS_OF))
    )
    anonymous = replace(log, users=log.users.select(USER))
    rows = rows_of(users, pl.lit(None), pl.lit(TRAIN))
    return class_table(name, anonymous, rows, list(classes), member[has_row])
