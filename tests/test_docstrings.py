"""The examples in docstrings of public names run, and say what comes of them.

An example has the public names of the rooms at hand, the checkerboard of `recsys.testing`, `np`,
`pl`, `torch`, `Path` and `TemporaryDirectory`.
"""

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recsys.batch
import recsys.data
import recsys.evaluation
import recsys.interactive
import recsys.log
import recsys.models
import recsys.nn
import recsys.retrieval
import recsys.scoring
import recsys.tasks
import recsys.testing
import recsys.training
from recsys.data.sources.table import table

ROOMS = (
    recsys.batch,
    recsys.data,
    recsys.evaluation,
    recsys.interactive,
    recsys.log,
    recsys.models,
    recsys.nn,
    recsys.retrieval,
    recsys.scoring,
    recsys.tasks,
    recsys.training,
)
AT_HAND: dict[str, Any] = {"np": np, "pl": pl, "torch": torch}
AT_HAND |= {"Path": Path, "TemporaryDirectory": TemporaryDirectory}
AT_HAND |= {name: getattr(room, name) for room in ROOMS for name in room.__all__}
AT_HAND |= {"checkerboard": recsys.testing.checkerboard, "recsys": recsys, "table": table}


def documented(room: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public names of a room, and the public methods of its classes."""
    names = {name: getattr(room, name) for name in room.__all__}
    if room is recsys.data:
        names["sources.table.table"] = table  # of the sources, the one for files of one's own
    for name, value in names.items():
        yield f"{room.__name__}.{name}", value
        if inspect.isclass(value):
            for method in vars(value):
                if not method.startswith("_"):
                    yield f"{room.__name__}.{name}.{method}", getattr(value, method)


def examples() -> dict[str, doctest.DocTest]:
    parser, examples = doctest.DocTestParser(), {}
    for room in ROOMS:
        for name, value in documented(room):
            text = inspect.getdoc(value) if callable(value) else None
            test = parser.get_doctest(text or "", dict(AT_HAND), name, name, 0)
            if test.examples:
                examples[name] = test
    return examples


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_true(name: str) -> None:
    torch.manual_seed(0)
    lines: list[str] = []
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(optionflags=options)
    assert runner.run(EXAMPLES[name], out=lines.append, clear_globs=False).failed == 0, "".join(
        lines
    )


def test_every_room_has_examples() -> None:
    for room in ROOMS:
        of_room = [name for name in EXAMPLES if name.startswith(f"{room.__name__}.")]
        assert len(of_room) >= 3, room.__name__
