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
from recsys.log.vocabulary import Vocabulary
from recsys.tasks.labels import AS_OF, Questions
from recsys.tasks.phases import TRAIN
from recsys.tasks.windows import _in_class, _within_log, chosen, no_values, rows_of


def profiling(
    log: EventLog,
    name: str,
    *,
    column: str,
    classes: Mapping[str, Sequence[Any]],
    as_of: Moment | None = None,
) -> Questions:
    """Which attribute a user has, by folds of the users who state it.

    The table's log knows nothing of its users but their events: what they state is the answer.

    Args:
        log: with the attribute in `users`.
        name: of the table.
        column: the attribute.
        classes: of each answer the values of the attribute that it stands for, or for a number the
            two ends of a range `[from, below]`. With one class the question is whether a user is in
            it, and everyone who states the attribute is asked; else those who are in one.
        as_of: the moment; by default after the last event.

    Raises:
        ConfigError: the log's users have no such attribute, nobody or everybody is in a class, or
            the moment is not one between the first and the last event.
    """
    if column not in log.users.columns or not len(classes):
        there = ", ".join(log.users.columns)
        raise ConfigError(f"{name}: {log.name} has no users' column {column}; there is {there}")
    stated = log.users.drop_nulls(column)
    member = np.stack([_in_class(stated[column], values) for values in classes.values()], axis=1)
    for answer, share in zip(classes, member.mean(0), strict=True):
        if share in (0, 1):
            few = "nobody" if share == 0 else "everybody"
            raise ConfigError(f"{name}: {few} has {column} in {answer}={classes[answer]}")
    asked = np.full(len(member), len(classes) == 1) | member.any(1)
    rows = (
        stated.filter(pl.Series(asked))
        .select(USER)
        .with_columns(pl.lit(_within_log(log, name, as_of)).first().alias(AS_OF))
    )
    anonymous = replace(log, users=log.users.select(USER))
    return Questions(
        name,
        anonymous,
        rows_of(rows, pl.lit(None), pl.lit(TRAIN)),
        Vocabulary(pl.Series(list(classes))),
        chosen(member[asked]),
        no_values(int(asked.sum())),
        ranked=False,
        items=no_values(len(classes)),
    )
