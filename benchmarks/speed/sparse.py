"""A step on a large table: AdamW on a dense gradient, RowAdamW on the rows of the batch.

    python -m benchmarks.speed.sparse [--device cuda]

A table of 1M x 64, and 6,400 ids a step by Zipf's law, so that some come twice; forward, backward
and the optimiser. Both start from the same table and see the same ids, turn by turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch.optim import AdamW, Optimizer

from benchmarks.record import ROOT, alternate, ratio, write
from recsys.nn.embedding import EmbeddingTable
from recsys.nn.row_adam import RowAdamW

RESULTS = ROOT / "benchmarks/speed/results"
ROWS, DIM, IDS, STEPS = 1_000_000, 64, 6_400, 5


def batches(device: str) -> Iterator[torch.Tensor]:
    """Ids of a step, again and again."""
    generator = torch.Generator().manual_seed(0)
    shares = 1 / torch.arange(1, ROWS + 1).double()
    while True:
        yield shares.multinomial(IDS, replacement=True, generator=generator).to(device)


def side(kind: type[Optimizer], device: str, *, sparse: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    table = EmbeddingTable(ROWS, DIM, sparse=sparse).to(device)
    optimizer = kind(table.parameters(), lr=1e-3, fused=True)  # type: ignore[call-arg]
    ids = [index for index, _ in zip(batches(device), range(STEPS), strict=False)]

    def steps() -> None:
        for index in ids:
            table(index).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        if device != "cpu":
            torch.cuda.synchronize()

    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    kinds = {"AdamW": (AdamW, False), "RowAdamW": (RowAdamW, True)}
    runs = {name: side(kind, device, sparse=sparse) for name, (kind, sparse) in kinds.items()}
    sides = alternate(runs, repeats=5)
    ratios = {"AdamW/RowAdamW": ratio(sides, "AdamW", "RowAdamW")}
    record = {"rows": ROWS, "dim": DIM, "ids": IDS, "steps": STEPS, "device": device}
    name = "sparse" if device == "cpu" else "sparse_gpu"
    write(
        RESULTS / f"{name}.json",
        record | {"sides": sides, "ratios": ratios},
        packages=["recsys", "torch"],
        seed=0,
    )
    print(
        {
            name: {c: s["median"] / STEPS for c, s in clocks.items()}
            for name, clocks in sides.items()
        }
    )


if __name__ == "__main__":
    main()
