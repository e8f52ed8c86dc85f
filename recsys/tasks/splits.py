"""Splits: what is known when a model is trained, when it is tuned and when it is tested.

Every split puts two marks on an event. `phase` says from when it may be seen: 0 in training, 1 when
the validation targets are predicted, 2 when the test targets are. `target` says that it is to be
predicted at its phase; afterwards it is history. So in phase p

    target of a user  =  events with phase == p and target
    history of a user =  events with phase <  p, and those with phase == p that are no target.

A model is fitted on phase 0 alone. In training the last basket of a user is the target of those
before it. Events after the last target (phase 3) are seen by no phase.

A basket is a run of one `basket_id` among a user's events, which are in order of time: an id that
comes again after another is another basket. `global_time` ends every basket at its two starts.

The catalogue is every item with an event in the log, ordered by id: an item first seen after
training is a candidate like any other and counts as missed where a model cannot rank it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys import ranks
from recsys.batch.examples import Part, Prefixes
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import (
    BASKET,
    ITEM,
    QUANTITY,
    TIME,
    USER,
    VALUE,
    EventLog,
    described_by_events,
    runs,
)
from recsys.log.time import Moment, moment
from recsys.log.vocabulary import Vocabulary
from recsys.ranges import proper_share
from recsys.summary import Summarised
from recsys.tasks.phases import PHASES, TEST, TRAIN, VALIDATION
from recsys.tasks.tensors import tensor_of


@dataclass(frozen=True, eq=False, repr=False)
class Split(Summarised):
    """A log with its phases.

    Attributes:
        log: the log that was split, for the attributes of its items and users.
        users, items: ids by index.
        events: `user, item, basket, time, quantity, value, log_row, phase, target`, one row per
            user, basket and item (quantities and values summed), ordered by user and time. `time`
            is in seconds or ordinal and `log_row` a row of `log.events`, of the first such event.
        every_step: whether each validation and test target is a row of its own, whose history is
            all that its user did before it; otherwise a user's targets are one row.
    """

    log: EventLog
    users: Vocabulary
    items: Vocabulary
    events: pl.DataFrame
    every_step: bool = False

    @property
    def num_items(self) -> int:
        return len(self.items)

    def summary(self) -> dict[str, object]:
        """Of users as many as have a target in each phase."""
        phase, user = pl.col("phase"), pl.col("user")
        counts = self.events.filter("target").group_by(phase).agg(user.n_unique()).rows()
        of_phase = dict(counts)
        parts = {f"{name} users": of_phase.get(n, 0) for n, name in enumerate(PHASES)}
        return {"log": self.log.name, "users": len(self.users), "items": self.num_items, **parts}

    @cached_property
    def train(self) -> Part:
        return self._part(TRAIN)

    @cached_property
    def validation(self) -> Part:
        return self._part(VALIDATION)

    @cached_property
    def test(self) -> Part:
        return self._part(TEST)

    @cached_property
    def training(self) -> BasketBatch:
        """All training events of the training users, their last basket too."""
        return self._batch(self.events["phase"] == TRAIN)

    @cached_property
    def popularity(self) -> Tensor:
        """(n,) int64, the training events of each item, on all ranks."""
        return self.total(torch.bincount(self.training.items, minlength=self.num_items))

    def total(self, values: Tensor) -> Tensor:
        """What the values here are together with those of ranks that have other users."""
        return ranks.total(values) if self.log.by_rank else values

    def counts(self, numbers: list[int]) -> list[int]:
        """The same of numbers of users or events."""
        return ranks.counts(numbers) if self.log.by_rank else numbers

    @cached_property
    def training_ends(self) -> Tensor:
        """(U,) int64, for each user of `training` the log's row of the last training event."""
        users = self.users.index_of(self.log.events[USER]).to_numpy()
        ends = np.bincount(users, minlength=len(self.users)).cumsum()
        later = self.events.filter(pl.col("phase") != TRAIN).group_by("user")
        first = later.agg(pl.col("log_row").min())
        ends[first["user"].to_numpy()] = first["log_row"].to_numpy()
        return torch.from_numpy(ends)[self.training.users] - 1

    @property
    def trained_until(self) -> int:
        """The time of the last event that `training` holds, as `BasketBatch.times` counts."""
        return int(_as_seconds(self.log.events[TIME][self.training_ends.numpy()]).max())  # type: ignore[arg-type]

    @cached_property
    def latest(self) -> BasketBatch:
        """All events of all users, for recommendations after the end of the log."""
        return self._batch()

    @cached_property
    def item_table(self) -> pl.DataFrame:
        """A row per item index: the attributes of the catalogue.

        Attributes that come from events (`item_columns`) are those of training events. An item
        without a training event has nulls there.
        """
        order = self.items.ids.rename(ITEM).to_frame()
        table = order.join(self.log.items, on=ITEM, how="left", maintain_order="left")
        if not self.log.item_columns:
            return table
        training_events = self.log.events.filter(self._phases_of_log() == TRAIN)
        return described_by_events(table, training_events, self.log.item_columns)

    @cached_property
    def num_classes(self) -> dict[str, int]:
        """How many values each column of the items takes, lists left out."""
        columns = [c for c, kind in self.item_table.schema.items() if not kind.is_nested()]
        counts = self.item_table.select(pl.col(columns).drop_nulls().n_unique()).row(0, named=True)
        return {name: int(count) for name, count in counts.items()}

    def window(self, phase: int) -> tuple[BasketBatch, Tensor]:
        """The events of a phase's users up to the next phase, and which of them are new.

        Args:
            phase: 1 in validation, 2 in test.

        Returns:
            the events of U users, and (E,) bool, true from the user's first target of the phase on.
        """
        phases, is_target = self.events["phase"], self.events["target"]
        is_now = phases == phase
        users = self.events["user"].filter(is_now & is_target).unique(maintain_order=True)
        is_theirs = self.events["user"].is_in(users.implode())
        is_new = is_theirs & ((is_now & is_target) | ((phases == phase + 1) & ~is_target))
        is_included = is_new | (is_theirs & ((phases < phase) | (is_now & ~is_target)))
        return self._batch(is_included, users), tensor_of(is_new.filter(is_included))

    def _phases_of_log(self) -> pl.Series:
        """The phase of every row of `log.events`: a basket's rows stand together and share it."""
        begins, _ = _stretches(self.events["user"], self.events["basket"])
        rows = np.diff(self.events["log_row"].to_numpy()[begins], append=self.log.num_events)
        return pl.Series(np.repeat(self.events["phase"].to_numpy()[begins], rows))

    def _part(self, phase: int) -> Part:
        if self.every_step and phase != TRAIN:
            return self._steps(phase)
        phases, is_target = self.events["phase"], self.events["target"]
        targets = self.events.select("user", "item").filter((phases == phase) & is_target)
        users = targets["user"].unique(maintain_order=True)
        has_target = np.zeros(len(self.users), dtype=bool)
        has_target[users.to_numpy()] = True
        is_history = (phases < phase) | ((phases == phase) & ~is_target)
        is_history &= pl.Series(has_target[self.events["user"].to_numpy()])
        target = Ragged(tensor_of(targets["item"]), _offsets(targets["user"], users))
        history = self._batch(is_history, users)
        target = target.distinct(self.num_items)
        return Part(PHASES[phase], history, target, by_rank=self.log.by_rank)

    def _steps(self, phase: int) -> Prefixes:
        """Each target of a phase after everything that its user did before it."""
        is_target = (self.events["phase"] == phase) & self.events["target"]
        users = self.events["user"].filter(is_target).unique(maintain_order=True)
        seen = (self.events["phase"] <= phase) & self.events["user"].is_in(users.implode())
        history = self._batch(seen, users)
        steps = Prefixes.of_events(PHASES[phase], history, tensor_of(is_target.filter(seen)))
        return replace(steps, by_rank=self.log.by_rank)

    def _batch(self, which: pl.Series | None = None, users: pl.Series | None = None) -> BasketBatch:
        """The events at `which`, of the `users` given or of those with such an event."""
        columns = self.events.drop("phase", "target")
        events = columns if which is None else columns.filter(which)
        users = events["user"].unique(maintain_order=True) if users is None else users
        return BasketBatch(
            items=tensor_of(events["item"]),
            baskets=tensor_of(events["basket"]),
            times=tensor_of(events["time"]),
            quantities=tensor_of(events["quantity"]),
            values=tensor_of(events["value"]),
            log_rows=tensor_of(events["log_row"]),
            offsets=_offsets(events["user"], users),
            users=tensor_of(users),
            num_items=self.num_items,
        )


