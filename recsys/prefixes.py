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
from recsys.ragged import Ragged, offsets_of
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
    def of(cls, name: str, history: BasketBatch) -> Prefixes:
        """An example for every basket but a user's first, in the order of the events."""
        owners = history.owners()
        keys = torch.stack([owners, history.baskets])
        found, sizes = keys.unique_consecutive(dim=1, return_counts=True)
        starts = offsets_of(sizes)
        (asked,) = (starts[:-1] > history.offsets[found[0]]).nonzero(as_tuple=True)
        target = Ragged(history.items, starts).rows(asked).distinct(history.num_items)
        ends = starts[asked] - history.offsets[found[0, asked]]
        return cls(name, history, target, found[0, asked], ends)

    def __len__(self) -> int:
        return len(self.owners)

    def to(self, device: torch.device | str, **_: object) -> Self:
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "name"}
        return replace(self, **moved)

    def rows(self, index: Tensor) -> Part:
        """The examples at `index` (B,) int64, in that order, with histories of their own."""
        history = self.history
        starts = history.offsets[self.owners[index]]
        offsets = offsets_of(self.ends[index])
        positions = _ranges(starts, offsets)
        events = {
            name: getattr(history, name)[positions]
            for name in ("items", "baskets", "times", "quantities")
        }
        users = history.users[self.owners[index]]
        before = replace(history, **events, offsets=offsets, users=users)
        return Part(self.name, before, self.target.rows(index))


def _ranges(starts: Tensor, offsets: Tensor) -> Tensor:
    """start, start + 1, ... for each of R rows, whose lengths the offsets (R + 1,) give."""
    total = int(offsets[-1])
    shift = (starts - offsets[:-1]).repeat_interleave(offsets.diff(), output_size=total)
    return torch.arange(total, device=starts.device) + shift
