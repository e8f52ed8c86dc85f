"""Files and folders are whole or not there, and a folder has one process at a time."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Thread
from time import sleep

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from recsys.errors import RunError
from recsys.files import atomic_file, atomic_folder, held, write_parquet, write_text


def stop_after_writing(path: Path) -> None:
    path.write_text("half")
    raise KeyError("stop")


def test_a_file_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ks=[3] é.txt"
    write_text(path, "first ✓")
    with pytest.raises(KeyError, match="stop"), atomic_file(path) as scratch:
        stop_after_writing(scratch)
    assert path.read_text("utf-8") == "first ✓"
    write_text(path, "second")
    assert path.read_text("utf-8") == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model"
    for number in range(2):
        with atomic_folder(path) as scratch:
            (scratch / "part").mkdir()
            (scratch / "part" / f"{number}.txt").write_text("x")
        with pytest.raises(KeyError, match="stop"), atomic_folder(path) as scratch:
            stop_after_writing(scratch / "half.txt")
        assert [str(file.relative_to(path)) for file in path.rglob("*.txt")] == [
            f"part/{number}.txt"
        ]
        assert list(path.parent.iterdir()) == [path]


def test_files_are_for_whom_the_umask_lets_whoever_writes_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_folder(tmp_path / "model") as scratch:
            save_file({"weight": torch.ones(1)}, scratch / "weights.safetensors")
        with atomic_file(tmp_path / "one.safetensors") as scratch:
            save_file({"weight": torch.ones(1)}, scratch)
    finally:
        os.umask(before)
    for path in ("model/weights.safetensors", "one.safetensors"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o640


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "lists.csv"
    folder.mkdir()
    (folder / "mine.txt").touch()
    with pytest.raises(IsADirectoryError) as caught:
        write_text(folder, "x")
    assert caught.value.filename == str(folder)
    assert list(tmp_path.rglob("*")) == [folder, folder / "mine.txt"]


NUMBERS = torch.arange(100_000)
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x" * 100_000),
    "bytes": lambda path: path.write_bytes(NUMBERS.numpy().tobytes()),
    "safetensors": lambda path: save_file({"n": NUMBERS}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_said_in_one_way(
    writer: str, tmp_path: Path, disk_of: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "table"
    path.write_text("old")
    full = pytest.raises(OSError, match="File too large")
    with full as caught, disk_of(5_000), atomic_file(path) as scratch:
        WRITERS[writer](scratch)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    with pytest.raises(OSError, match="File too large"), disk_of(5_000):
        write_parquet(path, pl.DataFrame({"n": NUMBERS.numpy()}))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_parquet(path, pl.DataFrame({"n": NUMBERS.numpy()}))
    assert pl.read_parquet(path)["n"].sum() == NUMBERS.sum()


HOLD = """
import sys, time
from pathlib import Path
from recsys.files import atomic_file, held
with held(Path(sys.argv[1])), atomic_file(Path(sys.argv[1], "deep", "table")) as scratch:
    scratch.write_text("half")
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_one_process_s_until_it_dies(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "deep").mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            refused = pytest.raises(RunError, match=f"process {process.pid} is at work on {folder}")
            with refused, held(folder):
                pass
            paths_left = {path.name for path in folder.rglob(".*")}
            assert paths_left == {".lock", f".table.{process.pid}.scratch"}
        finally:
            process.send_signal(signal.SIGKILL)
    with held(folder):
        assert [path.name for path in folder.rglob(".*")] == [".lock"]
    assert [path.name for path in folder.rglob("*")] == ["deep"]


def test_scratch_of_a_process_that_runs_is_left_alone(tmp_path: Path) -> None:
    """`recsys profile` may be writing below a finished run that is started again."""
    other = tmp_path / "profiles" / f".log.parquet.{os.getppid()}.scratch"
    other.parent.mkdir()
    other.touch()
    mine = tmp_path / f".model.{os.getpid()}.scratch"  # of another process that had this number
    mine.mkdir()
    (mine / "weights").touch()
    for odd in (
        "not ours.scratch",
        ".ours.no number.scratch",
        ".ours.99999999999999999999.scratch",
    ):
        (tmp_path / odd).touch()
    with held(tmp_path):
        names_left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names_left == {other.name, "not ours.scratch", ".ours.no number.scratch", ".lock"}


def test_never_two_at_once(tmp_path: Path) -> None:
    folder, inside, most, turns = tmp_path / "run", [0], [0], [0]

    def enter() -> None:
        for _ in range(100):
            try:
                with held(folder):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    sleep(0)
                    inside[0] -= 1
                    turns[0] += 1
            except RunError:
                sleep(0)

    threads = [Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == ([0], [1])
    assert turns[0] > 6
    assert not folder.exists()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(OSError, match=r"\.lock"), held(folder):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with held(tmp_path / "run"), held(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]
