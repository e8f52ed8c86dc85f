"""A run's folder, read as data: a file that is not what it should be, whoever made it, is one line.

Nothing here calls what a file names (`recsys.scoring.trust` says what may be called), follows an
interpolation, or trusts a size that a file claims for itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from recsys.errors import RecsysError, RunError
from recsys.renamed import renamed

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

LARGEST_TEXT = 2**24
"""Bytes of a config, or of figures: a hundred times what any run writes."""
DEEPEST = 32
"""Levels of a config that are one in another."""


@contextmanager
def reading(
    what: Path, *, fault: str = "is damaged", remedy: str = "make the run again"
) -> Iterator[None]:
    """Turns whatever goes wrong with what a folder holds into one line that names it.

    Args:
        what: a file or a folder.
        fault: what is then said of it.
        remedy: what to do.

    Raises:
        RunError: in place of anything that is no `RecsysError`.
    """
    try:
        yield
    except RecsysError:
        raise
    except PermissionError as error:  # which says nothing of what is in the file
        raise RunError(
            f"{error.filename or what}: permission denied; get leave to use it"
        ) from error
    # Whatever it is, the file is not what was written: some readers panic at what is no such file.
    except (Exception, pl.exceptions.PanicException) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(f"{what} {fault} ({reason}); {remedy}") from error


def check_file(path: Path) -> None:
    """See that there is a file: to open what is none, such as a pipe, may never end.

    Raises:
        RunError: there is none.
    """
    if not path.is_file():
        raise RunError(f"{path.parent} holds no finished run: there is no {path.name}")


def read_text(path: Path, *, remedy: str = "make the run again") -> str:
    """A text file of at most `LARGEST_TEXT` bytes; `remedy` says what to do if it is none.

    Raises:
        RunError: no such file, a larger one, or none of text.
    """
    check_file(path)
    with reading(path, remedy=remedy):
        if (size := path.stat().st_size) > LARGEST_TEXT:
            raise ValueError(f"{size:,} bytes")
        return path.read_text(encoding="utf-8")


def read_json(path: Path, *, remedy: str = "make the run again") -> dict[str, Any]:
    """A JSON object; names that it gives twice are refused. `remedy` says what to do if it is none.

    Raises:
        RunError: as `read_text`, or no such object.
    """
    text = read_text(path, remedy=remedy)
    with reading(path, remedy=remedy):
        value = json.loads(text, object_pairs_hook=_once)
        if not isinstance(value, dict):
            raise TypeError(f"{type(value).__name__}, no object")
        return value


class ConfigLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Reads YAML as OmegaConf does, which writes configs: dates are text, 1e-3 is a number."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # the name and kind are PyYAML's
        first: [(tag, form) for tag, form in kinds if not tag.endswith(":timestamp")]
        for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping without a name that stands twice, or is null."""
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise ValueError(f"line {node.start_mark.line + 1}: a name twice")
        if None in mapping:
            raise ValueError(f"line {node.start_mark.line + 1}: null is no name")
        return mapping


ConfigLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(_[0-9]+)*(\.[0-9_]*)?[eE][-+]?[0-9]+\Z"),
    [*"-+0123456789"],
)


def read_config(folder: Path) -> dict[str, Any]:
    """A run's `config.yaml` as dicts, lists and values, and nothing that stands for another value.

    Raises:
        RunError: there is none, or it holds an interpolation, an alias, a tag or a name twice, or
            is deeper than `DEEPEST`.
    """
    path = folder / "config.yaml"
    text = read_text(path)
    with reading(path):
        _check_plain(text)
        config = yaml.load(text, ConfigLoader)
        if config is None:
            return {}
        if not isinstance(config, dict):
            raise TypeError("no options")
        return renamed(config)


def _check_plain(text: str) -> None:
    """See that YAML means what it says, before anything is made of it."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError(f"line {event.start_mark.line + 1}: an alias; write the value")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"line {event.start_mark.line + 1}: a tag, {event.tag}")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
            raise ValueError(f"{event.value} is an interpolation; write the value")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a name twice")
    return mapping


def read_table(path: Path, *columns: str) -> pl.DataFrame:
    """A Parquet file with at least these columns.

    Raises:
        RunError: no such file, no Parquet, or without one of them.
    """
    check_file(path)
    with reading(path), _without_panics():
        frame = pl.read_parquet(path, glob=False)
        if missing := [column for column in columns if column not in frame.columns]:
            raise ValueError(f"no column {missing[0]}")
        return frame


_panics = Lock()


@contextmanager
def _without_panics() -> Iterator[None]:
    """Without the pages that a native reader may print on standard error before it raises."""
    with _panics:  # the descriptor is the whole process's
        standard_error, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            os.close(nowhere)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        RunError: no such file, or none of tensors.
    """
    from safetensors.torch import load_file  # torch comes with it

    check_file(path)
    with reading(path):
        return load_file(path)
