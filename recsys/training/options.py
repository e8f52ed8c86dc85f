"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from recsys.errors import ConfigError
from recsys.ranges import above, at_least

Precision: TypeAlias = Literal[
    "32-true", "16-mixed", "bf16-mixed", "64-true", "16-true", "bf16-true"
]
STRATEGIES = ("auto", "ddp", "fsdp")
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class TrainingOptions:
    """How a model with a loss is trained.

    Attributes:
        max_epochs: at most so many passes over the training users.
        batch_size: training users a step, of all ranks together.
        accumulate: micro-batches that a batch is computed in, for less memory. Their gradients add
            up to that of the whole batch: a `Separable` model, or one in `TwoPass`, learns what it
            learns with 1.
        reshuffle: whether each epoch takes the users in an order of its own; otherwise one order is
            drawn, and its batches are kept for all epochs.
        monitor: the validation metric by which the best epoch is kept, and training is stopped:
            `ndcg@10`, or `ndcg` for its mean over all lengths of the protocol.
        patience: evaluations without improvement after which training stops.
        evaluate_every: epochs between evaluations on the validation users.
        gradient_clip: largest norm of the gradient; None does not clip.
        device: as `recsys.devices.device_of` takes it; of several, each rank takes one.
        devices, num_nodes: processes a machine, and machines, that train together, as `torchrun` or
            SLURM started them; `recsys.ranks`.
        strategy: how they do: `auto` and `ddp` hold the whole model in each and average gradients;
            under `fsdp` each holds a part of every block of a `Blockwise` model, of its gradients
            and of the optimiser's moments.
        precision: of `PRECISIONS`. The mixed ones hold weights in float32 and compute products in
            float16 (on a GPU) or bfloat16; the true ones hold weights, save them and compute in
            float64, float16 or bfloat16, with master weights for the steps (`TruePrecision`). It
            says nothing to models in closed form, nor to predictors, which have no trainer.
        seed: of everything random.

    Raises:
        ConfigError: no epoch would be evaluated, a precision that there is not, or a number out of
            its range.

    >>> TrainingOptions(max_epochs=3, evaluate_every=5)
    Traceback (most recent call last):
    recsys.errors.ConfigError: evaluate_every=5 is not in 1 .. max_epochs=3; no epoch would be ...
    """

    max_epochs: int = 100
    batch_size: int = 256
    accumulate: int = 1
    reshuffle: bool = True
    monitor: str = "ndcg@10"
    patience: int = 10
    evaluate_every: int = 1
    gradient_clip: float | None = None
    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Precision = "32-true"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.evaluate_every <= self.max_epochs:
            raise ConfigError(
                f"evaluate_every={self.evaluate_every} is not in 1 .. max_epochs="
                f"{self.max_epochs}; no epoch would be evaluated and kept"
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision={self.precision} is not offered; choose among {', '.join(PRECISIONS)}"
            )
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"strategy={self.strategy} {_refusal(self.strategy)}")
        at_least(1, batch_size=self.batch_size, patience=self.patience)
        if not 1 <= self.accumulate <= self.batch_size:
            raise ConfigError(
                f"accumulate={self.accumulate} is not in 1 .. batch_size={self.batch_size}; each "
                "micro-batch has a user at least"
            )
        at_least(1, devices=self.devices, num_nodes=self.num_nodes)
        above(0, gradient_clip=self.gradient_clip)


def _refusal(strategy: str) -> str:
    """Why a strategy is none of `STRATEGIES`, and what to do."""
    if strategy.startswith(("ddp_fork", "ddp_notebook")):
        return "hangs once polars has run in the process; start the ranks by torchrun, and set ddp"
    if strategy.startswith("ddp_spawn"):
        return "starts a run's processes from within it; start them by torchrun, and set ddp"
    return f"is not offered; choose among {', '.join(STRATEGIES)}"
