"""A training step of GLOIE's one setting, and of the same without some of its parts.

    RECSYS_DATA=FOLDER python -m benchmarks.speed.gloie dc tms complete_journey

Sides take the same `STEPS` batches of `gloie_plus/any`, turn by turn: the loss, its gradients and
AdamW, on one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.record import ROOT, alternate, ratio, write
from recsys.batch.loader import Loader
from recsys.cli.compose import compose
from recsys.models import GLOIE
from recsys.run.config import Sizes, plain, sized
from recsys.run.ranking import Task, prepare
from recsys.scoring import trust
from recsys.scoring.recommender import Progress

RESULT = ROOT / "benchmarks/speed/results/gloie.json"
STEPS, BATCH_SIZE, TURNS = 20, 128, 5
WITHOUT = {
    "alike users": "model.alike.localities=[]",
    "items' responses": "model.frequency.item_dim=0",
}


def main() -> None:
    torch.set_num_threads(1)
    sides, ratios = {}, {}
    for log in sys.argv[1:]:
        options = ["experiment=gloie_plus/any", f"data={log}"]
        task = prepare(compose(options))
        runs = {f"{log}/whole": steps(task, options)}
        for part, option in WITHOUT.items():
            runs[f"{log}/without {part}"] = steps(task, [*options, option])
        sides |= alternate(runs, repeats=TURNS)
        whole, *others = runs
        ratios |= {
            f"{log}/whole/{name.partition('/')[2]}": ratio(sides, whole, name) for name in others
        }
    record = {"steps": STEPS, "batch_size": BATCH_SIZE, "sides": sides, "ratios": ratios}
    write(RESULT, record, packages=["recsys", "torch"], seed=0)


def steps(task: Task, options: list[str]) -> Callable[[], object]:
    """What takes the steps, from where it has come to."""
    config = sized(compose(options), Sizes.of(task.split))
    torch.manual_seed(0)
    model: Any = trust.build(plain(config.model))
    assert isinstance(model, GLOIE)
    part = model.prepare(task.split)
    order = torch.randperm(len(part))[: STEPS * BATCH_SIZE]
    batches = list(Loader(part.rows(order), BATCH_SIZE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.3)
    progress = Progress(step=1000, num_steps=2000)

    def run() -> None:
        model.train()
        for batch in batches:
            optimizer.zero_grad()
            model.loss(batch, progress).backward()
            optimizer.step()

    return run


if __name__ == "__main__":
    main()
