"""Tensors that a module computes: from a log, whose size they have, or from its own parameters.

Those of a log come back from files that somebody else may have made, and native code that is handed
an index out of range reads or writes where it should not. So every module says what its kept
tensors must be like (`check_kept`), and a model that is read from files is used only after that.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import get_annotations
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from recsys import ranks
from recsys.batch.histories import BasketBatch
from recsys.devices import full_precision

T = TypeVar("T")


class Keeper(nn.Module):
    """A module that makes room for the buffers of a saved state, whatever their size.

    A buffer whose size depends on the log is declared in its class, as in `popularity: Tensor`.
    Only declared buffers get room.
    """

    def keep(self, name: str, value: Tensor) -> None:
        """Hold a tensor that was computed from a split as the buffer `name`."""
        self.register_buffer(name, value)

    def check_kept(self, histories: BasketBatch) -> None:
        """Refuse kept tensors that no log could have given; what is read from files passes here.

        A class that keeps tensors checks their types and shapes, and of integers that are used as
        indices that they lie in range, by the functions of `recsys.batch.bounds`.

        Args:
            histories: of the log that the model was fitted on, of all its users.

        Raises:
            ValueError: one is of another type or shape, or out of range.
        """

    @classmethod
    def declared(cls) -> set[str]:
        """The names that the class and those above it declare, kept tensors among them."""
        classes = (kind for kind in cls.__mro__ if issubclass(kind, Keeper))
        return {name for kind in classes for name in get_annotations(kind)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The sizes are the log's: make room for the saved tensors as they are.
        declared = self.declared()
        for name in [n for n in state_dict if n.startswith(prefix)]:
            buffer = name.removeprefix(prefix)
            if buffer not in declared or buffer in self._parameters:
                continue
            here, saved = self._buffers.get(buffer), state_dict[name]
            if here is None or here.shape != saved.shape:
                device = None if here is None else here.device
                self.register_buffer(buffer, torch.empty_like(saved, device=device))
        super()._load_from_state_dict(state_dict, prefix, *args)


class Memo(Generic[T]):
    """What was computed from a module, for as long as no tensor that it was computed from changes.

    It is computed as the module scores: in evaluation mode, without gradients and in full
    precision, whatever the training around it does. PyTorch's fused optimisers change parameters
    without a trace: `clear` it when training goes on.
    """

    def __init__(self) -> None:
        self._state: list[tuple[int, int, int]] = []
        self._value: T | None = None

    def clear(self) -> None:
        """Forget the value."""
        self._state, self._value = [], None

    def get(
        self,
        compute: Callable[[], T],
        module: nn.Module,
        *others: Tensor,
        by_rank: bool = False,
    ) -> T:
        """The value kept, or what `compute` gives now.

        Args:
            compute: reads, of what can change, nothing but the two that follow.
            module: with all parameters and buffers.
            others: further tensors.
            by_rank: whether `compute` is the work of all ranks, who then all ask for the value.
        """
        tensors = [*module.parameters(), *module.buffers(), *others]
        # Which tensor it is, where its numbers lie, and how often they were written.
        # Those of inference mode are never written, and have no version.
        state = [(id(t), t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
        is_stale = self._value is None or self._state != state
        if by_rank:
            is_stale = ranks.count(int(is_stale)) > 0
        if self._value is None or is_stale:
            self._value = _as_scored(compute, module, tensors[0].device)
            self._state = state
        return self._value


def _as_scored(compute: Callable[[], T], module: nn.Module, device: torch.device) -> T:
    was_training = module.training
    module.eval()
    # Tensors of inference mode could not meet those that take gradients later on.
    with torch.inference_mode(False), torch.no_grad(), full_precision(device):
        value = compute()
    module.train(was_training)
    return value
