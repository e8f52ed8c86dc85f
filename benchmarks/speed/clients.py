"""A round of all 1,083 clients of New York: side by side, and in a loop over clients.

    RECSYS_DATA=FOLDER python -m benchmarks.speed.clients

`loop` is what one writes in plain PyTorch: a copy of the model for each client, its own optimiser,
a module's forward, PyTorch's cross-entropy, and its own examples in shuffled batches. `ours` is
`train_clients`. Both take the same steps of the same sizes with one thread, in turns; with the
batch of a whole client, where no shuffle matters, the changes that they send must be equal. With
own events, whose loop takes a minute, every fourth client has a round.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.record import ROOT, ratio, spread, write
from recsys.data.sources.checkins import checkins
from recsys.models import NextPlace
from recsys.models.sequences import OwnPointer
from recsys.tasks import last_share
from recsys.training import Clients, LocalSteps, Order, train_clients

RESULTS = ROOT / "benchmarks/speed/results"
LEARNING_RATE = 0.1


class Network(nn.Module):
    """NextPlace for one client, as it is usually written."""

    def __init__(self, model: NextPlace) -> None:
        super().__init__()
        self.items, self.gates, self.bias = (
            nn.Parameter(w.detach().clone()) for w in (model.items, model.gates, model.bias)
        )
        self.inner, self.outer = copy.deepcopy(model.inner), copy.deepcopy(model.outer)

    def forward(self, recent: Tensor, target: Tensor) -> Tensor:
        last = F.embedding(recent, F.pad(self.items, (0, 0, 0, 1)))
        x = (last * self.gates).sum(-2)
        h = x + self.outer(self.inner(x).relu())
        return F.cross_entropy(h @ self.items.T + self.bias, target)


class WithOwn(nn.Module):
    """NextPlace with a user's own events for one client, by its scores."""

    def __init__(self, model: NextPlace) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)

    def forward(self, target: Tensor, **inputs: Tensor) -> Tensor:
        weights = {name: weight[None] for name, weight in self.model.named_parameters()}
        inputs = {name: value[None] for name, value in inputs.items()}
        return F.cross_entropy(self.model.scores_of(weights, inputs)[0], target)


def loop(plain: nn.Module, clients: Clients, local: LocalSteps) -> dict[str, Tensor]:
    """The changes, by name and client."""
    changes: dict[str, list[Tensor]] = {name: [] for name, _ in plain.named_parameters()}
    for begin, end in zip(clients.offsets[:-1].tolist(), clients.offsets[1:].tolist(), strict=True):
        own = {name: tensor[begin:end] for name, tensor in clients.examples.items()}
        model = copy.deepcopy(plain)
        optimizer = torch.optim.SGD(model.parameters(), lr=local.learning_rate)
        chosen = torch.randperm(end - begin)[: local.max_examples]
        for _ in range(local.epochs):
            for rows in chosen[torch.randperm(len(chosen))].split(local.batch_size):
                loss = model(**{name: tensor[rows] for name, tensor in own.items()})
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for (name, weight), old in zip(model.named_parameters(), plain.parameters(), strict=True):
            changes[name].append(weight.detach() - old.detach())
    return {name.removeprefix("model."): torch.stack(c) for name, c in changes.items()}


def seconds(function: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def check(plain: nn.Module, model: NextPlace, order: Order, clients: Clients) -> float:
    """How far the changes of forty clients are from those of the loop, at most.

    Raises:
        SystemExit: they differ.
    """
    whole = LocalSteps(epochs=2, batch_size=2048, max_examples=None, learning_rate=LEARNING_RATE)
    some = clients.rows(torch.arange(40))
    ours, theirs = train_clients(model, order, some, whole).changes, loop(plain, some, whole)
    apart = max(float((theirs[name] - change).abs().max()) for name, change in ours.items())
    if apart > 1e-5:
        raise SystemExit(f"the changes are {apart:.2g} apart")
    return apart


def measure(name: str, sizes: list[int], turns: int, share: int) -> dict[str, Any]:
    """Of one model: seconds of both sides for each size of batch, and how far apart they are."""
    torch.manual_seed(0)
    split = last_share(checkins(cell_km=1.0))
    plain_class, options, every = MODELS[name]
    model = NextPlace(split.num_items, **options())
    clients = Clients.of(model, split)
    clients = clients.rows(torch.arange(0, len(clients), every * share))
    order = Order({n: weight.detach().clone() for n, weight in model.named_parameters()})
    plain = plain_class(model)
    sides: dict[str, Any] = {}
    for size in sizes:
        local = LocalSteps(2, size, 128, LEARNING_RATE)
        both = {
            "loop": partial(loop, plain, clients, local),
            "ours": partial(train_clients, model, order, clients, local),
        }
        taken = [{side: seconds(do) for side, do in both.items()} for _ in range(turns)]
        for side in both:
            clocks = {c: spread(turn[side][c] for turn in taken) for c in ("wall", "cpu")}
            sides[f"{name}, batches of {size}, {side}"] = clocks
    return {"clients": len(clients), "apart": check(plain, model, order, clients), "sides": sides}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[10, 32])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--share", type=int, default=1, help="one of so many of these; no record")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.models:
        measured = measure(name, given.batch_sizes, given.turns, given.share)
        sides, ratios = measured["sides"], {}
        for size in given.batch_sizes:
            key = f"{name}, batches of {size}"
            ratios[key] = ratio(sides, f"{key}, loop", f"{key}, ours")
            taken = [sides[f"{key}, {side}"]["cpu"]["median"] for side in ("loop", "ours")]
            print(
                f"{key}: loop {taken[0]:.2f}, ours {taken[1]:.2f} CPU seconds a round: "
                f"{ratios[key]['cpu']['median']:.1f} times",
                flush=True,
            )
        if given.share == 1:
            record = {"threads": 1, **measured, "ratios": ratios}
            place = RESULTS / f"clients_{name.replace(' ', '_')}.json"
            write(place, record, packages=["torch", "numpy"], seed=0)


# As a module for one client, its options, and one of how many clients a round has.
MODELS: dict[str, tuple[Callable[[NextPlace], nn.Module], Callable[[], dict[str, Any]], int]] = {
    "network": (Network, dict, 1),
    "with own events": (WithOwn, lambda: {"own": OwnPointer(day=24 * 60.0)}, 4),
}

if __name__ == "__main__":
    main()
