"""Memory of ranks that read a prepared log whole, or partitions of their own.

    python -m benchmarks.speed.by_rank --folder big

The log is that of `benchmarks.speed.prepared`, smaller. It is read, split, and its test users are
asked of a small SASRec that is not trained, which is saved, by

    alone     a process
    whole     two ranks, each of which reads the log
    by_rank   two ranks, each of which reads its partitions (data.by_rank=true)

Figures are MiB of each rank: what its process held at most in a stage, less what imports take.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.record import ROOT, write
from benchmarks.speed.prepared import generate
from recsys import ranks
from recsys.data.sources.prepared import prepared
from recsys.evaluation.ranking import evaluate
from recsys.models import SASRec
from recsys.models.sequences import Encoder
from recsys.scoring.saved_model import save
from recsys.tasks.splits import leave_last_out
from recsys.training.processes import join

RESULT = ROOT / "benchmarks/speed/results/by_rank.json"
SIDES = {"alone": 1, "whole": 2, "by_rank": 2}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def prepare(log: Path, out: Path, partitions: int) -> None:
    """The prepared log, where it is not there yet."""
    if not out.exists():
        data = ["data=table", f"data.path='{log}/*.parquet'", "data.time_unit=s", f"out={out}"]
        words = ["-m", "recsys.cli.main", "data", "prepare", *data, f"partitions={partitions}"]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def peak() -> int:
    """MiB that the process has held at most since the last call."""
    match = re.search(r"VmHWM:\s+(\d+)", STATUS.read_text())
    assert match is not None
    CLEAR.write_text("5")
    return int(match[1]) // 1024


def stages(side: str, folder: Path) -> None:
    """Do what is measured, as one of the ranks, and write the peaks of all."""
    join(SIDES[side], device="cpu")
    peaks = {"imports": peak()}
    log = prepared(str(folder / "prepared"), by_rank=side == "by_rank")
    peaks["read"] = peak()
    split = leave_last_out(log)
    for part in ("train", "validation", "test", "training"):
        getattr(split, part)
    peaks["split"] = peak()
    encoder = Encoder(num_layers=1, max_length=10)
    model = SASRec(split.num_items, embedding_dim=16, encoder=encoder).eval()
    model.keep_popularity(split)
    model.prepare(split)
    evaluate(model, split.test, popularity=split.popularity)
    peaks["evaluate"] = peak()
    save(folder / "saved", model, split)
    peaks["save"] = peak()
    every = [
        {name: mib - of["imports"] for name, mib in of.items()} for of in ranks.gathered(peaks)
    ]
    if ranks.is_first():
        (folder / f"{side}.json").write_text(json.dumps(every))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--folder", type=Path, required=True, help="1 GB for 4 million rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", choices=SIDES, help="measure this one, as a rank of it")
    options = parser.parse_args()
    folder = options.folder.absolute()
    if options.side:
        stages(options.side, folder)
        return
    size = {"rows": options.rows, "users": options.users, "items": options.items}
    (folder / "log").mkdir(parents=True, exist_ok=True)
    generate(folder / "log", **size, seed=options.seed)
    prepare(folder / "log", folder / "prepared", options.partitions)
    for side, number in SIDES.items():
        program = ("-m", "benchmarks.speed.by_rank", "--folder", str(folder), "--side", side)
        words = [sys.executable, *(TORCHRUN if number > 1 else ()), *program]
        subprocess.run(words, cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    sides = {side: json.loads((folder / f"{side}.json").read_text()) for side in SIDES}
    figures = {"log": size, "partitions": options.partitions, "sides": sides}
    write(RESULT, figures, packages=["recsys", "torch", "polars"], seed=options.seed)


if __name__ == "__main__":
    main()
