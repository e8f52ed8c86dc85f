"""Training: a model with a loss goes through Lightning, one in closed form is fitted.

A run can be killed at any moment and started again in the same folder: it goes on from its last
checkpoint and ends with the same numbers, because everything random in an epoch is a function of
the seed and the epoch alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from pytorch_lightning import (
    Callback,
    LightningDataModule,
    LightningModule,
    Trainer,
)
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import Logger

from recsys.evaluate import Protocol, evaluate
from recsys.loader import Loader
from recsys.module import ClosedForm, Recommender, Scorer
from recsys.splits import Part, Split


Precision = Literal["32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"]


@dataclass(frozen=True)
class Training:
    """How a model with a loss is trained.

    Attributes:
        max_epochs: at most so many passes over the training users.
        batch_size: training users a step.
        monitor: the validation metric by which the best epoch is kept, and training is stopped.
        patience: evaluations without improvement after which training stops.
        evaluate_every: epochs between evaluations on the validation users.
        gradient_clip: largest norm of the gradient; None does not clip.
        accelerator, devices, precision: as Lightning's `Trainer` takes them.
        seed: of everything random.
    """

    max_epochs: int = 100
    batch_size: int = 256
    monitor: str = "ndcg@10"
    patience: int = 10
    evaluate_every: int = 1
    gradient_clip: float | None = None
    accelerator: str = "auto"
    devices: int = 1
    precision: Precision = "32-true"
    seed: int = 0


class Epochs(LightningDataModule):
    """The training users of a split, in a new order each epoch, on the training device."""

    def __init__(self, part: Part, batch_size: int, seed: int) -> None:
        super().__init__()
        self.part = part
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> Loader:
        assert self.trainer is not None
        self.part = self.part.to(self.trainer.strategy.root_device)
        seed = epoch_seed(self.seed, self.trainer.current_epoch)
        return Loader(self.part, self.batch_size, shuffle_seed=seed)


class Reseed(Callback):
    """Draws each epoch's dropout and negatives from a seed of its own, so that a run can resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch))


class Validate(Callback):
    """Evaluates on the validation users as the test will be, and logs `validation/<metric>`."""

    def __init__(self, part: Part, protocol: Protocol, every: int) -> None:
        self.part = part
        self.protocol = protocol
        self.every = every

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if last or (trainer.current_epoch + 1) % self.every == 0:
            assert isinstance(pl_module, Scorer)
            means = evaluate(pl_module, self.part, self.protocol).means
            found = {f"validation/{name}": value for name, value in means.items()}
            pl_module.log_dict({k: torch.tensor(v, dtype=torch.float32) for k, v in found.items()})


class Curve(Callback):
    """Writes a row per epoch to a CSV file; a resumed run goes on where its checkpoint was."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = pl.DataFrame({"epoch": trainer.current_epoch, **found})
        if self.path.exists():
            before = pl.read_csv(self.path).filter(pl.col("epoch") < trainer.current_epoch)
            row = pl.concat([before, row], how="diagonal_relaxed")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_name(f".{self.path.name}")
        row.write_csv(scratch)
        scratch.replace(self.path)


def epoch_seed(seed: int, epoch: int) -> int:
    """A different seed for each epoch of each seed."""
    return (seed * 1_000_003 + epoch) % 2**31


def fit(
    model: Scorer,
    split: Split,
    training: Training,
    protocol: Protocol,
    *,
    folder: Path | None = None,
    loggers: Callable[[Path], list[Logger]] = lambda folder: [],
    progress: bool = False,
) -> Scorer:
    """Fit a model and, before it, the models that it is made of.

    Args:
        model: in closed form, with a loss, or made of such.
        split: what it is fitted on.
        training: for models with a loss.
        protocol: how the validation users are asked.
        folder: for `checkpoints/` and `train.csv`; a run that finds its last checkpoint there goes
            on from it. Members have theirs in `members/<name>/`.
        loggers: Lightning's, made for a folder.
        progress: whether to show a bar.
    """
    for name, member in model.members():
        place = None if folder is None else folder / "members" / name
        fit(member, split, training, protocol, folder=place, loggers=loggers, progress=progress)
    if isinstance(model, ClosedForm):
        return model.fit(split)
    if isinstance(model, Recommender):
        _train(model, split, training, protocol, folder, loggers, progress)
    return model


class _Stop(EarlyStopping):
    """Counts evaluations, not epochs, and stays stopped when a stopped run is started again."""

    def __init__(self, monitor: str, patience: int, every: int) -> None:
        super().__init__(monitor, mode="max", patience=patience, check_on_train_epoch_end=True)
        self.every = every

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.stopped_epoch > 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every == 0:
            super().on_train_epoch_end(trainer, pl_module)


def _train(
    model: Recommender,
    split: Split,
    training: Training,
    protocol: Protocol,
    folder: Path | None,
    loggers: Callable[[Path], list[Logger]],
    progress: bool,
) -> None:
    """Train, and leave the model with the weights of its best epoch on the validation users."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) if folder is None else folder
        checkpoints = place / "checkpoints"
        monitor = f"validation/{training.monitor}"
        best = ModelCheckpoint(
            checkpoints,
            "best",
            monitor=monitor,
            mode="max",
            enable_version_counter=False,
            every_n_epochs=training.evaluate_every,
            save_on_train_epoch_end=True,
        )
        last = ModelCheckpoint(
            checkpoints, "last", enable_version_counter=False, save_on_train_epoch_end=True
        )
        callbacks: list[Callback] = [
            Reseed(training.seed),
            Validate(split.validation, protocol, training.evaluate_every),
            _Stop(monitor, training.patience, training.evaluate_every),
            Curve(place / "train.csv"),
            best,
            last,
        ]
        if progress:
            callbacks.append(RichProgressBar(leave=True))
        trainer = Trainer(
            max_epochs=training.max_epochs,
            accelerator=training.accelerator,
            devices=training.devices,
            precision=training.precision,
            gradient_clip_val=training.gradient_clip,
            callbacks=callbacks,
            logger=loggers(place),
            reload_dataloaders_every_n_epochs=1,
            log_every_n_steps=1,
            enable_progress_bar=progress,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        epochs = Epochs(model.prepare(split), training.batch_size, training.seed)
        path = checkpoints / "last.ckpt"
        trainer.fit(model, epochs, ckpt_path=path if path.exists() else None, weights_only=True)
        saved = torch.load(checkpoints / "best.ckpt", map_location="cpu", weights_only=True)
        model.load_state_dict(saved["state_dict"])
        # The run is over: without a trainer the model can be moved, saved and copied.
        model.trainer = None
