"""Training of a small network: passes over rows until the loss on others no longer falls.

Shapes: B rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.scoring.predictor import Steps


@dataclass(frozen=True, eq=False)
class Minimiser:
    """A network, its loss and what lowers it.

    Attributes:
        predictor: whose network it is, for the error.
        network: trained.
        optimiser: of its parameters.
        loss: the mean over rows (B,) int64.
        steps: how long, and by how many rows at once.
        gradient_clip: largest norm of the gradient; None does not clip.

    >>> x, network = torch.arange(8.0)[:, None], torch.nn.Linear(1, 1)
    >>> sgd = torch.optim.SGD(network.parameters(), lr=0.02)
    >>> loss = lambda rows: (network(x[rows]) - 3 * x[rows]).square().mean()
    >>> minimiser = Minimiser(OwnPurchases(), network, sgd, loss, Steps(max_epochs=200))
    >>> _ = minimiser.until_lowest(torch.arange(6), [torch.tensor([6, 7])], untrained=False)
    >>> abs(network.weight.item() - 3) < 0.1
    True
    """

    predictor: object
    network: nn.Module
    optimiser: torch.optim.Optimizer
    loss: Callable[[Tensor], Tensor]
    steps: Steps
    gradient_clip: float | None = None

    def until_lowest(self, train: Tensor, held_out: Sequence[Tensor], *, untrained: bool) -> int:
        """Train until the loss on rows held out no longer falls; the best weights are kept.

        Args:
            train: rows (B,) int64.
            held_out: rows, in the parts that are scored at once.
            untrained: whether no pass at all may be the best.

        Returns:
            the number of passes after which the loss was lowest.

        Raises:
            DataError: training diverges.
        """
        lowest, best = self.held_out_loss(held_out) if untrained else math.inf, 0
        weights = copy.deepcopy(self.network.state_dict())
        for epoch in range(1, self.steps.max_epochs + 1):
            self.one_pass(train)
            loss = self.held_out_loss(held_out)
            if loss < lowest:
                lowest, best, weights = loss, epoch, copy.deepcopy(self.network.state_dict())
            if epoch - best == self.steps.patience:
                break
        self.network.load_state_dict(weights)
        self.network.eval()
        return best

    def one_pass(self, rows: Tensor) -> None:
        """Take a step for each batch of the rows (B,) int64, in random order."""
        self.network.train()
        shuffled = rows[torch.randperm(len(rows)).to(rows.device)]
        for batch in shuffled.split(self.steps.batch_size):
            self.optimiser.zero_grad()
            self.loss(batch).backward()
            if self.gradient_clip is not None:
                nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip)
            self.optimiser.step()

    def held_out_loss(self, parts: Sequence[Tensor]) -> float:
        """The mean loss of rows that are not trained on.

        Raises:
            DataError: it is infinite or no number.
        """
        self.network.eval()
        with torch.no_grad():
            total = sum(float(self.loss(part)) * len(part) for part in parts)
        loss = total / sum(map(len, parts))
        self.steps.check(loss, self.predictor)
        return loss
