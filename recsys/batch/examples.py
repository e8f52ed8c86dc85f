"""Examples: histories with their targets.

In `Prefixes` every basket of a user is the target of those before it, without copies of the
histories. A user of T baskets is T - 1 training examples. They share the user's events: an example
is where its history begins and ends among them, and a batch is gathered by index arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, ranges

_PLAIN = ("name", "by_rank", "max_events")  # fields that are on no device


@dataclass(frozen=True, eq=False)
class Part:
    """A set of examples: histories with their targets.

    Attributes:
        name: `train`, `validation` or `test`.
        history: what is known of U users; `history.users` says who they are.
        target: U rows of distinct item indices, ascending.
        by_rank: whether other ranks have the rows of other users.

    >>> history = BasketBatch.from_lists([[[0], [1]], [[2]]], num_items=3)
    >>> part = Part("test", history, Ragged.from_lists([[2], [0, 1]]))
    >>> part.rows(torch.tensor([1])).target.values.tolist()
    [0, 1]
    """

    name: str
    history: BasketBatch
    target: Ragged
    by_rank: bool = field(default=False, kw_only=True)

    def __len__(self) -> int:
        return len(self.history)

    @property
    def users(self) -> Tensor:
        """(R,) int64, the user of each row."""
        return self.history.users

    def to(self, device: torch.device | str, **_: object) -> Part:
        """The same tensors on `device`; further options that Lightning passes have no use here."""
        history, target = self.history.to(device), self.target.to(device)
        return Part(self.name, history, target, by_rank=self.by_rank)

    def rows(self, index: Tensor) -> Part:
        """The users at `index` (B,) int64, in that order."""
        return Part(self.name, self.history.rows(index), self.target.rows(index))

    def last_of_users(self) -> Part:
        """One row a user: the last."""
        return self


@dataclass(frozen=True, eq=False)
class Prefixes(Part):
    """R examples of the same or fewer users.

    Attributes:
        history: all baskets of the users.
        target: R rows, the items of the baskets that are predicted.
        owners: (R,) int64, the row of `history` that an example is of.
        ends: (R,) int64, how many of that row's events come before the target.
        max_events: of these, the last so many are an example's history; None: all.
    """

    owners: Tensor
    ends: Tensor
    max_events: int | None = None

    @classmethod
    def of(
        cls,
        name: str,
        history: BasketBatch,
        *,
        last: int | None = None,
        max_events: int | None = None,
    ) -> Prefixes:
        """An example for every basket but a user's first, in the order of the events.

        Args:
            name, history: as of `Part`.
            last: only for so many of a user's last baskets.
            max_events: the last so many events before the target are an example's history.

        >>> history = BasketBatch.from_lists([[[0], [1], [2]]], num_items=3)
        >>> examples = Prefixes.of("train", history)
        >>> batch = examples.rows(torch.arange(len(examples)))
        >>> batch.history.items.split(batch.history.lengths().tolist())
        (tensor([0]), tensor([0, 1]))
        >>> batch.target.values.tolist()
        [1, 2]
        """
        _, begins = history.basket_rows()
        owners = history.owners()[begins[:-1]]
        before = begins[:-1] - history.offsets[owners]
        is_target = before > 0
        if last is not None:
            is_target &= history.baskets[begins[:-1]] >= (history.num_baskets() - last)[owners]
        (baskets,) = is_target.nonzero(as_tuple=True)
        target = Ragged(history.items, begins).rows(baskets).distinct(history.num_items)
        return cls(name, history, target, owners[baskets], before[baskets], max_events)

    @classmethod
    def of_events(
        cls, name: str, history: BasketBatch, is_target: Tensor, *, max_events: int | None = None
    ) -> Prefixes:
        """The events at `is_target` (E,) bool, each as the target of all of its user's before it.

        Args:
            name: of the part.
            history: the events of U users.
            is_target: which of them.
            max_events: the last so many events before the target are an example's history.

        >>> history = BasketBatch.from_lists([[[0], [1], [2]]], num_items=3)
        >>> steps = Prefixes.of_events("test", history, torch.tensor([False, True, True]))
        >>> steps.rows(torch.tensor([1])).history.items.tolist(), steps.target.values.tolist()
        ([0, 1], [1, 2])
        """
        (events,) = is_target.nonzero(as_tuple=True)
        owners = history.owners()[events]
        target = Ragged(history.items[events], torch.arange(len(events) + 1))
        return cls(name, history, target, owners, events - history.offsets[owners], max_events)

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def users(self) -> Tensor:
        return self.history.users[self.owners]

    def to(self, device: torch.device | str, **_: object) -> Self:
        moving = [f.name for f in fields(self) if f.name not in _PLAIN]
        return replace(self, **{name: getattr(self, name).to(device) for name in moving})

    def rows(self, index: Tensor) -> Part:
        """The examples at `index` (B,) int64, in that order, with histories of their own."""
        history, owners, ends = self.history, self.owners[index], self.ends[index]
        # One more than are wanted: `latest` sees by it that a history goes on.
        lengths = ends if self.max_events is None else ends.clamp(max=self.max_events + 1)
        events, offsets = ranges(history.offsets[owners] + ends - lengths, lengths)
        before = history.take(events, offsets, history.users[owners])
        if self.max_events is not None:
            before = before.latest(self.max_events)
        return Part(self.name, before, self.target.rows(index))

    def last_of_users(self) -> Part:
        ends = torch.bincount(self.owners, minlength=len(self.history)).cumsum(0)
        # Who has no row ends where the one before does, and nobody's row is before the first.
        return self.rows(ends[ends > 0].unique() - 1)
