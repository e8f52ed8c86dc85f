"""Prepare a log of 10 million rows: recsys beside pandas, each in a process of its own.

The work: read Parquet, sort by user and time (equal times keep the file's order), 5-core of users
and items to a fixed point, leave-one-out (last event test, last but one validation), sequences per
user. Both sides must give the same users, items, events, targets and sequences.

    python -m benchmarks.speed.prepare        # needs pandas and pyarrow

pandas is written as its documentation would have it: whole-column operations, the fastest of the
idioms tried for each step, no Python per row. `pandas_arrays` differs in the last step only: numpy
views in place of lists, the fastest sequences that pandas can give.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import ROOT, ratio, spread, write

RESULT = ROOT / "benchmarks/speed/results/prepare.json"
MINIMUM = 5
ROWS_PER_USER, ROWS_PER_ITEM = 20, 100
CLOCKS = ("wall", "cpu")
MEMORY = ("peak_mib", "imports_mib")


def generate(path: Path, *, rows: int, users: int, items: int, seed: int) -> None:
    """A shuffled log: users of lognormal activity, items of Zipf popularity, times over 3 years."""
    import polars as pl

    random = np.random.default_rng(seed)
    user_ids = random.permutation(3 * users)[:users]  # ids with gaps, in no order
    item_ids = random.permutation(3 * items)[:items]
    user = _draw(random, random.lognormal(size=users), rows)
    item = _draw(random, 1 / np.arange(1, items + 1), rows)
    columns = {
        "user_id": user_ids[user],
        "item_id": item_ids[item],
        "timestamp": random.integers(1_500_000_000, 1_600_000_000, rows),
    }
    pl.DataFrame(columns).write_parquet(path)


def _draw(random: np.random.Generator, weights: np.ndarray, count: int) -> np.ndarray:
    upper = np.cumsum(weights)
    return np.searchsorted(upper, random.random(count) * upper[-1], side="right")


class Laps:
    """Wall and CPU seconds of each step of a side."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}
        self.wall = self.cpu = 0.0
        self.start()

    def start(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __call__(self, step: str) -> None:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        self.steps[step] = {"wall": wall, "cpu": cpu}
        self.start()


def pandas_lists(path: Path) -> dict:
    """pandas, sequences as a column of lists."""
    return _pandas(path, lambda train: train.groupby("user_id")["item_id"].agg(list))


def pandas_arrays(path: Path) -> dict:
    """pandas, sequences as numpy views of one column."""

    def sequences(train):
        users = train["user_id"].to_numpy()
        return np.split(train["item_id"].to_numpy(), np.flatnonzero(np.diff(users)) + 1)

    return _pandas(path, sequences)


def _pandas(path: Path, sequences_of: Callable) -> dict:
    import pandas as pd

    laps, imports = Laps(), _peak_mib()
    log = pd.read_parquet(path)
    laps("read")
    log = log.sort_values(["user_id", "timestamp"], kind="stable", ignore_index=True)
    laps("sort")
    log = _pandas_core(log)
    laps("5-core")
    from_end = log.groupby("user_id").cumcount(ascending=False)
    train, validation, test = log[from_end > 1], log[from_end == 1], log[from_end == 0]
    laps("leave-one-out")
    sequences = sequences_of(train)
    laps("sequences")
    peak = _peak_mib()
    lengths = [len(sequence) for sequence in sequences]
    result = _summary(
        users=test["user_id"], lengths=lengths, sequences=np.concatenate(list(sequences)),
        validation=validation["item_id"], test=test["item_id"], items=log["item_id"].nunique(),
    )  # fmt: skip
    return {"steps": laps.steps, "peak_mib": peak, "imports_mib": imports, "result": result}


def _pandas_core(log):
    while True:
        before = len(log)
        for column in ("user_id", "item_id"):
            counts = log.groupby(column, sort=False)[column].transform("size")
            log = log[counts >= MINIMUM]
        if len(log) == before:
            return log


def ours(path: Path) -> dict:
    """The same through recsys."""
    import polars as pl

    from recsys.log.event_log import EventLog
    from recsys.log.filters import k_core
    from recsys.tasks.phases import TEST, VALIDATION
    from recsys.tasks.splits import leave_last_out

    laps, imports = Laps(), _peak_mib()
    events = pl.read_parquet(path, glob=False)
    laps("read")
    log = EventLog.from_frames(events)  # checks too
    laps("sort")
    log = k_core(log, min_user_events=MINIMUM, min_item_events=MINIMUM)
    laps("5-core")
    split = leave_last_out(log)
    validation, test = (_targets(split, phase) for phase in (VALIDATION, TEST))
    laps("leave-one-out")
    train = split.training
    laps("sequences")
    peak = _peak_mib()
    item_ids = split.items.ids.to_numpy()
    result = _summary(
        users=split.users.ids.gather(train.users.numpy()),
        lengths=train.lengths(),
        sequences=item_ids[train.items],
        validation=item_ids[validation],
        test=item_ids[test],
        items=log.events["item_id"].n_unique(),
    )
    return {"steps": laps.steps, "peak_mib": peak, "imports_mib": imports, "result": result}


def _targets(split, phase: int):
    import polars as pl

    return split.events.filter(pl.col("phase") == phase)["item"]


SIDES = {side.__name__: side for side in (ours, pandas_lists, pandas_arrays)}


def _peak_mib() -> float:
    """Peak resident memory so far (Linux). `ru_maxrss` would hand down the parent's to a child."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def _summary(*, users, lengths, sequences, validation, test, items: int) -> dict:
    """What a side produced, users ascending by id; the digest covers ids and order."""
    digest = hashlib.sha256()
    for column in (users, lengths, sequences, validation, test):
        digest.update(np.ascontiguousarray(column, dtype=np.int64).tobytes())
    return {
        "users": len(users),
        "items": int(items),
        "events": len(sequences) + len(validation) + len(test),
        "sha256": digest.hexdigest(),
    }


def measure(path: Path, repeats: int) -> dict[str, list[dict]]:
    """Every side's runs, turn by turn so that a busy machine slows all of them.

    Raises:
        SystemExit: two runs prepared different logs.
    """
    runs: dict[str, list[dict]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, of_side in runs.items():
            of_side.append(_child(path, side))
    results = {json.dumps(run["result"]) for of_side in runs.values() for run in of_side}
    if len(results) > 1:
        raise SystemExit("the sides disagree: " + " ".join(sorted(results)))
    return runs


def _child(path: Path, side: str) -> dict:
    """A run in a process of its own, so that its peak memory is its own."""
    module = [sys.executable, "-m", "benchmarks.speed.prepare"]
    command = [*module, "--side", side, "--path", str(path.resolve())]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(finished.stdout)


def summarised(runs: dict[str, list[dict]]) -> dict[str, Any]:
    """Each side's seconds, in all and by step, its peak memory, and the ratios to ours."""
    sides = {}
    for side, of_side in runs.items():
        totals = {
            clock: spread(sum(step[clock] for step in run["steps"].values()) for run in of_side)
            for clock in CLOCKS
        }
        steps = {
            step: {clock: spread(run["steps"][step][clock] for run in of_side) for clock in CLOCKS}
            for step in of_side[0]["steps"]
        }
        memory = {
            name: spread(run[name] for run in of_side) for name in ("peak_mib", "imports_mib")
        }
        sides[side] = totals | {"steps": steps} | memory
    ratios = {f"{side}/ours": ratio(sides, side, "ours") for side in sides if side != "ours"}
    return {"result": runs["ours"][0]["result"], "sides": sides, "ratios": ratios}


def show(measured: dict[str, Any]) -> None:
    for name, side in measured["sides"].items():
        wall, cpu, peak = (side[key]["median"] for key in (*CLOCKS, "peak_mib"))
        steps = (f"{step} {part['cpu']['median']:.2f}" for step, part in side["steps"].items())
        print(f"{name}: {wall:.2f} s wall, {cpu:.2f} s CPU ({', '.join(steps)}), {peak:.0f} MiB")
    for name, clocks in measured["ratios"].items():
        print(f"{name}: {clocks['wall']['median']:.2f} wall, {clocks['cpu']['median']:.2f} CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", type=Path, help="keep the generated log here, or reuse it")
    parser.add_argument("--side", choices=SIDES, help="run one side on PATH, print JSON and stop")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options.path)))
        return
    size = {
        "rows": options.rows,
        "users": options.rows // ROWS_PER_USER,
        "items": options.rows // ROWS_PER_ITEM,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = options.path or Path(folder) / "log.parquet"
        if not path.exists():
            generate(path, **size, seed=options.seed)
        measured = summarised(measure(path, options.repeats))
    show(measured)
    packages = ["polars", "numpy", "torch", "pandas", "pyarrow"]
    write(RESULT, {"log": size} | measured, packages=packages, seed=options.seed)


if __name__ == "__main__":
    main()
