"""Trainings that tests compare; `torchrun on_partitions.py FOLDER` does them on two ranks.

Each rank reads its own partitions of FOLDER/prepared. Without dropout, in float64, 24 steps; the
last batch of an epoch has one row, which one of the ranks has. At the end there is a run of the
command line.
"""

import json
import sys
from dataclasses import replace
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
"""Of a batch: an epoch has 60 users, or 630 events to predict."""
RANKINGS = {"whole": Ranking(), "sampled": Ranking(num_negatives=10)}
PROTOCOL = Protocol(ks=(5,), batch_size=16)


class Killed(Exception):
    pass


def model_of(name: str, split: Split, **options: Any) -> Recommender:
    torch.manual_seed(0)
    if name == "next_place":
        return NextPlace(split.num_items)
    encoder, ranking = Encoder(dropout=0.0), RANKINGS[name]
    return SASRec(split.num_items, embedding_dim=8, encoder=encoder, ranking=ranking, **options)


def train(
    name: str, split: Split, folder: Path, precision: Any = "64-true", **options: Any
) -> None:
    """Train a model, or go on with it, and write what it reaches."""
    training = TrainingOptions(
        max_epochs=12,
        batch_size=SIZES[name],
        monitor="ndcg@5",
        patience=99,
        device="cpu",
        devices=ranks.world(),
        precision=precision,
    )
    model = model_of(name, split, **options)
    model = fit(model, split, training, PROTOCOL, folder=folder, tell=print)  # type: ignore[assignment]
    write_parquet(folder / "per_user.parquet", evaluate(model, split.test, PROTOCOL).per_user)


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
    model = model_of("whole", split).double().eval()
    model.keep_popularity(split)
    beyond = Beyond.of(split.item_table, split.popularity, ["colour"])
    result = evaluate(model, split.test, PROTOCOL, popularity=split.popularity, beyond=beyond)
    write_parquet(folder / "steps.parquet", result.per_user)
    write_text(folder / "catalogue.json", json.dumps(result.catalogue))
    with atomic_file(folder / "lists.pt") as scratch:
        torch.save((result.top.items, result.top.scores), scratch)


def count(split: Split, folder: Path) -> None:
    """What models take from all users before they are trained."""
    vae = CountVAE(split.num_items, head=TweedieHead(), latent_dim=4)
    bpr = BPRMF(split.num_items, len(split.users))
    for model in (vae, bpr):
        model.prepare(split)
    with atomic_file(folder / "counts.pt") as scratch:
        torch.save((vae.item_bias.detach(), bpr.trained, split.popularity), scratch)


def ask_one_rank(split: Split) -> None:
    """Rank 0 has nobody to ask."""
    part = replace(split.test.rows(torch.arange(3 * ranks.rank())), by_rank=True)
    assert evaluate(model_of("whole", split), part, PROTOCOL).top.items.shape == (3, 5)


def command(folder: Path, run: str) -> list[str]:
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
    ]


def main(folder: Path) -> None:
    join(2, device="cpu")
    log = prepared(str(folder / "prepared"), by_rank=True)
    split = last_basket(log)
    for name in SIZES:
        train(name, split, folder / name)
    train("whole", split, folder / "divided", precision="32-true", shard=True)
    for place in ("begun", "resumed"):
        begin("sampled", split, folder / place)
    train("sampled", split, folder / "resumed")
    ask(log, folder)
    ask_one_rank(split)
    count(split, folder)
    assert recsys([*command(folder, "run"), "trainer.devices=2"]) == 0
    for name, option in (
        ("baseline", "+model@baselines.popularity=popularity"),
        ("filter", "task.filters.min_item_events=2"),
    ):
        assert recsys([*command(folder, name), "trainer.devices=2", option]) == 2


if __name__ == "__main__":
    main(Path(sys.argv[1]))
