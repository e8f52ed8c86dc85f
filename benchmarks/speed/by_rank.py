"""Memory of ranks that read a prepared log whole, or partitions of their own.

    python -m benchmarks.speed.by_rank --folder big

The log is that of `benchmarks.speed.prepared`, smaller. A small SASRec is trained for an epoch,
evaluated and saved, by

    alone     a process
    whole     two ranks, each of which reads the log
    by_rank   two ranks, each of which reads its partitions (data.by_rank=true)

Peaks are of each rank's process, until it ends: of rank 0 with the histories that it saves.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, write
from benchmarks.speed.prepared import PEAK, generate

RESULT = ROOT / "benchmarks/speed/results/by_rank.json"
SIDES = {"alone": 1, "whole": 2, "by_rank": 2}
MODEL = (
    "model=sasrec",
    "model.embedding_dim=16",
    "model.encoder.max_length=10",
    "model.encoder.num_layers=1",
    "model.ranking.num_negatives=256",
    "trainer.max_epochs=1",
    "trainer.batch_size=2048",
    "device=cpu",
)
PROGRAM = PEAK + "from recsys.cli.main import main\nraise SystemExit(main())"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def prepare(log: Path, out: Path, partitions: int) -> None:
    """The prepared log, where it is not there yet."""
    if not out.exists():
        data = ["data=table", f"data.path='{log}/*.parquet'", "data.time_unit=s", f"out={out}"]
        words = ["-m", "recsys.cli.main", "data", "prepare", *data, f"partitions={partitions}"]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def measured(side: str, folder: Path) -> dict[str, Any]:
    """Peak MiB and CPU seconds of a side's ranks."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    data = [f"data.path={folder / 'prepared'}", f"data.by_rank={side == 'by_rank'}"]
    devices, out = SIDES[side], folder / "runs" / side
    options = ["data=prepared", *data, *MODEL, f"trainer.devices={devices}", f"hydra.run.dir={out}"]
    torchrun = TORCHRUN if devices > 1 else ()
    words = [sys.executable, *torchrun, str(program), "train", *options]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{words} ended with status {status}")
    print(said)
    peaks = sorted((int(kib) // 1024 for kib in re.findall(r"VmHWM:\s+(\d+)", said)), reverse=True)
    cpu = round(usage.ru_utime + usage.ru_stime, 1)
    metrics = json.loads((out / "metrics.json").read_text())
    return {"peak_mib": peaks, "cpu": cpu, "test_ndcg@10": metrics["test"]["ndcg@10"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--folder", type=Path, required=True, help="1 GB for 4 million rows")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size = {"rows": options.rows, "users": options.users, "items": options.items}
    (options.folder / "log").mkdir(parents=True, exist_ok=True)
    generate(options.folder / "log", **size, seed=options.seed)
    prepare(options.folder / "log", options.folder / "prepared", options.partitions)
    done = options.folder / "sides.json"
    sides = json.loads(done.read_text()) if done.exists() else {}
    for side in SIDES:
        if side not in sides:
            sides[side] = measured(side, options.folder)
            done.write_text(json.dumps(sides))
    figures = {"log": size, "partitions": options.partitions, "sides": sides}
    write(RESULT, figures, packages=["recsys", "torch", "polars"], seed=options.seed)


if __name__ == "__main__":
    main()
