"""A checkpoint of a table that two ranks divide: of each rank's rows, beside one that is gathered.

    python -m benchmarks.speed.checkpoints

Two processes hold a table of 300,000 items and 64 dimensions by rows, after a step of AdamW: 77 MB,
and twice that of moments. `rows` is what trainings do: each rank writes its rows, with their
SHA-256. `gathered` is what is usual: all ranks gather each tensor, and rank 0 saves them by torch,
in memory first, for torch does not say why it cannot write a file. Megabytes are those by which a
process's peak grows, beside what it has before; seconds are CPU's of a rank, turn by turn.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.optim import AdamW
from torch.utils import _pytree as pytree

from benchmarks.record import ROOT, spread, write
from recsys import ranks
from recsys.checkpoints import read_checkpoint, write_divided
from recsys.files import atomic_file
from recsys.nn.embedding import EmbeddingTable, like

RESULT = ROOT / "benchmarks/speed/results/checkpoints.json"
ITEMS, DIM, REPEATS = 300_000, 64, 3


def state() -> dict[str, Any]:
    """Weights and moments of a table after a step."""
    table = EmbeddingTable(ITEMS, DIM)
    table.divide()
    table.weight.grad = torch.ones_like(table.weight)
    optimizer = AdamW([table.weight])
    optimizer.step()
    table.weight.grad = None
    return {"state_dict": table.state_dict(), "optimizer_states": [optimizer.state_dict()]}


def gathered(path: Path, state: dict[str, Any]) -> None:
    def whole(tensor: DTensor) -> torch.Tensor:
        values = tensor.full_tensor()
        return values if ranks.is_first() else values.new_empty(0)

    every = pytree.tree_map_only(DTensor, whole, state)
    if ranks.is_first():
        buffer = io.BytesIO()
        torch.save(every, buffer)
        with atomic_file(path) as scratch:
            scratch.write_bytes(buffer.getbuffer())


def read_rows(path: Path, state: dict[str, Any]) -> None:
    """Of the weights and of a moment."""
    saved = read_checkpoint(path, whole=False)
    of_weight = state["optimizer_states"][0]["state"][0]
    like(saved["state_dict"]["weight"], state["state_dict"]["weight"])
    for name in ("exp_avg", "exp_avg_sq"):
        like(saved["optimizer_states"][0]["state"][0][name], of_weight[name])


def measured(do: Callable[[], None]) -> tuple[float, float]:
    """Megabytes by which the peak grows, and CPU seconds."""
    Path("/proc/self/clear_refs").write_text("5")
    before, seconds = peak(), time.process_time()
    do()
    seconds = time.process_time() - seconds
    return (peak() - before) / 1e6, seconds


def peak() -> int:
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kibibytes)


def on_rank(folder: Path, rank: int) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    held = state()
    sides = {
        "write rows": partial(write_divided, folder / "rows.ckpt", held),
        "read rows": partial(read_rows, folder / "rows.ckpt", held),
        "write gathered": partial(gathered, folder / "gathered.ckpt", held),
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, side in sides.items():
            figures[name].append(measured(side))
            dist.barrier()
    (folder / f"{rank}.json").write_text(json.dumps(figures))


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "benchmarks.speed.checkpoints", place]
        both = [subprocess.Popen([*command, str(rank)], cwd=ROOT) for rank in range(2)]
        assert not any(process.wait() for process in both)
        figures = [json.loads((Path(place) / f"{rank}.json").read_text()) for rank in range(2)]
    sides = {
        f"{name}, rank {rank}": {
            "peak_grows_mb": spread(megabytes for megabytes, _ in figures[rank][name]),
            "cpu": spread(seconds for _, seconds in figures[rank][name]),
        }
        for name in figures[0]
        for rank in range(2)
    }
    table_mb = round((ITEMS + 1) * DIM * 4 / 1e6, 1)
    write(RESULT, {"table_mb": table_mb, "sides": sides}, packages=["torch", "safetensors"], seed=0)
    for name, side in sides.items():
        print(name, side["peak_grows_mb"]["median"], side["cpu"]["median"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        on_rank(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
