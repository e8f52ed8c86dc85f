"""Negative sampling: items that a user has not had, to contrast with those that the user has.

Shapes: B users, E positives in all, M negatives for each.
"""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from recsys.ragged import Ragged

# Drawn numbers modulo a count of items favour the low ones by less than count / _RANGE.
_RANGE = 2**62


def uniform(
    positives: Ragged, num_items: int, num_negatives: int
) -> Int64[Tensor, "events num_negatives"]:
    """Items drawn uniformly, with replacement, among those that the positive's row does not hold.

    No draw is rejected: item r of those outside a row is r plus the number of the row's own items
    that come before it.

    Args:
        positives: B rows of distinct item indices, ascending.
        num_items: n.
        num_negatives: M.

    Returns:
        (E, M) in the order of the positives; index n, the padding, for a row that holds all items.
    """
    owners = positives.owners()
    outside = (num_items - positives.lengths).clamp(min=1)[owners, None]
    draws = torch.randint(_RANGE, (len(owners), num_negatives), device=owners.device) % outside
    first = positives.offsets[:-1][owners]
    place = torch.arange(len(owners), device=owners.device) - first
    # So many items outside the row come before a positive; never falling within a row.
    passed = positives.values - place
    row = owners * (num_items + 1)
    before = torch.searchsorted(row + passed, row[:, None] + draws, right=True) - first[:, None]
    return draws + before
