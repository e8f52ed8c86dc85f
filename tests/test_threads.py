"""How threads wait and how many there are: set before the libraries that read it are loaded."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import threads
from recsys.threads import processor_quota

ROOT = Path(__file__).parent.parent
UNSET = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
SHOWN = "import torch; print(torch.get_num_threads())"


def openmp(*arguments: str, **env: str) -> tuple[dict[str, str], str]:
    """What OpenMP shows of itself when Python has loaded torch, and what that printed."""
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(re.findall(r"(\w+) = '(.*)'", process.stderr)), process.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", f"import recsys; {SHOWN}"),
        ("-c", "from recsys.models import EASE"),
        ("-c", f"from recsys.cli.main import main; {SHOWN}"),
        ("-m", "benchmarks.speed.topk", "--help"),
        (
            "-m",
            "pytest",
            "-sq",
            "--collect-only",
            "-p",
            "no:cacheprovider",
            "tests/batch/test_ragged.py",
        ),
    ],
)
def test_waiting_threads_sleep(arguments: tuple[str, ...]) -> None:
    settings, _ = openmp(*arguments)
    assert settings["OMP_WAIT_POLICY"] == "PASSIVE"
    assert settings["GOMP_SPINCOUNT"] == "1000"


def test_a_users_own_setting_wins() -> None:
    settings, printed = openmp(
        "-c", f"import recsys; {SHOWN}", OMP_WAIT_POLICY="ACTIVE", OMP_NUM_THREADS="1"
    )
    assert settings["OMP_WAIT_POLICY"] == "ACTIVE"
    assert printed == "1\n"


def group(folder: Path, limits: dict[str, str], name: str) -> tuple[Path, Path]:
    """A process's control group below a folder with limits by path."""
    for path, text in limits.items():
        (folder / path).mkdir(parents=True, exist_ok=True)
        (folder / path / "cpu.max").write_text(text)
    (folder / "cgroup").write_text(f"9:name=systemd:/\n0::/{name}\n")
    return folder / "cgroup", folder


@pytest.mark.parametrize(
    ("limits", "name", "quota"),
    [
        ({}, "", None),
        ({"": "max 100000\n"}, "", None),
        ({"": "150000 100000\n"}, "", 1.5),
        ({"a/b": "400000 100000\n", "a": "200000 100000\n"}, "a/b", 2.0),
        ({"a/b": "max 100000\n", "other": "100000 100000\n"}, "a/b", None),
    ],
)
def test_the_quota_is_the_smallest_of_the_groups_around(
    limits: dict[str, str], name: str, quota: float | None, tmp_path: Path
) -> None:
    assert processor_quota(*group(tmp_path, limits, name)) == quota


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert processor_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(("quota", "threads_set"), [(None, None), (64.0, None), (0.5, "1")])
def test_a_container_starts_as_many_threads_as_it_may_keep_busy(
    quota: float | None, threads_set: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "processor_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    threads.configure()
    assert os.environ.get("OMP_NUM_THREADS") == threads_set
