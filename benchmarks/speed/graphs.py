"""Build the dynamic graphs of whole logs: recsys beside numpy, each in a process of its own.

    RECSYS_DATA=FOLDER python -m benchmarks.speed.graphs

The logs are all baskets of Complete Journey, which comes with the package, and the training
histories of Ta-Feng. Numpy has a table of pair counts for each user and goes through it basket by
basket, with no Python per item or pair. Both sides must give the same weights; ours numbers the
nodes besides. Memory is the process's peak: `loaded_mib` until the histories have been read,
`peak_mib` until their graphs are there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import ROOT, ratio, spread, write
from recsys.batch.graphs import GraphBatch
from recsys.batch.histories import BasketBatch
from recsys.data.sources.complete_journey import complete_journey
from recsys.data.sources.temporal_sets import tafeng
from recsys.tasks.splits import last_basket, user_holdout

RESULT = ROOT / "benchmarks/speed/results/graphs.json"
LOGS = {
    "complete_journey": lambda: last_basket(complete_journey()).latest,
    "tafeng": lambda: user_holdout(tafeng()).training,
}


def ours(histories: BasketBatch) -> np.ndarray:
    """Edge weights (P,) float32, row after row over the events."""
    return GraphBatch.of(histories).edge_weights.numpy()


def numpy(histories: BasketBatch) -> np.ndarray:
    """The same; a basket's graph is a sub-table of its user's."""
    users = histories.offsets[1:-1].numpy()
    items, numbers = (
        np.split(column.numpy(), users) for column in (histories.items, histories.baskets)
    )
    return np.concatenate(
        [weights for user in zip(items, numbers, strict=True) for weights in _of_user(*user)]
    )


def _of_user(items: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    distinct, nodes = np.unique(items, return_inverse=True)
    baskets = np.split(nodes, np.flatnonzero(np.diff(numbers)) + 1)
    cells = [np.ix_(basket, basket) for basket in baskets]
    table = np.zeros((len(distinct), len(distinct)), dtype=np.float32)
    for cell in cells:
        table[cell] += 1
    np.fill_diagonal(table, 1)
    table /= table.max()
    return [table[cell].ravel() for cell in cells]


SIDES = {side.__name__: side for side in (ours, numpy)}


def once(log: str, side: str) -> dict[str, Any]:
    """Seconds and memory of one side on one log, and what it made."""
    histories = LOGS[log]()
    loaded, wall, cpu = _peak_mib(), time.perf_counter(), time.process_time()
    weights = SIDES[side](histories)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "wall": wall,
        "cpu": cpu,
        "loaded_mib": loaded,
        "peak_mib": _peak_mib(),
        "result": {
            "users": len(histories),
            "baskets": int(histories.num_baskets().sum()),
            "events": len(histories.items),
            "edges": len(weights),
            "sha256": hashlib.sha256(weights).hexdigest(),
        },
    }


def _peak_mib() -> float:
    """Peak resident memory so far (Linux). `ru_maxrss` would hand down the parent's to a child."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def measure(log: str, repeats: int) -> dict[str, Any]:
    """Both sides' runs, turn by turn so that a busy machine slows both.

    Raises:
        SystemExit: the sides made different graphs.
    """
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, of_side in runs.items():
            of_side.append(_child(log, side))
    results = {json.dumps(run["result"]) for of_side in runs.values() for run in of_side}
    if len(results) > 1:
        raise SystemExit("the sides disagree: " + " ".join(sorted(results)))
    clocks = ("wall", "cpu", "loaded_mib", "peak_mib")
    sides = {
        side: {clock: spread(run[clock] for run in of_side) for clock in clocks}
        for side, of_side in runs.items()
    }
    return {"result": runs["ours"][0]["result"], "sides": sides}


def _child(log: str, side: str) -> dict[str, Any]:
    """A run in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "benchmarks.speed.graphs", "--log", log, "--side", side]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(finished.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--log", choices=LOGS, help="with --side: run one, print JSON and stop")
    parser.add_argument("--side", choices=SIDES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.side:
        print(json.dumps(once(options.log, options.side)))
        return
    logs = {log: measure(log, options.repeats) for log in LOGS}
    ratios = {
        f"numpy/ours, {log}": ratio(measured["sides"], "numpy", "ours")
        for log, measured in logs.items()
    }
    for log, measured in logs.items():
        for name, side in measured["sides"].items():
            wall, cpu, peak = (side[clock]["median"] for clock in ("wall", "cpu", "peak_mib"))
            print(f"{log}, {name}: {wall:.2f} s wall, {cpu:.2f} s CPU, {peak:.0f} MiB")
    packages = ["torch", "numpy", "polars"]
    write(RESULT, {"threads": 1, "logs": logs, "ratios": ratios}, packages=packages, seed=0)


if __name__ == "__main__":
    main()
