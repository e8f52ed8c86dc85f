"""Rows of unequal length laid out side by side for attention, with hardly any padding.

Everything else in a Transformer works on the tokens one after the other, as they come.

Shapes: B rows, E tokens in all, P cells of the layout, D dimensions, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.batch.ragged import Ragged, ranges


@dataclass(frozen=True, eq=False)
class Layout:
    """The cells in which tokens lie for attention.

    Rows of about equal length form a group, as wide as its longest row. Behind its own tokens a
    row's cells hold tokens of other rows, which attention does not read.

    Attributes:
        position: (E,) int64, a token's place within its row, from 0.
        token: (P,) int64, the token in each cell.
        cell: (E,) int64, the cell of each token.
        lengths: (B',) int64, of the rows that have tokens, in the order of the layout.
        shapes: rows and width of each group.
    """

    position: Tensor
    token: Tensor
    cell: Tensor
    lengths: Tensor
    shapes: list[tuple[int, int]]

    @classmethod
    def of(cls, rows: Ragged, num_groups: int = 16) -> Layout:
        """Rows in at most so many groups: more leave less padding, and take more calls.

        >>> layout = Layout.of(Ragged.from_lists([[4, 2, 9], [7]]), num_groups=1)
        >>> layout.shapes, round(layout.padding, 2)
        ([(2, 3)], 0.33)
        """
        owners = rows.owners()
        position = torch.arange(len(owners), device=owners.device) - rows.offsets[owners]
        lengths, order = rows.lengths.sort()
        order = order[lengths > 0]
        lengths = lengths[lengths > 0]
        groups = [group for group in lengths.cpu().tensor_split(num_groups) if len(group)]
        shapes = [(len(group), int(group[-1])) for group in groups]
        widths = torch.cat([torch.full((b,), width) for b, width in shapes]).to(order.device)
        token, offsets = ranges(rows.offsets[order], widths)
        first = torch.zeros_like(rows.lengths)
        first[order] = offsets[:-1]
        cell = first[owners] + position
        return cls(position, token.clamp(max=len(owners) - 1), cell, lengths, shapes)

    @property
    def padding(self) -> float:
        """Share of the cells that hold no token of their row."""
        return 1 - len(self.cell) / max(len(self.token), 1)

    def attention(
        self, queries_keys_values: Tensor, num_heads: int, *, causal: bool = False
    ) -> Tensor:
        """(E, 3 D) to (E, D): each token attends to all tokens of its row, or to those up to it."""
        # As an embedding, because its gradient is added up row by row, fast.
        cells = F.embedding(self.token, queries_keys_values)
        sizes = [rows * width for rows, width in self.shapes]
        lengths = self.lengths.split([rows for rows, _ in self.shapes])
        outputs = []
        for group, shape, row_lengths in zip(cells.split(sizes), self.shapes, lengths, strict=True):
            query, key, value = group.view(*shape, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
            if causal:  # nobody looks behind its own tokens
                out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            else:
                is_in_row = torch.arange(shape[1], device=row_lengths.device) < row_lengths[:, None]
                out = F.scaled_dot_product_attention(query, key, value, is_in_row[:, None, None])
            outputs.append(out.transpose(1, 2).flatten(0, 1).flatten(1))
        return F.embedding(self.cell, torch.cat(outputs))
