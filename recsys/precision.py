"""In which precision numbers are held: weights as training was told, long sums in float32 at least.

What a model makes of a log (counts, features) is in float32 and takes the precision of the weights
where it meets them. Losses and scores are sums over many items, users or dimensions: a half has 8
or 11 bits, so that small terms would be lost in them, and different scores become equal.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def wide(x: Tensor) -> Tensor:
    """The same numbers in float32, or as they are if that is no wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def set_precision(module: nn.Module, dtype: torch.dtype) -> None:
    """Hold the parameters in `dtype`; buffers, which are counted and not learnt, stay."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def set_precision_as_saved(module: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Hold the parameters in the precisions of a saved state, which may leave out tied ones."""
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in dtypes:
            parameter.data = parameter.data.to(dtypes[name])
