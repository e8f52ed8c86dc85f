"""Synthetic logs of Complete Journey, of models that never saw a tenth of the households.

    python -m benchmarks.manifolds.synthesis                results/synthesis.json, README.md

Product categories of the twelve departments with most events. Of ten households eight train, one
chooses the epoch and one is held out. As many are drawn as trained the model.
"""

from __future__ import annotations

import time
from typing import Any

import polars as pl
import torch

from benchmarks.manifolds.report import FOLDER, write_page
from benchmarks.record import write
from recsys.data.sources.complete_journey import categories
from recsys.evaluation.ranking import Protocol
from recsys.log.event_log import EventLog
from recsys.models import CountVAE, EncGAN
from recsys.nn import MultinomialHead
from recsys.run.synthesis import Synthesis, checks, generative, synthetic_log
from recsys.scoring.scorer import Scorer
from recsys.tasks import Split, domains_of, log_of_domains, user_holdout
from recsys.training import TrainingOptions, fit

PROTOCOL = Protocol(ks=(10,))
COLUMN = "department"


def divided() -> Split:
    log = categories()
    log = log_of_domains(log, column=COLUMN, names=domains_of(log, column=COLUMN, largest=12))
    parts = torch.randperm(len(log.users), generator=torch.Generator().manual_seed(0)) % 10
    names = pl.Series("split", ["train"] * 8 + ["validation", "test"])
    users = log.users.with_columns(split=names.gather(pl.Series(parts.numpy())))
    return user_holdout(EventLog.from_frames(log.events, log.items, users, name=log.name))


def trained(split: Split) -> dict[str, Scorer]:
    torch.manual_seed(0)
    models = {
        "EncGAN": EncGAN(split.num_items, num_classes=split.num_classes, column=COLUMN),
        "CountVAE": CountVAE(split.num_items, head=MultinomialHead()),
    }
    training = TrainingOptions(
        max_epochs=20, batch_size=64, patience=2, evaluate_every=5, device="cpu"
    )
    return {name: fit(model, split, training, PROTOCOL) for name, model in models.items()}


def main() -> None:
    torch.set_num_threads(1)
    split, options = divided(), Synthesis(column=COLUMN)
    rows: dict[str, Any] = {}
    for name, model in trained(split).items():
        began = time.process_time()
        log = synthetic_log(generative(model), split, options)
        rows[name] = checks(split, log, options, PROTOCOL)
        rows[name]["cpu_seconds"] = time.process_time() - began
        print(name, rows[name], flush=True)
    packages = ["recsys", "torch", "polars", "scikit-learn"]
    write(FOLDER / "results" / "synthesis.json", {"rows": rows}, packages=packages, seed=0)
    write_page()


if __name__ == "__main__":
    main()
