"""Trainings that tests compare; `torchrun on_ranks.py FOLDER` does them on two ranks.

Without dropout, in float64, 24 steps. The second batch of each epoch has one user, so that rank 1
has no row of it. At the end there is a run of the command line on FOLDER/shop.csv.
"""

import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from recsys import ranks
from recsys.batch.examples import Part
from recsys.cli.main import main as recsys
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.files import atomic_file, write_parquet
from recsys.log.words import Template
from recsys.models import BPRMF, DNNTSP, GLOIE, CountVAE, LMRec, NextPlace, SASRec
from recsys.models.graphs import Autoencoder
from recsys.models.language import Decoder, Language
from recsys.models.language import Ranking as TextRanking
from recsys.models.sequences import Encoder, Ranking
from recsys.nn import TweedieHead
from recsys.scoring.recommender import Recommender
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions
from recsys.training.processes import join

KILLED = ("sasrec", "gloie", "lmrec")
MODELS = (*KILLED, "bpr_mf", "count_vae", "dnntsp", "next_place")
RANKINGS = {"whole": Ranking(), "sampled": Ranking(num_negatives=10)}
PROTOCOL = Protocol(ks=(5,), batch_size=16)


class Killed(Exception):
    pass


def model_of(name: str, split: Split) -> Recommender:
    torch.manual_seed(0)
    if name == "sasrec":
        return SASRec(split.num_items, embedding_dim=8, encoder=Encoder(dropout=0.0))
    if name == "gloie":
        vae = Autoencoder(head=TweedieHead(), latent_dim=4, dropout=0.0)
        return GLOIE(split.num_items, autoencoder=vae, embedding_dim=8)
    if name == "bpr_mf":
        return BPRMF(split.num_items, len(split.users), embedding_dim=8)
    if name == "count_vae":
        return CountVAE(split.num_items, head=TweedieHead(), latent_dim=4, dropout=0.0)
    if name == "dnntsp":
        return DNNTSP(split.num_items, embedding_dim=8)
    if name == "next_place":
        return NextPlace(split.num_items)
    sizes: Any = {"num_layers": 1, "embedding_dim": 16, "num_heads": 2, "ffn_dim": 32}
    return LMRec(
        split.num_items,
        decoder=Decoder(vocab_size=300, **sizes),
        template=Template(),
        language=Language(batch_size=3, row_length=64),
        ranking=TextRanking(num_negatives=3),
    )


def train_divided(split: Split, folder: Path, *, max_epochs: int = 25, **options: Any) -> None:
    """SASRec in float32, or go on with it; of its 41 rows of the table two ranks have 21 and 20."""
    torch.manual_seed(0)
    encoder = Encoder(dropout=0.0)
    model = SASRec(split.num_items, embedding_dim=8, encoder=encoder, **options)
    training = TrainingOptions(
        max_epochs=max_epochs,
        batch_size=59,
        monitor="ndcg@5",
        patience=99,
        device="cpu",
        devices=ranks.world(),
    )
    fit(model, split, training, PROTOCOL, folder=folder, tell=print)


def train(name: str, split: Split, folder: Path) -> None:
    """Train a model, or go on with it, and write its weights and what it reaches."""
    options = TrainingOptions(
        max_epochs=12,
        batch_size=59,
        monitor="ndcg@5",
        patience=99,
        device="cpu",
        devices=ranks.world(),
        precision="64-true",
    )
    model = fit(model_of(name, split), split, options, PROTOCOL, folder=folder, tell=print)
    with atomic_file(folder / "weights.pt") as scratch:
        torch.save(model.state_dict(), scratch)
    write_parquet(folder / "per_user.parquet", evaluate(model, split.test, PROTOCOL).per_user)


def begin(name: str, split: Split, folder: Path) -> None:
    """The same, killed at step 14."""
    kind = type(model_of(name, split))
    training_step = kind.training_step

    def dying(self: Recommender, part: Part, batch_index: int) -> Tensor:
        if self.global_step == 14:
            raise Killed
        return training_step(self, part, batch_index)

    with mock.patch.object(kind, "training_step", dying):
        try:
            train(name, split, folder)
        except Killed:
            return
    raise AssertionError("nobody was killed")


def command(folder: Path, run: str) -> list[str]:
    """`recsys train` on a log in a folder, with the run in another."""
    return [
        "train",
        "data=table",
        f"data.path={folder / 'shop.csv'}",
        "task=next_item",
        "task.ks=[5]",
        "model=sasrec",
        "model.encoder.dropout=0.0",
        "+model@baselines.popularity=popularity",
        "device=cpu",
        "trainer.precision=64-true",
        "trainer.monitor=ndcg@5",
        "trainer.max_epochs=2",
        "trainer.batch_size=16",
        f"hydra.run.dir={folder / run}",
    ]


def main(folder: Path) -> None:
    split = last_basket(checkerboard())
    join(2, device="cpu")
    for name in MODELS:
        train(name, split, folder / "whole" / name)
    for name in KILLED:
        begin(name, split, folder / "begun" / name)
        begin(name, split, folder / "resumed" / name)
        train(name, split, folder / "resumed" / name)
    for name, ranking in RANKINGS.items():
        for kind, shard in (("plain", False), ("divided", True)):
            train_divided(split, folder / kind / name, ranking=ranking, shard=shard)
    for name, first in (("from_plain", False), ("from_divided", True)):
        train_divided(split, folder / name, max_epochs=20, shard=first)
    train_divided(split, folder / "from_plain", shard=True)  # the other is gone on with alone
    # Ranks that start at different moments think of different folders.
    of_rank = command(folder, f"run_of_{os.environ['RANK']}")
    assert recsys([*of_rank, "trainer.devices=2"]) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
