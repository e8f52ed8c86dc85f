"""Training: a model with a loss goes through Lightning, one in closed form is fitted.

A run can be killed at any moment and started again in the same folder: it goes on from its last
checkpoint and ends with the same numbers, because everything random in an epoch is a function of
the seed and the epoch alone.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeAlias, get_args

import polars as pl
import torch
from pytorch_lightning import (
    Callback,
    LightningDataModule,
    LightningModule,
    Trainer,
)
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch.optim.lr_scheduler import ReduceLROnPlateau

from recsys.devices import device_of, running_on
from recsys.errors import ConfigError, DataError, RunError
from recsys.evaluate import Protocol, evaluate
from recsys.files import atomic_file, write_text
from recsys.loader import KeptBatches, Loader
from recsys.metrics import METRICS
from recsys.module import ClosedForm, Recommender, Scorer
from recsys.ranges import above, at_least
from recsys.run_folder import read_checkpoint, reading
from recsys.splits import VALIDATION, Part, Split
from recsys.true_precision import TruePrecision

Precision: TypeAlias = Literal[
    "32-true", "16-mixed", "bf16-mixed", "64-true", "16-true", "bf16-true"
]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Training:
    """How a model with a loss is trained.

    Attributes:
        max_epochs: at most so many passes over the training users.
        batch_size: training users a step.
        reshuffle: whether each epoch takes the users in an order of its own; otherwise one order is
            drawn, and its batches are kept for all epochs.
        monitor: the validation metric by which the best epoch is kept, and training is stopped:
            `ndcg@10`, or `ndcg` for its mean over all lengths of the protocol.
        patience: evaluations without improvement after which training stops.
        evaluate_every: epochs between evaluations on the validation users.
        gradient_clip: largest norm of the gradient; None does not clip.
        device: as `recsys.devices.device_of` takes it; training runs on one.
        precision: of `PRECISIONS`. The mixed ones hold weights in float32 and compute products in
            float16 (on a GPU) or bfloat16; the true ones hold weights, save them and compute in
            float64, float16 or bfloat16, with master weights for the steps (`TruePrecision`). It
            says nothing to models in closed form, nor to predictors, which have no trainer.
        seed: of everything random.

    Raises:
        ConfigError: no epoch would be evaluated, a precision that there is not, or a number out of
            its range.
    """

    max_epochs: int = 100
    batch_size: int = 256
    reshuffle: bool = True
    monitor: str = "ndcg@10"
    patience: int = 10
    evaluate_every: int = 1
    gradient_clip: float | None = None
    device: str = "auto"
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
        at_least(1, batch_size=self.batch_size, patience=self.patience)
        above(0, gradient_clip=self.gradient_clip)


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

    Returns:
        The model, with the weights of its best epoch on the validation users, ready to score: all
        of it on the device of `training`.

    Raises:
        ConfigError: the protocol does not measure `training.monitor`, or there is no such device.
        DataError: training diverges, or a log asks for more memory than there is.
    """
    with running_on(training.device) as device:
        _fit(model, split, training, protocol, folder, loggers, progress)
    return model.to(device).eval()


def _fit(
    model: Scorer,
    split: Split,
    training: Training,
    protocol: Protocol,
    folder: Path | None,
    loggers: Callable[[Path], list[Logger]],
    progress: bool,
) -> None:
    model.check_size(split)
    for name, member in model.members():
        place = None if folder is None else folder / "members" / name
        fit(member, split, training, protocol, folder=place, loggers=loggers, progress=progress)
    if isinstance(model, ClosedForm):
        model.fit(split)
    elif isinstance(model, Recommender):
        measured = [f"{metric}@{k}" for k in protocol.ks for metric in METRICS] + [*METRICS]
        measured += model.measures
        if training.monitor not in measured:
            raise ConfigError(
                f"monitor={training.monitor} is not measured; choose among {', '.join(measured)}"
            )
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch) if folder is None else folder
            _train(model, split, training, protocol, place, loggers(place), progress)


