"""Histories as padded rows, the form in which other software gives them.

Shapes: B users, L positions, n items.
"""

from __future__ import annotations

import torch
from torch import Tensor


def multi_hot(items: Tensor, lengths: Tensor, num_items: int) -> Tensor:
    """(B, n) float32, 1 where a row holds an item.

    Args:
        items: (B, L) item indices.
        lengths: (B,), how many of a row count, from the first.
        num_items: n.

    >>> multi_hot(torch.tensor([[2, 0], [1, 1]]), torch.tensor([1, 2]), num_items=3)
    tensor([[0., 0., 1.],
            [0., 1., 0.]])
    """
    counts = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
    column = torch.where(counts, items, num_items)
    held = torch.zeros(items.shape[0], num_items + 1, device=items.device)
    return held.scatter(1, column, torch.ones_like(column, dtype=held.dtype))[:, :num_items]
