"""Ranks: processes that train one model together, each on its share of every batch.

A rank is a process of `torch.distributed`, and 0 the first of them. A process that was started
alone is the only rank of a world of one, where everything here returns what it was given: models
call these functions and never ask how many ranks there are.

Gradients are averaged over the ranks. The loss of a rank is therefore what its rows add to the mean
over the whole batch, times the number of ranks: `mean` of values, or `weighed`, of a mean. Every
rank has to make the same calls in the same order, also where it has no rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if is_joined() else 1


def rank() -> int:
    """Which of them this process is, from 0."""
    return dist.get_rank() if is_joined() else 0


def is_first() -> bool:
    """Whether this is rank 0, which writes the files of all."""
    return rank() == 0


def local_rank() -> int:
    """Which of the ranks of its machine this process is: by that it takes its GPU."""
    if not is_joined():
        return 0
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def own(rows: Tensor) -> Tensor:
    """The share of this rank of rows that all ranks have; shares differ by one row at most."""
    return rows.tensor_split(world())[rank()]


def total(values: Tensor) -> Tensor:
    """The sum of the values of all ranks, without a gradient."""
    return _reduced(values, dist.ReduceOp.SUM)


def largest(values: Tensor) -> Tensor:
    """The largest of the values of all ranks, without a gradient."""
    return _reduced(values, dist.ReduceOp.MAX)


def count(number: int) -> int:
    """How many there are on all ranks."""
    return counts([number])[0]


def counts(numbers: list[int]) -> list[int]:
    """The same of several numbers at once."""
    return total(torch.tensor(numbers, device=_place())).tolist() if world() > 1 else numbers


def mean(values: Tensor) -> Tensor:
    """What the values here add to the mean over all ranks, times the number of ranks."""
    if world() == 1 and values.numel():
        return values.mean()
    return weighed(values.sum() / max(values.numel(), 1), values.numel())


def weighed(mean: Tensor, number: int) -> Tensor:
    """The same, of a mean of so many values here; a mean of none has to be finite."""
    if world() == 1:
        return mean
    numbers = torch.tensor(number, dtype=torch.float64, device=_place())
    weight = number * world() / total(numbers).clamp(min=1)
    # In float32 at least: a weight of few bits is a wrong one.
    return mean * weight.to(mean.device, torch.promote_types(mean.dtype, torch.float32))


def gather(values: Tensor) -> Tensor:
    """The rows of all ranks, (R, ...) and maybe none each, in the order of the ranks.

    Their gradient comes back to the rank that they are of.
    """
    return values if world() == 1 else _Gather.apply(values)


def back(values: Tensor, number: int) -> Tensor:
    """Of rows that were made for all ranks, as `gather` orders them, the `number` of this one.

    Their gradient comes from the rank that they are of.
    """
    return values if world() == 1 else _Back.apply(values, number)


def sizes(number: int) -> list[int]:
    """How many rows each rank has, of this one's `number`."""
    counts = torch.zeros(world(), dtype=torch.int64, device=_place())
    counts[rank()] = number
    return total(counts).tolist()


def exchange(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """What each rank has for this one, in the order of the ranks.

    Args:
        rows: for all ranks, in their order.
        counts: how many for each; all ranks give the same.
    """
    if world() == 1:
        return rows
    here = counts[rank()]
    received = rows.new_empty(here * world(), *rows.shape[1:], device=_place())
    sent = rows.to(_place()).contiguous()
    dist.all_to_all_single(received, sent, [here] * world(), list(counts))
    return received.to(rows.device)


def of_first(values: Tensor) -> Tensor:
    """The values of rank 0 in place of those here: what is drawn once for the whole batch."""
    if world() > 1:
        dist.broadcast(values, src=0)
    return values


def drawn(draw: Callable[[int], Tensor], number: int) -> Tensor:
    """Random numbers for so many rows here: rank 0 draws for the rows of all, in their order.

    Args:
        draw: random numbers for some rows.
        number: of the rows here.
    """
    if world() == 1:
        return draw(number)
    every = sizes(number)
    return of_first(draw(sum(every))).split(every)[rank()]


def agreed(thing: T) -> T:
    """The object of rank 0 on all ranks, such as the name of a folder."""
    things = [thing]
    if world() > 1:
        dist.broadcast_object_list(things, src=0, device=_place())
    return things[0]


def gathered(thing: T) -> list[T]:
    """The objects of all ranks, in their order, on all of them."""
    things = [thing] * world()
    if world() > 1:
        dist.all_gather_object(things, thing)
    return things


def to_first(values: Tensor) -> Tensor:
    """On rank 0 the rows of all ranks, in their order; on another its own, which it sends."""
    if world() == 1:
        return values
    every_size = sizes(len(values))
    if not is_first():
        dist.send(values.contiguous().to(_place()), dst=0)
        return values
    rows = values.new_empty(sum(every_size), *values.shape[1:])
    first, *others = rows.split(every_size)
    first.copy_(values)
    for source, part in enumerate(others, start=1):
        received = torch.empty_like(part, device=_place())
        dist.recv(received, src=source)
        part.copy_(received)
    return rows


def wait() -> None:
    """Go on once all ranks have come here."""
    total(torch.zeros((), device=_place()))


def is_joined() -> bool:
    """Whether this process is one of a group, which may have no other."""
    return dist.is_available() and dist.is_initialized()


def _place() -> torch.device:
    """Where tensors have to be to be sent."""
    if is_joined() and dist.get_backend() == "nccl":
        return torch.device("cuda", local_rank())
    return torch.device("cpu")


def _reduced(values: Tensor, by: Any) -> Tensor:
    if world() == 1:
        return values
    sent = values.detach().to(_place(), copy=True)
    dist.all_reduce(sent, by)
    return sent.to(values.device)


class _Gather(torch.autograd.Function):
    """Rows of all ranks; fewer travel with zeros behind them, as all have to be of a size."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.sizes = sizes(len(values))
        padded = values.new_zeros(max(ctx.sizes), *values.shape[1:], device=_place())
        padded[: len(values)] = values
        pieces = [torch.empty_like(padded) for _ in ctx.sizes]
        dist.all_gather(pieces, padded)
        rows = [piece[:size] for piece, size in zip(pieces, ctx.sizes, strict=True)]
        return torch.cat(rows).to(values.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0].contiguous()).split(ctx.sizes)[rank()]


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, number: int) -> Tensor:
        return values.split(sizes(number))[rank()].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gather(gradients[0]), None
