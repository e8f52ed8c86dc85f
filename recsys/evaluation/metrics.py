"""Ranking metrics: pure functions of which places of a list hold one of the user's targets.

`hits` turns ranked items and targets into a (U, k) mask, best place first; each metric maps such a
mask and the number of targets T of each user to (U,) float64, at k = the mask's width. Relevance
is binary. A list shorter than k (item -1) is a list with misses at its end. Every user needs a
target: `per_user` refuses others, so that no mean contains NaN.

Shapes: U users, k places, n items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.errors import CatalogueError, DataError
from recsys.types import Hits, TopItems

Counts = Int64[Tensor, "users"]
PerUser = Float64[Tensor, "users"]


def hits(items: TopItems, targets: Ragged, num_items: int) -> Hits:
    """Which places hold a target.

    Args:
        items: (U, k) ranked items, no item twice in a row, -1 where a list is short.
        targets: of the same users, in any order; `targets.distinct(n)` where some stand twice,
            so that `targets.lengths` counts each once.
        num_items: n.
    """
    return targets.contains(items, num_items)


def recall(hits: Hits, num_targets: Counts) -> PerUser:
    """Hits / T: the share of the targets that are in the list."""
    return _sum(hits, torch.ones_like(_places(hits))) / num_targets


def precision(hits: Hits, num_targets: Counts) -> PerUser:
    """Hits / k: the share of the list that are targets."""
    return _sum(hits, torch.ones_like(_places(hits))) / hits.shape[1]


def ndcg(hits: Hits, num_targets: Counts) -> PerUser:
    """Sum of 1 / log2(place + 1) over the hits / the same over places 1 .. min(k, T).

    Järvelin & Kekäläinen (2002) with binary gain: a list that opens with all targets reaches 1.
    """
    discount = 1 / torch.log2(_places(hits) + 1)
    return _sum(hits, discount) / ideal_dcg(num_targets, hits.shape[1])


def ideal_dcg(num_targets: Counts, k: int) -> PerUser:
    """Sum of 1 / log2(place + 1) over places 1 .. min(k, T), what a list of targets alone reaches.

    Every T is at least 1.

    >>> ideal_dcg(torch.tensor([1, 2]), 10)
    tensor([1.0000, 1.6309], dtype=torch.float64)
    """
    places = torch.arange(1, k + 1, dtype=torch.float64, device=num_targets.device)
    return (1 / torch.log2(places + 1)).cumsum(0)[num_targets.clamp(max=k) - 1]


def phr(hits: Hits, num_targets: Counts) -> PerUser:
    """1 where the list holds a target, else 0: personal hit ratio, also called hit rate."""
    return hits.any(1).double()


def mrr(hits: Hits, num_targets: Counts) -> PerUser:
    """1 / place of the first hit, 0 without one: reciprocal rank."""
    first = hits.to(torch.uint8).argmax(1)  # the first of the maxima
    return hits.any(1) / (first + 1).double()


def map(hits: Hits, num_targets: Counts) -> PerUser:
    """Mean over min(k, T) of the precision at the place of each hit: average precision."""
    row, place = hits.nonzero(as_tuple=True)
    so_far = torch.arange(1, len(row) + 1, device=row.device) - torch.searchsorted(row, row)
    precisions = so_far / (place + 1).double()
    total = torch.bincount(row, precisions, minlength=len(hits)).double()
    return total / num_targets.clamp(max=hits.shape[1])


METRICS: dict[str, Callable[[Hits, Counts], PerUser]] = {
    metric.__name__: metric for metric in (recall, precision, ndcg, phr, mrr, map)
}


def per_user(hits: Hits, num_targets: Counts, ks: Sequence[int]) -> dict[str, PerUser]:
    """Every metric at every k, named `recall@10` and so on.

    Args:
        hits: (U, k) with k at least the largest of `ks`.
        num_targets: (U,) distinct targets of each user, at least 1.
        ks: lengths of list.

    Raises:
        DataError: a user has no target.
        CatalogueError: a k is beyond the ranked places.
    """
    if (empty := (num_targets < 1).nonzero()).numel():
        raise DataError(
            f"{len(empty)} users have no target, the first in row {int(empty[0])}; "
            "leave them out of the evaluation"
        )
    if max(ks) > hits.shape[1]:
        raise CatalogueError(
            f"k={max(ks)} exceeds the {hits.shape[1]} ranked places; lower k or rank more items"
        )
    return {
        f"{name}@{k}": metric(hits[:, :k], num_targets)
        for k in ks
        for name, metric in METRICS.items()
    }


def coverage(items: TopItems, num_items: int) -> float:
    """The share of the catalogue that is in some list."""
    return (_occurrences(items, num_items) > 0).double().mean().item()


def gini(items: TopItems, num_items: int) -> float:
    """Gini coefficient of how often each item of the catalogue is in a list.

    0 where all are equally often, towards 1 where few take all places.
    """
    counts = _occurrences(items, num_items).sort().values.double()
    rank = torch.arange(1, num_items + 1, device=counts.device)
    weights = (2 * rank - num_items - 1).double()
    return (weights @ counts / (num_items * counts.sum().clamp(min=1))).item()


def novelty(items: TopItems, popularity: Tensor) -> float:
    """Mean self-information -log2 p of the recommended items (Zhou et al. 2010), in bits.

    Args:
        items: (U, k) ranked items.
        popularity: (n,) events of each item; p is an item's share of all. An item without
            events counts as one with one, which keeps the mean finite.
    """
    information = -(popularity.double().clamp(min=1) / popularity.sum()).log2()
    recommended = items[items >= 0]
    return information[recommended].sum().item() / max(len(recommended), 1)


def _sum(hits: Tensor, weights: Tensor) -> Tensor:
    """(U,) float64: the sum of the weights (k,) of the places that hold a hit.

    Over the few hits, not over all places: lists hold many misses.
    """
    row, place = hits.nonzero(as_tuple=True)
    return torch.bincount(row, weights[place], minlength=len(hits)).double()


def _places(hits: Tensor) -> Tensor:
    return torch.arange(1, hits.shape[1] + 1, device=hits.device, dtype=torch.float64)


def _occurrences(items: Tensor, num_items: int) -> Tensor:
    """(n,) in how many lists each item is."""
    return torch.bincount(items[items >= 0], minlength=num_items)
