"""The forms in which histories reach a model: ragged baskets, padded sequences, dense counts.

`BasketBatch` holds everything: all users of a split are one, and a batch is a few of its rows,
gathered by index arithmetic on the device where the tensors live. Sequences and counts are laid
out from it when a model asks. A log without baskets is one where every basket holds one event.

Shapes: B users, E events in all, L positions, n items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from recsys import ranks
from recsys.batch.bounds import check_index, check_offsets, check_tensor
from recsys.batch.ragged import Ragged, gather_positions, offsets_of, ranges

_EVENTS_AT_ONCE = 2**22  # that are checked: what that takes stays small beside them
_LATEST = 2**62  # seconds: shifted by a time zone, it still is a number of 64 bits


@dataclass(frozen=True, eq=False)
class BasketBatch:
    """Histories of B users, each a sequence of baskets, as flat tensors and offsets.

    Attributes:
        items: (E,) int64 item indices, oldest first within a user.
        baskets: (E,) int64, the number of an event's basket within its user, from 0 in time order.
        times: (E,) int64, seconds since 1970, or the place in the order where a log knows no time.
        quantities: (E,) float32, 1 where the log has none.
        values: (E,) float32, what an event was worth, money or a rating; NaN where that is unknown.
        log_rows: (E,) int64, an event's row in the log, -1 for one that is in none.
        offsets: (B + 1,) int64, where each user's events begin.
        users: (B,) int64 user indices, -1 for a user that the log does not know.
        num_items: n, the size of the catalogue.
    """

    items: Tensor
    baskets: Tensor
    times: Tensor
    quantities: Tensor
    values: Tensor
    log_rows: Tensor
    offsets: Tensor
    users: Tensor
    num_items: int

    @classmethod
    def from_lists(
        cls, histories: Iterable[Sequence[Sequence[int]]], num_items: int
    ) -> BasketBatch:
        """Histories of unknown users: per user a list of baskets, each a list of item indices.

        >>> batch = BasketBatch.from_lists([[[0, 2], [1]], [[2]]], num_items=3)
        >>> batch.items.tolist()
        [0, 2, 1, 2]
        >>> batch.baskets.tolist()
        [0, 0, 1, 0]
        >>> batch.offsets.tolist()
        [0, 3, 4]
        """
        rows = [[(i, t) for t, basket in enumerate(h) for i in basket] for h in histories]
        items = Ragged.from_lists([[i for i, _ in row] for row in rows])
        baskets = Ragged.from_lists([[t for _, t in row] for row in rows]).values
        return cls(
            items=items.values,
            baskets=baskets,
            times=baskets.clone(),
            quantities=torch.ones(len(baskets)),
            values=torch.full((len(baskets),), torch.nan),
            log_rows=torch.full_like(baskets, -1),
            offsets=items.offsets,
            users=torch.full((len(rows),), -1),
            num_items=num_items,
        )

    def check(self, num_users: int) -> None:
        """Refuse what cannot be the histories of all users of a log, in the order of their index.

        Args:
            num_users: of the log.

        Raises:
            ValueError: a tensor is of another type or shape, or holds what it cannot.
        """
        num_events = len(self.items)
        check_tensor("users", self.users, torch.int64, num_users)
        if not self.users.equal(torch.arange(num_users)):
            raise ValueError(f"users are not 0 .. {num_users - 1}")
        check_offsets("offsets", self.offsets, num_users, num_events)
        check_index("items", self.items, self.num_items)
        for name in ("baskets", "times", "log_rows"):
            check_tensor(name, getattr(self, name), torch.int64, num_events)
        for name in ("quantities", "values"):
            check_tensor(name, getattr(self, name), torch.float32, num_events)
        begins = torch.zeros(num_events + 1, dtype=torch.bool)
        begins[self.offsets[:-1]] = True  # an empty history's is another's, or the end
        begins = begins[:num_events]
        previous = self.baskets[:1]
        for first in range(0, num_events, _EVENTS_AT_ONCE):
            piece = slice(first, first + _EVENTS_AT_ONCE)
            self._check_events(piece, begins[piece], previous)
            previous = self.baskets[piece][-1:]

    def _check_events(self, piece: slice, begins: Tensor, previous: Tensor) -> None:
        """Check a piece: `begins` marks first events, `previous` is the basket before it."""
        baskets = self.baskets[piece]
        step = torch.cat([previous, baskets]).diff()
        if not torch.where(begins, baskets == 0, (step == 0) | (step == 1)).all():
            raise ValueError("baskets are not numbered 0, 1, … within a user")
        if not (self.times[piece].aminmax().min > -_LATEST and self.times[piece].max() < _LATEST):
            raise ValueError("times are beyond what a clock tells")
        if int(self.log_rows[piece].min()) < -1:
            raise ValueError("log_rows holds less than -1")
        quantities = self.quantities[piece]
        if not (quantities.isfinite() & (quantities >= 0)).all():
            raise ValueError("quantities hold what is no amount")

    def __len__(self) -> int:
        return len(self.users)

    @property
    def device(self) -> torch.device:
        return self.items.device

    @property
    def ragged(self) -> Ragged:
        """Items by user."""
        return Ragged(self.items, self.offsets)

    def to(self, device: torch.device | str, **_: object) -> Self:
        """The same tensors on `device`; further options that Lightning passes have no use here."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "num_items"}
        return replace(self, **{name: tensor.to(device) for name, tensor in moved.items()})

    def rows(self, index: Tensor) -> Self:
        """The users at `index` (B',) int64, in that order."""
        positions, offsets = gather_positions(self.offsets, index)
        return self.take(positions, offsets, self.users[index])

    def take(self, positions: Tensor, offsets: Tensor, users: Tensor) -> Self:
        """The events at `positions` (E',) int64, divided by offsets (B' + 1,) among users (B',)."""
        return replace(
            self,
            items=self.items[positions],
            baskets=self.baskets[positions],
            times=self.times[positions],
            quantities=self.quantities[positions],
            values=self.values[positions],
            log_rows=self.log_rows[positions],
            offsets=offsets,
            users=users,
        )

    def at_first_rank(self) -> Self:
        """Of histories by rank on rank 0 those of all users, in their order; no row of a log."""
        users, lengths = ranks.to_first(self.users), ranks.to_first(self.lengths())
        order = users.argsort()
        events, offsets = gather_positions(offsets_of(lengths), order)
        names = ("items", "baskets", "times", "quantities", "values")
        columns: dict[str, Any] = {
            name: ranks.to_first(getattr(self, name))[events] for name in names
        }
        log_rows = torch.full_like(columns["items"], -1)
        return replace(self, **columns, log_rows=log_rows, offsets=offsets, users=users[order])

    def where(self, keep: Tensor) -> BasketBatch:
        """The same users with the events at `keep` (E,) bool only; baskets keep their numbers."""
        lengths = torch.zeros(len(self), dtype=torch.int64, device=self.device)
        lengths.index_add_(0, self.owners()[keep], torch.ones_like(self.items[keep]))
        return replace(
            self,
            items=self.items[keep],
            baskets=self.baskets[keep],
            times=self.times[keep],
            quantities=self.quantities[keep],
            values=self.values[keep],
            log_rows=self.log_rows[keep],
            offsets=torch.nn.functional.pad(lengths.cumsum(0), (1, 0)),
        )

    def with_basket(self, items: Ragged) -> BasketBatch:
        """The same users with one more basket each, at the time of their last event.

        Args:
            items: B rows; where one is empty, the user has no further basket.

        >>> batch = BasketBatch.from_lists([[[0], [1]], []], num_items=3)
        >>> batch.with_basket(Ragged.from_lists([[2], [0, 1]])).baskets.tolist()
        [0, 1, 2, 0, 0]
        """
        items = items.to(self.device)
        owners, last = items.owners(), self.offsets[1:] - 1
        times = torch.where(
            self.lengths() > 0, torch.nn.functional.pad(self.times, (0, 1))[last], 0
        )
        more = {
            "items": items.values,
            "baskets": self.num_baskets()[owners],
            "times": times[owners],
            "quantities": torch.ones(len(owners), device=self.device),
            "values": torch.full((len(owners),), torch.nan, device=self.device),
            "log_rows": torch.full_like(owners, -1),
        }
        order = torch.cat([self.owners(), owners]).argsort(stable=True)
        columns: dict[str, Any] = {
            name: torch.cat([getattr(self, name), of])[order] for name, of in more.items()
        }
        return replace(self, **columns, offsets=self.offsets + items.offsets)

    def owners(self) -> Tensor:
        """(E,) int64, the row of each event's user."""
        return self.ragged.owners()

    def lengths(self) -> Tensor:
        """(B,) int64, events a user."""
        return self.offsets.diff()

    def num_baskets(self) -> Tensor:
        """(B,) int64, one more than the last basket's number; 0 without a history."""
        last = self.offsets[1:] - 1
        count = torch.zeros(len(self), dtype=torch.int64, device=self.device)
        some = self.lengths() > 0
        count[some] = self.baskets[last[some]] + 1
        return count

    def basket_rows(self) -> tuple[Tensor, Tensor]:
        """(E,) int64, each event's basket among the K of all users, and their offsets (K + 1,)."""
        width = self.baskets.max() + 1 if len(self.baskets) else 1
        numbers = self.owners() * width + self.baskets
        _, rows, sizes = numbers.unique_consecutive(return_inverse=True, return_counts=True)
        return rows, offsets_of(sizes)

    def age(self) -> Tensor:
        """(E,) int64, how many of the user's baskets came after the event's: 0 in the last."""
        return self.num_baskets()[self.owners()] - 1 - self.baskets

    def last(self, num_baskets: int) -> BasketBatch:
        """The same users with their last `num_baskets` baskets only."""
        return self.where(self.age() < num_baskets)

    def latest(self, num_events: int) -> BasketBatch:
        """The same users with their last `num_events` events, as if their histories began there.

        The first basket that is left may have lost some of its items; it has the number 0.
        """
        lengths = self.lengths()
        is_cut = lengths > num_events
        if not is_cut.any():
            return self
        new_lengths = lengths.clamp(max=num_events)
        events, offsets = ranges(self.offsets[1:] - new_lengths, new_lengths)
        batch = self.take(events, offsets, self.users)
        first = torch.zeros_like(lengths)
        first[is_cut] = batch.baskets[offsets[:-1][is_cut]]
        return replace(batch, baskets=batch.baskets - first[batch.owners()])

    def sum(self, weights: Tensor) -> Tensor:
        """(B, n): event weights (E,) summed by user and item."""
        total = torch.zeros(len(self) * self.num_items, dtype=weights.dtype, device=self.device)
        total.index_add_(0, self.owners() * self.num_items + self.items, weights)
        return total.view(len(self), self.num_items)

    def counts(self) -> Tensor:
        """(B, n) float32, in how many events of a user an item occurs."""
        return self.sum(torch.ones(len(self.items), device=self.device))

    def multi_hot(self) -> Tensor:
        """(B, n) float32, 1 where a user's history holds the item."""
        return self.ragged.dense(self.num_items).float()
