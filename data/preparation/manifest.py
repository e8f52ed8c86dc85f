"""The manifest of a prepared log, `prepared.json`: what its files hold.

    prepared.json          counts, filters, and of each file its size and SHA-256
    events/00000.parquet   the events of a partition, ordered by user and time
    items.parquet          a row per item
    users.parquet          a row per user

The names of the files are not in it: whoever made the folder, nothing else of it is opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys.errors import DataError

NAME = "prepared.json"
FILES = (NAME, "events", "items.parquet", "users.parquet")
SCHEMA = 1
"""Of the folder; another is of another version of this package."""
LARGEST = 2**26
"""Bytes of a manifest: of 100,000 partitions and more."""
_REMEDY = "prepare the log again"


@dataclass(frozen=True)
class File:
    """A file of a prepared log.

    Attributes:
        rows: how many it holds.
        users: of events, how many users they are of.
        out_of_order: of events, how many rows the input gave after a later event of their user.
        bytes, sha256: of the file.
    """

    rows: int
    users: int
    out_of_order: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a prepared log holds.

    Attributes:
        name: what reports call the log.
        item_columns: columns of the events that describe their item.
        filters: by which events were left out.
        partitions: of the events, by their number.
        items, users: the tables.
    """

    name: str
    item_columns: tuple[str, ...]
    filters: Mapping[str, Any]
    partitions: tuple[File, ...]
    items: File
    users: File

    @property
    def num_events(self) -> int:
        return sum(file.rows for file in self.partitions)


def described(path: Path, *, rows: int, users: int = 0, out_of_order: int = 0) -> File:
    """A file that has been written."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(rows, users, out_of_order, path.stat().st_size, digest)


def write(folder: Path, manifest: Manifest) -> None:
    """Write a manifest into the folder of its files."""
    text = json.dumps({"schema": SCHEMA} | asdict(manifest), indent=1)
    (folder / NAME).write_text(text, encoding="utf-8")


def read(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        DataError: there is none, or it is none of this version.
    """
    path = folder / NAME
    if not path.is_file():
        raise DataError(
            f"{folder} holds no prepared log: there is no {NAME}; make one with `recsys data "
            "prepare`"
        )
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"{size:,} bytes")
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise TypeError("no object")
        schema = facts.pop("schema")
        return _manifest(facts) if schema == SCHEMA else _of_another(path, schema)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is damaged ({reason}); {_REMEDY}") from error


def _of_another(path: Path, schema: object) -> Manifest:
    raise DataError(f"{path} is of schema {schema!r}, and this version reads {SCHEMA}; {_REMEDY}")


def _manifest(facts: Mapping[str, Any]) -> Manifest:
    name, filters = facts["name"], facts["filters"]
    if not isinstance(name, str) or not isinstance(filters, dict):
        raise TypeError("name or filters of another type")
    files = tuple(_file(file) for file in _list(facts["partitions"]))
    if not files:
        raise ValueError("no partitions")
    columns = tuple(_list(facts["item_columns"]))
    if not all(isinstance(column, str) for column in columns):
        raise TypeError("item_columns that are no names")
    return Manifest(name, columns, filters, files, _file(facts["items"]), _file(facts["users"]))


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__}, no list")
    return value


def _file(facts: Any) -> File:
    file = File(**facts)
    numbers = (file.rows, file.users, file.out_of_order, file.bytes)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("counts that are none")
    if not isinstance(file.sha256, str):
        raise TypeError("sha256 that is no text")
    return file


def check(path: Path, file: File) -> None:
    """See that a file is the one that was written.

    Raises:
        DataError: it is missing, or another.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing, which {NAME} counts; {_REMEDY}")
    if described(path, rows=file.rows, users=file.users, out_of_order=file.out_of_order) != file:
        raise DataError(f"{path} is not the file that was written; {_REMEDY}")
