"""Tables of users as of moments: who has a row, as of when, and what of a log may be used for it.

A downstream task is such a table: of every row a user, a moment, and what is to be predicted, which
each kind of table adds. What may be used for a row is `AsOfTable.spans`, the events of its user
that lie before its moment, and nothing else: features and models take a user's history from there.

Two things are asserted, so that a figure cannot rest on what was not known yet: every event of a
span lies before its moment, and what a training row teaches was known at the moment of the first
validation and test rows.

Shapes: R rows, B rows of them, E events of the log.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.errors import ConfigError, LeakError
from recsys.log.event_log import TIME, USER, EventLog
from recsys.log.vocabulary import UNKNOWN, Vocabulary
from recsys.ranges import at_least
from recsys.tasks.phases import PHASES, TEST, TRAIN, VALIDATION
from recsys.tasks.tensors import tensor_of

AS_OF, UNTIL, PHASE = "as_of", "until", "phase"


@dataclass(frozen=True, eq=False)
class AsOfTable:
    """A table of users as of moments; what is to be predicted of them is a subclass's.

    Attributes:
        name: by which its metrics are known, `kids` in `kids/auroc`.
        log: from whose events the rows are predicted.
        rows: `user_id`; `as_of`, the moment, of the type of the log's timestamps; `until`, the
            moment at which what is to be predicted is known, null where it always was; `phase`: 0
            in training, 1 in validation, 2 in test. A table without order in time has phase 0
            alone, and is divided into folds of its users.
        memo: what others have computed of the table, by what computes it, for as long as it lives;
            another table, such as one of a log that is cut, has computed nothing yet.

    Raises:
        LeakError: what a row teaches is known only after the moment of a later phase.
    """

    name: str
    log: EventLog
    rows: pl.DataFrame
    memo: dict[Hashable, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for phase in (VALIDATION, TEST):
            first = self.rows.filter(pl.col(PHASE) == phase)[AS_OF].min()
            if first is None:
                continue
            late = self.rows.filter((pl.col(PHASE) < phase) & (pl.col(UNTIL) > first))
            if len(late):
                raise LeakError(
                    f"{self.name}: {len(late)} rows are known only at {late[UNTIL].max()!s}, after "
                    f"{first!s}, the first moment of phase {phase}; end their windows before"
                )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_phases(self) -> bool:
        """Whether training lies before test; otherwise folds of users decide."""
        return bool((self.rows[PHASE] == TEST).any())

    def phase(self, phase: int) -> Tensor:
        """(P,) int64, the rows of a phase."""
        return tensor_of((self.rows[PHASE] == phase).arg_true())

    @cached_property
    def users(self) -> Vocabulary:
        """The users that have a row."""
        return Vocabulary(self.rows[USER].unique().sort())

    def user_of(self, rows: Tensor) -> Tensor:
        """(B,) int64, the places among `users` of the users of the rows (B,)."""
        return tensor_of(self.users.index_of(self.rows[USER][rows.numpy()]))

    @cached_property
    def known_items(self) -> pl.DataFrame:
        """`log.items` as they are described before the first row that is not trained on.

        Where the log's events describe their items, later ones would tell what was not known yet.
        """
        if not self.log.item_columns:
            return self.log.items
        rows = self.rows.filter(pl.col(PHASE) > TRAIN) if self.has_phases else self.rows
        return before(self.log, rows[AS_OF].min()).items

    def spans(self) -> tuple[Tensor, Tensor]:
        """Where the events of each row's user before its moment begin and end.

        Returns:
            starts, ends: (R,) int64 positions in `log.events`; equal for a user without any.
        """
        starts, ends = spans(self.log, self.rows)
        return torch.from_numpy(starts), torch.from_numpy(ends)


def before(log: EventLog, moment: Any) -> EventLog:
    """The log up to a moment; the rows of its tables of items and users stay.

    Items that the log's events describe are described by those that are left.
    """
    return replace(log, events=log.events.filter(pl.col(TIME) < moment))


def spans(log: EventLog, rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """As `AsOfTable.spans`, for any rows with `user_id` and `as_of`."""
    users = Vocabulary(log.users[USER])
    user = users.index_of(rows[USER]).to_numpy().astype(np.int64)
    moments = rows[AS_OF].unique().sort()
    # An event has the rank of the moments that are not after it: before moment m, at most m.
    width = len(moments) + 1
    rank = moments.search_sorted(log.events[TIME], side="right").to_numpy().astype(np.int64)
    key = users.index_of(log.events[USER]).to_numpy() * width + rank
    known = user != UNKNOWN
    moment = moments.search_sorted(rows[AS_OF], side="left").to_numpy().astype(np.int64)
    starts = np.where(known, np.searchsorted(key, user * width), 0)
    ends = np.where(known, np.searchsorted(key, user * width + moment, side="right"), 0)
    some = ends > starts
    latest = log.events[TIME][ends[some] - 1]
    assert (latest < rows[AS_OF].filter(some)).all(), "a span reaches its moment"
    return starts, ends


def drawn(rows: pl.DataFrame, most: Mapping[str, int], *, option: str, seed: int) -> pl.DataFrame:
    """Rows in their order; of a phase with more than it may have, as many by chance.

    Args:
        rows: with `phase`.
        most: by the name of the phase.
        option: that gave `most`, for errors.
        seed: of the draw.

    Raises:
        ConfigError: a phase that there is not, or fewer than one row of it.
    """
    for phase, count in most.items():
        if phase not in PHASES:
            raise ConfigError(f"{option}.{phase} is no phase; there is {', '.join(PHASES)}")
        at_least(1, **{f"{option}.{phase}": count})
        inside = (rows[PHASE] == PHASES.index(phase)).arg_true()
        if len(inside) > count:
            left_out = inside.sample(len(inside) - count, seed=seed)
            rows = rows.filter(~pl.int_range(pl.len()).is_in(left_out.implode()))
    return rows


def folds(
    table: AsOfTable, *, num_folds: int = 5, repeats: int = 2, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Training and test rows of users that are never in both: `repeats` times `num_folds` pairs.

    Training rows are those of phase 0 of the users of the other folds; test rows are those of phase
    2, or all where there is no order in time, of the fold's users. The same rows and seed give the
    same pairs, so that predictors are compared on the same.

    Raises:
        ConfigError: fewer than 2 folds, or more than users.
    """
    num_users = len(table.users)
    if repeats and not 2 <= num_folds <= num_users:
        raise ConfigError(
            f"{table.name}: num_folds={num_folds} does not divide the {num_users} users of the "
            "table; give 2 or more, and no more than there are users"
        )
    user = table.users.index_of(table.rows[USER]).to_numpy()
    phase = table.rows[PHASE].to_numpy()
    training, test = phase == TRAIN, phase == (TEST if table.has_phases else TRAIN)
    generator = np.random.default_rng(seed)
    for _ in range(repeats):
        fold = np.empty(num_users, dtype=np.int64)
        fold[generator.permutation(num_users)] = np.arange(num_users) % num_folds
        for number in range(num_folds):
            inside = fold[user] == number
            yield (
                torch.from_numpy(np.flatnonzero(training & ~inside)),
                torch.from_numpy(np.flatnonzero(test & inside)),
            )
