"""The k best items for each query: from a matrix of scores, or searched among item vectors.

Every exact path gives one answer, whatever the batch size, the threads or the library: items in
order of (score descending, index ascending). For vectors that takes more than one matrix product,
whose float32 rounding depends on its blocking: a shortlist from float32 is scored again in float64,
and where the rounding error of float32 could have kept an item off the shortlist, the row is
searched again for everything within that error.

Shapes: B or Q queries, n items, D dimensions, k places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from recsys.errors import CatalogueError, ConfigError, DataError
from recsys.ragged import Ragged, offsets_of
from recsys.tiles import NEVER, best_of, tiles
from recsys.types import ItemVectors, Scores, TopItems, UserVectors

_PAIRS_AT_ONCE = 2**12  # few, so that the vectors of the pairs stay in the cache
_CELLS_AT_ONCE = 2**22
_LONGEST_ON_GPU = 2048  # items of a list that FAISS's GPU indexes find


@dataclass(frozen=True, eq=False)
class TopK:
    """The best items of each query, best first, equal scores by ascending index.

    Attributes:
        items: (Q, k) int64, -1 where fewer than k candidates remain.
        scores: (Q, k), -inf there.
    """

    items: TopItems
    scores: Float[Tensor, "users k"]

    @classmethod
    def cat(cls, pieces: Iterable[TopK], k: int) -> TopK:
        """The lists of all pieces, of k items each, on the CPU; there may be no piece."""
        found = [cls(torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)), *pieces]
        items, scores = zip(*((top.items.cpu(), top.scores.cpu()) for top in found), strict=True)
        return cls(torch.cat(items), torch.cat(scores))


def top_k(scores: Scores, k: int, exclude: Ragged | None = None) -> TopK:
    """The k best columns of each row of `scores` (B, n); a score of -inf is no candidate.

    Args:
        scores: (B, n), left as they are.
        k: 1 .. n.
        exclude: B rows of columns that are no candidates.

    Raises:
        CatalogueError: k is not in 1 .. n.
        DataError: a candidate's score is NaN, or `exclude` has not B rows.
    """
    n = scores.shape[1]
    _check(k, n, exclude, len(scores))
    if exclude is not None:
        scores = scores.clone()
        scores[exclude.owners(), exclude.values] = NEVER
    best, items = scores.topk(min(k + 1, n), dim=1)  # one more shows a tie at the boundary
    if best[:, 0].isnan().any():  # topk puts NaN first
        row = int(best[:, 0].isnan().nonzero()[0])
        raise DataError(f"scores of row {row} hold NaN; look for a diverged or unfitted model")
    items = items[:, :k]
    if k < n:
        tied = ((best[:, k - 1] == best[:, k]) & (best[:, k] > NEVER)).nonzero()[:, 0]
        items[tied] = _lowest_among_ties(scores[tied], best[tied, k - 1 : k], k)
    return _ordered(scores.gather(1, items), items)


def _lowest_among_ties(scores: Tensor, boundary: Tensor, k: int) -> Tensor:
    """(B, k): columns above the boundary (B, 1), and the first at it, as many as are missing."""
    n = scores.shape[1]
    place = torch.arange(n, 0, -1, dtype=torch.int32, device=scores.device)
    place = torch.where(scores == boundary, place, 0).masked_fill_(scores > boundary, n + 1)
    return place.topk(k, dim=1).indices


def _ordered(scores: Tensor, items: Tensor) -> TopK:
    """Each row by (score descending, item ascending); items of score -inf become -1."""
    items, order = items.sort(dim=1)
    scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return TopK(items.gather(1, order).masked_fill(scores == NEVER, -1), scores)


def check_length(k: int, num_items: int) -> None:
    """Refuse lists of k items of a catalogue.

    Raises:
        CatalogueError: k is below 1, or more than there are items.
    """
    if k < 1:
        raise CatalogueError(f"k={k} is not a length of list; expected at least 1")
    if k > num_items:
        raise CatalogueError(f"k={k} exceeds the {num_items} items in the catalogue; lower k")


def _check(k: int, num_items: int, exclude: Ragged | None, num_queries: int) -> None:
    check_length(k, num_items)
    if exclude is not None and len(exclude) != num_queries:
        raise DataError(
            f"exclude holds {len(exclude)} rows for {num_queries} queries; give a row for each"
        )


class ItemIndex(ABC):
    """Searches item vectors by inner product.

    Args:
        vectors: (n, D). float32 is searched where it lies; other types are converted.

    Attributes:
        exact: whether `search` finds the true k best.
        queries_at_once: rows of queries per step, which bounds the memory and nothing else.

    Raises:
        DataError: a vector is not finite.
    """

    exact = True
    queries_at_once = 256

    def __init__(self, vectors: ItemVectors) -> None:
        self.vectors = vectors.detach().float()
        self.longest = _norms(self.vectors, "item vectors").max().item()

    @abstractmethod
    def shortlist(self, queries: Tensor, width: int, exclude: Ragged | None) -> TopK:
        """The `width` best in float32, best first; ties and rounding are left to `search`."""

    @torch.no_grad()
    def search(self, queries: UserVectors, k: int, exclude: Ragged | None = None) -> TopK:
        """The k items with the largest inner product for each query.

        Args:
            queries: (Q, D), on the device of the vectors.
            k: 1 .. n.
            exclude: Q rows of item indices that are no candidates.

        Raises:
            CatalogueError: k is not in 1 .. n.
            DataError: a query is not finite, or `exclude` has not Q rows.
        """
        _check(k, len(self.vectors), exclude, len(queries))
        queries = queries.float()
        norms = _norms(queries, "queries")
        found = []
        with _full_float32():
            every = torch.arange(len(queries), device=queries.device)
            for rows in every.split(self.queries_at_once):
                excluded = None if exclude is None else exclude.rows(rows)
                found.append(self._search(queries[rows], norms[rows], k, excluded))
        items = torch.cat([top.items for top in found])
        return TopK(items, torch.cat([top.scores for top in found]).float())

    def _search(self, queries: Tensor, norms: Tensor, k: int, exclude: Ragged | None) -> TopK:
        width = min(len(self.vectors), k + max(k // 4, 16))
        short = self.shortlist(queries, width, exclude)
        best = self._scored_again(queries, short, k)
        if not self.exact or width == len(self.vectors):
            return best
        # An item off the shortlist has at most its last score in float32, and this much more.
        error = _rounding(norms, self.longest, queries.shape[1])
        last = short.scores[:, -1]
        doubtful = ((last + error >= best.scores[:, -1]) & (last > NEVER)).nonzero()[:, 0]
        for rows in doubtful.split(max(1, _CELLS_AT_ONCE // len(self.vectors))):
            excluded = None if exclude is None else exclude.rows(rows)
            floor = best.scores[rows, -1] - error[rows]
            again = self._search_above(queries[rows], floor, k, excluded)
            best.items[rows], best.scores[rows] = again.items, again.scores
        return best

    def _scored_again(self, queries: Tensor, short: TopK, k: int) -> TopK:
        """The k best of a shortlist (B, width) by their scores in float64."""
        none = short.scores == NEVER
        items = short.items.masked_fill(none, 0)
        row = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])
        scores = self._score(queries, row, items.flatten()).view(items.shape)
        best = _ordered(scores.masked_fill(none, NEVER), items)
        return TopK(best.items[:, :k], best.scores[:, :k])

    def _search_above(self, queries: Tensor, floor: Tensor, k: int, exclude: Ragged | None) -> TopK:
        """The k best among all items whose float32 score reaches the row's floor (B,)."""
        pairs = [
            (row, start + column)
            for start, scores in tiles(queries, self.vectors, exclude)
            for row, column in [(scores >= floor[:, None]).nonzero(as_tuple=True)]
        ]
        row, item = (torch.cat(part) for part in zip(*pairs, strict=True))
        scores = self._score(queries, row, item)
        # Items ascend within a row, and both sorts keep the order of equals.
        scores, order = scores.sort(descending=True, stable=True)
        row, by_row = row[order].sort(stable=True)
        first = offsets_of(torch.bincount(row, minlength=len(queries)))[:-1]
        places = first[:, None] + torch.arange(k, device=row.device)
        return TopK(item[order][by_row][places], scores[by_row][places])

    def _score(self, queries: Tensor, row: Tensor, item: Tensor) -> Tensor:
        """(P,) inner products of pairs in float64, each of them the same in any company."""
        pieces = zip(row.split(_PAIRS_AT_ONCE), item.split(_PAIRS_AT_ONCE), strict=True)
        scores = [(queries[r].double() * self.vectors[i].double()).sum(1) for r, i in pieces]
        return torch.cat(scores)


