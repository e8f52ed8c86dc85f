"""Prepare a log of 10 million rows: recsys beside pandas, each in a process of its own.

The work: read Parquet, sort by user and time (equal times keep the file's order), 5-core of users
and items to a fixed point, leave-one-out (last event test, last but one validation), sequences per
user. Both sides must give the same users, items, events, targets and sequences.

    python benchmarks/speed/prepare.py --rows 10000000 --repeats 3    # needs pandas and pyarrow

pandas is written as its documentation would have it: whole-column operations, the fastest of the
idioms tried for each step, no Python per row. `pandas_arrays` differs in the last step only: numpy
views in place of lists, the fastest sequences that pandas can give.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

MINIMUM = 5
CLOCKS = ("wall", "cpu")


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

    from recsys.events import EventLog
    from recsys.filters import k_core
    from recsys.splits import leave_last_out

    laps, imports = Laps(), _peak_mib()
    events = pl.read_parquet(path)
    laps("read")
    log = EventLog.from_frames(events)  # checks too
    laps("sort")
    log = k_core(log, min_user_events=MINIMUM, min_item_events=MINIMUM)
    laps("5-core")
    split = leave_last_out(log)
    laps("leave-one-out")
    validation, test = split.validation, split.test
    laps("sequences")
    peak = _peak_mib()
    item_ids, history = split.items.ids.to_numpy(), validation.history
    result = _summary(
        users=split.users.ids.gather(history.users.numpy()),
        lengths=history.lengths(),
        sequences=item_ids[history.items],
        validation=item_ids[validation.target.values],
        test=item_ids[test.target.values],
        items=log.events["item_id"].n_unique(),
    )
    return {"steps": laps.steps, "peak_mib": peak, "imports_mib": imports, "result": result}


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
        for side in SIDES:
            runs[side].append(_child(path, "--side", side))
    results = {json.dumps(run["result"]) for side in runs.values() for run in side}
    if len(results) > 1:
        raise SystemExit("the sides disagree: " + " ".join(sorted(results)))
    return runs


def _child(path: Path, *arguments: str) -> dict:
    """A run in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--path", str(path), *arguments]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout)


def median_seconds(runs: list[dict], clock: str) -> float:
    """The median over a side's runs of its seconds in all."""
    return statistics.median(sum(step[clock] for step in run["steps"].values()) for run in runs)


def show(runs: dict[str, list[dict]]) -> None:
    for side, of_side in runs.items():
        steps = (
            f"{name} {statistics.median(run['steps'][name]['wall'] for run in of_side):.2f}"
            for name in of_side[0]["steps"]
        )
        wall, cpu = (median_seconds(of_side, clock) for clock in ("wall", "cpu"))
        peak = max(run["peak_mib"] for run in of_side)
        print(f"{side}: {wall:.2f} s wall ({', '.join(steps)}), {cpu:.2f} s CPU, {peak:.0f} MiB")
    for side in ("pandas_lists", "pandas_arrays"):
        ratios = (
            f"{median_seconds(runs[side], clock) / median_seconds(runs['ours'], clock):.2f} {clock}"
            for clock in CLOCKS
        )
        print(f"{side} / ours: " + ", ".join(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", type=Path, help="keep the generated log here, or reuse it")
    parser.add_argument("--side", choices=SIDES, help="run one side on PATH, print JSON and stop")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.path)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.path or Path(folder) / "log.parquet"
        if not path.exists():
            size = {"users": arguments.rows // 20, "items": arguments.rows // 100}
            generate(path, rows=arguments.rows, **size, seed=arguments.seed)
        show(measure(path, arguments.repeats))


if __name__ == "__main__":
    main()
