"""Every basket of a user as the target of those before it, without copies of the histories.

A user of T baskets is T - 1 training examples. They share the user's events: an example is where
its history begins and ends among them, and a batch is gathered by index arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from recsys.batch import BasketBatch
from recsys.ragged import Ragged, ranges
from recsys.splits import Part


@dataclass(frozen=True, eq=False)
class Prefixes(Part):
    """R examples of the same or fewer users.

    Attributes:
        history: all baskets of the users.
        target: R rows, the items of the baskets that are predicted.
        owners: (R,) int64, the row of `history` that an example is of.
        ends: (R,) int64, how many of that row's events come before the target.
    """

    owners: Tensor
    ends: Tensor

    @classmethod
    def of(cls, name: str, history: BasketBatch, *, last: int | None = None) -> Prefixes:
        """An example for every basket but a user's first, in the order of the events.

        Args:
            name, history: as of `Part`.
            last: only for so many of a user's last baskets.
        """
        _, begins = history.basket_rows()
        owners = history.owners()[begins[:-1]]
        before = begins[:-1] - history.offsets[owners]
        wanted = before > 0
        if last is not None:
            wanted &= history.baskets[begins[:-1]] >= (history.num_baskets() - last)[owners]
        (asked,) = wanted.nonzero(as_tuple=True)
        target = Ragged(history.items, begins).rows(asked).distinct(history.num_items)
        return cls(name, history, target, owners[asked], before[asked])

    def __len__(self) -> int:
        return len(self.owners)

    def to(self, device: torch.device | str, **_: object) -> Self:
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "name"}
        return replace(self, **moved)

    def rows(self, index: Tensor) -> Part:
        """The examples at `index` (B,) int64, in that order, with histories of their own."""
        history, owners = self.history, self.owners[index]
        events, offsets = ranges(history.offsets[owners], self.ends[index])
        before = history.take(events, offsets, history.users[owners])
        return Part(self.name, before, self.target.rows(index))
