"""Exact top-100 among a million vectors of 64 dimensions, beside the bare product and FAISS.

    python -m benchmarks.gpu.retrieval --device cuda

The product allocates its result (Q, n), or writes it into memory that is there. FAISS searches on
the device where its build does, and is left out otherwise: on a CPU `benchmarks.speed.topk`
compares it. Each side is waited for.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from benchmarks.gpu.card import keep, options_of, waited
from benchmarks.record import alternate, ratio
from recsys.errors import ConfigError
from recsys.retrieval.faiss import FaissIndex
from recsys.retrieval.index import ExactIndex

DIM = 64
REPEATS = 7


def faiss_index(vectors: torch.Tensor) -> FaissIndex | None:
    """FAISS's flat index where it is on the vectors' GPU."""
    try:
        index = FaissIndex(vectors)
    except ConfigError as error:
        print(error)
        return None
    if index.on_gpu is None:
        print("FAISS is not built for this device; it is left out")
        return None
    return index


def measured(device: torch.device, num_queries: int, num_items: int, k: int) -> dict[str, Any]:
    queries = torch.randn(num_queries, DIM, device=device)
    vectors = torch.randn(num_items, DIM, device=device)
    exact, flat = ExactIndex(vectors), faiss_index(vectors)
    product = torch.empty(num_queries, num_items, device=device)
    work = {
        "product": lambda: queries @ vectors.T,
        "product_in_place": lambda: torch.mm(queries, vectors.T, out=product),
        "exact": lambda: exact.search(queries, k),
    }
    row: dict[str, Any] = {"queries": num_queries, "items": num_items, "dim": DIM, "k": k}
    if flat is not None:
        work["faiss_flat"] = lambda: flat.search(queries, k)
        same = exact.search(queries, k).items == flat.search(queries, k).items
        row["lists_that_differ"] = int((~same).any(1).sum())
    sides = alternate({name: waited(side, device) for name, side in work.items()}, repeats=REPEATS)
    row["sides"] = sides
    others = [name for name in sides if name != "exact"]
    row["ratios"] = {f"exact/{name}": ratio(sides, "exact", name) for name in others}
    return row


def main() -> int:
    device, small, folder = options_of(__doc__)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for num_queries in (16,) if small else (1, 32, 1024):
        row = measured(device, num_queries, 20_000 if small else 1_000_000, 100)
        rows.append(row)
        medians = {name: side["wall"]["median"] for name, side in row["sides"].items()}
        print(f"{num_queries} queries: {medians}", flush=True)
        keep(folder / "retrieval.json", device, {"searches": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