def unsplit(log: EventLog) -> BasketBatch:
    """All events of a log as they stand in it, users in the order of `log.users`.

    Items are rows of `log.items`, which may hold some without events. An item that is named twice
    in a basket stands there twice, as in the log.
    """
    users = Vocabulary(log.users[USER])
    frame = _indexed(log, users, Vocabulary(log.items[ITEM]))
    numbers = np.arange(len(frame))
    if BASKET in log.events.columns:
        numbers = runs(frame["user"], log.events[BASKET]).to_numpy().copy()
    return BasketBatch(
        items=tensor_of(frame["item"]),
        baskets=tensor_of(within_user(numbers, frame["user"])),
        times=tensor_of(frame["time"]),
        quantities=tensor_of(frame["quantity"]),
        values=tensor_of(frame["value"]),
        log_rows=torch.arange(log.num_events),
        offsets=_offsets(frame["user"], pl.int_range(len(users), eager=True)),
        users=torch.arange(len(users)),
        num_items=len(log.items),
    )


def all_training(log: EventLog, items: Vocabulary) -> Split:
    """Everything is training, and the catalogue is that of another log: no user is tested.

    Args:
        log: whose items are among those of the catalogue.
        items: the catalogue.

    >>> rows = {"user_id": [1, 2], "item_id": [7, 9], "timestamp": [1, 2]}
    >>> items = Vocabulary(pl.Series([7, 8, 9]))
    >>> split = all_training(EventLog.from_frames(pl.DataFrame(rows)), items)
    >>> split.training.items.tolist(), split.num_items
    ([0, 2], 3)
    """
    users = Vocabulary(log.users[USER])
    frame = _indexed(log, users, items)
    if BASKET in log.events.columns:
        frame = _with_baskets(frame, runs(frame["user"], log.events[BASKET]))
    else:
        frame = frame.with_columns(basket=within_user(np.arange(len(frame)), frame["user"]))
    return Split(log, users, items, _trained_on(frame))


