"""Peak memory of recommending to many users and of evaluating over a large catalogue.

    python -m benchmarks.speed.memory

Each side is a process of its own, whose largest resident memory the system tells; `idle` does
everything but ask. `bounded` scores as many users at once as `Scorer.users_at_once` says, `fixed`
what was usual before: everybody who is recommended to, and 1,024 users of an evaluation.

    recommend    20,000 users, 10,000 items, 10 each
    evaluate     2,000 users, 200,000 items, histories masked
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import Any

import polars as pl
import torch

from benchmarks.record import ROOT, Spread, ratio, spread, write
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.log.vocabulary import Vocabulary
from recsys.models import BPRMF
from recsys.scoring.lists import table_of_lists
from recsys.scoring.scorer import USERS_AT_ONCE, Scorer
from recsys.scoring.trained_model import SavedModel

RESULT = ROOT / "benchmarks/speed/results/memory.json"
SIZES = {"recommend": (20_000, 10_000), "evaluate": (2_000, 200_000)}
SIDES = ("idle", "fixed", "bounded")
EVENTS = 20  # of a user
DIM = 64


def histories(num_users: int, num_items: int) -> BasketBatch:
    """Events of random items, each a basket."""
    count = num_users * EVENTS
    step = torch.arange(EVENTS).repeat(num_users)
    return BasketBatch(
        items=torch.randint(num_items, (count,)),
        baskets=step,
        times=step,
        quantities=torch.ones(count),
        values=torch.full((count,), torch.nan),
        log_rows=torch.arange(count),
        offsets=torch.arange(num_users + 1) * EVENTS,
        users=torch.arange(num_users),
        num_items=num_items,
    )


def ask(case: str, side: str) -> None:
    """What one process does."""
    torch.manual_seed(0)
    num_users, num_items = SIZES[case]
    model, batch = BPRMF(num_items, num_users, embedding_dim=DIM), histories(num_users, num_items)
    targets = torch.arange(num_users + 1)
    part = Part("test", batch, Ragged(torch.randint(num_items, (num_users,)), targets))
    items = pl.DataFrame({"item_id": range(num_items)})
    saved = SavedModel(model, items, Vocabulary(pl.Series(range(num_users))), batch, True)
    if side == "idle":
        return
    if side == "fixed" and case == "recommend":
        top = model.top_k(batch, 10, mask_history=True)
        table_of_lists(saved.users.ids.rename("user_id"), top.items, top.scores, items)
        return
    if side == "fixed":
        Scorer.users_at_once = lambda self, num_items: USERS_AT_ONCE  # type: ignore[method-assign]
    if case == "recommend":
        saved.recommend(range(num_users))
    else:
        evaluate(model, part, Protocol(mask_history=True))


def measured(case: str, side: str) -> dict[str, float]:
    """Wall and CPU seconds and MiB of a process that scores."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", "--case", case, "--side", side]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{case} {side} ended with status {status}")
    wall = time.perf_counter() - started
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--case", choices=SIZES)
    parser.add_argument("--side", choices=SIDES)
    options = parser.parse_args()
    if options.case and options.side:
        ask(options.case, options.side)
        return
    cases: dict[str, Any] = {}
    ratios: dict[str, dict[str, Spread]] = {}
    for case, (num_users, num_items) in SIZES.items():
        turns = [{side: measured(case, side) for side in SIDES} for _ in range(options.turns)]
        sides = {
            side: {what: spread(turn[side][what] for turn in turns) for what in turns[0][side]}
            for side in SIDES
        }
        idle = sides["idle"]["peak"]["median"]
        above = {side: round(sides[side]["peak"]["median"] - idle) for side in SIDES[1:]}
        cases[case] = {"users": num_users, "items": num_items, "mib_above_idle": above} | sides
        ratios[f"{case} fixed/bounded"] = ratio(sides, "fixed", "bounded")
        print(f"{case}: {above} MiB above {idle:.0f} MiB")
    settings = {"model": "BPRMF", "embedding_dim": DIM, "events_per_user": EVENTS}
    record = settings | {"cases": cases, "ratios": ratios}
    write(RESULT, record, packages=["recsys", "torch", "polars"], seed=0)


if __name__ == "__main__":
    main()
