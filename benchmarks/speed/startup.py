"""Start-up: `recsys` without arguments beside `python -c "import torch"`, turn by turn.

    python benchmarks/speed/startup.py --repeats 10

CPU seconds are those of the child process, user and system.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "recsys": [str(Path(sys.executable).parent / "recsys")],
    "import torch": [sys.executable, "-c", "import torch"],
}


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one run of the command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(repeats: int) -> dict[str, dict[str, list[float]]]:
    """Every run's seconds, by command; one run of each goes first to fill the file cache."""
    runs: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in COMMANDS}
    for command in COMMANDS.values():
        seconds(command)
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            wall, cpu = seconds(command)
            runs[name]["wall"].append(wall)
            runs[name]["cpu"].append(cpu)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    runs = measure(parser.parse_args().repeats)
    for clock in ("wall", "cpu"):
        medians = {name: statistics.median(values[clock]) for name, values in runs.items()}
        shown = ", ".join(f"{name} {value:.2f} s" for name, value in medians.items())
        print(f"{clock}: {shown}, ratio {medians['recsys'] / medians['import torch']:.2f}")


if __name__ == "__main__":
    main()
