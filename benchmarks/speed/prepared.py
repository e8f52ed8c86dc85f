"""A log that does not fit into memory, prepared: CPU seconds and peak memory, beside DuckDB's sort.

    python -m benchmarks.speed.prepared --duckdb PYTHON        # a Python that has duckdb

The log: Zipf over 200,000 items, 5 million users of lognormal activity, in order of time, in files
of 5 million rows that are written one after another. Each side is a process of its own:

    prepare   recsys data prepare, in partitions of users, each in order of time
    core      the same, cut to the 5-core of users and items
    duckdb    COPY (… ORDER BY user_id, timestamp) TO one Parquet file, within 1.5 GB, two threads
    train     recsys train data=prepared on a partition: SASRec, an epoch, and its evaluation

DuckDB leaves equal times in any order and one file in order of user; partitions are of users by
chance, each in order of user.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.record import ROOT, spread, write
from recsys.files import write_parquet

RESULT = ROOT / "benchmarks/speed/results/prepared.json"
ROWS_OF_A_FILE = 5_000_000
SECONDS = 100_000_000
START = 1_500_000_000
SIDES = ("prepare", "duckdb", "train", "core")
CORE = ("task.filters.min_user_events=5", "task.filters.min_item_events=5")
SAMPLED = (
    "data.partitions=[0]",
    "model=sasrec",
    "model.ranking.num_negatives=256",
    "trainer.max_epochs=1",
)
DUCKDB = """
import duckdb, sys
source, target, scratch = sys.argv[1:]
connection = duckdb.connect()
connection.execute(f"set memory_limit='1500MB'; set temp_directory='{scratch}'; set threads=2")
connection.execute(
    f"copy (select * from read_parquet('{source}') order by user_id, timestamp) to '{target}'"
    "(compression 'zstd')"
)
print(duckdb.__version__)
"""
PEAK = """
import atexit, re
from pathlib import Path
def peak():
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[0])
atexit.register(peak)
"""


def generate(folder: Path, *, rows: int, users: int, items: int, seed: int) -> None:
    """The log's files; what is there is not written again."""
    random = np.random.default_rng(seed)
    of_user = np.cumsum(random.lognormal(size=users))
    of_item = np.cumsum(1 / np.arange(1, items + 1))
    item_ids = random.permutation(3 * items)[:items]  # ids with gaps, in no order
    starts = range(0, rows, ROWS_OF_A_FILE)
    span = SECONDS // len(starts)
    for number, start in enumerate(starts):
        path = folder / f"{number:04}.parquet"
        if path.exists():
            continue
        random, count = np.random.default_rng([seed, number]), min(ROWS_OF_A_FILE, rows - start)
        columns = {
            "user_id": 3 * _draw(random, of_user, count),
            "item_id": item_ids[_draw(random, of_item, count)],
            "timestamp": START + number * span + np.sort(random.integers(0, span, count)),
        }
        write_parquet(path, pl.DataFrame(columns))


def _draw(random: np.random.Generator, cumulated: np.ndarray, count: int) -> np.ndarray:
    return np.searchsorted(cumulated, random.random(count) * cumulated[-1], side="right")


def command(side: str, log: Path, work: Path, partitions: int, duckdb: str) -> list[str]:
    """What a side runs."""
    files, out = f"{log}/*.parquet", work / side
    if side == "duckdb":
        return [duckdb, "-c", PEAK + DUCKDB, files, f"{out}.parquet", f"{out}.scratch"]
    main = PEAK + "from recsys.cli.main import main\nraise SystemExit(main())"
    if side == "train":
        data = ["data=prepared", f"data.path={work / 'prepare'}", f"hydra.run.dir={out}"]
        return [sys.executable, "-c", main, "train", *data, *SAMPLED]
    data = ["data=table", f"data.path='{files}'", "data.time_unit=s", f"out={out}"]
    cut = CORE if side == "core" else ()
    prepare = [sys.executable, "-c", main, "data", "prepare"]
    return [*prepare, *data, f"partitions={partitions}", *cut]


def measured(words: list[str]) -> dict[str, Any]:
    """Wall and CPU seconds and peak MiB of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"{words} ended with status {status}")
    print(said)
    peak = int(re.findall(r"VmHWM:\s+(\d+)", said)[-1]) / 1024  # of the process itself
    return {
        "wall": round(wall, 1),
        "cpu": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(peak),
    }


def _measured_before(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--users", type=int, default=5_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--folder", type=Path, required=True, help="20 GB for 100 million rows")
    parser.add_argument("--duckdb", default=sys.executable, help="a Python that has duckdb")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size = {"rows": options.rows, "users": options.users, "items": options.items}
    log, work = options.folder / "log", options.folder / "work"
    generate(log, **size, seed=options.seed)
    work.mkdir(exist_ok=True)
    done = options.folder / "sides.json"
    sides = _measured_before(done)
    for side in options.sides:
        if side not in sides:
            words = command(side, log, work, options.partitions, options.duckdb)
            of_side = {side: measured(words)}
            sides = _measured_before(done) | of_side
            done.write_text(json.dumps(sides, indent=2))
            print(side, sides[side], flush=True)
            if side in ("core", "duckdb"):
                shutil.rmtree(work / side, ignore_errors=True)
                (work / f"{side}.parquet").unlink(missing_ok=True)
    ratios = {
        f"prepare/{side}": {
            clock: spread([sides["prepare"][clock] / sides[side][clock]])
            for clock in ("wall", "cpu")
        }
        for side in ("duckdb",)
        if {"prepare", side} <= sides.keys()
    }
    record = {"log": size, "partitions": options.partitions, "sides": sides, "ratios": ratios}
    write(RESULT, record, packages=["recsys", "torch", "polars"], seed=options.seed)


if __name__ == "__main__":
    main()
