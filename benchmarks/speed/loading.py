"""What it costs to look at a saved model before it is used, beside reading its bytes, turn by turn.

    python -m benchmarks.speed.loading          # 50 million events of a million users

`load` is `recsys.load`: every file's SHA-256 against the manifest, then every offset, index and
weight. `load_unhashed` is that of a folder without a manifest, `unchecked` without either, and
`read` reads the files' bytes, which the operating system has in memory.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import polars as pl
import torch
from safetensors.torch import save_file, save_model

from benchmarks.record import ROOT, alternate, ratio, write
from recsys.batch.histories import BasketBatch
from recsys.scoring import manifest, saved_model

RESULT = ROOT / "benchmarks/speed/results/loading.json"


def save(folder: Path, *, users: int, events: int, items: int, dim: int) -> None:
    """A run of BPRMF as `recsys train` leaves it, of a log that is drawn at random."""
    folder.mkdir(parents=True)
    config = {"_target_": "recsys.models.BPRMF", "num_items": items, "num_users": users}
    config |= {"embedding_dim": dim}
    described = {"model": config, "mask_history": False}
    (folder / "recsys.json").write_text(json.dumps(described))
    save_model(saved_model.build(config), str(folder / "weights.safetensors"))
    pl.DataFrame({"item_id": pl.int_range(items, eager=True)}).write_parquet(
        folder / "items.parquet"
    )
    pl.DataFrame({"user_id": pl.int_range(users, eager=True)}).write_parquet(
        folder / "users.parquet"
    )
    each = events // users
    number = torch.arange(each)
    tensors = {
        "items": torch.randint(items, (users * each,)),
        "baskets": number.repeat(users),
        "times": (number * 86_400).repeat(users),
        "quantities": torch.ones(users * each),
        "values": torch.full((users * each,), torch.nan),
        "log_rows": torch.arange(users * each),
        "offsets": torch.arange(users + 1) * each,
        "users": torch.arange(users),
    }
    save_file(tensors, folder / "histories.safetensors")
    manifest.write(folder)


def unhashed(run: Path) -> None:
    with patch.object(manifest, "check"):
        saved_model.load(run)


def unchecked(run: Path) -> None:
    with patch.object(BasketBatch, "check"), patch.object(saved_model, "_check_ids"):
        unhashed(run)


def read(run: Path) -> None:
    for path in (run / "model").iterdir():
        path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=50_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    with TemporaryDirectory() as scratch:
        run = Path(scratch)
        sizes = {name: getattr(options, name) for name in ("users", "events", "items", "dim")}
        save(run / "model", **sizes)
        size = sum(path.stat().st_size for path in (run / "model").iterdir())
        sides = alternate(
            {
                "load": lambda: saved_model.load(run),
                "load_unhashed": lambda: unhashed(run),
                "unchecked": lambda: unchecked(run),
                "read": lambda: read(run),
            },
            repeats=options.repeats,
        )
    pairs = (("load", "read"), ("load_unhashed", "read"), ("load_unhashed", "unchecked"))
    ratios = {f"{one}/{other}": ratio(sides, one, other) for one, other in pairs}
    for name, side in sides.items():
        print(f"{name}: {side['wall']['median']:.3f} s wall, {side['cpu']['median']:.3f} s CPU")
    measured = {"sizes": {**sizes, "bytes": size}, "sides": sides, "ratios": ratios}
    write(RESULT, measured, packages=["torch", "polars", "safetensors"], seed=options.seed)


if __name__ == "__main__":
    main()
