"""An epoch of training SASRec: ours beside RecTools', turn by turn, with Lightning in both loops.

    RECSYS_DATA=FOLDER python -m benchmarks.speed.sasrec --rectools-python PATH

PATH is the Python of an environment with RecTools, which `rectools_sasrec.py` says how to make.
Both sides train on the same events with the same sizes (64 dimensions, 2 blocks of 2 heads,
dropout .2), batches of 128 users, the softmax over all items and Adam's steps, on one thread:

    ml100k     the training events of MovieLens 100K, at most 50 targets a user
    long       1,024 users with lengths and items as in MovieLens 1M, at most 200 targets

An epoch is timed from its start to that of the next, so that ours counts its checkpoint too; the
first one warms up. What differs: RecTools pads a batch to the full length, has logits there too,
and drops attention weights, which costs it torch's fused attention; its attention normalises the
queries alone. The mean training losses stand beside the times.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.record import ROOT, ratio, spread, write
from recsys.data.sources.movielens import ml100k
from recsys.evaluation.ranking import Protocol
from recsys.log.event_log import EventLog
from recsys.log.filters import filtered
from recsys.models import SASRec
from recsys.models.sequences import Encoder
from recsys.tasks.splits import Split, leave_last_out
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

RESULT = ROOT / "benchmarks/speed/results/sasrec.json"
DRIVER = ROOT / "benchmarks/speed/rectools_sasrec.py"
DIM, NUM_LAYERS, NUM_HEADS = 64, 2, 2
BATCH_SIZE = 128


def long_histories() -> EventLog:
    """1,024 users, 3,416 items: log-normal lengths of at least 18, popularity by Zipf's law."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(4.55, 0.95, 1024)).clip(18, 2000).astype(int)
    popularity = 1 / np.arange(20, 3416 + 20)
    items = generator.choice(3416, size=lengths.sum(), p=popularity / popularity.sum())
    events = pl.DataFrame({"user_id": np.repeat(np.arange(1024), lengths), "item_id": items})
    return EventLog.from_frames(events.with_columns(timestamp=pl.int_range(pl.len())), name="long")


class Timed(SASRec):
    """Notes when its epochs begin, and what they lost."""

    def __init__(self, num_items: int, **options: Any) -> None:
        super().__init__(num_items, **options)
        self.starts: list[tuple[float, float]] = []
        self.losses: list[float] = []

    def on_train_epoch_start(self) -> None:
        self.starts.append((time.perf_counter(), time.process_time()))

    def on_train_epoch_end(self) -> None:
        self.losses.append(float(self.trainer.callback_metrics["train/loss"]))


def ours(split: Split, max_length: int, epochs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    sizes = Encoder(num_layers=NUM_LAYERS, num_heads=NUM_HEADS, max_length=max_length)
    model = Timed(split.num_items, embedding_dim=DIM, encoder=sizes)
    training = TrainingOptions(
        max_epochs=epochs + 1,
        batch_size=BATCH_SIZE,
        evaluate_every=epochs + 1,
        device="cpu",
    )
    fit(model, split, training, Protocol())
    wall, cpu = zip(*model.starts, strict=True)
    return {
        "wall": np.diff(wall).tolist(),
        "cpu": np.diff(cpu).tolist(),
        "losses": model.losses,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def rectools(python: Path, split: Split, max_length: int, epochs: int) -> dict[str, Any]:
    """What the driver prints, on the training events."""
    history = split.training
    owners = history.owners()
    place = torch.arange(len(owners)) - history.offsets[owners]
    events = pl.DataFrame({"user_id": owners.numpy(), "item_id": history.items.numpy()})
    day = pl.datetime(2000, 1, 1) + pl.duration(days=pl.Series(place.numpy()))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "events.csv"
        events.with_columns(datetime=day).write_csv(path)
        command = [python, DRIVER, path, "--max-length", str(max_length), "--epochs", str(epochs)]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def compare(
    python: Path, split: Split, max_length: int, *, turns: int, epochs: int
) -> dict[str, Any]:
    """Median seconds an epoch of each side's turns, and their ratios turn by turn."""
    turns_of: dict[str, list[dict[str, Any]]] = {"rectools": [], "ours": []}
    for _ in range(turns):
        turns_of["ours"].append(ours(split, max_length, epochs))
        turns_of["rectools"].append(rectools(python, split, max_length, epochs))
    sides = {
        name: {
            clock: spread(float(np.median(turn[clock][1:])) for turn in of_side)
            for clock in ("wall", "cpu")
        }
        for name, of_side in turns_of.items()
    }
    targets = int((split.training.lengths() - 1).clamp(max=max_length).sum())
    return {
        "users": len(split.training),
        "items": split.num_items,
        "targets": targets,
        "max_length": max_length,
        "sides": {
            name: {
                **sides[name],
                "targets_per_cpu_second": round(targets / sides[name]["cpu"]["median"]),
                "training_losses": [round(loss, 4) for loss in of_side[0]["losses"]],
                "parameters": of_side[0]["parameters"],
            }
            for name, of_side in turns_of.items()
        },
        "ratios": {"rectools/ours": ratio(sides, "rectools", "ours")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rectools-python", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="each turn, after one to warm up")
    options = parser.parse_args()
    torch.set_num_threads(1)
    films = filtered(ml100k(), first_only=True, min_user_events=3)
    logs = {"ml100k": (leave_last_out(films), 50), "long": (leave_last_out(long_histories()), 200)}
    measured = {}
    for name, (split, max_length) in logs.items():
        comparison = compare(
            options.rectools_python, split, max_length, turns=options.turns, epochs=options.epochs
        )
        measured[name] = comparison
        for side, values in comparison["sides"].items():
            print(f"{name} {side}: {values['targets_per_cpu_second']} targets a CPU second")
        cpu = comparison["ratios"]["rectools/ours"]["cpu"]
        print(f"{name} rectools/ours: {cpu['median']:.2f} CPU")
    settings = {"threads": 1, "batch_size": BATCH_SIZE, "rectools": "0.19.0"}
    settings |= {"embedding_dim": DIM, "num_layers": NUM_LAYERS, "num_heads": NUM_HEADS}
    packages = ["recsys", "torch", "pytorch-lightning", "polars", "numpy"]
    ratios = {
        f"{pair}, {name}": clocks
        for name, comparison in measured.items()
        for pair, clocks in comparison.pop("ratios").items()
    }
    record = settings | {"logs": measured, "ratios": ratios}
    write(RESULT, record, packages=packages, seed=0)


if __name__ == "__main__":
    main()
