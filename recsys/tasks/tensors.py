"""Columns as tensors: the one way from polars to torch."""

from __future__ import annotations

import polars as pl
import torch
from torch import Tensor


def tensor_of(values: pl.Series) -> Tensor:
    """A tensor of a column's own: numbers without nulls, integers as int64."""
    numbers = values.cast(pl.Int64) if values.dtype.is_integer() else values
    return torch.from_numpy(numbers.to_numpy(writable=True))
