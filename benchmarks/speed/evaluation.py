"""Full-catalogue evaluation of EASE on ml-100k: ours beside RecBole's default, turn by turn.

    RECSYS_DATA=FOLDER python -m benchmarks.speed.evaluation --recbole-python PATH

PATH is the Python of an environment with RecBole, which `recbole_ease.py` says how to make. Both
sides hold a fitted model in memory and rank all items for the 943 validation users, the training
history masked; then five metrics at 10 there, and ours with those of repeated and new items and of
the catalogue besides. Each turn takes the median of several passes of a side, and the two must
agree on recall and nDCG. One thread each, unless `--threads` says otherwise: where others use the
machine too, waiting threads spin and cost a side by chance.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import ROOT, ratio, spread, write
from recsys.data.sources.movielens import ml100k
from recsys.evaluation.ranking import Evaluation, Protocol, evaluate
from recsys.log.filters import filtered
from recsys.models import EASE
from recsys.tasks.splits import leave_last_out

RESULT = ROOT / "benchmarks/speed/results/evaluation.json"
DRIVER = ROOT / "benchmarks/speed/recbole_ease.py"
L2 = 250.0
METRICS = ("recall@10", "ndcg@10")


def ours() -> Callable[[], Evaluation]:
    """A pass of our evaluation, with everything before it done."""
    split = leave_last_out(filtered(ml100k(), first_only=True, min_user_events=3))
    model, part = EASE(l2=L2).fit(split), split.validation
    protocol = Protocol(ks=(10,), mask_history=True)
    return lambda: evaluate(model, part, protocol)


def timed(evaluation: Callable[[], Evaluation], passes: int) -> dict[str, Any]:
    """Seconds of each pass, wall and CPU, and the metrics, in the form that the driver prints."""
    evaluation()  # warm up, as the driver does
    wall, cpu = [], []
    for _ in range(passes):
        started, started_cpu = time.perf_counter(), time.process_time()
        means = evaluation().means
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - started_cpu)
    return {"seconds": wall, "cpu_seconds": cpu} | {name: means[name] for name in METRICS}


def recbole(python: Path, *, passes: int, threads: int) -> dict[str, Any]:
    """What the driver prints for the validation users."""
    command = [python, DRIVER, "--repeats", str(passes), "--threads", str(threads)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout)["validation"]


def check_agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """RecBole rounds to four decimals.

    Raises:
        SystemExit: the sides measured something else.
    """
    for name in METRICS:
        if abs(ours[name] - theirs[name]) > 1e-4:
            raise SystemExit(f"{name}: ours {ours[name]:.4f}, RecBole {theirs[name]:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recbole-python", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    evaluation = ours()
    turns: dict[str, list[dict[str, Any]]] = {"recbole": [], "ours": []}
    for _ in range(options.turns):
        turns["ours"].append(timed(evaluation, options.passes))
        theirs = recbole(options.recbole_python, passes=options.passes, threads=options.threads)
        turns["recbole"].append(theirs)
        check_agreement(turns["ours"][-1], theirs)
    sides = {
        name: {
            "wall": spread(statistics.median(turn["seconds"]) for turn in of_side),
            "cpu": spread(statistics.median(turn["cpu_seconds"]) for turn in of_side),
            **{metric: of_side[0][metric] for metric in METRICS},
        }
        for name, of_side in turns.items()
    }
    ratios = ratio(sides, "recbole", "ours")
    for name, side in sides.items():
        wall, cpu = side["wall"]["median"], side["cpu"]["median"]
        metrics = ", ".join(f"{metric} {side[metric]:.4f}" for metric in METRICS)
        print(f"{name}: {wall:.4f} s wall, {cpu:.4f} s CPU a pass; {metrics}")
    figures = (f"{values['median']:.1f} {clock}" for clock, values in ratios.items())
    print("recbole/ours: " + ", ".join(figures))
    settings = {"threads": options.threads, "passes": options.passes, "l2": L2}
    measured = settings | {"recbole": "1.2.1", "sides": sides, "ratios": {"recbole/ours": ratios}}
    write(RESULT, measured, packages=["torch", "polars", "numpy"], seed=2020)


if __name__ == "__main__":
    main()
