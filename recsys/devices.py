"""Where models run. One place turns a name into a device, and everything else asks here.

`auto` is the device of the run around it (`running_on`), or else a CUDA device where there is one,
or the processor. What trains, encodes or scores follows it, unless it is given a device itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from itertools import chain

import torch
from torch import nn

from recsys import ranks
from recsys.errors import ConfigError
from recsys.memory import available_memory

_around: ContextVar[torch.device | None] = ContextVar("_around", default=None)


def device_of(name: str | torch.device = "auto") -> torch.device:
    """The device that a name stands for; a device is one already.

    Args:
        name: `auto`, `cpu`, `cuda` (the first, or the rank's), `cuda:1` or `mps`.

    Raises:
        ConfigError: there is no such device.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        return _around.get() or device_of("cuda" if torch.cuda.is_available() else "cpu")
    here = devices()
    if name not in here:
        raise ConfigError(f"device={name}: there is {', '.join(here)} or auto; choose among them")
    return here[name]


def devices() -> dict[str, torch.device]:
    """The devices of this machine, by every name that they have."""
    by_name = {"cpu": torch.device("cpu")}
    if torch.cuda.is_available():
        by_name["cuda"] = torch.device("cuda", ranks.local_rank())
    for index in range(torch.cuda.device_count()):
        by_name[f"cuda:{index}"] = torch.device("cuda", index)
    if torch.backends.mps.is_available():
        by_name["mps"] = torch.device("mps", 0)
    return by_name


@contextmanager
def running_on(name: str | torch.device) -> Iterator[torch.device]:
    """Make a device what `auto` stands for in the block.

    Raises:
        ConfigError: there is no such device.
    """
    device = device_of(name)
    token = _around.set(device)
    try:
        yield device
    finally:
        _around.reset(token)


def place_of(module: nn.Module) -> torch.device:
    """Where a module's tensors are; the processor for a module without any."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take of a device."""
    if device.type != "cuda":
        return available_memory()
    # What torch holds for later is free, too.
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A block whose products autocast does not lower, on a device that has it at all."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