class ExactIndex(ItemIndex):
    """Exact search where the vectors lie, on their device, tile by tile of the catalogue."""

    def shortlist(self, queries: Tensor, width: int, exclude: Ragged | None) -> TopK:
        scored = tiles(queries, self.vectors, exclude, at_least=width)
        scores, items = best_of(scored, width)
        return TopK(items, scores)


class FaissIndex(ItemIndex):
    """A FAISS index over a copy of the vectors, exact or approximate by its factory string.

    A flat or IVF index over vectors on a GPU is searched there, if FAISS is built for it; any other
    on the CPU. An approximate index finds fewer than k items where its parameters have it look at
    too few.

    Args:
        vectors: (n, D).
        factory: as `faiss.index_factory` reads it: `Flat` is exact, `IVF1024,Flat` searches
            some of 1,024 cells, `HNSW32` walks a graph.
        parameters: of the search, as `faiss.ParameterSpace` reads them: `nprobe=16` cells of
            an IVF, `efSearch=128` candidates of an HNSW.

    Raises:
        ConfigError: FAISS is not installed, or refuses the factory string or the parameters for
            these vectors.
        DataError: a vector is not finite.
    """

    queries_at_once = 1024

    def __init__(
        self, vectors: ItemVectors, *, factory: str = "Flat", parameters: str = ""
    ) -> None:
        super().__init__(vectors)
        faiss = _faiss()
        try:
            dim = self.vectors.shape[1]
            self.index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
            faiss.ParameterSpace().set_index_parameters(self.index, parameters)
            rows = self.vectors.cpu().contiguous().numpy()
            self.index.train(rows)
            self.index.add(rows)
        except RuntimeError as error:
            reason = str(error).rpartition(": ")[2]
            raise ConfigError(
                f"FAISS refuses factory={factory!r} with parameters={parameters!r} for "
                f"{len(vectors)} items: {reason}; see the FAISS wiki on the index factory"
            ) from error
        self.exact = isinstance(self.index, faiss.IndexFlat)
        self.on_gpu: Any = None
        on_gpus = isinstance(self.index, (faiss.IndexFlat, faiss.IndexIVFFlat))
        if vectors.is_cuda and on_gpus and faiss.get_num_gpus():
            self._resources = faiss.StandardGpuResources()  # to live as long as the index
            device = vectors.device.index
            self.on_gpu = faiss.index_cpu_to_gpu(self._resources, device, self.index)

    def shortlist(self, queries: Tensor, width: int, exclude: Ragged | None) -> TopK:
        n = len(self.vectors)
        most = 0 if exclude is None or not len(exclude) else int(exclude.lengths.max())
        length = min(width + most, n)
        on_cpu = self.on_gpu is None or length > _LONGEST_ON_GPU
        index = self.index if on_cpu else self.on_gpu
        with _matrix_products():
            found = index.search(queries.cpu().contiguous().numpy(), length)
        scores, items = (torch.from_numpy(array).to(queries.device) for array in found)
        scores = scores.masked_fill(items < 0, NEVER)
        if exclude is not None:
            scores = scores.masked_fill(exclude.contains(items, n), NEVER)
        scores, order = scores.topk(width, dim=1)
        return TopK(items.gather(1, order), scores)


