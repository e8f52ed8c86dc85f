"""Whether tensors that were read from a file are what they should be, before anything uses them.

Native code that is handed an index out of range reads, or writes, where it should not.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> None:
    """Refuse a tensor of another type or shape; floats may be of any precision.

    Raises:
        ValueError: it is.
    """
    alike = tensor.is_floating_point() and dtype.is_floating_point
    if (tensor.dtype != dtype and not alike) or tensor.shape != shape:
        raise ValueError(
            f"{name} is {tuple(tensor.shape)} {tensor.dtype}; expected {tuple(shape)} {dtype}"
        )


def check_index(name: str, index: Tensor, below: int, *, dtype: torch.dtype = torch.int64) -> None:
    """Refuse anything but a flat tensor of integers 0 .. below - 1.

    Raises:
        ValueError: it is of another type or shape, or holds another number.
    """
    check_tensor(name, index, dtype, index.numel())
    if not index.numel():
        return
    low, high = (int(bound) for bound in index.aminmax())
    if low < 0 or high >= below:
        raise ValueError(f"{name} holds {low if low < 0 else high}; expected 0 .. {below - 1}")


def check_offsets(name: str, offsets: Tensor, rows: int, total: int) -> None:
    """Refuse offsets that do not divide `total` values among `rows` rows.

    Raises:
        ValueError: they are of another type or shape, begin or end elsewhere, or fall.
    """
    check_tensor(name, offsets, torch.int64, rows + 1)
    first, last = int(offsets[0]), int(offsets[-1])
    if (first, last) != (0, total):
        raise ValueError(f"{name} goes from {first} to {last}; expected 0 to {total}")
    if (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"{name} falls; expected numbers that never do")
