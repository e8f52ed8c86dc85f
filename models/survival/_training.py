"""What the networks of survival models share: layers, and how they are trained.

Shapes: R rows, F covariates, H hidden, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.devices import device_of
from recsys.scoring.predictor import Steps
from recsys.scoring.survival import Durations
from recsys.training.minimise import Minimiser

HELD_OUT_ROWS = 1024
"""So many are scored at once."""


class Layers(nn.Sequential):
    """Linear layers with SiLU between them, (R, F) to (R, O).

    Args:
        sizes: F, H for each hidden layer, and O.
        dropout: of hidden values.
    """

    def __init__(self, sizes: list[int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for pair in pairwise(sizes):
            layers += [nn.Linear(*pair), nn.SiLU(), nn.Dropout(dropout)]
        super().__init__(*layers[:-2])


def train(
    model: object,
    network: nn.Module,
    loss: Callable[[nn.Module, Durations], Tensor],
    rows: Durations,
    held_out: Durations,
    steps: Steps,
) -> int:
    """Train a network on rows until its loss on others no longer falls.

    Args:
        model: whose network it is, for an error.
        network: trained in place, on the device in use.
        loss: the mean over a batch; in training with penalties.
        rows, held_out: with covariates as the network takes them.
        steps: how; weight decay is of matrices alone.

    Returns:
        after how many passes the loss was lowest.
    """
    device = device_of()
    network.to(device)
    data = Durations.joined([rows, held_out]).to(device)
    every = torch.arange(len(data), device=device)
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": steps.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=steps.learning_rate,
    )
    minimiser = Minimiser(
        model, network, optimiser, lambda batch: loss(network, data.rows(batch)), steps
    )
    parts = every[len(rows) :].split(HELD_OUT_ROWS)
    return minimiser.until_lowest(every[: len(rows)], parts, untrained=False)