def _faiss() -> Any:
    """FAISS, whose builds for the CPU and for GPUs are packages that exclude one another.

    Raises:
        ConfigError: neither is installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "FAISS is not installed; install faiss-cpu, or faiss-gpu for CUDA 12, or choose "
            "retrieval=exact"
        ) from error
    return faiss


@contextmanager
def _matrix_products() -> Iterator[None]:
    """FAISS's flat search by matrix products from 20 queries on, not from 128,000 / D.

    The threshold is global to FAISS: it is put back.
    """
    faiss = _faiss()
    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = 20
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before


@contextmanager
def _full_float32() -> Iterator[None]:
    """float32 products of float32, not of TF32 or bfloat16, whatever the training around chose."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _norms(vectors: Tensor, what: str) -> Tensor:
    """Euclidean lengths (rows,) in float64."""
    norms = torch.linalg.vector_norm(vectors, dim=1).double()
    if not norms.isfinite().all():
        row = int((~norms.isfinite()).nonzero()[0])
        raise DataError(f"{what} hold NaN or infinity, first in row {row}; look for divergence")
    return norms


def _rounding(norms: Tensor, longest: float, dim: int) -> Tensor:
    """Twice the most that float32 inner products of `dim` terms can be off, in any order.

    Higham (2002), eq. 3.5: |error| <= dim u |x| |y|, here with u = 2^-23 for 2^-24, and the last
    term for products that underflow.
    """
    limits = torch.finfo(torch.float32)
    return dim * (limits.eps * norms * longest + limits.tiny)
