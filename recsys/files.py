"""Files and folders that are written whole or not at all, and folders that one process holds.

What is written stands beside its place first, as `.NAME.PID.scratch`, and is moved there when it is
whole and on the disk. A killed process leaves no more than such a name; whoever takes the folder up
again, by `held`, removes it.

Of several ranks (`recsys.ranks`) the first writes for all; what others write is dropped, unless
each writes a file of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import RunError

SCRATCH = ".scratch"
LOCK = ".lock"
READ_WRITE = 0o666
"""What a new file's mode may have; the umask takes away from it."""


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 whole or not at all."""
    with atomic_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Write a file whole or not at all."""
    table = io.BytesIO()  # polars does not always say why it cannot write a file
    frame.write_parquet(table)
    with atomic_file(path) as scratch:
        scratch.write_bytes(table.getbuffer())


def write_pieces(path: Path, pieces: Iterable[pl.DataFrame]) -> None:
    """Write frames, of one schema, one below the other as one Parquet file, whole or not at all.

    One of them is in memory at a time: each is a file first.
    """
    with _scratch(path.with_name(f"{path.name}.parts")) as parts, atomic_file(path) as scratch:
        parts.mkdir()
        for number, piece in enumerate(pieces):
            piece.write_parquet(parts / f"{number:06}.parquet")
        pl.scan_parquet(sorted(parts.iterdir()), glob=False).sink_parquet(scratch)


@contextmanager
def atomic_file(path: Path, *, by_rank: bool = False) -> Iterator[Path]:
    """Where to write a file that is moved to `path` once the block has ended without an error.

    Args:
        path: its place.
        by_rank: whether each rank writes a file, which has a name of its own.

    Raises:
        OSError: the disk is full, the folder cannot be written, …
    """
    if not (by_rank or _is_first()):
        with tempfile.TemporaryDirectory() as dropped:
            yield Path(dropped) / path.name
        return
    with _scratch(path) as scratch:
        scratch.touch()
        mode = scratch.stat().st_mode & READ_WRITE
        yield scratch
        _sync(scratch, mode)
        os.replace(scratch, path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `path` once the block has ended without an error.

    Raises:
        OSError: as `atomic_file`.
    """
    if not _is_first():
        with tempfile.TemporaryDirectory() as dropped:
            yield Path(dropped)
        return
    with _scratch(path) as scratch:
        scratch.mkdir()
        mode = scratch.stat().st_mode & READ_WRITE
        yield scratch
        for file in scratch.rglob("*"):
            if file.is_file():
                _sync(file, mode)
        if path.is_dir():  # a full folder cannot be replaced, but be moved out of the way
            with _scratch(path.with_name(f"{path.name}.old")) as old:
                os.replace(path, old)
                os.replace(scratch, path)
        else:
            os.replace(scratch, path)


def facts_of(path: Path) -> dict[str, Any]:
    """A file's size and SHA-256, by which it is told from any other."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def may_replace(folder: Path, names: Collection[str], mark: str) -> bool:
    """Whether a folder is empty, or one of ours and nothing besides.

    Args:
        folder: that is there.
        names: of all that one of ours holds.
        mark: the one that tells it from others' folders.
    """
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    return there <= set(names) and (mark in there or not there)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder: it is made before, and removed if it is empty after.

    Two runs in one folder would overwrite each other. The lock is the system's, on `.lock` in the
    folder, and ends with the process, however that ends; a file system without locks, or with
    locks of each machine's own, as some network file systems are, keeps nobody out.

    Raises:
        RunError: another process holds the folder.
    """
    try:
        with locked(folder / LOCK, folder):
            _clear(folder.rglob(f".*{SCRATCH}"))
            yield
    finally:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def locked(path: Path, work: object) -> Iterator[None]:
    """Hold the lock that a file stands for; the file is there for so long.

    Args:
        path: the file.
        work: what the lock is for, to say who is at it.

    Raises:
        RunError: another process holds it.
    """
    descriptor = _lock(path, work)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path, work: object) -> int:
    """The descriptor of the open file that holds the lock, with the process's number in it."""
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace") or "another"
            os.close(descriptor)
            raise RunError(
                f"process {holder} is at work on {work}; wait until it ends, or name another"
            ) from None
        except OSError:  # no locks here
            pass
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                os.truncate(descriptor, 0)
                os.write(descriptor, b"%d" % os.getpid())
                return descriptor
        os.close(descriptor)  # that file is no more


def _open(path: Path) -> int:
    """A file for a lock, made if need be with its folder, which its last holder may be removing."""
    attempts = 100
    while True:
        attempts -= 1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except (FileNotFoundError, FileExistsError):
            if not attempts:
                raise


def clear_beside(path: Path) -> None:
    """Remove what processes that are no more left half written of a file or a folder."""
    names = path.parent.glob(f".*{SCRATCH}")
    _clear(
        n for n in names if re.fullmatch(rf"\.{re.escape(path.name)}(\.old)?\.\d+{SCRATCH}", n.name)
    )


def _clear(paths: Iterable[Path]) -> None:
    """Remove those of scratch files and folders whose processes are no more."""
    for path in paths:
        pid = path.name.removesuffix(SCRATCH).rpartition(".")[2]
        if pid.isdecimal() and not _is_running(int(pid)):
            _remove(path)


def _is_running(pid: int) -> bool:
    """Whether another process of this machine has this number."""
    if pid == os.getpid():  # numbers come again
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A free name beside a path, and nothing of that name afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}{SCRATCH}")
    _remove(scratch)
    try:
        yield scratch
    except Exception as error:
        if number := _number_of_the_system(error):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        _remove(scratch)


def _number_of_the_system(error: Exception) -> int | None:
    """Why the system refused to write; safetensors says it in words of its own."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path, mode: int) -> None:
    """Wait until a file is on the disk: a name that is moved before may be there without it.

    It may be read by whom the umask lets, whoever wrote it: safetensors lets nobody else.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_first() -> bool:
    """Whether this process is the first rank; one that has not imported torch is alone."""
    if "torch" not in sys.modules:
        return True
    from recsys import ranks  # torch takes seconds to import

    return ranks.is_first()