def whole(split: Split) -> Split:
    """The same log and catalogue, all of whose events are training: nothing is left to be asked.

    For a model that is to be used, after its settings have been chosen on the split itself.

    >>> split = last_basket(checkerboard())
    >>> len(whole(split).training.items) == len(split.latest.items) > len(split.training.items)
    True
    >>> len(whole(split).validation), len(whole(split).test)
    (0, 0)
    """
    return replace(split, events=_trained_on(split.events.drop("phase", "target")))


def _trained_on(frame: pl.DataFrame) -> pl.DataFrame:
    """All events are training, and the last basket of each user is the target of the others."""
    basket = frame["basket"].to_numpy()
    is_target = (basket == of_last_row(basket, frame["user"])) & (basket > 0)
    phase = pl.lit(TRAIN, dtype=pl.UInt8)
    return frame.with_columns(phase=phase, target=pl.Series(is_target))


def leave_last_out(log: EventLog) -> Split:
    """Per user the last event is the test target, the one before it the validation target.

    Users with fewer than three events are training users only. The test history holds the
    validation event. Events after another user's target may be in training: the protocol of
    sequential recommendation, which `global_time` does not share.

    >>> rows = {"user_id": [1, 2] * 4, "item_id": [5, 5, 6, 6, 7, 7, 8, 8], "timestamp": range(8)}
    >>> split = leave_last_out(EventLog.from_frames(pl.DataFrame(rows)))
    >>> split.items.ids_of(pl.Series(split.test.target.values.numpy())).to_list()
    [8, 8]
    >>> split.test.history.lengths().tolist(), split.training.lengths().tolist()
    ([3, 3], [2, 2])
    """
    return _leave_last(log, by_basket=False)


def last_basket(log: EventLog) -> Split:
    """As `leave_last_out`, with whole baskets."""
    return _leave_last(log, by_basket=True)


