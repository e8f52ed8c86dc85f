"""Training: a model with a loss goes through Lightning, one in closed form is fitted.

A run can be killed at any moment and started again in the same folder: it goes on from its last
checkpoint and ends with the same numbers, because everything random in an epoch is a function of
the seed and the epoch alone.
"""

from __future__ import annotations

import inspect
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import (
    Trainer,
)
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy, Strategy
from rich.console import Console
from torch.nn.parallel import DistributedDataParallel

from recsys import ranks
from recsys.checkpoints import read_checkpoint
from recsys.devices import device_of, free_memory, running_on
from recsys.errors import ConfigError, RecsysError, RunError
from recsys.evaluation.ranking import Protocol
from recsys.memory import in_bytes
from recsys.nn.embedding import tables_of
from recsys.precision import set_precision_as_saved
from recsys.reading import reading
from recsys.scoring.kinds import Divisible, Separable, TwoPass, check_by_rank, members_of
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import ClosedForm, Scorer
from recsys.tasks.splits import Split
from recsys.timing import timed
from recsys.training.batches import Epochs
from recsys.training.callbacks import (
    BEST,
    LAST,
    AtomicCheckpoints,
    MeanLoss,
    Reseed,
    Validate,
    check_monitor,
)
from recsys.training.divided import (
    DividedBlocks,
    DividedTables,
    check_blocks,
    divided_tables,
    load_weights,
)
from recsys.training.estimate import FirstSteps, tell_memory
from recsys.training.options import TrainingOptions
from recsys.training.processes import join
from recsys.training.true_precision import TruePrecision

logger = logging.getLogger(__name__)


