"""An epoch of training DNNTSP: ours beside the computation as it is usually written.

    RECSYS_DATA=FOLDER python -m benchmarks.speed.dnntsp --logs dc tafeng

Both sides train through `recsys.training.fit`, with the same weights, batches of 64 and optimiser.
`plain` follows the authors' code: graphs are built from each user's baskets in Python loops in
every epoch, as dense matrices for every step; users are padded to the longest of the batch; and
attention runs over all pairs of steps of every node. It trains on the first batches only, ours on
these and, as `epoch`, on all; `plain epoch` is `plain`, scaled by the
users. The mean losses of the two must agree.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.record import ROOT, ratio, spread, write
from recsys.batch.examples import Part
from recsys.data.sources import temporal_sets
from recsys.evaluation.ranking import Protocol
from recsys.models import DNNTSP
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split, user_holdout
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

RESULT = ROOT / "benchmarks/speed/results/dnntsp.json"
BATCH_SIZE = 64
Clocks = dict[str, float]


class Timed(DNNTSP):
    """Records seconds and mean loss of its last epoch; trains on the first `num_batches`."""

    def __init__(self, num_items: int, num_batches: int | None = None) -> None:
        super().__init__(num_items)
        self.num_batches = num_batches
        self.started: Clocks = {}
        self.seconds: Clocks = {}
        self.mean_loss = 0.0

    def prepare(self, split: Split) -> Part:
        part = super().prepare(split)
        users = BATCH_SIZE * (self.num_batches or len(part))
        return part.rows(torch.arange(min(users, len(part))))

    def on_train_epoch_start(self) -> None:
        self.started = {"wall": time.perf_counter(), "cpu": time.process_time()}

    def on_train_batch_end(self, *_: Any) -> None:
        ended = {"wall": time.perf_counter(), "cpu": time.process_time()}
        self.seconds = {clock: ended[clock] - self.started[clock] for clock in ended}

    def on_train_epoch_end(self) -> None:
        self.mean_loss = float(self.trainer.callback_metrics["train/loss"])


class Plain(Timed):
    """The same model in loops over users and with a state for every node and step."""

    def __init__(self, num_items: int, num_batches: int | None = None) -> None:
        super().__init__(num_items, num_batches)
        self.loss_function = nn.MultiLabelSoftMarginLoss()

    def loss(self, part: Part, progress: Progress) -> Tensor:
        histories = baskets_of(part)
        longest = max(len(history) for history in histories)
        nodes = [sorted({i for basket in h for i in basket}) for h in histories]
        graphs = [padded_graphs(h, n, longest) for h, n in zip(histories, nodes, strict=True)]
        states = [self.items(torch.tensor(n)).expand(longest, -1, -1) for n in nodes]
        for convolution in self.graph.convolutions:
            mixed = [graph @ h for graph, h in zip(graphs, states, strict=True)]
            flat = convolution.linear(torch.cat([m.flatten(0, 1) for m in mixed]))
            flat = nn.BatchNorm1d.forward(convolution.norm, flat).relu()
            parts = flat.split([m.shape[0] * m.shape[1] for m in mixed])
            states = [p.view_as(m) for p, m in zip(parts, mixed, strict=True)]
        context = self.attend(torch.cat(states, 1).transpose(0, 1))
        of_users = context.split([len(n) for n in nodes])
        rows = zip(histories, nodes, of_users, strict=True)
        scores = torch.stack([self.scores(len(h), n, c) for h, n, c in rows])
        return self.loss_function(scores, part.target.dense(len(scores[0])).float())

    def attend(self, states: Tensor) -> Tensor:
        """(N, T, D) to (N, T, D), causal."""
        attention = self.graph.attention
        projected = attention.projection(states)
        heads = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = heads
        future = torch.ones(states.shape[1], states.shape[1], dtype=torch.bool).triu(1)
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = logits.masked_fill(future, -torch.inf).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    def scores(self, num_steps: int, nodes: list[int], context: Tensor) -> Tensor:
        context = context[:, :num_steps]
        pooled = (self.graph.attention.pooling(context) * context).sum(1)
        gate = torch.zeros(len(self.gate)).index_put((torch.tensor(nodes),), self.gate[nodes])
        vectors = (1 - gate).unsqueeze(1) * self.items.vectors
        vectors = vectors.index_add(0, torch.tensor(nodes), self.gate[nodes, None] * pooled)
        return self.output(vectors).squeeze(1)


def baskets_of(part: Part) -> list[list[list[int]]]:
    """Lists, as the authors' files give them."""
    history = part.history
    histories = [[[] for _ in range(count)] for count in history.num_baskets().tolist()]
    columns = (history.owners(), history.baskets, history.items)
    for user, basket, item in zip(*(column.tolist() for column in columns), strict=True):
        histories[user][basket].append(item)
    return histories


