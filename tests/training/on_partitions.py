"""Trainings that tests compare; `torchrun on_partitions.py FOLDER` does them on two ranks.

Each rank reads its own partitions of FOLDER/prepared. Without dropout, in float64, 24 steps; the
last batch of an epoch has one row, which one of the ranks has. At the end there is a run of the
command line.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from recsys import ranks
from recsys.batch.examples import Part
from recsys.cli.main import main as recsys
from recsys.data.sources.prepared import prepared
from recsys.evaluation.beyond import Beyond
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.files import atomic_file, write_parquet, write_text
from recsys.log.event_log import EventLog
from recsys.models import BPRMF, CountVAE, NextPlace, SASRec
from recsys.models.sequences import Encoder, Ranking
from recsys.nn import TweedieHead
from recsys.scoring.recommender import Recommender
from recsys.tasks.splits import Split, last_basket, last_share
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions
from recsys.training.processes import join

SIZES = {"whole": 59, "sampled": 59, "next_place": 349}
"""Of a batch: the epochs have 60 users, and 699 events to predict, of which the last is alone."""
RANKINGS = {"whole": Ranking(), "sampled": Ranking(num_negatives=10)}
PROTOCOL = Protocol(ks=(5,), batch_size=16)


class Killed(Exception):
    pass


def log_of(folder: Path) -> EventLog:
    return prepared(str(folder / "prepared"), by_rank=True)


def model_of(name: str, split: Split) -> Recommender:
    torch.manual_seed(0)
    if name == "next_place":
        return NextPlace(split.num_items)
    if name == "bpr_mf":
        return BPRMF(split.num_items, len(split.users), embedding_dim=8)
    if name == "count_vae":
        return CountVAE(split.num_items, head=TweedieHead(), latent_dim=4, dropout=0.0)
    encoder = Encoder(dropout=0.0)
    return SASRec(split.num_items, embedding_dim=8, encoder=encoder, ranking=RANKINGS[name])


def train(name: str, split: Split, folder: Path, **others: Any) -> None:
    """Train a model, or go on with it, and write what it reaches."""
    size = SIZES.get(name, 32)
    model = model_of(name, split)
    steps = -(-len_of_all(model.prepare(split)) // size)
    options = TrainingOptions(
        max_epochs=24 // steps,
        batch_size=size,
        monitor="ndcg@5",
        patience=99,
        device="cpu",
        devices=ranks.world(),
        precision="64-true",
        **others,
    )
    model = fit(model_of(name, split), split, options, PROTOCOL, folder=folder, tell=print)
    write_parquet(folder / "per_user.parquet", evaluate(model, split.test, PROTOCOL).per_user)


def len_of_all(part: Part) -> int:
    return ranks.count(len(part))


def begin(name: str, split: Split, folder: Path) -> None:
    """The same, killed at step 14."""
    training_step = SASRec.training_step

    def dying(self: Recommender, part: Part, batch_index: int) -> Tensor:
        if self.global_step == 14:
            raise Killed
        return training_step(self, part, batch_index)

    with mock.patch.object(SASRec, "training_step", dying):
        try:
            train(name, split, folder)
        except Killed:
            return
    raise AssertionError("nobody was killed")


def ask(log: EventLog, folder: Path) -> None:
    """What a model that knows nothing reaches at every step of users, and beyond accuracy."""
    split = last_share(log)
    model = model_of("whole", split).eval()
    model.keep_popularity(split)
    beyond = Beyond.of(split.item_table, split.popularity, ["colour"])
    result = evaluate(model, split.test, PROTOCOL, popularity=split.popularity, beyond=beyond)
    write_parquet(folder / "steps.parquet", result.per_user)
    write_text(folder / "catalogue.json", json.dumps(result.catalogue))
    with atomic_file(folder / "lists.pt") as scratch:
        torch.save((result.top.items, result.top.scores), scratch)


def command(folder: Path, run: str, *others: str) -> list[str]:
    """`recsys train` on a log in a folder, with the run in another."""
    return [
        "train",
        "data=prepared",
        f"data.path={folder / 'prepared'}",
        "data.by_rank=true",
        "task=next_item",
        "task.ks=[5]",
        "model=sasrec",
        "model.encoder.dropout=0.0",
        "device=cpu",
        "trainer.precision=64-true",
        "trainer.monitor=ndcg@5",
        "trainer.max_epochs=2",
        "trainer.batch_size=16",
        f"hydra.run.dir={folder / run}",
        *others,
    ]


def main(folder: Path) -> None:
    join(2, device="cpu")
    log = log_of(folder)
    split = last_basket(log)
    for name in (*SIZES, "bpr_mf", "count_vae"):
        train(name, split, folder / name)
    for place in ("begun", "resumed"):
        begin("sampled", split, folder / place)
    train("sampled", split, folder / "resumed")
    ask(log, folder)
    assert recsys([*command(folder, "run"), "trainer.devices=2"]) == 0
    refused = command(folder, "refused", "+model@baselines.popularity=popularity")
    assert recsys([*refused, "trainer.devices=2"]) == 2


if __name__ == "__main__":
    main(Path(sys.argv[1]))
