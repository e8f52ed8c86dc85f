"""A model's weights from a file that somebody else may have made.

What a config says of sizes is compared with the file before any memory is taken for it: the model
is first made of shapes alone (torch's meta device), and no deeper than the file has tensors for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_model
from torch import nn

from recsys.batch.histories import BasketBatch
from recsys.nn.buffers import Keeper
from recsys.precision import set_precision_as_saved

Model = TypeVar("Model", bound=nn.Module)

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MODULES_A_TENSOR = 16
"""A model has at most so many modules for each tensor, and so many more."""


def loaded(build: Callable[[], Model], path: Path, histories: BasketBatch) -> Model:
    """A model with the weights of a safetensors file, ready to score.

    Args:
        build: makes the model, and the same one each time.
        path: the file.
        histories: of the log that it was fitted on.

    Raises:
        ValueError: the file is not of this model, or holds what no training gives.
    """
    with safe_open(path, framework="pt") as file:
        pieces = {name: file.get_slice(name) for name in list(file.keys())}
        saved = {name: tuple(piece.get_shape()) for name, piece in pieces.items()}
        dtypes = {n: DTYPES[kind] for n, p in pieces.items() if (kind := p.get_dtype()) in DTYPES}
    _check_sizes(build, saved)
    model = build()
    set_precision_as_saved(model, dtypes)
    load_model(model, path)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity")
    for module in model.modules():
        if isinstance(module, Keeper):
            module.check_kept(histories)
    return model.eval()


def _check_sizes(build: Callable[[], nn.Module], saved: dict[str, tuple[int, ...]]) -> None:
    most = MODULES_A_TENSOR * (len(saved) + 1)
    # Whatever is drawn for a model that is thrown away, later draws do not move.
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _at_most(most):
        shapes = build()
    log_sized = set(_log_sized(shapes))
    fixed = {n: t for n, t in shapes.state_dict(keep_vars=True).items() if n not in log_sized}
    saved_ids = {id(tensor) for name, tensor in fixed.items() if name in saved}  # tied ones once
    for name, tensor in fixed.items():
        if id(tensor) not in saved_ids:
            raise ValueError(f"{name} is missing")
        if saved.get(name, tensor.shape) != tensor.shape:
            raise ValueError(f"{name} is {saved[name]}; expected {tuple(tensor.shape)}")


def _log_sized(model: nn.Module) -> Iterator[str]:
    """The names of tensors that have the size of the log."""
    for prefix, module in model.named_modules():
        if isinstance(module, Keeper):
            yield from (f"{prefix}.{name}".lstrip(".") for name in module.declared())


@contextmanager
def _at_most(modules: int) -> Iterator[None]:
    """Ends what makes more modules than that."""
    counter = count(1)

    def registered(*_: object) -> None:
        if next(counter) > modules:
            raise ValueError(f"the config asks for more than {modules} modules")

    hook = nn.modules.module.register_module_module_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()