def padded_graphs(history: list[list[int]], nodes: list[int], longest: int) -> Tensor:
    """(T, N, N): of each basket, then identities."""
    pairs = Counter(pair for basket in history for pair in combinations(sorted(basket), 2))
    largest = max([1, *pairs.values()])
    place = {item: row for row, item in enumerate(nodes)}
    graphs = torch.zeros(longest, len(nodes), len(nodes))
    for t in range(longest):
        graphs[t].fill_diagonal_(1 / largest if t < len(history) else 1)
    rows = [
        (t, place[i], place[j], pairs[i, j] / largest)
        for t, basket in enumerate(history)
        for i, j in combinations(sorted(basket), 2)
    ]
    if rows:
        t, i, j, weights = zip(*rows, strict=True)
        graphs[t, i, j] = graphs[t, j, i] = torch.tensor(weights)
    return graphs


def trained(kind: type[Timed], split: Split, num_batches: int | None, seed: int) -> Timed:
    """After two epochs, of which the first warms up."""
    torch.manual_seed(seed)
    model = kind(split.num_items, num_batches)
    training = TrainingOptions(max_epochs=2, batch_size=BATCH_SIZE, reshuffle=False, device="cpu")
    fit(model, split, training, Protocol(ks=(10,)))
    return model


def measure(log: str, *, turns: int, num_batches: int, seed: int) -> dict[str, dict[str, Any]]:
    """Seconds of each side, turn by turn.

    Raises:
        SystemExit: the sides computed something else.
    """
    split = user_holdout(getattr(temporal_sets, log)())
    sides = {
        f"{log} plain": (Plain, num_batches),
        f"{log} ours": (Timed, num_batches),
        f"{log} epoch": (Timed, None),
    }
    runs: dict[str, list[Timed]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, (kind, batches) in sides.items():
            runs[name].append(trained(kind, split, batches, seed))
        plain, ours = (runs[f"{log} {side}"][-1].mean_loss for side in ("plain", "ours"))
        if abs(plain - ours) > 1e-3 * plain:
            raise SystemExit(f"{log}: mean loss of plain {plain:.6f}, of ours {ours:.6f}")
    share = max(1.0, len(split.train) / (BATCH_SIZE * num_batches))
    measured = {
        name: {clock: spread(m.seconds[clock] for m in models) for clock in ("wall", "cpu")}
        for name, models in runs.items()
    }
    measured[f"{log} plain epoch"] = {
        clock: spread(m.seconds[clock] * share for m in runs[f"{log} plain"])
        for clock in ("wall", "cpu")
    }
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", nargs="+", default=["dc", "tafeng"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sides, ratios = {}, {}
    for log in options.logs:
        sides |= measure(log, turns=options.turns, num_batches=options.batches, seed=options.seed)
        for slow, fast in (("plain", "ours"), ("plain epoch", "epoch")):
            pair = (f"{log} {slow}", f"{log} {fast}")
            ratios["/".join(pair)] = ratio(sides, *pair)
    for name, side in sides.items():
        print(f"{name}: {side['wall']['median']:.3f} s wall, {side['cpu']['median']:.3f} s CPU")
    for name, values in ratios.items():
        print(f"{name}: {values['wall']['median']:.1f} wall, {values['cpu']['median']:.1f} CPU")
    settings = {"threads": options.threads, "batches": options.batches, "batch_size": BATCH_SIZE}
    measured = settings | {"sides": sides, "ratios": ratios}
    write(RESULT, measured, packages=["torch", "pytorch-lightning"], seed=options.seed)


if __name__ == "__main__":
    main()
