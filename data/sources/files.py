"""Files of public data sets: where they should lie, where they come from, whether they are whole.

Public files live under `$RECSYS_DATA` (default `~/.cache/recsys`). Nothing is downloaded: licences
differ, and an error that names the file, its origin and the folder is enough to fetch it once.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.errors import DataError, RecsysError

logger = logging.getLogger(__name__)

_BROKEN = (
    OSError,
    ValueError,
    TypeError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,  # some readers panic at what is no object or page
)
_REMEDIES = {
    "empty CSV": "give a file with a header and rows",
    "invalid utf-8": "save it as UTF-8, or set data.encoding, such as latin-1 or cp1252",
}
"""By what readers say."""
_inputs: ContextVar[dict[str, str] | None] = ContextVar("_inputs", default=None)
_notes: ContextVar[list[str] | None] = ContextVar("_notes", default=None)


class NoFileError(DataError):
    """There is no such file."""


@dataclass(frozen=True)
class PublicFile:
    """A published file.

    Attributes:
        path: below `$RECSYS_DATA`.
        origin: where to get it.
        sha256: of the published bytes.
    """

    path: str
    origin: str
    sha256: str

    def find(self, user_path: str | Path | None = None) -> Path:
        """The path of the published file, or of the one that the user names in its place.

        The checksum is that of the published bytes: a file that the user names is read as it is.

        Raises:
            DataError: no such file, or not the published bytes.
        """
        if user_path is not None:
            return existing_file(user_path)
        path = data_folder() / self.path
        if not path.is_file():
            raise NoFileError(
                f"no file {path}; get it from {self.origin} and put it there, or set RECSYS_DATA "
                f"to the folder that holds {self.path}"
            )
        if (digest := record(path)) != self.sha256:
            raise DataError(
                f"{path}: sha256 {digest[:12]}… is not the published {self.sha256[:12]}…; get it "
                f"again from {self.origin}"
            )
        return path


def data_folder() -> Path:
    """`$RECSYS_DATA`, or `~/.cache/recsys`."""
    folder = os.environ.get("RECSYS_DATA") or "~/.cache/recsys"
    # Without a home folder `~` stays, and there are no files.
    return Path(os.path.expanduser(folder)).absolute()


def expanded(name: str | Path) -> Path:
    """A path from the root; `~` is the home folder."""
    return Path(os.path.expanduser(name)).absolute()


def existing_file(name: str | Path) -> Path:
    """The path of a file that must be there.

    Raises:
        DataError: no such file, or a folder.
    """
    path = expanded(name)
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file")
    if not path.is_file():
        raise NoFileError(f"no file {path}")
    record(path)
    return path


def record(path: Path) -> str:
    """The SHA-256 of a file; `recorded` sees it."""
    with reading(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if (inputs := _inputs.get()) is not None:
        inputs[str(path)] = digest
    return digest


def far_away(address: str) -> None:
    """Say that a source reads what nobody can see a change of; `recorded` sees it."""
    if (inputs := _inputs.get()) is not None:
        inputs[address] = ""


@contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Collects path and SHA-256 of every file that sources find meanwhile.

    What is not on this machine has an address, and "" for a SHA-256.
    """
    inputs: dict[str, str] = {}
    token = _inputs.set(inputs)
    try:
        yield inputs
    finally:
        _inputs.reset(token)


def note(words: str) -> None:
    """Tell every user of a log of something that was done to it; `noted` sees it."""
    logger.warning("%s", words)
    if (notes := _notes.get()) is not None:
        notes.append(words)


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collects what sources tell users of meanwhile."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turns whatever a reader raises at a broken file into one line that names the file.

    Raises:
        DataError: in place of a reader's error.
    """
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, RecsysError):
            raise
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        remedy = next((f"; {words}" for of, words in _REMEDIES.items() if of in reason), "")
        raise DataError(f"{path} cannot be read: {reason}{remedy}") from error


def read_tsv(path: Path) -> pl.DataFrame:
    """A tab-separated file with a header, every column text; `name:type` headers lose the type."""
    with reading(path):
        table = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False, glob=False)
    return table.rename(lambda column: column.partition(":")[0])
