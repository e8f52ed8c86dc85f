"""Run experiments over seeds and keep what they reached as records.

    python -m benchmarks.run tifuknn/dc ease/ml100k
    python -m benchmarks.run count_vae/dc --seeds 0 1 2 3 4

A record, `benchmarks/results/<experiment>.json`, holds the test and validation metrics of every
seed, their spread, the composed config, a fingerprint of the log, the time, the memory and the
machine; `<experiment>.parquet` beside it each test user's metrics, mean over seeds, for paired
tests. An experiment that fails leaves a record of its error. `benchmarks.report` makes tables.
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

import polars as pl

from benchmarks.record import ROOT, write

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ["recsys", "torch", "pytorch-lightning", "polars", "numpy", "scipy", "faiss-cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    given = parser.parse_args()
    for experiment in given.experiments:
        path = RESULTS / f"{experiment}.json"
        with tempfile.TemporaryDirectory() as scratch:
            folders = {seed: Path(scratch) / str(seed) for seed in given.seeds}
            runs = [run(experiment, seed, folder) for seed, folder in folders.items()]
            done = [r for r in runs if "metrics" in r]
            if done:
                path.parent.mkdir(parents=True, exist_ok=True)
                means = mean_over_seeds([folders[r["seed"]] for r in done])
                means.write_parquet(path.with_suffix(".parquet"))
        measured: dict[str, Any] = {"experiment": experiment, "seeds": given.seeds, "runs": runs}
        for part in ("validation", "test"):
            measured[part] = spread_over_seeds([r["metrics"][part] for r in done])
        write(path, measured, packages=PACKAGES, seed=given.seeds[0])
        shown = {k: v["mean"] for k, v in measured["test"].items() if k in SHOWN}
        print(experiment, shown or runs[0]["error"], flush=True)


SHOWN = ("recall@10", "ndcg@10", "phr@10")


def run(experiment: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run in a process of its own: metrics, config, wall seconds and peak memory."""
    command = [sys.executable, "-m", "recsys.cli", "train", f"experiment={experiment}"]
    command += [f"seed={seed}", f"hydra.run.dir={folder}"]
    started = time.perf_counter()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if ended.returncode:
        return {"seed": seed, "error": ended.stderr.strip().splitlines()[-1]}
    return {
        "seed": seed,
        "metrics": json.loads((folder / "metrics.json").read_text()),
        "intervals": json.loads((folder / "intervals.json").read_text())["test"],
        "config": (folder / "config.yaml").read_text(),
        "log": fingerprint(folder / "model"),
        "wall_seconds": round(seconds, 2),
        # The largest of the children so far: an upper bound where several experiments run.
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }


def mean_over_seeds(folders: list[Path]) -> pl.DataFrame:
    """A row per test user of the runs in these folders: `user_id` and the metrics of `SHOWN`."""
    users = pl.concat(pl.read_parquet(folder / "per_user.parquet") for folder in folders)
    test = users.filter(pl.col("part") == "test")
    return test.group_by("user_id", maintain_order=True).agg(pl.col(SHOWN).mean().cast(pl.Float32))


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
