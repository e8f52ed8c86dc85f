"""Checkpoints that ranks write together: `rows_on_ranks.py FOLDER RANK` is one of two.

In the end rank 1 is killed while it writes.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from recsys import checkpoints
from recsys.checkpoints import read_checkpoint, write_divided
from recsys.nn.embedding import EmbeddingTable, like

SIZES = {"small": (40, 8), "large": (100_000, 64)}
"""Items, of which there is a row of padding more, and dimensions."""


def state_after_a_step(size: tuple[int, int], *, divided: bool) -> dict[str, Any]:
    """What a training saves of a table, and of a layer that nobody divides."""
    torch.manual_seed(0)
    table, layer = EmbeddingTable(*size), nn.Linear(size[1], 3)
    gradient = torch.randn_like(table.weight)
    if divided:
        table.divide()
    table.weight.grad = like(gradient, table.weight)
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer = AdamW([table.weight, *layer.parameters()], betas=(0.8, 0.9))
    optimizer.step()
    weights = {f"items.{name}": value for name, value in table.state_dict().items()}
    weights |= {"tied": weights["items.weight"], **layer.state_dict()}
    callbacks = {"best": float("-inf"), "none": None, "words": "a/b", "flags": [True]}
    return {
        "epoch": 3,
        "state_dict": weights,
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": callbacks,
    }


def peak() -> int:
    """Bytes that the process had at most."""
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kibibytes)


def growth(path: Path) -> dict[str, int]:
    """Bytes by which the peak grows when a large checkpoint is written, and read."""
    state, grown = state_after_a_step(SIZES["large"], divided=True), {}
    weight = state["state_dict"]["items.weight"]
    for name in ("write", "read"):
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        if name == "write":
            write_divided(path, state)
        else:
            saved = read_checkpoint(path, whole=False)["state_dict"]["items.weight"]
            assert like(saved, weight).to_local().equal(weight.to_local())
        grown[name] = peak() - before
        dist.barrier()
    return grown


def check_rows(path: Path, state: dict[str, Any]) -> None:
    """A rank reads the rows that it has written."""
    saved = read_checkpoint(path, whole=False)
    moments, read = (of["optimizer_states"][0]["state"] for of in (state, saved))
    pairs = [(state["state_dict"]["items.weight"], saved["state_dict"]["items.weight"])]
    pairs += [(moments[0]["exp_avg"], read[0]["exp_avg"])]
    for rows, of_files in pairs:
        again = like(of_files, rows)
        assert isinstance(again, DTensor)
        assert again.shape == rows.shape
        assert again.to_local().equal(rows.to_local())


def main(folder: Path, rank: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    state = state_after_a_step(SIZES["small"], divided=True)
    for _ in range(2):  # of the first nothing is left
        write_divided(folder / "last.ckpt", state)
    check_rows(folder / "last.ckpt", state)
    grown = growth(folder / "large.ckpt")
    (folder / f"grown.{rank}.json").write_text(json.dumps(grown))
    dist.barrier()
    dies = {"side_effect": lambda path: os._exit(9)} if rank else {"wraps": checkpoints.facts_of}
    with mock.patch.object(checkpoints, "facts_of", **dies):
        write_divided(folder / "last.ckpt", state | {"epoch": 4})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
