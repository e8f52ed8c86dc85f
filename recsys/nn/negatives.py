"""Negative sampling: items that a user has not had, to contrast with those that the user has.

Shapes: B users, E positives in all, M negatives for each.
"""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from recsys import ranks
from recsys.batch.ragged import Ragged

# Drawn numbers modulo a count of items favour the low ones by less than count / _RANGE.
_RANGE = 2**62


def uniform(
    positives: Ragged, num_items: int, num_negatives: int, *, rows: Tensor | None = None
) -> Int64[Tensor, "events num_negatives"]:
    """Items drawn uniformly, with replacement, among those that a row of positives does not hold.

    No draw is rejected: item r of those outside a row is r plus the number of the row's own items
    that come before it.

    Args:
        positives: B rows of distinct item indices, ascending.
        num_items: n.
        num_negatives: M.
        rows: (E,) int64, the row of positives that each of E examples draws outside of; None: an
            example for each positive, in their order.

    Returns:
        (E, M) in the order of the examples; index n, the padding, for a row that holds all items.
    """
    owners = positives.owners()
    rows = owners if rows is None else rows
    outside = (num_items - positives.lengths).clamp(min=1)[rows, None]

    def draw(number: int) -> Tensor:
        return torch.randint(_RANGE, (number, num_negatives), device=rows.device)

    draws = ranks.drawn(draw, len(rows)) % outside
    first = positives.offsets[:-1]
    place = torch.arange(len(owners), device=owners.device) - first[owners]
    # So many items outside the row come before a positive; never falling within a row.
    keys = positives.values - place + owners * (num_items + 1)
    queries = draws + (rows * (num_items + 1))[:, None]
    return draws + torch.searchsorted(keys, queries, right=True) - first[rows, None]
