"""SASRec of padded rows: the same weights without a row's own length anywhere, as ONNX wants it.

Attention looks back alone, so that what stands behind a row's last event changes nothing.

Shapes: B users, L positions, D dimensions, n items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from recsys.batch.padded import multi_hot


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Rows of one length, as attention finds them: in the place of `recsys.nn.attention.Layout`.

    Attributes:
        items: (B, L), whose shape it is.
    """

    items: Tensor

    def attention(self, queries_keys_values: Tensor, num_heads: int, *, causal: bool) -> Tensor:
        """(B L, 3 D) to (B L, D)."""
        rows, width = self.items.shape
        qkv_BL3Hd = queries_keys_values.view(rows, width, 3, num_heads, -1)
        q_BHLd, k_BHLd, v_BHLd = qkv_BL3Hd.permute(2, 0, 3, 1, 4)
        out_BHLd = F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd, is_causal=causal)
        return out_BHLd.transpose(1, 2).flatten(0, 1).flatten(1)


class PaddedRows(nn.Module):
    """The scores of SASRec.

    Of a row longer than the positions the last events are to be given.

    Args:
        vectors: (n, D) of the items in a history.
        compared: (n, D) of the items that are scored.
        encoder: the model's.
        compare: what is done with states before they are compared.
        repeats: () what the items of a history get; None: nothing.
    """

    vectors: Tensor
    compared: Tensor
    repeats: Tensor | None

    def __init__(
        self,
        vectors: Tensor,
        compared: Tensor,
        encoder: nn.Module,
        compare: Callable[[Tensor], Tensor],
        repeats: Tensor | None,
    ) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.register_buffer("compared", compared)
        self.register_buffer("repeats", repeats)
        self.encoder = encoder
        self.compare = compare

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """(B, n) of items (B, L), of which `lengths` (B,) are the history."""
        vectors, compared = self.vectors, self.compared
        encoder: Any = self.encoder  # SASRec's, whose file imports this one
        x_BLD = F.embedding(items, vectors) * vectors.shape[1] ** 0.5
        x = (x_BLD + encoder.positions.weight[: items.shape[1]]).flatten(0, 1)
        layout = Rectangle(items)
        for block in encoder.blocks:
            x = block(x, layout)
        x_BLD = encoder.norm(x).view(items.shape[0], items.shape[1], -1)
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, x_BLD.shape[2])
        states = self.compare(x_BLD.gather(1, last)[:, 0]) * (lengths > 0)[:, None]
        scores = states @ compared.T
        if self.repeats is None:
            return scores
        return scores + self.repeats * multi_hot(items, lengths, compared.shape[0])
