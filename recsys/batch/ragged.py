"""Rows of unequal length as flat values and offsets (compressed sparse rows), on any device.

Row `u` of a `Ragged` is `values[offsets[u]:offsets[u + 1]]`. Histories, targets and batches all
have this form, and everything below is index arithmetic on whole tensors: no loop over rows.

Shapes: U rows, E values in all, B gathered rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

_CELLS_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Ragged:
    """U rows of unequal length.

    Attributes:
        values: (E, ...), the rows one after the other.
        offsets: (U + 1,) int64, from 0 to E, never falling.

    Raises:
        ValueError: offsets are not one-dimensional int64 with at least one entry.

    >>> rows = Ragged.from_lists([[4, 2], [], [7]])
    >>> rows.offsets.tolist()
    [0, 2, 2, 3]
    >>> rows.owners().tolist()
    [0, 0, 2]
    >>> rows.rows(torch.tensor([2, 0])).values.tolist()
    [7, 4, 2]
    """

    values: Tensor
    offsets: Tensor

    def __post_init__(self) -> None:
        if self.offsets.dtype != torch.int64 or self.offsets.ndim != 1 or not len(self.offsets):
            raise ValueError(
                f"offsets of shape {tuple(self.offsets.shape)} and type {self.offsets.dtype}; "
                "expected (rows + 1,) int64"
            )

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int]]) -> Ragged:
        """One row per list, as int64."""
        rows = list(rows)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        values = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int64)
        return cls(values, offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """(U,) int64, the number of values in each row."""
        return self.offsets.diff()

    def owners(self) -> Tensor:
        """(E,) int64, the row that each value belongs to."""
        rows = torch.arange(len(self), device=self.offsets.device)
        return rows.repeat_interleave(self.lengths, output_size=len(self.values))

    def to(self, device: torch.device | str) -> Ragged:
        return Ragged(self.values.to(device), self.offsets.to(device))

    def rows(self, index: Tensor) -> Ragged:
        """The rows that `index` (B,) names, in its order; a row may be named more than once."""
        positions, offsets = gather_positions(self.offsets, index)
        return Ragged(self.values[positions], offsets)

    def last(self, count: int) -> Ragged:
        """Each row's last `count` values; all of them where it has no more.

        >>> Ragged.from_lists([[4, 2, 9], [7]]).last(2).values.tolist()
        [2, 9, 7]
        """
        lengths = self.lengths.clamp(max=count)
        positions, offsets = ranges(self.offsets[1:] - lengths, lengths)
        return Ragged(self.values[positions], offsets)

    def dense(self, num_columns: int) -> Tensor:
        """(U, num_columns) bool, true at the columns that a row holds."""
        mask = torch.zeros(len(self), num_columns, dtype=torch.bool, device=self.values.device)
        mask[self.owners(), self.values] = True
        return mask

    def contains(self, candidates: Tensor, num_columns: int) -> Tensor:
        """(U, k) bool: which of the candidates (U, k) their row holds; -1 is in no row.

        >>> rows = Ragged.from_lists([[4, 2], [7]])
        >>> rows.contains(torch.tensor([[2, 3], [7, -1]]), 8).tolist()
        [[True, False], [True, False]]
        """
        # A mask of a few rows at a time stays in the cache, and is cleared where it was set.
        step = max(1, _CELLS_AT_ONCE // (num_columns + 1))
        ends = torch.cat([self.offsets[:-1:step], self.offsets[-1:]])
        sizes = ends.diff().tolist()
        shape = (min(step, len(self)), num_columns + 1)  # the last column is that of -1
        mask = torch.zeros(shape, dtype=torch.bool, device=candidates.device)
        is_held = torch.empty_like(candidates, dtype=torch.bool)
        pieces = (
            (self.owners() % step).split(sizes),
            self.values.split(sizes),
            candidates.split(step),
            is_held.split(step),
        )
        for row, value, candidate, out in zip(*pieces, strict=False):
            mask[row, value] = True
            columns = candidate.masked_fill(candidate < 0, num_columns)
            torch.gather(mask[: len(candidate)], 1, columns, out=out)
            mask[row, value] = False
        return is_held

    def distinct(self, num_columns: int) -> Ragged:
        """Each row's values ascending and once each; values lie in 0 .. num_columns - 1."""
        # Rows are in order: a sort and a sweep take half the time of torch.unique.
        keys = (self.owners() * num_columns + self.values).sort().values.unique_consecutive()
        lengths = torch.bincount(keys // num_columns, minlength=len(self))
        return Ragged(keys % num_columns, offsets_of(lengths))


def beginnings(rows: Ragged) -> Ragged:
    """For each value its row up to and with it: E rows.

    >>> beginnings(Ragged.from_lists([[3, 1], [2]])).values.tolist()
    [3, 3, 1, 2]
    """
    starts = rows.offsets[rows.owners()]
    lengths = torch.arange(1, len(starts) + 1, device=starts.device) - starts
    positions, offsets = ranges(starts, lengths)
    return Ragged(rows.values[positions], offsets)


def offsets_of(lengths: Tensor) -> Tensor:
    """Offsets (U + 1,) int64 of rows whose lengths are given as (U,)."""
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets


def pieces(costs: Tensor, limit: int) -> tuple[Tensor, ...]:
    """Rows (R,) in consecutive pieces that cost at most `limit` beyond their last row.

    Args:
        costs: (R,) int64 of the rows.
        limit: of a piece; a row that costs more is in one that ends with it.

    Returns:
        the indices of the rows of each piece.
    """
    number = (costs.cumsum(0) - costs) // limit
    sizes = number.unique_consecutive(return_counts=True)[1].tolist()
    return torch.arange(len(costs), device=costs.device).split(sizes)


def gather_positions(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where the values of `rows` lie, so that value tensors that share offsets are gathered alike.

    Args:
        offsets: (U + 1,) int64.
        rows: (B,) int64, rows 0 .. U - 1, in any order and with repeats.

    Returns:
        positions (E',) int64 into the values, and the offsets (B + 1,) of the gathered rows.
    """
    starts = offsets[rows]
    return ranges(starts, offsets[rows + 1] - starts)


def ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """`length` numbers from each start on: start, start + 1, ...

    Args:
        starts, lengths: (B,) int64.

    Returns:
        all of them (E',) int64, one range after the other, and the ranges' offsets (B + 1,).
    """
    offsets = offsets_of(lengths)
    # The one transfer to the host: without it repeat_interleave would make its own.
    total = int(offsets[-1])
    shift = (starts - offsets[:-1]).repeat_interleave(lengths, output_size=total)
    return torch.arange(total, device=starts.device) + shift, offsets
