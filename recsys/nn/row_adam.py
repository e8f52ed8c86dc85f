"""RowAdamW: AdamW that steps, of a large table, the rows that a batch has asked for alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW


class RowAdamW(AdamW):
    """AdamW; of weights whose gradients are sparse, the rows that have one.

    What torch calls SparseAdam, with AdamW's decoupled decay: a row that no batch asks for keeps
    its moments, its values and their decay where they were, and the corrections of the moments'
    start count the steps of all. Where every batch has every row it is AdamW. The sums of all
    gradients of a row come first.

    >>> table = torch.nn.Parameter(torch.ones(3, 2))
    >>> optimizer = RowAdamW([table], lr=0.5, weight_decay=0.0)
    >>> loss = torch.nn.functional.embedding(torch.tensor([0, 0]), table, sparse=True).sum()
    >>> loss.backward()
    >>> optimizer.step()
    >>> table.data.round(decimals=4).tolist()
    [[0.5, 0.5], [1.0, 1.0], [1.0, 1.0]]
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = self._taken_gradients()
        super().step()
        for group in self.param_groups:
            for weight in group["params"]:
                if (gradient := gradients.get(weight)) is not None:
                    self._step_rows(weight, gradient, group)
                    weight.grad = gradient
        return loss

    def _taken_gradients(self) -> dict[Tensor, Tensor]:
        """The sparse gradients, which their weights then have no longer."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        sparse = [w for w in weights if w.grad is not None and w.grad.is_sparse]
        gradients = {weight: weight.grad for weight in sparse}
        for weight in sparse:
            weight.grad = None
        return gradients

    def _step_rows(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Loshchilov & Hutter, "Decoupled Weight Decay Regularization", algorithm 2, by rows."""
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(weight) for _ in range(2))
        state["step"] += 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        first = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        second = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = first, second
        scale = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        kept = weight[rows].mul_(1 - group["lr"] * group["weight_decay"])
        weight[rows] = kept.addcdiv_(first, scale, value=-group["lr"] / (1 - beta1**step))
