"""Questions about users: who is asked, as of when, which answers there are and which were right.

A table of questions is what a downstream task is: of every row a user, a moment, and the answers
that were right. What may be used to answer a row is `Questions.spans`, the events of its user that
lie before its moment, and nothing else: features and models take a user's history from there.

Two things are asserted, so that a figure cannot rest on what was not known yet: every event of a
span lies before its moment, and the answer of every training row was known at the moment at which
the first validation and test rows are asked.

Shapes: R rows, C candidates, E events of the log, n items.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError, DataError, LeakError
from recsys.log.event_log import TIME, USER, EventLog
from recsys.log.hashing import fingerprint
from recsys.log.vocabulary import UNKNOWN, Vocabulary
from recsys.tasks.phases import TEST, TRAIN, VALIDATION
from recsys.tasks.tensors import tensor_of

AS_OF, UNTIL, PHASE = "as_of", "until", "phase"


@dataclass(frozen=True, eq=False)
class Questions:
    """A table of questions.

    Attributes:
        name: by which its metrics are known, `kids` in `kids/auroc`.
        log: from whose events the rows are answered.
        rows: `user_id`; `as_of`, the moment, of the type of the log's timestamps; `until`, the
            moment at which the row's answer is known, null where it always was; `phase`: 0 in
            training, 1 in validation, 2 in test. A table without order in time has phase 0 alone,
            and is asked by folds of its users.
        candidates: the C answers that can be given; one for a question that is answered by yes or
            no.
        answers: (R) the candidates that are right. A row answered by yes holds [0], one answered
            by no nothing; a row of one class among many holds that class.
        excluded: (R) the candidates that are no answer to a row, such as what the user has had.
        ranked: whether candidates are ranked for a row, rather than rows by a candidate's score.
        items: (C) of each candidate the rows of `log.items` that it stands for; no values where it
            is none of items.
        memo: what others have computed of the table, by what computes it, for as long as it lives;
            another table, such as one of a log that is cut, has computed nothing yet.

    Raises:
        DataError: the parts are not of one length, or an answer is an excluded one.
        LeakError: a row's answer lies after the moment of a later phase.
    """

    name: str
    log: EventLog
    rows: pl.DataFrame
    candidates: Vocabulary
    answers: Ragged
    excluded: Ragged
    ranked: bool
    items: Ragged
    memo: dict[Hashable, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        lengths = len(self.rows), len(self.answers), len(self.excluded)
        if len(set(lengths)) > 1 or len(self.items) != len(self.candidates):
            raise DataError(
                f"{self.name}: {lengths} rows, answers and excluded of {len(self.candidates)} "
                f"candidates, {len(self.items)} with items; give each row and candidate its own"
            )
        wrong = np.isin(self._keys(self.answers), self._keys(self.excluded))
        if wrong.any():
            row = int(self.answers.owners()[int(wrong.argmax())])
            raise DataError(f"{self.name}: row {row} excludes one of its answers; leave it in")
        for phase in (VALIDATION, TEST):
            asked = self.rows.filter(pl.col(PHASE) == phase)[AS_OF].min()
            if asked is None:
                continue
            late = self.rows.filter((pl.col(PHASE) < phase) & (pl.col(UNTIL) > asked))
            if len(late):
                raise LeakError(
                    f"{self.name}: {len(late)} rows are known only at {late[UNTIL].max()!s}, after "
                    f"{asked!s}, when rows of phase {phase} are asked; end their windows before"
                )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fingerprint(self) -> str:
        """The same for the same rows, candidates and answers."""
        ragged = (self.answers, self.excluded, self.items)
        parts = [tensor for part in ragged for tensor in (part.values, part.offsets)]
        frames = [pl.DataFrame({"": tensor.numpy()}) for tensor in parts]
        return fingerprint((self.rows, self.candidates.ids.to_frame(), *frames))

    @property
    def has_phases(self) -> bool:
        """Whether training lies before test; otherwise folds of users decide."""
        return bool((self.rows[PHASE] == TEST).any())

    def phase(self, phase: int) -> Tensor:
        """(P,) int64, the rows of a phase."""
        return tensor_of((self.rows[PHASE] == phase).arg_true())

    @cached_property
    def users(self) -> Vocabulary:
        """The users that are asked."""
        return Vocabulary(self.rows[USER].unique().sort())

    @cached_property
    def known_items(self) -> pl.DataFrame:
        """`log.items` as they are described before the first row is asked that is not trained on.

        Where the log's events describe their items, later ones would tell what was not known yet.
        """
        if not self.log.item_columns:
            return self.log.items
        asked = self.rows.filter(pl.col(PHASE) > TRAIN) if self.has_phases else self.rows
        return before(self.log, asked[AS_OF].min()).items

    def user_of(self, rows: Tensor) -> Tensor:
        """(B,) int64, the place among `users` of who is asked in the rows (B,)."""
        return tensor_of(self.users.index_of(self.rows[USER][rows.numpy()]))

    def labels(self, rows: Tensor) -> Tensor:
        """(B, C) bool, which candidates are right for the rows (B,)."""
        return self.answers.rows(rows).dense(len(self.candidates))

    def allowed(self, rows: Tensor) -> Tensor:
        """(B, C) bool, which candidates the rows (B,) do not exclude."""
        return ~self.excluded.rows(rows).dense(len(self.candidates))

    def spans(self) -> tuple[Tensor, Tensor]:
        """Where the events of each row's user before its moment begin and end.

        Returns:
            starts, ends: (R,) int64 positions in `log.events`; equal for a user without any.
        """
        starts, ends = spans(self.log, self.rows)
        return torch.from_numpy(starts), torch.from_numpy(ends)

    def _keys(self, ragged: Ragged) -> np.ndarray:
        return (ragged.owners() * len(self.candidates) + ragged.values).numpy()


def before(log: EventLog, moment: Any) -> EventLog:
    """The log up to a moment; the rows of its tables of items and users stay.

    Items that the log's events describe are described by those that are left.
    """
    return replace(log, events=log.events.filter(pl.col(TIME) < moment))


def spans(log: EventLog, rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """As `Questions.spans`, for any rows with `user_id` and `as_of`."""
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


def folds(
    questions: Questions, *, num_folds: int = 5, repeats: int = 2, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Training and test rows of users that are never in both: `repeats` times `num_folds` pairs.

    Training rows are those of phase 0 of the users of the other folds; test rows are those of phase
    2, or all where there is no order in time, of the fold's users. The same questions and seed give
    the same pairs, so that predictors are compared on the same.

    Raises:
        ConfigError: fewer than 2 folds, or more than users.
    """
    num_users = len(questions.users)
    if repeats and not 2 <= num_folds <= num_users:
        raise ConfigError(
            f"{questions.name}: num_folds={num_folds} does not divide the {num_users} users asked; "
            "give 2 or more, and no more than there are users"
        )
    user = questions.users.index_of(questions.rows[USER]).to_numpy()
    phase = questions.rows[PHASE].to_numpy()
    training, asked = phase == TRAIN, phase == (TEST if questions.has_phases else TRAIN)
    generator = np.random.default_rng(seed)
    for _ in range(repeats):
        fold = np.empty(num_users, dtype=np.int64)
        fold[generator.permutation(num_users)] = np.arange(num_users) % num_folds
        for number in range(num_folds):
            inside = fold[user] == number
            yield (
                torch.from_numpy(np.flatnonzero(training & ~inside)),
                torch.from_numpy(np.flatnonzero(asked & inside)),
            )
