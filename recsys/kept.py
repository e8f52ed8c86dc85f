"""Tensors that a module computes from a log: their sizes are known once it has been read.

They come back from files that somebody else may have made, and native code that is handed an index
out of range reads or writes where it should not. So every module says what its kept tensors must be
like (`check_kept`), and a model that is read from files is used only after that.
"""

from __future__ import annotations

from inspect import get_annotations
from typing import Any

import torch
from torch import Tensor, nn

from recsys.batch import BasketBatch


class Keeper(nn.Module):
    """A module that makes room for the buffers of a saved state, whatever their size.

    A buffer whose size is the log's is declared in its class, as `popularity: Tensor`; no others
    are made room for.
    """

    def keep(self, name: str, value: Tensor) -> None:
        """Hold a tensor that was computed from a split as the buffer `name`."""
        self.register_buffer(name, value)

    def check_kept(self, histories: BasketBatch) -> None:
        """Refuse kept tensors that no log could have given; what is read from files passes here.

        A class that keeps tensors checks their types and shapes, and of integers that are used as
        indices that they lie in range, by the functions of `recsys.bounds`.

        Args:
            histories: of the log that the model was fitted on, of all its users.

        Raises:
            ValueError: one is of another type or shape, or out of range.
        """

    @classmethod
    def declared(cls) -> set[str]:
        """The names that the class and those above it declare, kept tensors among them."""
        own = (kind for kind in cls.__mro__ if issubclass(kind, Keeper))
        return {name for kind in own for name in get_annotations(kind)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The sizes are the log's: make room for the saved tensors as they are.
        declared = self.declared()
        for name in [n for n in state_dict if n.startswith(prefix)]:
            own = name.removeprefix(prefix)
            if own not in declared or own in self._parameters:
                continue
            here, saved = self._buffers.get(own), state_dict[name]
            if here is None or here.shape != saved.shape:
                device = None if here is None else here.device
                self.register_buffer(own, torch.empty_like(saved, device=device))
        super()._load_from_state_dict(state_dict, prefix, *args)
