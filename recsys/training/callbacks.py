"""What happens at the beginning and the end of epochs."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
import torch
from pytorch_lightning import (
    Callback,
    LightningModule,
    Trainer,
)
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from recsys import ranks
from recsys.batch.examples import Part
from recsys.checkpoints import read_checkpoint, remove_others
from recsys.errors import ConfigError, DataError
from recsys.evaluation.metrics import METRICS
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.files import atomic_file, write_text
from recsys.reading import reading
from recsys.scoring.kinds import Measured
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.phases import VALIDATION
from recsys.tasks.splits import Split
from recsys.timing import timed
from recsys.training.divided import whole_weights
from recsys.training.options import TrainingOptions

logger = logging.getLogger(__name__)

SEEDS = 2**31
"""From which epochs have theirs."""
LAST, BEST = Path("checkpoints/last.ckpt"), Path("checkpoints/best.ckpt")


class Reseed(Callback):
    """Draws each epoch's dropout and negatives from a seed of its own, so that a run can resume.

    Each rank has another seed; rank 0 has that of a process alone.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch) + ranks.rank() * SEEDS)


class MeanLoss(Callback):
    """Logs an epoch's training loss, a mean over its users, as `train/loss`.

    Once, at its end: Lightning's own mean, logged in every step, takes longer than the step of a
    small model.

    Args:
        accumulate: micro-batches of a batch, whose losses add up to its own.

    Raises:
        DataError: at an epoch's end, the loss is not finite.
    """

    losses: list[Tensor]
    num_users: list[int]

    def __init__(self, accumulate: int = 1) -> None:
        self.accumulate = accumulate

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.losses, self.num_users = [], []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Part, _: int
    ) -> None:
        self.losses.append(outputs["loss"])
        self.num_users.append(len(batch))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        losses = ranks.total(torch.stack(self.losses)) / ranks.world()
        num_users = ranks.total(torch.tensor(self.num_users, device=losses.device))
        losses, num_users = (x.view(-1, self.accumulate).sum(1) for x in (losses, num_users))
        loss = (losses * num_users).sum() / num_users.sum()
        if not loss.isfinite():
            raise DataError(
                f"{type(pl_module).__name__}: the loss of epoch {trainer.current_epoch} is "
                f"{loss.item()}; training diverged: lower learning_rate, or set "
                "trainer.gradient_clip"
            )
        pl_module.log("train/loss", loss, prog_bar=True)


def epoch_seed(seed: int, epoch: int) -> int:
    """A different seed for each epoch of each seed."""
    return (seed * 1_000_003 + epoch) % SEEDS


def monitored(means: Mapping[str, float], monitor: str, protocol: Protocol) -> float:
    """The figure by which a model is chosen: one of its means, or of a metric over all lengths."""
    if monitor in METRICS:
        return fmean(means[f"{monitor}@{k}"] for k in protocol.ks)
    return means[monitor]


def check_monitor(model: Scorer, monitor: str, protocol: Protocol) -> None:
    """Refuse what a protocol does not measure of a model.

    Raises:
        ConfigError: it names what is measured.
    """
    metrics = [f"{metric}@{k}" for k in protocol.ks for metric in METRICS] + [*METRICS]
    metrics += model.measures if isinstance(model, Measured) else ()
    if monitor not in metrics:
        raise ConfigError(
            f"trainer.monitor={monitor} is not measured; choose among {', '.join(metrics)}"
        )


class Validate(Callback):
    """Asks the validation users as the test users will be, keeps the best epoch, and stops.

    Lightning's own callbacks for this count epochs, not evaluations, and forget which epoch was
    the best when the folder has been moved.

    Args:
        split: whose validation users are asked; where there are none, the last epoch is kept.
        protocol: how they are asked.
        training: for `monitor`, `patience` and `evaluate_every`.
        folder: for the checkpoints and `train.csv`.
        on_evaluation: is told the epoch and its `monitor`; what it raises ends the training.
    """

    def __init__(
        self,
        split: Split,
        protocol: Protocol,
        training: TrainingOptions,
        folder: Path,
        on_evaluation: Callable[[int, float], None] = lambda epoch, value: None,
    ) -> None:
        self.split = split
        self.protocol = protocol
        self.training = training
        self.folder = folder
        self.on_evaluation = on_evaluation
        self.best = float("-inf")
        self.evaluations_since_best = 0
        self.metrics: dict[str, float] = {}
        self.has_begun = False

    @property
    def asks_nobody(self) -> bool:
        """Whether the split has no validation users: then the last epoch is the best."""
        return not ranks.count(len(self.split.validation))

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "evaluations_since_best": self.evaluations_since_best,
            "metrics": self.metrics,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.evaluations_since_best = state_dict["evaluations_since_best"]
        self.metrics = state_dict["metrics"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that was stopped stays stopped when it is started again.
        trainer.should_stop = self.evaluations_since_best >= self.training.patience

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.has_begun = True
        # Lightning steps these after the epoch's checkpoint, and not when it goes on from there.
        for config in trainer.lr_scheduler_configs if self.metrics else ():
            if isinstance(config.scheduler, ReduceLROnPlateau) and config.monitor:
                config.scheduler.step(self.metrics[config.monitor])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        row = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
        if self.asks_nobody:
            if epoch + 1 == self.training.max_epochs:
                self._save(trainer, BEST, weights_only=True)
        elif (epoch + 1) % self.training.evaluate_every == 0:
            assert isinstance(pl_module, Recommender)
            with whole_weights(pl_module):
                means = evaluate(pl_module, self.split.validation, self.protocol).means
                if isinstance(pl_module, Measured):
                    means |= pl_module.measure(self.split, VALIDATION)
            monitor = self.training.monitor
            means[monitor] = monitored(means, monitor, self.protocol)
            figures = {f"validation/{name}": value for name, value in means.items()}
            pl_module.log_dict(figures)
            self.evaluations_since_best += 1
            if means[monitor] > self.best:
                self.best, self.evaluations_since_best = means[monitor], 0
                self._save(trainer, BEST, weights_only=True)
            trainer.should_stop = self.evaluations_since_best >= self.training.patience
            row |= figures
        if ranks.is_first():
            self._append(epoch, row)
        self.metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self._save(trainer, LAST)
        if (figure := f"validation/{self.training.monitor}") in row:
            self.on_evaluation(epoch, row[figure])

    def _save(self, trainer: Trainer, name: Path, *, weights_only: bool = False) -> None:
        with timed(logger, "epoch %s: wrote %s", trainer.current_epoch, self.folder / name):
            trainer.save_checkpoint(self.folder / name, weights_only=weights_only)

    def _append(self, epoch: int, row: dict[str, float]) -> None:
        """Add a row to `train.csv`; a resumed run goes on where its checkpoint was."""
        path = self.folder / "train.csv"
        rows = pl.DataFrame({"epoch": epoch, **row})
        if path.is_file():
            with reading(path, remedy="remove it; the run goes on without the epochs that it had"):
                before = pl.read_csv(path, glob=False).filter(pl.col("epoch") < epoch)
                rows = pl.concat([before, rows], how="diagonal_relaxed")
        write_text(path, rows.write_csv())


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints, whole or not at all.

    Lightning's own scratch files are elsewhere, maybe on another disk, and stay there when a run is
    killed.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        buffer = io.BytesIO()  # torch does not say why it cannot write a file
        torch.save(checkpoint, buffer)
        with atomic_file(Path(path)) as scratch:
            scratch.write_bytes(buffer.getbuffer())
        remove_others(Path(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return read_checkpoint(Path(path))
