"""Exact top-k of inner products beside the bare matrix product, in one process, turn by turn.

    python -m benchmarks.speed.topk                        # 1,000 queries, a million items, k 100
    python -m benchmarks.speed.topk --agree 10000 100000   # and: both indexes give the same ids

The product is `queries @ vectors.T`, whose (Q, n) result it has to allocate, and the same into
memory that is there already. Building an index is not timed.
"""

from __future__ import annotations

import argparse
from typing import Any

import faiss
import torch
from torch import Tensor

from benchmarks.record import ROOT, alternate, ratio, write
from recsys.retrieval.faiss import FaissIndex
from recsys.retrieval.index import ExactIndex

RESULT = ROOT / "benchmarks/speed/results/topk.json"


def time_search(queries: Tensor, vectors: Tensor, *, k: int, repeats: int) -> dict[str, Any]:
    exact, flat = ExactIndex(vectors), FaissIndex(vectors)
    product = torch.empty(len(queries), len(vectors))
    sides = alternate(
        {
            "product": lambda: queries @ vectors.T,
            "product_in_place": lambda: torch.mm(queries, vectors.T, out=product),
            "exact": lambda: exact.search(queries, k),
            "faiss_flat": lambda: flat.search(queries, k),
        },
        repeats=repeats,
    )
    ratios = {
        f"{index}/{bare}": ratio(sides, index, bare)
        for index in ("exact", "faiss_flat")
        for bare in ("product", "product_in_place")
    }
    return {"sides": sides, "ratios": ratios}


def agreement(num_queries: int, num_items: int, *, dim: int, k: int) -> dict[str, int]:
    """How many lists of the exact index and of FAISS flat differ in an id, and in a score."""
    queries, vectors = torch.randn(num_queries, dim), torch.randn(num_items, dim)
    ours = ExactIndex(vectors).search(queries, k)
    theirs = FaissIndex(vectors).search(queries, k)
    return {
        "queries": num_queries,
        "items": num_items,
        "lists_that_differ": int((ours.items != theirs.items).any(1).sum()),
        "lists_whose_scores_differ": int((ours.scores != theirs.scores).any(1).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--agree", type=int, nargs=2, metavar=("QUERIES", "ITEMS"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    queries = torch.randn(options.queries, options.dim)
    vectors = torch.randn(options.items, options.dim)
    measured = time_search(queries, vectors, k=options.k, repeats=options.repeats)
    for name, side in measured["sides"].items():
        print(f"{name}: {side['wall']['median']:.3f} s wall, {side['cpu']['median']:.3f} s CPU")
    for name, clocks in measured["ratios"].items():
        print(f"{name}: {clocks['wall']['median']:.2f} wall, {clocks['cpu']['median']:.2f} CPU")
    if options.agree:
        measured["agreement"] = agreement(*options.agree, dim=options.dim, k=options.k)
        print(measured["agreement"])
    shape = {name: getattr(options, name) for name in ("queries", "items", "dim", "k", "threads")}
    write(RESULT, shape | measured, packages=["torch", "faiss-cpu"], seed=options.seed)


if __name__ == "__main__":
    main()
