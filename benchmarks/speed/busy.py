"""A run alone and beside busy processes, its threads asleep while they wait or spinning.

    RECSYS_DATA=FOLDER python -m benchmarks.speed.busy
    python -m benchmarks.speed.busy --run quickstart experiment=quickstart --sleeping

A busy process counts for as long as the run lasts, as many of them as `--beside` says. `sleeping`
is how `recsys` runs; `spinning` is what OpenMP does without it: a thread that waits looks 300,000
times whether there is work before it sleeps. Beside one busy process three share two processors,
and a run must not take more than twice its time alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.record import ROOT, ratio, spread, write

RESULT = ROOT / "benchmarks/speed/results/busy.json"
RUN = ["gloie_plus/dc", "experiment=gloie_plus/dc", "trainer.max_epochs=2"]
SIDES = {"sleeping": {}, "spinning": {"GOMP_SPINCOUNT": "300000"}}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but count."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measured(overrides: list[str], side: str, beside: int) -> dict[str, float]:
    """Wall and CPU seconds of one run."""
    with TemporaryDirectory() as folder, busy(beside):
        command = [sys.executable, "-m", "recsys.cli.main", "train", *overrides]
        command += [f"hydra.run.dir={folder}/run"]
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **SIDES[side]}, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"the run ended with status {status}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="+", default=RUN, metavar=("NAME", "OVERRIDE"))
    parser.add_argument("--beside", type=int, default=1, help="busy processes")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sleeping", action="store_true", help="leave out the spinning side")
    options = parser.parse_args()
    name, *overrides = options.run
    names = ["sleeping"] if options.sleeping else list(SIDES)
    measured(overrides, "sleeping", 0)  # the log is prepared and cached
    turns: list[dict[str, Any]] = []
    for _ in range(options.turns):
        turn = {}
        for side in names:
            turn[f"{side} alone"] = measured(overrides, side, 0)
            turn[f"{side} beside"] = measured(overrides, side, options.beside)
        turns.append(turn)
        print(turn, flush=True)
    sides = {
        side: {clock: spread(turn[side][clock] for turn in turns) for clock in ("wall", "cpu")}
        for side in turns[0]
    }
    pairs = [(f"{side} beside", f"{side} alone") for side in names]
    pairs += [(f"spinning {place}", f"sleeping {place}") for place in ("alone", "beside")]
    ratios = {
        f"{name}, {first}/{second}": ratio(sides, first, second)
        for first, second in pairs
        if first in sides
    }
    for pair, clocks in ratios.items():
        print(f"{pair}: {clocks['wall']['median']:.2f} wall, {clocks['cpu']['median']:.2f} CPU")
    # Runs that were measured before stay in the record.
    old_record = json.loads(RESULT.read_text()) if RESULT.exists() else {"runs": {}, "ratios": {}}
    runs = old_record["runs"] | {
        name: {"overrides": overrides, "beside": options.beside, "sides": sides}
    }
    old_ratios = {
        pair: r for pair, r in old_record["ratios"].items() if not pair.startswith(f"{name}, ")
    }
    record = {"runs": runs, "ratios": old_ratios | ratios}
    write(RESULT, record, packages=["recsys", "torch", "pytorch-lightning"], seed=0)


if __name__ == "__main__":
    main()
