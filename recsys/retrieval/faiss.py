"""FAISS behind the interface of `ItemIndex`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.retrieval.index import VectorIndex
from recsys.retrieval.lists import TopK
from recsys.retrieval.tiles import NEVER
from recsys.types import ItemVectors

_LONGEST_ON_GPU = 2048  # items of a list that FAISS's GPU indexes find


class FaissIndex(VectorIndex):
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

    >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> FaissIndex(vectors, factory="HNSW8").search(torch.tensor([[2.0, 1.0]]), k=2).items.tolist()
    [[2, 0]]
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
            results = index.search(queries.cpu().contiguous().numpy(), length)
        scores, items = (torch.from_numpy(array).to(queries.device) for array in results)
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