def last_share(log: EventLog, *, test_share: float = 0.2, validation_share: float = 0.1) -> Split:
    """Per user the last events are test targets, each by itself, those before them validation's.

    Every target is a row whose history is all that its user did before it, earlier targets too. Of
    T events of a user the first (1 - test_share) T, rounded down, come before the test, and the
    first (1 - test_share - validation_share) T before validation; a user's first event is always
    training. As in `leave_last_out`, events after another user's target may be in training.

    Args:
        log: any.
        test_share, validation_share: of a user's events.

    Raises:
        ConfigError: shares that are none, or leave nothing to train on.
        DataError: they leave a part empty.

    >>> rows = {"user_id": [1] * 5 + [2] * 5, "item_id": list(range(5)) * 2, "timestamp": range(10)}
    >>> split = last_share(
    ...     EventLog.from_frames(pl.DataFrame(rows)), test_share=0.4, validation_share=0.2
    ... )
    >>> split.test.target.values.tolist(), split.training.lengths().tolist()
    ([3, 4, 3, 4], [2, 2])
    >>> split.test.rows(torch.tensor([1])).history.items.tolist()
    [0, 1, 2, 3]
    """
    proper_share(test_share=test_share, validation_share=validation_share)
    if test_share + validation_share >= 1:
        raise ConfigError(
            f"test_share={test_share} and validation_share={validation_share} leave nothing to "
            "train on; lower them"
        )
    frame, users, items = _encoded(log, by_basket=False)
    place, (_, lengths) = frame["basket"].to_numpy(), _stretches(frame["user"])
    count = np.repeat(lengths, lengths)
    before_test, before_validation = (
        np.floor(np.round(count * (1 - share), 6))  # .7 of 10 is 7, not 6.999…
        for share in (test_share, test_share + validation_share)
    )
    phase = np.where(
        place >= before_test, TEST, np.where(place >= before_validation, VALIDATION, TRAIN)
    )
    phase[place == 0] = TRAIN
    last_in_training = place == np.maximum(before_validation, 1) - 1
    target = (phase != TRAIN) | (last_in_training & (place > 0))
    frame = frame.with_columns(phase=pl.Series(phase.astype(np.uint8)), target=pl.Series(target))
    return checked(Split(log, users, items, frame, every_step=True))


def user_holdout(log: EventLog, *, column: str = "split") -> Split:
    """Users are divided; of each the last basket is the target of those before it.

    Args:
        log: `log.users` holds `column` with `train`, `validation` or `test` for every user.
        column: its name.

    Raises:
        DataError: no such column, another value in it, or a part without users.

    >>> rows = {"user_id": [1, 1, 2, 2, 3, 3], "item_id": [5, 6] * 3, "timestamp": [1, 2] * 3}
    >>> users = pl.DataFrame({"user_id": [1, 2, 3], "split": ["train", "validation", "test"]})
    >>> split = user_holdout(EventLog.from_frames(pl.DataFrame(rows), users=users))
    >>> split.test.history.users.tolist(), split.training.users.tolist()
    ([2], [0])
    """
    if column not in log.users.columns:
        raise DataError(
            f"{log.name}: users have no column {column!r}; user_holdout needs train, validation "
            "or test for every user"
        )
    values = set(log.users[column].unique())
    if values != set(PHASES):
        raise DataError(
            f"{log.name}: users.{column} holds {sorted(map(str, values))}; expected {list(PHASES)}"
        )
    number = pl.col(column).replace_strict(PHASES, [TRAIN, VALIDATION, TEST], return_dtype=pl.UInt8)
    phase = log.users.select(USER, phase=number)
    frame, users, items = _encoded(log)
    phases = users.ids.rename(USER).to_frame().join(phase, on=USER, maintain_order="left")["phase"]
    last = of_last_row(frame["basket"].to_numpy(), frame["user"])
    is_last = pl.Series((frame["basket"].to_numpy() == last) & (last > 0))
    frame = frame.with_columns(phase=phases.gather(frame["user"]), target=is_last)
    return checked(Split(log, users, items, frame))


