"""Training with weights in float64, float16 or bfloat16: the precisions called `…-true`.

Lightning's own convert every floating tensor of a batch, which is not theirs to do: times and
values of money do not fit into a half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.precision import Precision
from torch import Tensor, nn
from torch.optim import Optimizer

from recsys.nn.embedding import like
from recsys.precision import set_precision, wide

FIRST_SCALE = 2.0**10


class TruePrecision(Precision):
    """Weights and their products in one precision; steps are taken on master weights.

    Master weights (Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.1) are
    copies in float32 at least: a step is often smaller than the last digit of a half, and Adam's
    second moments underflow float16. So would gradients, which is why the loss is scaled there
    (section 3.2).

    Args:
        precision: of `DTYPES`.
        device: of the training.
    """

    DTYPES: ClassVar[dict[str, torch.dtype]] = {
        "64-true": torch.float64,
        "16-true": torch.float16,
        "bf16-true": torch.bfloat16,
    }

    def __init__(self, precision: str, device: torch.device) -> None:
        self.precision = precision  # type: ignore[assignment]
        self.dtype = self.DTYPES[precision]
        # From a low scale, under which the first step is taken: schedules begin with it.
        self.scaler = torch.amp.GradScaler(
            device.type, init_scale=FIRST_SCALE, enabled=self.dtype is torch.float16
        )
        self.masters: dict[Tensor, Tensor] = {}

    def convert_module(self, module: nn.Module) -> nn.Module:
        set_precision(module, self.dtype)
        return module

    def connect(
        self, model: nn.Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[nn.Module, list[Optimizer], list[Any]]:
        """Hand the optimisers the master weights."""
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            masters = [wide(weight.detach()) for weight in group["params"]]
            self.masters |= dict(zip(group["params"], masters, strict=True))
            group["params"] = masters
        return model, optimizers, lr_schedulers

    def pre_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:  # type: ignore[override]
        return super().pre_backward(self.scaler.scale(tensor), module)

    def optimizer_step(  # type: ignore[override]
        self,
        optimizer: Optimizer,
        model: LightningModule,
        closure: Callable[[], Any],
        **kwargs: Any,
    ) -> Any:
        """A step of the master weights; none where a scaled gradient overflows."""
        result = closure()
        for weight, master in self.masters.items():
            master.grad = None if weight.grad is None else wide(weight.grad)
            weight.grad = None
        self.scaler.unscale_(optimizer)
        self._after_closure(model, optimizer)
        self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        with torch.no_grad():
            for weight, master in self.masters.items():
                weight.copy_(master)
        return result

    def state_dict(self) -> dict[str, Any]:
        return {"scaler": self.scaler.state_dict(), "masters": list(self.masters.values())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state_dict["scaler"])
        for master, saved in zip(self.masters.values(), state_dict["masters"], strict=True):
            master.copy_(like(saved, master))
