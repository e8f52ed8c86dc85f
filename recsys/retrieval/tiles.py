"""A catalogue scored tile by tile: float32 inner products that are never all in memory at once.

Writing the scores of every query and item takes longer than computing them. A tile's scores are
used while they are in the cache: reduced to the maxima of groups of columns, of which only those
above the worst of the best so far are looked into. What remains beside the products is little.

Shapes: B queries, n items, C columns of a tile, P cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from recsys.batch.ragged import Ragged, offsets_of

NEVER = -torch.inf
"""The score of what is no candidate."""

CELLS_PER_THREAD = 2**19
"""Scores of a tile per thread: 2 MiB, about a core's own cache."""
CELLS_ON_GPU = 2**26
GROUP = 32

Cells = tuple[Tensor, Tensor, Tensor]
"""Rows (P,), items (P,) and scores (P,)."""


def tiles(
    queries: Tensor, vectors: Tensor, exclude: Ragged | None = None, *, at_least: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """First item and scores (B, C) of one tile after the other.

    Excluded items, and columns past the end of the catalogue, score -inf. C is a multiple of the
    group and not below `at_least`. The tensor is overwritten by the next tile.
    """
    n, on_cpu = len(vectors), queries.device.type == "cpu"
    cells = CELLS_PER_THREAD * torch.get_num_threads() if on_cpu else CELLS_ON_GPU
    columns = max(min(cells // max(len(queries), 1), n), at_least)
    columns = -(-columns // GROUP) * GROUP
    starts = range(0, n, columns)
    excluded = None if exclude is None else _by_tile(exclude, columns, len(starts))
    scores = queries.new_empty(len(queries), columns)
    for tile, start in enumerate(starts):
        part = vectors[start : start + columns]
        # With `out` given, autocast leaves the product in float32.
        torch.mm(queries, part.T, out=scores[:, : len(part)])
        scores[:, len(part) :] = NEVER
        if excluded is not None:
            row, item = excluded[tile]
            scores[row, item - start] = NEVER
        yield start, scores


def _by_tile(exclude: Ragged, columns: int, num_tiles: int) -> list[tuple[Tensor, Tensor]]:
    """Rows and items of the excluded cells of each tile."""
    items, order = exclude.values.sort()
    sizes = torch.bincount(items // columns, minlength=num_tiles).tolist()
    return list(zip(exclude.owners()[order].split(sizes), items.split(sizes), strict=True))


def best_of(scored: Iterable[tuple[int, Tensor]], width: int) -> tuple[Tensor, Tensor]:
    """Scores and items (B, width) of the best of each row over all tiles, best first.

    Among equal scores any may be taken. Items of score -inf mean nothing.
    """
    scored = iter(scored)
    _, tile = next(scored)
    scores, items = tile.topk(width, dim=1)
    waiting: list[Cells] = []
    count = 0
    for start, tile in scored:
        row, column, score = _above(tile, scores[:, -1:])
        waiting.append((row, start + column, score))
        count += row.numel()
        if count > items.numel():
            scores, items = _merged(scores, items, waiting)
            waiting, count = [], 0
    return _merged(scores, items, waiting) if count else (scores, items)


def _above(scores: Tensor, floor: Tensor) -> Cells:
    """The cells of a tile (B, C) above their row's floor (B, 1)."""
    num_groups = scores.shape[1] // GROUP
    # A group's columns lie num_groups apart, so that its maximum is one of whole vectors.
    groups = scores.view(len(scores), GROUP, num_groups)
    row, group = (groups.amax(1) > floor).nonzero(as_tuple=True)
    members = groups[row, :, group]
    place, member = (members > floor[row]).nonzero(as_tuple=True)
    return row[place], group[place] + member * num_groups, members[place, member]


def _merged(scores: Tensor, items: Tensor, waiting: list[Cells]) -> tuple[Tensor, Tensor]:
    """The best among (B, width) and the cells that wait."""
    row, item, score = (torch.cat(part) for part in zip(*waiting, strict=True))
    row, order = row.sort()
    counts = torch.bincount(row, minlength=len(scores))
    place = torch.arange(len(row), device=row.device) - offsets_of(counts)[row]
    shape = (len(scores), int(counts.max()))
    new_scores, new_items = scores.new_full(shape, NEVER), items.new_full(shape, -1)
    new_scores[row, place], new_items[row, place] = score[order], item[order]
    scores, best = torch.cat([scores, new_scores], 1).topk(scores.shape[1], dim=1)
    return scores, torch.cat([items, new_items], 1).gather(1, best)