def global_time(
    log: EventLog,
    *,
    validation_start: Moment,
    test_start: Moment,
    test_end: Moment | None = None,
) -> Split:
    """Training ends at `validation_start`; nothing that is learnt or known lies after the target.

    The target of a user is the first basket in [validation_start, test_start) and the first basket
    from `test_start` on; only users with an earlier history have one. Later baskets of the
    validation window are history in the test. What of a basket lies before a start and what lies
    after it are two baskets.

    Args:
        log: any.
        validation_start, test_start: times, or ISO 8601 text, in the log's time zone where they
            name none; integers for a log that knows only an order.
        test_end: where the log ends for this split: later events, and who and what has no earlier
            one, are as if they were not there. None is the end of the log.

    Raises:
        ConfigError: the starts are not of the log's kind, or not in order.
        DataError: they leave a part empty.

    >>> rows = {"user_id": [1, 1, 1, 2, 2, 2], "item_id": [7] * 6, "timestamp": [1, 2, 9, 1, 2, 5]}
    >>> log = EventLog.from_frames(pl.DataFrame(rows))
    >>> split = global_time(log, validation_start=4, test_start=8)
    >>> split.validation.history.users.tolist(), split.test.history.users.tolist()
    ([1], [0])
    """
    starts = pl.concat(
        moment(log, name, start)
        for name, start in (("validation_start", validation_start), ("test_start", test_start))
    )
    if starts[0] >= starts[1]:
        raise ConfigError(
            f"test_start={test_start} must lie after validation_start={validation_start}"
        )
    if test_end is not None:
        end = moment(log, "test_end", test_end)
        if end[0] <= starts[1]:
            raise ConfigError(f"test_end={test_end} must lie after test_start={test_start}")
        log = _until(log, end[0])
    window_of = starts.search_sorted(log.events[TIME], side="right")
    frame, users, items = _encoded(log, ends=window_of)
    begins, lengths = _stretches(frame["user"], frame["basket"])
    user, basket, row = (frame[c].to_numpy()[begins] for c in ("user", "basket", "log_row"))
    window = window_of.to_numpy()[row]
    first, count = _stretches(pl.Series(user), pl.Series(window))
    # In training the last basket is the target, later on the first; the log's first never is.
    target_basket = np.where(window[first] == TRAIN, basket[first + count - 1], basket[first])
    is_target = (basket > 0) & (basket == np.repeat(target_basket, count))
    phase = np.where((window == TRAIN) | is_target, window, window + 1).astype(np.uint8)
    frame = frame.with_columns(
        phase=pl.Series(np.repeat(phase, lengths)), target=pl.Series(np.repeat(is_target, lengths))
    )
    return checked(Split(log, users, items, frame))


def _until(log: EventLog, end: Any) -> EventLog:
    """The log as it was at a moment: its events before it, and their users and items."""
    events = log.events.filter(pl.col(TIME) < end)
    users = log.users.join(events, on=USER, how="semi", maintain_order="left")
    items = log.items.join(events, on=ITEM, how="semi", maintain_order="left")
    return replace(log, events=events, users=users, items=items)


def _leave_last(log: EventLog, *, by_basket: bool) -> Split:
    frame, users, items = _encoded(log, by_basket=by_basket)
    basket = frame["basket"].to_numpy()
    last = of_last_row(basket, frame["user"])
    enough, from_end = last >= 2, np.subtract(last, basket, out=last)
    # Bytes, not wide integers: on long logs the time goes into memory.
    test, validation = enough & (from_end == 0), enough & (from_end == 1)
    phase = TEST * test.view(np.uint8) + VALIDATION * validation.view(np.uint8)
    last_in_training = (enough & (from_end == 2)) | (~enough & (from_end == 0))
    target = test | validation | (last_in_training & (basket > 0))
    frame = frame.with_columns(phase=pl.Series(phase), target=pl.Series(target))
    return checked(Split(log, users, items, frame))