def fit(
    model: Scorer,
    split: Split,
    training: TrainingOptions,
    protocol: Protocol,
    *,
    folder: Path | None = None,
    loggers: Callable[[Path], list[Logger]] = lambda folder: [],
    progress: bool = False,
    on_evaluation: Callable[[int, float], None] = lambda epoch, value: None,
    tell: Callable[[str], object] | None = None,
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
        on_evaluation: is told the epoch and its `training.monitor` whenever the validation users
            have been asked; what it raises ends the training. Of members it is told nothing.
        tell: is given lines on what the training will take of memory and time, `print` for one;
            what does not fit is warned of before. None: nothing is estimated.

    Returns:
        The model, with the weights of its best epoch on the validation users, ready to score: all
        of it on the device of `training`.

    Raises:
        ConfigError: the protocol does not measure `training.monitor`, there is no such device, or
            there are several ranks and the model trains in one process.
        DataError: training diverges, or a log asks for more memory than there is.

    >>> split = last_basket(checkerboard())
    >>> model = SASRec(split.num_items, embedding_dim=16, learning_rate=0.02)
    >>> options = TrainingOptions(max_epochs=10, batch_size=16, evaluate_every=5, device="cpu")
    >>> model = fit(model, split, options, Protocol(ks=(10,)))
    >>> evaluate(model, split.test, Protocol(ks=(10,))).means["recall@10"] > 0.4
    True
    """
    join(training.devices, training.num_nodes, training.device)
    with running_on(training.device) as device:
        _fit(model, split, training, protocol, folder, loggers, progress, on_evaluation, tell)
    return model.to(device).eval()


def _fit(
    model: Scorer,
    split: Split,
    training: TrainingOptions,
    protocol: Protocol,
    folder: Path | None,
    loggers: Callable[[Path], list[Logger]],
    progress: bool,
    on_evaluation: Callable[[int, float], None],
    tell: Callable[[str], object] | None,
) -> None:
    if split.log.by_rank:
        check_by_rank(type(model))
    model.check_size(split)
    for name, member in members_of(model):
        place = None if folder is None else folder / "members" / name
        fit(
            member,
            split,
            training,
            protocol,
            folder=place,
            loggers=loggers,
            progress=progress,
            tell=tell,
        )
    if isinstance(model, ClosedForm):
        if tell is not None and (size := model.size_to_fit(split)):
            free = in_bytes(free_memory(torch.device("cpu")))
            tell(f"{type(model).__name__} takes about {in_bytes(size)} to fit, of {free} free")
        with timed(logger, "fitted %s in closed form", type(model).__name__):
            model.fit(split)
    elif isinstance(model, Recommender):
        check_monitor(model, training.monitor, protocol)
        check_blocks(model, training)
        if training.accumulate > 1 and not isinstance(model, (Separable, TwoPass)):
            raise ConfigError(
                f"trainer.accumulate={training.accumulate}: the loss of {type(model).__name__} "
                "reads a batch as a whole; set 1, and lower batch_size"
            )
        if ranks.world() > 1 and not isinstance(model, Divisible):
            raise ConfigError(
                f"trainer.devices={training.devices}: {type(model).__name__} trains in one "
                "process; set trainer.devices=1 trainer.num_nodes=1"
            )
        _check_sparse(model, training)
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(ranks.agreed(scratch)) if folder is None else folder
            made = loggers(place)
            _train(model, split, training, protocol, place, made, progress, on_evaluation, tell)
            ranks.wait()  # until all have read the best epoch


def _train(
    model: Recommender,
    split: Split,
    training: TrainingOptions,
    protocol: Protocol,
    folder: Path,
    loggers: list[Logger],
    progress: bool,
    on_evaluation: Callable[[int, float], None],
    tell: Callable[[str], object] | None,
) -> None:
    """Train, and go back to the best epoch."""
    device = device_of()
    if training.precision == "16-mixed" and device.type == "cpu":
        raise ConfigError("precision=16-mixed needs a GPU; use bf16-mixed or 32-true on device=cpu")
    model.to("cpu")  # where the split is; it may have been trained before
    model.keep_popularity(split)
    part = model.prepare(split)
    part = replace(part, by_rank=split.log.by_rank)
    # Of a batch that the model does not divide by itself.
    micro_batches = 1 if isinstance(model, TwoPass) else training.accumulate
    if isinstance(model, TwoPass):
        model.micro_batches = training.accumulate
    # A copy, where weights are to be divided: they cannot be put together again.
    is_divided = training.strategy == "fsdp" and ranks.is_joined()
    trained = deepcopy(model) if is_divided else model
    validate = Validate(split, protocol, training, folder, on_evaluation)
    if tell is not None:
        tell_memory(model, part, split.validation.history, training, device, tell)
    first = [] if tell is None else [FirstSteps(tell)]
    callbacks = [Reseed(training.seed), MeanLoss(micro_batches), *first, validate]
    bar = [progress_bar()] if progress else []
    is_true = training.precision in TruePrecision.DTYPES
    true = [TruePrecision(training.precision, device)] if is_true else []
    with _quiet_lightning(), divided_tables(trained, training) as tables:
        trainer = Trainer(
            max_epochs=training.max_epochs,
            accelerator=device.type,
            devices=_devices(training, device),
            num_nodes=training.num_nodes,
            strategy=_strategy(training, model, divided=bool(tables)),
            precision=None if true else training.precision,
            gradient_clip_val=training.gradient_clip,
            accumulate_grad_batches=micro_batches,
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
        epochs = Epochs(part, training)
        last = folder / LAST
        start = last if last.exists() else None
        if start is not None:
            read_checkpoint(start, whole=False)  # what is none is no fault of the model
            logger.info("going on from %s", start)
        num_weights = sum(parameter.numel() for parameter in model.parameters())
        details = (type(model).__name__, num_weights, len(epochs.part), device)
        try:
            with timed(logger, "trained %s: %s weights, %s rows, on %s", *details):
                trainer.fit(trained, epochs, ckpt_path=start, weights_only=True)
        except RecsysError:
            raise
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
        _load_best(model, folder / BEST)
    # The run is over: without a trainer the model can be moved, saved and copied.
    model.trainer = None


def _load_best(model: Recommender, path: Path) -> None:
    """Take the weights of the best epoch."""
    best = read_checkpoint(path, whole=False)["state_dict"]
    with reading(path, remedy="remove checkpoints/ to train from the start"):
        dtypes = {name: value.dtype for name, value in best.items()}
        set_precision_as_saved(model, dtypes)  # which a copy alone may have
        load_weights(model, best)


def progress_bar() -> ProgressBar:
    """Rich's in a terminal; in a notebook tqdm's, a widget in the output of the cell."""
    return TQDMProgressBar() if Console().is_jupyter else RichProgressBar(leave=True)


def _check_sparse(model: Recommender, training: TrainingOptions) -> None:
    """Refuse what sparse gradients cannot do."""
    if not any(table.sparse for table in tables_of(model)):
        return
    if ranks.world() > 1:
        raise ConfigError(
            f"trainer.devices={training.devices}: a table with sparse=true trains in one process; "
            "set trainer.devices=1 trainer.num_nodes=1, or sparse=false"
        )
    if training.gradient_clip is not None or training.precision not in ("32-true", "bf16-mixed"):
        raise ConfigError(
            f"trainer.gradient_clip={training.gradient_clip} trainer.precision="
            f"{training.precision}: sparse=true needs null, and 32-true or bf16-mixed; set "
            "sparse=false"
        )


def _devices(training: TrainingOptions, device: torch.device) -> int | list[int]:
    """How many devices this machine's ranks have, or which one a process alone."""
    return training.devices if training.devices > 1 or device.index is None else [device.index]


def _strategy(training: TrainingOptions, model: Recommender, *, divided: bool) -> Strategy | str:
    """Lightning's, for the ranks that there are."""
    together = ranks.world() > 1 or training.strategy != "auto" or divided
    if not (ranks.is_joined() and together):
        return "auto"
    # Buffers are computed alike on all ranks; older torch has another name for that.
    options = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    unused = not (isinstance(model, Divisible) and model.uses_every_weight)
    if training.strategy == "fsdp":
        return DividedBlocks()
    of_ddp: dict[str, Any] = {"find_unused_parameters": unused, buffers: False}
    return DividedTables(**of_ddp) if divided else DDPStrategy(**of_ddp)


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
            # All ranks log the same.
            warnings.filterwarnings("ignore", ".*sync_dist=True")
            # Without dropout, as models are aligned.
            warnings.filterwarnings("ignore", ".*in eval mode at the start of training")
            yield
    finally:
        logger.setLevel(level)
