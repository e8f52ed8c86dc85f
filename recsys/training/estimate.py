"""What a training will take: memory before it begins, seconds an epoch after its first steps.

Weights, gradients and moments are so many numbers. What a step holds beside them is measured: a
copy of the model goes forward and back on a sixteenth of a large batch, on a quarter and on all of
it, as long as the next is likely to fit; so it is with scoring. What is trained afterwards, and
everything random in it, is as if nobody had tried.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from recsys import ranks
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.devices import free_memory
from recsys.memory import in_bytes
from recsys.nn.embedding import sharded, tables_of
from recsys.precision import set_precision
from recsys.retrieval.tiles import CELLS_ON_GPU, CELLS_PER_THREAD
from recsys.scoring.kinds import TwoPass, VectorScorer
from recsys.scoring.recommender import Progress, Recommender
from recsys.scoring.scorer import Scorer
from recsys.timing import in_words
from recsys.training.callbacks import epoch_seed
from recsys.training.options import TrainingOptions
from recsys.training.true_precision import TruePrecision

logger = logging.getLogger(__name__)

SHARES = (1 / 16, 1 / 4, 1)
"""Of the rows of a batch that are tried, as long as they are likely to fit."""
BATCHES = 64
"""Of which the one with most events is tried."""
SECONDS = 2.0
"""So long the first steps are timed, or for an epoch that is shorter."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a training takes on its device.

    Attributes:
        weights, gradients, moments: held throughout; with the buffers, and with master weights.
        step: held beside them in a step; None where none was tried.
        ending: held beside them at an epoch's end, for lists or a checkpoint.
    """

    weights: int
    gradients: int
    moments: int
    step: int | None = None
    ending: int = 0

    @property
    def total(self) -> int:
        """At the largest."""
        return self.weights + self.gradients + self.moments + max(self.step or 0, self.ending)

    def __str__(self) -> str:
        parts = {"weights": self.weights, "gradients": self.gradients, "moments": self.moments}
        parts |= {} if self.step is None else {"beside them a step": self.step}
        parts |= {"an epoch's end": self.ending}
        return ", ".join(f"{name} {in_bytes(size)}" for name, size in parts.items())


def tell_memory(
    model: Recommender,
    part: Part,
    histories: BasketBatch,
    training: TrainingOptions,
    device: torch.device,
    tell: Callable[[str], object],
) -> None:
    """Say what a training will take of memory, and warn where there is not as much.

    Args:
        model: prepared, on the processor.
        part: that it is trained on.
        histories: of the validation users.
        training: how.
        device: where.
        tell: is given a line.
    """
    name, on_cpu = type(model).__name__, device.type == "cpu"
    free = free_memory(device) // (training.devices if on_cpu else 1)
    memory = memory_of(model, part, histories, training, device, free)
    about = f"about {in_bytes(memory.total)} on {device}"
    tell(f"{name} takes {about}, of {in_bytes(free)} free: {memory}")
    if memory.total - (memory.weights if on_cpu else 0) > free:
        remedy = "lower trainer.batch_size or the sizes of the model"
        logger.warning("%s takes %s, and %s are free; %s", name, about, in_bytes(free), remedy)


def memory_of(
    model: Recommender,
    part: Part,
    histories: BasketBatch,
    training: TrainingOptions,
    device: torch.device,
    free: int,
) -> Memory:
    """What a training will take, where so many bytes are free."""
    divided = {id(weight) for weight in _divided(model, training)} if ranks.is_joined() else set()
    held = _held(model, training.precision, divided)
    left, step, lists = free - held.total, None, 0
    if not divided and ranks.agreed(left > 0):
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            copy = _copy_of(model, training.precision).to(device)
            step = _of_steps(copy, part, training, device, left)
            lists = _of_lists(copy.eval(), histories, device, left)
    # A checkpoint is in memory before it is written, but for one of what ranks divide.
    in_memory = device.type == "cpu" and not divided
    checkpoint = held.weights + held.moments if in_memory else 0
    return replace(held, step=step, ending=max(lists, checkpoint))


def _divided(model: nn.Module, training: TrainingOptions) -> Iterable[Tensor]:
    """The weights of which a rank holds a part."""
    if training.strategy == "fsdp":
        return model.parameters()
    return (table.weight for table in sharded(model))


def _held(model: nn.Module, precision: str, divided: set[int]) -> Memory:
    """Weights, gradients and moments, two for each number; of tables in `divided` a rank's rows."""
    weights = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    gradients = moments = 0
    dtype = TruePrecision.DTYPES.get(precision)
    sparse = {id(table.weight) for table in tables_of(model) if table.sparse}
    for weight in model.parameters():
        number = math.ceil(weight.numel() / (ranks.world() if id(weight) in divided else 1))
        width = (dtype or weight.dtype).itemsize
        weights += number * width
        if weight.requires_grad:
            master = 4 if dtype and width < 4 else 0
            gradients += 0 if id(weight) in sparse else number * width
            moments += number * (2 * max(width, master) + master)
    return Memory(weights, gradients, moments)


def _copy_of(model: Recommender, precision: str) -> Recommender:
    """A copy that has at most the storage of the weights in common."""
    weights: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
        for weight in model.parameters()
    }
    copy = deepcopy(model, weights)
    if precision in TruePrecision.DTYPES:
        set_precision(copy, TruePrecision.DTYPES[precision])
    return copy


