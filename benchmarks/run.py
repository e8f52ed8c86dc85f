"""Run experiments over seeds and keep what they reached as records.

    python -m benchmarks.run tifuknn/dc ease/ml100k
    python -m benchmarks.run count_vae/dc --seeds 0 1 2 3 4

A record, `benchmarks/results/<experiment>.json`, holds the test and validation metrics of every
seed, their spread, the composed config, a fingerprint of the log, the time, the memory and the
machine. An experiment that fails leaves a record of its error. `benchmarks.report` makes tables.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, write

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ["recsys", "torch", "pytorch-lightning", "polars", "numpy", "scipy", "faiss-cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    given = parser.parse_args()
    for experiment in given.experiments:
        runs = [run(experiment, seed) for seed in given.seeds]
        done = [r for r in runs if "metrics" in r]
        measured: dict[str, Any] = {"experiment": experiment, "seeds": given.seeds, "runs": runs}
        for part in ("validation", "test"):
            measured[part] = spread_over_seeds([r["metrics"][part] for r in done])
        path = RESULTS / f"{experiment}.json"
        write(path, measured, packages=PACKAGES, seed=given.seeds[0])
        shown = {k: v["mean"] for k, v in measured["test"].items() if k in SHOWN}
        print(experiment, shown or runs[0]["error"], flush=True)


SHOWN = ("recall@10", "ndcg@10", "phr@10")


def run(experiment: str, seed: int) -> dict[str, Any]:
    """One run in a process of its own: metrics, config, wall seconds and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "recsys.cli", "train", f"experiment={experiment}"]
        command += [f"seed={seed}", f"hydra.run.dir={folder}/run"]
        started = time.perf_counter()
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if ended.returncode:
            return {"seed": seed, "error": ended.stderr.strip().splitlines()[-1]}
        place = Path(folder) / "run"
        return {
            "seed": seed,
            "metrics": json.loads((place / "metrics.json").read_text()),
            "intervals": json.loads((place / "intervals.json").read_text())["test"],
            "config": (place / "config.yaml").read_text(),
            "log": fingerprint(place / "model"),
            "wall_seconds": round(seconds, 2),
            # The largest of the children so far: an upper bound where several experiments run.
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        }


def fingerprint(model: Path) -> str:
    """SHA-256 of the catalogue, the users and their histories, as the run's folder keeps them."""
    names = ("items.parquet", "users.parquet", "histories.safetensors")
    return hashlib.sha256(b"".join((model / name).read_bytes() for name in names)).hexdigest()


def spread_over_seeds(metrics: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (0 for one seed) of every metric."""
    if not metrics:
        return {}
    return {
        name: {
            "mean": statistics.fmean(m[name] for m in metrics),
            "std": statistics.stdev(m[name] for m in metrics) if len(metrics) > 1 else 0.0,
        }
        for name in metrics[0]
    }


if __name__ == "__main__":
    main()
