"""Histories as tokens, end to end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from tempfile import NamedTemporaryFile

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.batch.ragged import Ragged, gather_positions, offsets_of, ranges

END = "<eos>"


DOCUMENTS_AT_ONCE = 2**16


@dataclass(frozen=True, eq=False)
class Documents:
    """B texts end to end, each opened by the end-of-text token, with the places where items end.

    Attributes:
        tokens: (T,) int32.
        offsets: (B + 1,) int64, where each document begins.
        ends: (M,) int64, places of end-of-text tokens in `tokens`, ascending: the opening token of
            a document and the ends of its items.
        end_offsets: (B + 1,) int64, where the ends of each document begin among `ends`.
        items: (M,) int64, the text that ends there, an item's or an event's; m at an opening token.
    """

    tokens: Tensor
    offsets: Tensor
    ends: Tensor
    end_offsets: Tensor
    items: Tensor

    @classmethod
    def of(
        cls, histories: Ragged, item_tokens: Ragged, end: int, *, max_tokens: int | None = None
    ) -> Documents:
        """Histories (B rows of texts) end to end; of a long one the oldest texts are cut.

        Args:
            histories: rows of `item_tokens`, the oldest first; a row may be empty.
            item_tokens: a row per text, of an item or an event, each with its closing token.
            end: the token that opens a document.
            max_tokens: of a document; at least one more than the longest item. None cuts nothing.

        >>> item_tokens = Ragged.from_lists([[5, 6, 1], [7, 1]])
        >>> documents = Documents.of(Ragged.from_lists([[0, 1], [1]]), item_tokens, end=1)
        >>> documents.tokens.tolist()
        [1, 5, 6, 1, 7, 1, 1, 7, 1]
        >>> documents.ends.tolist()
        [0, 3, 5, 6, 8]
        """
        items, owners = histories.values, histories.owners()
        if max_tokens is not None:
            until = offsets_of(item_tokens.lengths[items])
            # Tokens of the history from this item on.
            remaining = until[histories.offsets[1:]][owners] - until[:-1]
            is_recent = remaining < max_tokens
            items, owners = items[is_recent], owners[is_recent]
        counts = torch.bincount(owners, minlength=len(histories))
        # A document is its opening token and its items: n stands for the opening.
        opening = torch.tensor([end], dtype=item_tokens.values.dtype, device=items.device)
        flat = torch.cat([item_tokens.values, opening])
        starts = torch.cat([item_tokens.offsets, item_tokens.offsets[-1:] + 1])
        num_items = len(item_tokens)
        end_offsets = offsets_of(counts + 1)
        pieces = torch.full((len(items) + len(histories),), num_items, device=items.device)
        is_item = torch.ones_like(pieces, dtype=torch.bool)
        is_item[end_offsets[:-1]] = False
        pieces[is_item] = items
        positions, piece_offsets = gather_positions(starts, pieces)
        return cls(
            tokens=flat[positions],
            offsets=piece_offsets[end_offsets],
            ends=piece_offsets[1:] - 1,
            end_offsets=end_offsets,
            items=pieces,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, tokens a document."""
        return self.offsets.diff()

    def to(self, device: torch.device | str) -> Documents:
        return Documents(*(getattr(self, f.name).to(device) for f in fields(self)))

    def last_ends(self) -> Documents:
        """The same documents; of the ends only the last of each, which closes it."""
        last = self.end_offsets[1:] - 1
        every = torch.arange(len(self) + 1, device=last.device)
        return replace(self, ends=self.ends[last], end_offsets=every, items=self.items[last])

    def rows(self, index: Tensor) -> Documents:
        """The documents at `index` (B',) int64, in that order."""
        positions, offsets = gather_positions(self.offsets, index)
        end_positions, end_offsets = gather_positions(self.end_offsets, index)
        shift = (offsets[:-1] - self.offsets[index]).repeat_interleave(end_offsets.diff())
        return Documents(
            self.tokens[positions],
            offsets,
            self.ends[end_positions] + shift,
            end_offsets,
            self.items[end_positions],
        )

    def groups(self, max_tokens: int, *, slack: float = 0.1) -> Iterator[tuple[Tensor, Documents]]:
        """The documents in groups of about equal length, longest first, and which they are.

        Padded to its longest document a group wastes at most `slack` of itself, about half of that
        on average, and holds at most `max_tokens` tokens, or one document.
        """
        descending, order = self.lengths.sort(descending=True, stable=True)
        rising = (-descending).tolist()
        start = 0
        while start < len(rising):
            width = -rising[start]
            alike = bisect_right(rising, -(1 - slack) * width)
            stop = min(alike, start + max(1, max_tokens // width))
            which = order[start:stop]
            yield which, self.rows(which)
            start = stop

    def padded(self) -> tuple[Tensor, Tensor]:
        """Tokens (B, L), padded with 0 at the right, and the place of each end in them (M,)."""
        lengths = self.lengths
        width = int(lengths.max())
        column, _ = ranges(torch.zeros_like(lengths), lengths)
        row = torch.arange(len(self), device=lengths.device).repeat_interleave(lengths)
        tokens = torch.zeros(len(self) * width, dtype=torch.int64, device=lengths.device)
        places = row * width + column
        tokens[places] = self.tokens.long()
        return tokens.view(len(self), width), places[self.ends]


@dataclass(frozen=True, eq=False)
class TokenStream:
    """Documents end to end, read in full rows; none of a row is padding.

    Where there is less text than one row, that row holds all of it, and padding behind.

    Attributes:
        tokens: (T,) int32, in memory or in a memory-mapped file.
        begins: (B,) int64, where documents begin, ascending from 0.
        row_length: L; what is left over after the last full row is not read.
        on_disk: whether `tokens` are a file's; such a stream is not moved to a device.
    """

    tokens: Tensor
    begins: Tensor
    row_length: int
    on_disk: bool = False

    @classmethod
    def of(
        cls,
        histories: Ragged,
        item_tokens: Ragged,
        end: int,
        row_length: int,
        *,
        largest_in_memory: int = 2**28,
    ) -> TokenStream:
        """Whole histories as text.

        Args:
            histories, item_tokens, end: as of `Documents.of`.
            row_length: L.
            largest_in_memory: tokens; a longer stream is written to a file without a name, which
                is gone with the stream.

        >>> item_tokens = Ragged.from_lists([[5, 6, 1], [7, 1]])
        >>> histories = Ragged.from_lists([[0, 1], [1]])
        >>> stream = TokenStream.of(histories, item_tokens, end=1, row_length=4)
        >>> stream.rows(torch.arange(len(stream)))[0]
        tensor([[1, 5, 6, 1],
                [7, 1, 1, 7]])
        """
        sizes = offsets_of(item_tokens.lengths[histories.values])[histories.offsets]
        begins = sizes + torch.arange(len(sizes))
        index = torch.arange(len(histories))
        pieces = (
            Documents.of(histories.rows(rows), item_tokens, end).tokens.int()
            for rows in index.split(DOCUMENTS_AT_ONCE)
        )
        total = int(begins[-1])
        if total <= largest_in_memory:
            return cls(torch.cat(list(pieces)), begins[:-1], row_length)
        with NamedTemporaryFile() as file:
            for piece in pieces:
                file.write(piece.numpy().tobytes())
            file.flush()
            tokens = torch.from_file(file.name, size=total, dtype=torch.int32)
        return cls(tokens, begins[:-1], row_length, on_disk=True)

    def __len__(self) -> int:
        return max(len(self.tokens) // self.row_length, 1)

    def to(self, device: torch.device | str) -> TokenStream:
        if self.on_disk:
            return self
        return replace(self, tokens=self.tokens.to(device), begins=self.begins.to(device))

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and their positions within their document, (R, L) int64 each.

        A document that a row cuts in two begins again in the next row. Padding is tokens 0, each at
        position 0, where nothing is predicted.
        """
        where = self.tokens.device
        width = min(self.row_length, len(self.tokens))
        place = index.to(where)[:, None] * self.row_length
        place = place + torch.arange(width, device=where)
        begin = self.begins[torch.searchsorted(self.begins, place, right=True) - 1]
        positions = place - torch.maximum(begin, place[:, :1])
        unpadded = self.tokens[place].long().to(index.device), positions.to(index.device)
        tokens, positions = (pad(rows, (0, self.row_length - width)) for rows in unpadded)
        return tokens, positions
