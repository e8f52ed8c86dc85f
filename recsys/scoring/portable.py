"""A model's scores as an ONNX file, for software that knows neither this package nor torch.

    items     (B, L) int64   item indices of B histories, oldest first, filled up behind with any
    lengths   (B,)   int64   how many of them are the history
    scores    (B, n)         of every item; its index is its row in the run's model/items.parquet

Whoever asks it leaves out what a list is not to hold, takes the best, and has popularity for those
whose scores are all alike.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch

from recsys.errors import ConfigError
from recsys.files import atomic_file
from recsys.scoring.kinds import Portable
from recsys.scoring.scorer import Scorer

LARGEST = 2**31 - 2**20
"""Bytes of weights: a file of ONNX holds less than 2 GiB."""


def portable(model: Scorer) -> Portable:
    """The model itself.

    Raises:
        ConfigError: its scores are no function of plain tensors that it can hand over.
    """
    if not isinstance(model, Portable):
        raise ConfigError(
            f"{type(model).__name__} is not written as ONNX; sasrec, unisrec and ease are"
        )
    return model


@torch.inference_mode(False)
@torch.no_grad()
def write_onnx(path: Path, model: Portable) -> None:
    """Write the file whole or not at all.

    Raises:
        ConfigError: a package of the extra `onnx` is not there, or the weights are too large.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # what the export is made by
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs the package {error.name}; pip install 'recsys[onnx]'"
        ) from error
    scores = model.eval().cpu().portable().eval()
    size = sum(t.nbytes for t in chain(scores.parameters(), scores.buffers()))
    if size > LARGEST:
        raise ConfigError(f"{size / 2**30:.1f} GiB of weights; a file of ONNX holds less than 2")
    users = torch.export.Dim("users")
    shapes = {"items": {0: users, 1: torch.export.Dim("length")}, "lengths": {0: users}}
    with _quiet():
        program = torch.onnx.export(
            scores,
            (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3, 1])),
            input_names=["items", "lengths"],
            output_names=["scores"],
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    with atomic_file(path) as scratch:
        scratch.write_bytes(program.model_proto.SerializeToString())
        onnx.checker.check_model(str(scratch))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of what it registers and of what it will change one day."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
