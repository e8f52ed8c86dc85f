"""Rows of unequal length laid out side by side for attention, with hardly any padding.

Everything else in a Transformer works on the tokens one after the other, as they come.

Shapes: B rows, in all or of a group, L positions of the longest, E tokens in all, P cells of the
layout, D dimensions, H heads of d. A suffix gives those of a tensor: `q_BHLd` is (B, H, L, d).
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
        owners_E = rows.owners()
        position_E = torch.arange(len(owners_E), device=owners_E.device) - rows.offsets[owners_E]
        lengths, order = rows.lengths.sort()
        order = order[lengths > 0]
        lengths = lengths[lengths > 0]
        groups = [group for group in lengths.cpu().tensor_split(num_groups) if len(group)]
        shapes = [(len(group), int(group[-1])) for group in groups]
        sizes = torch.tensor(shapes, dtype=torch.int64, device=order.device).view(-1, 2)
        widths = sizes[:, 1].repeat_interleave(sizes[:, 0])
        token_P, offsets = ranges(rows.offsets[order], widths)
        first_B = torch.zeros_like(rows.lengths)
        first_B[order] = offsets[:-1]
        cell_E = first_B[owners_E] + position_E
        return cls(position_E, token_P.clamp(max=len(owners_E) - 1), cell_E, lengths, shapes)

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
        groups = zip(cells.split(sizes), self.shapes, lengths, strict=True)
        for group, shape, lengths_B in groups:
            qkv_BL3Hd = group.view(*shape, 3, num_heads, -1)
            q_BHLd, k_BHLd, v_BHLd = qkv_BL3Hd.permute(2, 0, 3, 1, 4)
            if causal:  # nobody looks behind its own tokens
                out_BHLd = F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd, is_causal=True)
            else:
                is_in_row_BL = torch.arange(shape[1], device=lengths_B.device) < lengths_B[:, None]
                out_BHLd = F.scaled_dot_product_attention(
                    q_BHLd, k_BHLd, v_BHLd, is_in_row_BL[:, None, None]
                )
            outputs.append(out_BHLd.transpose(1, 2).flatten(0, 1).flatten(1))
        if not outputs:
            return queries_keys_values[:, : queries_keys_values.shape[1] // 3]
        return F.embedding(self.cell, torch.cat(outputs))
