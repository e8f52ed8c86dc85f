"""The tests marked `gpu`, and how they ended; without a CUDA device they skip themselves."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.card import keep, options_of
from benchmarks.record import ROOT

# Another machine's versions and plugins may warn of what these do not.
PYTEST = (
    *("-m", "pytest", "-m", "gpu", "-v", "-W", "default"),
    *("-p", "no:cacheprovider", "-p", "no:benchmark"),
)
PROCESSES = 4


def main() -> int:
    device, small, folder = options_of(__doc__)
    command = [sys.executable, *PYTEST]
    if importlib.util.find_spec("xdist") and not small:
        command += ["-n", str(PROCESSES)]
    command += ["tests/batch/test_ragged.py"] if small else map(str, files())
    ended: dict[str, list[str]] = {"passed": [], "failed": [], "error": [], "skipped": []}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        test = re.search(r"\S+::\S+", line)
        how = re.search(r"PASSED|FAILED|ERROR|SKIPPED", line)
        if "%]" in line and test and how:
            ended[how[0].lower()].append(test[0])
            keep(folder / "tests.json", device, {"ended": ended})
    if not ended["passed"]:
        print(f"no test ran: they need a CUDA device, and device={device} is none")
    return int(bool(ended["failed"] or ended["error"]) or process.wait() not in (0, 5))


def files() -> list[Path]:
    """Those that hold a test for a GPU: to import the others takes longer than to run it."""
    every = sorted((ROOT / "tests").rglob("test_*.py"))
    has_gpu_test = re.compile(r"mark\.gpu|ModelContract")
    return [path for path in every if has_gpu_test.search(path.read_text())]


if __name__ == "__main__":
    sys.exit(main())