def _encoded(
    log: EventLog, *, by_basket: bool = True, ends: pl.Series | None = None
) -> tuple[pl.DataFrame, Vocabulary, Vocabulary]:
    """Events by index, with baskets numbered from 0 within their user.

    Baskets end where the log's `basket_id` changes, and where the values `ends` of its rows do.
    """
    users, items = Vocabulary(log.users[USER]), Vocabulary(log.items[ITEM])
    if log.whole is None:  # else they have events on some rank
        ids = log.events.select(pl.col(ITEM).unique())
        items = Vocabulary(log.items.join(ids, on=ITEM, how="semi", maintain_order="left")[ITEM])
    frame = _indexed(log, users, items)
    if by_basket and BASKET in log.events.columns:
        keys = [log.events[BASKET]] if ends is None else [log.events[BASKET], ends]
        frame = _with_baskets(frame, runs(frame["user"], *keys))
    else:
        frame = frame.with_columns(basket=within_user(np.arange(len(frame)), frame["user"]))
    return frame, users, items


def _indexed(log: EventLog, users: Vocabulary, items: Vocabulary) -> pl.DataFrame:
    """`user, item, time, log_row, quantity, value` of every event."""
    time = log.events[TIME]
    quantity = log.events[QUANTITY].cast(pl.Float32) if QUANTITY in log.events.columns else 1.0
    value: pl.Series | float = float("nan")
    if VALUE in log.events.columns and log.events[VALUE].dtype.is_numeric():
        value = log.events[VALUE].cast(pl.Float32).fill_null(float("nan"))
    return pl.DataFrame(
        {
            "user": users.index_of(log.events[USER]),
            "item": items.index_of(log.events[ITEM]),
            "time": _as_seconds(time),
            "log_row": pl.int_range(log.num_events, eager=True),
        }
    ).with_columns(
        pl.lit(quantity, dtype=pl.Float32).alias("quantity"),
        pl.lit(value, dtype=pl.Float32).alias("value"),
    )


def _as_seconds(time: pl.Series) -> pl.Series:
    """Seconds since 1970, or the places in the order."""
    return time.dt.epoch("s") if time.dtype.is_temporal() else time


def _stretches(*columns: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Where the stretches of rows begin in which no column changes, and their lengths."""
    changes = [column.to_numpy()[1:] != column.to_numpy()[:-1] for column in columns]
    begins = np.flatnonzero(np.concatenate([[True], np.any(changes, axis=0)]))
    return begins, np.diff(begins, append=len(columns[0]))


def of_last_row(values: np.ndarray, user: pl.Series) -> np.ndarray:
    """For every row, the value in the last row of its user."""
    begins, lengths = _stretches(user)
    return np.repeat(values[begins + lengths - 1], lengths)


def within_user(numbers: np.ndarray, user: pl.Series) -> pl.Series:
    """Rising numbers, counted from 0 within their user."""
    begins, lengths = _stretches(user)
    first = np.repeat(numbers[begins], lengths)
    return pl.Series(np.subtract(numbers, first, out=first))


def _with_baskets(frame: pl.DataFrame, run: pl.Series) -> pl.DataFrame:
    """Baskets numbered within their user, and an item once a basket with its quantities summed."""
    row = run * (frame["item"].max() + 1) + frame["item"]  # type: ignore[operator]
    frame = frame.with_columns(basket=within_user(run.to_numpy(), frame["user"]))
    if row.n_unique() == len(row):
        return frame
    return frame.group_by("user", "basket", "item", maintain_order=True).agg(
        pl.col("time", "log_row").first(), pl.col("quantity", "value").sum()
    )


def checked(split: Split) -> Split:
    """The split itself.

    Raises:
        DataError: a phase has no targets.
    """
    targets = split.events.select(pl.col("phase").filter("target"))["phase"]
    phases = ((TRAIN, "training"), (VALIDATION, "validation"), (TEST, "test"))
    counts = split.counts([int((targets == phase).sum()) for phase, _ in phases])
    for (_, name), count in zip(phases, counts, strict=True):
        if not count:
            raise DataError(
                f"{split.log.name}: no user is left for {name}; the log is too short for this split"
            )
    return split


def _offsets(owner: pl.Series, users: pl.Series) -> Tensor:
    """Offsets of the events of `users`, both ascending; users without events have an empty row."""
    begins = owner.search_sorted(users, side="left").to_numpy()
    return torch.from_numpy(np.append(begins, len(owner)).astype(np.int64))
