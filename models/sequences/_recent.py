"""The last events of histories, side by side.

Shapes: B rows, K events, latest first, n items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.batch.histories import BasketBatch


def recent_items(batch: BasketBatch, num_events: int) -> Tensor:
    """(B, K) the last items of each history, latest first; n where it has fewer."""
    return _recent(batch, batch.items, num_events, batch.num_items)


def recent_times(batch: BasketBatch, num_events: int) -> Tensor:
    """(B, K) the times of the last events, latest first; 0 where there are fewer."""
    return _recent(batch, batch.times, num_events, 0)


def _recent(batch: BasketBatch, values: Tensor, num_events: int, nothing: int) -> Tensor:
    back = torch.arange(1, num_events + 1, device=batch.device)
    places = batch.offsets[1:, None] - back
    is_there = places >= batch.offsets[:-1, None]
    padded = F.pad(values, (0, 1))
    return torch.where(is_there, padded[places.clamp(min=0)], nothing)
