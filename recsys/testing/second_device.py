"""A second device for machines that have one: torch's `meta` device, with numbers behind it.

    with second_device() as there:
        model.to(there).score(batch.to(there))

Inside the block a tensor on `meta` is computed like any other, on the processor, and `auto` is that
device. What a GPU refuses is refused here: an operation on tensors of both devices, and `numpy()`
of one that is elsewhere. As on a GPU, single numbers on the processor go with everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from recsys.devices import running_on

THERE = torch.device("meta")
COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


@contextmanager
def second_device() -> Iterator[torch.device]:
    """The device, to which tensors and modules can be moved inside the block."""
    with running_on(THERE), _Dispatch(), _Functions():
        yield THERE


class _There(Tensor):
    """A tensor that says it is on the second device, and the one with its numbers."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, here: Tensor) -> Self:
        options: dict[str, Any] = {"dtype": here.dtype, "device": THERE}
        if here.layout == torch.strided:
            empty = torch.empty_strided(here.shape, here.stride(), **options)
        else:
            empty = torch.empty(here.shape, layout=here.layout, **options)
        return torch.Tensor._make_subclass(cls, empty)

    def __init__(self, here: Tensor) -> None:
        self.here = here

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} of a tensor whose device is gone; stay in second_device()")


class _Dispatch(TorchDispatchMode):
    """Runs every operation on the processor, and says of its results where they are."""

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_there = any(isinstance(tensor, _There) for tensor in tensors)
        if is_there and func not in COPIES:
            _check(func, tensors)
        if func is torch.ops.aten.copy_.default:
            is_there = isinstance(args[0], _There)
        if kwargs.get("device") is not None:
            is_there = kwargs["device"].type == THERE.type
            kwargs["device"] = torch.device("cpu")
        own = {id(tensor.here): tensor for tensor in tensors if isinstance(tensor, _There)}
        args, kwargs = tree_map_only(_There, lambda tensor: tensor.here, (args, kwargs))
        found = func(*args, **kwargs)
        if not is_there:
            return found
        # In place, what comes back is what went in.
        return tree_map_only(
            Tensor, lambda one: own[id(one)] if id(one) in own else _There(one), found
        )


def _check(func: Callable, tensors: list[Tensor]) -> None:
    """Refuse an operation on tensors of both devices."""
    left = [tensor for tensor in tensors if not isinstance(tensor, _There) and tensor.ndim]
    if left:
        raise RuntimeError(
            f"{func} of tensors on two devices; one of shape {tuple(left[0].shape)} is on the "
            "processor, and others are not"
        )


class _Functions(TorchFunctionMode):
    """What torch does to tensors outside of its operations."""

    def __torch_function__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return torch.tensor(*args, **kwargs).to(device)
        if func is torch.Tensor.numpy and args[0].device == THERE:
            raise RuntimeError("numpy() of a tensor that is not on the processor; call cpu() first")
        if func is torch.Tensor.tolist:
            return args[0].cpu().tolist()
        if not torch.is_inference_mode_enabled():
            return func(*args, **kwargs)
        # Inference mode goes past `_Dispatch`; without gradients it is the same.
        with torch.inference_mode(False), torch.no_grad():
            return func(*args, **kwargs)
