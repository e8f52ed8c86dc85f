"""Logs that were read before, as Parquet, in `$RECSYS_CACHE` (or `~/.cache/recsys/prepared`).

An entry's name is a hash of the source, its options and its code. `entry.json` says from which
files the log was read and what its own files hold, all as SHA-256: an entry whose inputs have
changed, or that is incomplete or damaged, is made anew. It is written last and every file is moved
into place whole, so a process that dies or a second one that writes the same entry does no harm.
The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from glob import glob
from pathlib import Path
from typing import Any

import polars as pl

import recsys
from recsys.cache import cache_folder, warn_not_kept
from recsys.data.sources.files import data_folder, expanded, note, noted, record, recorded
from recsys.data.sources.prepared import prepared
from recsys.errors import DataError
from recsys.log.event_log import EventLog
from recsys.timing import timed

logger = logging.getLogger(__name__)

_FRAMES = ("events", "items", "users")


def cached(source: Callable[..., EventLog], **options: Any) -> EventLog:
    """What `source(**options)` returns, from the cache where its inputs are the same.

    A log that its user has prepared is read from there.

    Raises:
        DataError: what the source raises.
    """
    if source is prepared:
        return source(**options)
    name = f"{source.__name__}-{_key(source, options)}"
    log = _loaded(name)
    if log is None:
        with (
            timed(logger, "read %s from its source", source.__name__),
            recorded() as inputs,
            noted() as notes,
        ):
            log = source(**options)
        try:
            if all(inputs.values()):  # what is far away may change unseen
                _store(log, name, inputs, notes)
        except (OSError, pl.exceptions.PolarsError) as error:
            warn_not_kept("the log is", error)
    return log


def _key(source: Callable[..., EventLog], options: dict[str, Any]) -> str:
    modules = (source.__module__, EventLog.__module__)
    code = [Path(str(sys.modules[name].__file__)) for name in modules]
    code += sorted(Path(__file__).with_name("tables").glob("*.py"))
    inputs = {
        "source": f"{source.__module__}.{source.__qualname__}",
        "options": _absolute(options),
        "data_folder": str(data_folder()),
        "version": recsys.__version__,
        "code": [_digest(file) for file in code],
    }
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _absolute(value: Any) -> Any:
    """A relative path means another file in another working folder."""
    if isinstance(value, Mapping):
        return {
            str(name): _files_of(inner)
            if str(name).endswith("path") and isinstance(inner, str)
            else _absolute(inner)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_absolute(inner) for inner in value]
    is_path = isinstance(value, str) and Path(value).exists()
    return str(Path(value).absolute()) if is_path else value


def _files_of(name: str) -> list[str]:
    """A path; one of a folder or a pattern with all that it means now."""
    path = expanded(name)
    found = map(str, path.rglob("*")) if path.is_dir() else glob(str(path), recursive=True)
    return [str(path), *sorted(found)]


def _loaded(name: str) -> EventLog | None:
    try:
        entry = cache_folder() / name
        with timed(logger, "read %s from the cache", entry):
            return _read(entry)
    except (OSError, ValueError, LookupError, TypeError, DataError, pl.exceptions.PolarsError):
        return None


def _read(entry: Path) -> EventLog:
    """The log of an entry.

    Raises:
        ValueError: its inputs, or its own files, are not what they were.
        OSError, LookupError, TypeError, DataError, PolarsError: it is incomplete or damaged.
    """
    about = json.loads((entry / "entry.json").read_bytes())
    files = {entry / f"{frame}.parquet": about["frames"][frame] for frame in _FRAMES}
    if any(_digest(path) != digest for path, digest in files.items()):
        raise ValueError("a file of the entry has changed")
    if any(record(Path(path)) != digest for path, digest in about["inputs"].items()):
        raise ValueError("an input has changed")
    events, items, users = (pl.read_parquet(path, glob=False) for path in files)
    item_columns = tuple(about["item_columns"])
    for words in about["notes"]:
        note(words)
    return EventLog(about["name"], events, items, users, about["out_of_order"], item_columns)


def _store(log: EventLog, name: str, inputs: dict[str, str], notes: list[str]) -> None:
    entry = cache_folder() / name
    entry.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=entry, prefix=".") as scratch:
        frames = {frame: Path(scratch, f"{frame}.parquet") for frame in _FRAMES}
        for frame, path in frames.items():
            getattr(log, frame).write_parquet(path)
        digests = {frame: _digest(path) for frame, path in frames.items()}
        facts = {
            "name": log.name,
            "out_of_order": log.out_of_order,
            "item_columns": log.item_columns,
            "notes": notes,
        }
        about = Path(scratch, "entry.json")
        about.write_text(json.dumps({**facts, "inputs": inputs, "frames": digests}))
        for path in (*frames.values(), about):
            os.replace(path, entry / path.name)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
