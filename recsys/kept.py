"""Tensors that a module computes from a log: their sizes are known once it has been read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Keeper(nn.Module):
    """A module that makes room for the buffers of a saved state, whatever their size."""

    def keep(self, name: str, value: Tensor) -> None:
        """Hold a tensor that was computed from a split as the buffer `name`."""
        self.register_buffer(name, value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The sizes are the log's: make room for the saved tensors as they are.
        for name in [n for n in state_dict if n.startswith(prefix)]:
            own = name.removeprefix(prefix)
            if "." in own or own in self._parameters:
                continue
            here, saved = self._buffers.get(own), state_dict[name]
            if here is None or here.shape != saved.shape:
                device = None if here is None else here.device
                self.register_buffer(own, torch.empty_like(saved, device=device))
        super()._load_from_state_dict(state_dict, prefix, *args)
