"""Start-up: `recsys` without arguments beside `python -c "import torch"`, turn by turn.

    python -m benchmarks.speed.startup

CPU seconds are those of the child process, user and system. One run of each goes before and is
not counted.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import ROOT, ratio, spread, write

RESULT = ROOT / "benchmarks/speed/results/startup.json"
COMMANDS = {
    "recsys": [str(Path(sys.executable).parent / "recsys")],
    "import_torch": [sys.executable, "-c", "import torch"],
}


def seconds(command: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of one run of the command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    turns = [
        {name: seconds(command) for name, command in COMMANDS.items()} for _ in range(repeats + 1)
    ][1:]
    sides = {
        name: {clock: spread(turn[name][clock] for turn in turns) for clock in ("wall", "cpu")}
        for name in COMMANDS
    }
    ratios = ratio(sides, "recsys", "import_torch")
    for clock, values in ratios.items():
        figures = ", ".join(f"{name} {side[clock]['median']:.2f} s" for name, side in sides.items())
        print(f"{clock}: {figures}, ratio {values['median']:.3f}")
    measured = {"sides": sides, "ratios": {"recsys/import_torch": ratios}}
    write(RESULT, measured, packages=["recsys", "torch"], seed=0)


if __name__ == "__main__":
    main()
