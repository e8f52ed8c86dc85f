"""Benchmark records: what was measured, and everything needed to measure it again, as JSON.

A script, run from the repository's root as `python -m benchmarks.speed.topk`, measures its sides
turn by turn with `alternate` and writes them with `write`:

    sides = alternate({"ours": ours, "theirs": theirs}, repeats=5)
    ratios = {"ours/theirs": ratio(sides, "ours", "theirs")}
    write(RESULTS / "topk.json", {"sides": sides, "ratios": ratios}, packages=["torch"], seed=0)
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from recsys.files import write_text

ROOT = Path(__file__).resolve().parent.parent

Spread = dict[str, Any]


def spread(values: Iterable[float]) -> Spread:
    """Minimum, median and maximum beside the values themselves."""
    values = [round(value, 6) for value in values]
    return {
        "min": min(values),
        "median": round(statistics.median(values), 6),
        "max": max(values),
        "values": values,
    }


def alternate(
    sides: dict[str, Callable[[], object]], *, repeats: int
) -> dict[str, dict[str, Spread]]:
    """Wall and CPU seconds of each side, turn by turn so that a busy machine slows all of them.

    One turn goes before and is not counted. CPU seconds are those of all threads of this process.
    """
    runs: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            side()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn:
                runs[name]["wall"].append(wall)
                runs[name]["cpu"].append(cpu)
    return {
        name: {clock: spread(seconds) for clock, seconds in clocks.items()}
        for name, clocks in runs.items()
    }


def ratio(sides: dict[str, dict[str, Spread]], first: str, second: str) -> dict[str, Spread]:
    """Seconds of `first` / seconds of `second`, of each turn by itself, by clock."""
    return {
        clock: spread(
            a / b
            for a, b in zip(
                sides[first][clock]["values"], sides[second][clock]["values"], strict=True
            )
        )
        for clock in ("wall", "cpu")
    }


def write(path: Path, measured: dict[str, Any], *, packages: Iterable[str], seed: int) -> None:
    """Write a record, whole or not at all; command, commit, versions and hardware are added."""
    record = {
        "command": _command(),
        **stamp(),
        "seed": seed,
        "hardware": hardware(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages if _is_installed(name)},
        },
        **measured,
    }
    write_text(path, json.dumps(record, indent=2) + "\n")


def stamp() -> dict[str, str]:
    """The commit, with `+` where tracked files have changed since, and the date.

    A copy without its repository knows no commit.
    """
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def hardware() -> dict[str, Any]:
    """Processor, cores, memory, and how busy the machine is (Linux)."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.system(),
    }


def _is_installed(package: str) -> bool:
    return any(distributions(name=package))


def _command() -> str:
    module = Path(sys.argv[0]).resolve().relative_to(ROOT).with_suffix("").parts
    return shlex.join(["python", "-m", ".".join(module), *sys.argv[1:]])


def _commit() -> str:
    if not (ROOT / ".git").exists():
        return "unknown"
    # Records are no code: one that was written before changes nothing of the next.
    code = (".", ":(exclude)benchmarks/results", ":(exclude)benchmarks/*/results/*")
    changed = "+" if _git("status", "--porcelain", "--untracked-files=no", "--", *code) else ""
    return _git("rev-parse", "HEAD") + changed


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