def _train(
    model: Recommender,
    split: Split,
    training: Training,
    protocol: Protocol,
    folder: Path,
    loggers: list[Logger],
    progress: bool,
) -> None:
    """Train, and go back to the best epoch."""
    device = device_of()
    if training.precision == "16-mixed" and device.type == "cpu":
        raise ConfigError("precision=16-mixed needs a GPU; use bf16-mixed or 32-true on device=cpu")
    validate = Validate(split, protocol, training, folder)
    callbacks = [Reseed(training.seed), MeanLoss(), validate]
    bar = [RichProgressBar(leave=True)] if progress else []
    is_true = training.precision in TruePrecision.DTYPES
    true = [TruePrecision(training.precision, device)] if is_true else []
    with _quiet_lightning():
        trainer = Trainer(
            max_epochs=training.max_epochs,
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            precision=None if true else training.precision,
            gradient_clip_val=training.gradient_clip,
            callbacks=[*callbacks, *bar],
            logger=loggers,
            plugins=[AtomicCheckpoints(), *true],
            reload_dataloaders_every_n_epochs=int(training.reshuffle),
            log_every_n_steps=1,
            enable_progress_bar=progress,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        model.to("cpu")  # where the split is; it may have been trained before
        model.keep_popularity(split)
        epochs = Epochs(model.prepare(split), training)
        last = folder / LAST
        start = last if last.exists() else None
        if start is not None:
            read_checkpoint(start)
        try:
            trainer.fit(model, epochs, ckpt_path=start, weights_only=True)
        except SystemExit as stopped:
            # What Lightning makes of Ctrl-C, and, as if all were well, of SIGTERM.
            raise KeyboardInterrupt from stopped
        except Exception as error:
            if start is None or validate.has_begun:
                raise
            raise RunError(
                f"{start} is no checkpoint of this model ({' '.join(str(error).split())}); remove "
                "checkpoints/ to train from the start"
            ) from error
    best = read_checkpoint(folder / BEST)
    with reading(folder / BEST, remedy="remove checkpoints/ to train from the start"):
        model.load_state_dict(best["state_dict"])
    # The run is over: without a trainer the model can be moved, saved and copied.
    model.trainer = None


LAST, BEST = Path("checkpoints/last.ckpt"), Path("checkpoints/best.ckpt")


class Epochs(LightningDataModule):
    """The training users of a split on the training device, in a new order each epoch or one."""

    def __init__(self, part: Part, training: Training) -> None:
        super().__init__()
        self.part = part
        self.training = training

    def train_dataloader(self) -> Loader | KeptBatches:
        assert self.trainer is not None
        self.part = self.part.to(self.trainer.strategy.root_device)
        epoch = self.trainer.current_epoch if self.training.reshuffle else 0
        seed = epoch_seed(self.training.seed, epoch)
        loader = Loader(self.part, self.training.batch_size, shuffle_seed=seed)
        return loader if self.training.reshuffle else KeptBatches(loader)

    def transfer_batch_to_device(self, batch: Part, device: torch.device, _: int) -> Part:
        """The batch as it is: its tensors are where the part's are."""
        return batch


class Reseed(Callback):
    """Draws each epoch's dropout and negatives from a seed of its own, so that a run can resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch))


class MeanLoss(Callback):
    """Logs an epoch's training loss, a mean over its users, as `train/loss`.

    Once, at its end: Lightning's own mean, logged in every step, takes longer than the step of a
    small model.

    Raises:
        DataError: at an epoch's end, the loss is not finite.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.total = torch.zeros((), device=pl_module.device)
        self.num_users = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Part, _: int
    ) -> None:
        self.total += outputs["loss"] * len(batch)
        self.num_users += len(batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = self.total / self.num_users
        if not loss.isfinite():
            raise DataError(
                f"{type(pl_module).__name__}: the loss of epoch {trainer.current_epoch} is "
                f"{loss.item()}; training diverged: lower learning_rate, or set "
                "trainer.gradient_clip"
            )
        pl_module.log("train/loss", loss, prog_bar=True)


def epoch_seed(seed: int, epoch: int) -> int:
    """A different seed for each epoch of each seed."""
    return (seed * 1_000_003 + epoch) % 2**31


class Validate(Callback):
    """Asks the validation users as the test users will be, keeps the best epoch, and stops.

    Lightning's own callbacks for this count epochs, not evaluations, and forget which epoch was
    the best when the folder has been moved.

    Args:
        split: whose validation users are asked.
        protocol: how they are asked.
        training: for `monitor`, `patience` and `evaluate_every`.
        folder: for the checkpoints and `train.csv`.
    """

    def __init__(self, split: Split, protocol: Protocol, training: Training, folder: Path) -> None:
        self.split = split
        self.protocol = protocol
        self.training = training
        self.folder = folder
        self.best = float("-inf")
        self.evaluations_since_best = 0
        self.metrics: dict[str, float] = {}
        self.has_begun = False

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
        if (epoch + 1) % self.training.evaluate_every == 0:
            assert isinstance(pl_module, Scorer)
            means = evaluate(pl_module, self.split.validation, self.protocol).means
            means |= pl_module.measure(self.split, VALIDATION)
            monitor = self.training.monitor
            if monitor in METRICS:
                means[monitor] = fmean(means[f"{monitor}@{k}"] for k in self.protocol.ks)
            found = {f"validation/{name}": value for name, value in means.items()}
            pl_module.log_dict(found)
            self.evaluations_since_best += 1
            if means[monitor] > self.best:
                self.best, self.evaluations_since_best = means[monitor], 0
                self._save(trainer, BEST, weights_only=True)
            trainer.should_stop = self.evaluations_since_best >= self.training.patience
            row |= found
        self._append(epoch, row)
        self.metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self._save(trainer, LAST)

    def _save(self, trainer: Trainer, name: Path, *, weights_only: bool = False) -> None:
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
        written = io.BytesIO()  # torch does not say why it cannot write a file
        torch.save(checkpoint, written)
        with atomic_file(Path(path)) as scratch:
            scratch.write_bytes(written.getbuffer())


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's notes on devices and its own products; its warnings stay."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning's own call, which newer torch deprecates.
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            # The device is chosen in the config.
            warnings.filterwarnings("ignore", "GPU available but not used")
            yield
    finally:
        logger.setLevel(level)
