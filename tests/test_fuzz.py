"""Folders of runs that were damaged, or made by somebody with bad intentions, by the thousand.

Whatever is in a folder, a command gives the right answer or one line, and runs nothing of it. The
cases are made and asked in processes of their own (`tests/fuzz/`): one that dies is an error, too,
and what checks arguments in tests does not stand before what checks them in use.
"""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
DAMAGED, CONFIGS = 1000, 3000
AT_ONCE = 100


def python(script: str, *arguments: object) -> str:
    command = [sys.executable, str(FUZZ / script), *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    last = process.stdout.strip().rpartition("\n")[2]
    assert process.returncode == 0, (
        f"ended with {process.returncode} at {last}: {process.stderr[-2000:]}"
    )
    assert "panicked" not in process.stderr
    return process.stdout


def asked(script: str, *arguments: object, first: int, last: int) -> None:
    lines = python(script, *arguments, first, last).strip().splitlines()
    assert len(lines) == last - first
    assert not [line for line in lines if "broken" in line]
    outcomes = " ".join(lines)
    assert "fine" in outcomes
    assert "refused" in outcomes


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("few")
    python("damage.py", "make", place, "popularity", "up_cf")
    return place


@pytest.fixture(scope="module")
def all_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("all")
    python("damage.py", "make", place)
    return place


@pytest.mark.slow
def test_a_few_damaged_folders(few: Path) -> None:
    asked("damage.py", "ask", few, first=0, last=15)


def test_a_few_configs_that_name_what_they_may_not(few: Path) -> None:
    asked("configs.py", few, first=0, last=40)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, DAMAGED, AT_ONCE))
def test_damaged_folders(first: int, all_runs: Path) -> None:
    asked("damage.py", "ask", all_runs, first=first, last=first + AT_ONCE)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, CONFIGS, 5 * AT_ONCE))
def test_configs_that_name_what_they_may_not(first: int, all_runs: Path) -> None:
    asked("configs.py", all_runs, first=first, last=first + 5 * AT_ONCE)