def _of_steps(
    model: Recommender, part: Part, training: TrainingOptions, device: torch.device, free: int
) -> int:
    """Bytes of the step of a large batch, beside weights, gradients and moments."""
    part, seed = part.to(device), epoch_seed(training.seed, 0)
    batches = Loader(part, training.batch_size, shuffle_seed=seed, by_rank="rows")
    some = islice(batches.rows(), BATCHES)
    largest = max(some, key=lambda rows: len(part.rows(rows).history.items))
    progress = Progress(0, len(batches) * training.max_epochs)
    dtype = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(training.precision)

    def of_rows(rows: Tensor) -> int:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return _of_a_step(model, part.rows(largest[rows]), progress)

    by_loader = 1 if isinstance(model, TwoPass) else training.accumulate
    return _extended(of_rows, math.ceil(len(largest) / by_loader), device, free)


def _of_a_step(model: Recommender, batch: Part, progress: Progress) -> int:
    """Bytes that a batch takes forward and back, beside gradients."""
    made = Made()
    with made:
        loss = model.loss(batch, progress)
    forward = made.most  # the gradients of the step before are still there
    with made:
        loss.backward()
    gradients = _tensors([weight.grad for weight in model.parameters()])
    sizes = [gradient.numel() * gradient.element_size() for gradient in gradients]
    model.zero_grad()
    # An optimiser makes two numbers more of each of a weight's.
    return max(forward, made.most - sum(sizes), 2 * max(sizes, default=0))


@torch.no_grad()
def _of_lists(model: Scorer, histories: BasketBatch, device: torch.device, free: int) -> int:
    """Bytes of scoring users at once, with the items' vectors where there are any."""
    num_items = histories.num_items
    number = min(model.users_at_once(num_items), len(histories))
    batch = histories.rows(torch.arange(number)).to(device)
    encode: Callable[[BasketBatch], Tensor] = model.score
    if isinstance(model, VectorScorer):
        encode = model.encode_users
    widths = [0]

    def of_rows(rows: Tensor) -> int:
        with Made() as made:
            widths.append(encode(batch.rows(rows)).shape[1])
        return int(made.most)

    size = _extended(of_rows, number, device, free)
    if not isinstance(model, VectorScorer):
        return size
    on_cpu = device.type == "cpu"
    tile = CELLS_PER_THREAD * torch.get_num_threads() if on_cpu else CELLS_ON_GPU
    return size + 4 * (num_items * widths[-1] + tile)


def _extended(
    of_rows: Callable[[Tensor], int], number: int, device: torch.device, free: int
) -> int:
    """Bytes that a batch takes; where it may not fit, on a line through what fitted.

    Args:
        of_rows: bytes of some of the rows.
        number: of all of them.
        device: of the rows.
        free: bytes.
    """
    rows, size, slope = 0, 0, 0.0
    for share in SHARES:
        more = math.ceil(share * number)
        if ranks.agreed(size + slope * (more - rows) > free):
            break
        size_of_more = of_rows(torch.arange(more, device=device) * number // max(more, 1))
        if more > rows:
            slope = max(size_of_more - size, 0) / (more - rows)
        rows, size = more, size_of_more
    return math.ceil(size + slope * (number - rows))


class Made(TorchDispatchMode):
    """Counts the bytes of tensors that are made in its blocks, as long as they live.

    Attributes:
        most: there were at once.

    >>> made = Made()
    >>> with made:
    ...     x = torch.zeros(1024) + torch.ones(1024)
    >>> made.now, made.most
    (4096, 12288)
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._sizes = WeakIdKeyDictionary()  # of storages; 0 of those that were there before

    @property
    def now(self) -> int:
        """Bytes that are left."""
        return sum(self._sizes.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._sizes.setdefault(tensor.untyped_storage(), 0)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            self._sizes.setdefault(storage, storage.nbytes())
        self.most = max(self.most, self.now)
        return result


def _tensors(tree: Any) -> list[Tensor]:
    """Those that have a storage; of sparse ones what they consist of."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    sparse = [tensor for tensor in tensors if tensor.layout is torch.sparse_coo]
    parts = [part for tensor in sparse for part in (tensor._indices(), tensor._values())]
    return [tensor for tensor in tensors if tensor.layout is torch.strided] + parts


class FirstSteps(Callback):
    """Says how long an epoch will take, once the first steps of a training have been timed.

    Args:
        tell: is given a line.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self.tell = tell
        self.begun = 0.0
        self.is_told = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = _now(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Part, index: int
    ) -> None:
        num_steps = int(trainer.num_training_batches)
        if self.is_told:
            return
        if index == 0 and num_steps > 1:  # what is done once is no part of the others
            self.begun = _now(pl_module.device)
        elif index + 1 == num_steps or perf_counter() - self.begun > SECONDS:
            self.is_told = True
            seconds = (_now(pl_module.device) - self.begun) / max(index, 1) * num_steps
            num_steps = math.ceil(num_steps / trainer.accumulate_grad_batches)
            self.tell(_words(pl_module, seconds, num_steps, trainer.max_epochs or 1))


def _words(model: LightningModule, seconds: float, num_steps: int, max_epochs: int) -> str:
    times = f"{in_words(seconds)} an epoch of {num_steps} steps, {in_words(seconds * max_epochs)}"
    return (
        f"{type(model).__name__} trains for about {times} for {max_epochs}; lists of the "
        "validation users come on top"
    )


def _now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()
