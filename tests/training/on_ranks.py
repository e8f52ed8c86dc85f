"""Trainings that tests compare; `torchrun on_ranks.py FOLDER` does them on two ranks.

Without dropout, in float64, 24 steps. The second batch of each epoch has one user, so that rank 1
has no row of it. At the end there is a run of the command line on FOLDER/shop.csv.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from recsys import ranks
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.cli.main import main as recsys
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.files import atomic_file, write_parquet
from recsys.log.words import Template
from recsys.models import BPRMF, DNNTSP, GLOIE, CountVAE, LMRec, NextPlace, SASRec, UniSRec
from recsys.models.graphs import Autoencoder
from recsys.models.language import Decoder, Ids, Language, Tuning, _states
from recsys.models.language import Ranking as TextRanking
from recsys.models.language._states import TextStates
from recsys.models.sequences import Encoder, Ranking, SingularVectors, sasrec
from recsys.models.sequences.unisrec import Adaptor
from recsys.nn import EmbeddingTable, TweedieHead
from recsys.retrieval import ExactIndex, FaissIndex
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.lists import rank
from recsys.scoring.recommender import Recommender
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training.divided import divided_tables
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions
from recsys.training.processes import join

KILLED = ("sasrec", "gloie", "lmrec", "lmrec_fsdp")
FSDP: dict[str, Any] = {"strategy": "fsdp", "gradient_clip": 1.0}
MODELS = (*KILLED, "bpr_mf", "count_vae", "dnntsp", "next_place")
MIXED = ("sasrec", "lmrec_fsdp")
ACCUMULATED = ("sasrec", "lmrec", "lmrec_fsdp")
RANKINGS = {"whole": Ranking(), "sampled": Ranking(num_negatives=10)}
FIRST = {"from_plain": False, "from_divided": True, "from_divided_by_two": True}
"""Whether the table of what is gone on with was divided."""
PROTOCOL = Protocol(ks=(5,), batch_size=16)


@contextmanager
def in_small_pieces() -> Iterator[None]:
    """Several pieces of a small catalogue, as large ones have; by one thread, as ranks have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with (
        mock.patch.object(sasrec, "ITEMS_AT_ONCE", 7),
        mock.patch.object(_states, "TOKENS_AT_ONCE", 40),
    ):
        yield
    torch.set_num_threads(threads)


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
    # Under FSDP, all that a rank may have to take part in without a row of its own.
    more: dict[str, Any] = {}
    if name == "lmrec_fsdp":
        more = {"ids": Ids(use_ids=True), "tuning": Tuning(checkpoint_activations=True)}
    sizes: Any = {"num_layers": 1, "embedding_dim": 16, "num_heads": 2, "ffn_dim": 32}
    return LMRec(
        split.num_items,
        decoder=Decoder(vocab_size=300, **sizes),
        template=Template(),
        language=Language(batch_size=3, row_length=64),
        ranking=TextRanking(num_negatives=3, repeats=name == "lmrec_fsdp"),
        **more,
    )


def train_divided(
    split: Split, folder: Path, *, max_epochs: int = 25, accumulate: int = 1, **options: Any
) -> None:
    """SASRec in float32, or go on with it; of its 41 rows of the table two ranks have 21 and 20."""
    torch.manual_seed(0)
    encoder = Encoder(dropout=0.0)
    model = SASRec(split.num_items, embedding_dim=8, encoder=encoder, **options)
    training = TrainingOptions(
        max_epochs=max_epochs,
        batch_size=59,
        accumulate=accumulate,
        monitor="ndcg@5",
        patience=99,
        device="cpu",
        devices=ranks.world(),
    )
    whole = EmbeddingTable.join
    with mock.patch.object(EmbeddingTable, "join", autospec=True, side_effect=whole) as joined:
        fit(model, split, training, PROTOCOL, folder=folder, tell=print)
    assert joined.call_count <= 1  # in the end, and not to evaluate


def search_divided(folder: Path) -> None:
    """The lists of a table that ranks divide, of 3 and 2 rows or all on rank 0, for 5 users.

    Of two nothing is known. Rank 1 has one batch, and rank 0 two.
    """
    lists = {}
    baskets: list[list[list[int]]] = [[[0], [1], [0]], [[1], [1]], [], [[0]], []]
    for num_items, k in ((5, 4), (2, 2)):
        torch.manual_seed(num_items)
        model = SASRec(num_items, embedding_dim=4, shard=True).eval()
        model.keep("popularity", torch.arange(num_items).roll(1))
        histories = BasketBatch.from_lists(baskets, num_items)
        part = Part("test", histories, Ragged.from_lists([[0]] * len(baskets)))
        with divided_tables(model, TrainingOptions(device="cpu")):
            for build in (ExactIndex, FaissIndex):
                for masked in (False, True):
                    options: Any = {"mask_history": masked, "batch_size": 2, "build_index": build}
                    top = rank(model, part, k, **options)
                    lists[f"{num_items} {build.__name__} {masked}"] = (top.items, top.scores)
    with atomic_file(folder / "lists.pt") as scratch:
        torch.save(lists, scratch)


def encode_by_rank(split: Split, folder: Path) -> None:
    """Items' vectors, and in how many pieces rank 0 has read their texts."""
    vectors = {}
    torch.manual_seed(0)
    text = UniSRec(split.num_items, text=SingularVectors(dim=6), embedding_dim=8, use_id=True)
    text.items.text.normal_()
    lmrec = model_of("lmrec", split)
    lmrec.prepare(split)
    read = {"unisrec": (Adaptor, "forward"), "lmrec": (TextStates, "_hidden")}
    for name, model in (("unisrec", text), ("lmrec", lmrec)):
        kind, method = read[name]
        counted = mock.patch.object(kind, method, autospec=True, side_effect=getattr(kind, method))
        with counted as calls, torch.inference_mode():
            assert isinstance(model, VectorScorer)
            vectors[name] = model.eval().encode_items_by_rank()
            # Computed once, whoever asks then.
            assert model.encode_items().equal(vectors[name])
        vectors[f"{name} calls"] = torch.tensor(calls.call_count)
        if ranks.is_first():  # what one rank has forgotten, all make again
            model._item_vectors.clear()
        with torch.inference_mode():
            assert model.encode_items_by_rank().equal(vectors[name])
    with atomic_file(folder / "items.pt") as scratch:
        torch.save(vectors, scratch)


def train(name: str, split: Split, folder: Path, **others: Any) -> None:
    """Train a model, or go on with it, and write its weights and what it reaches."""
    others = (FSDP if name == "lmrec_fsdp" else {}) | others
    options = TrainingOptions(
        batch_size=59,
        monitor="ndcg@5",
        patience=99,
        device="cpu",
        devices=ranks.world(),
        **({"precision": "64-true", "max_epochs": 12} | others),
    )
    with mock.patch.object(_states, "TOKENS_AT_ONCE", 256):  # not as many groups on each rank
        model = fit(model_of(name, split), split, options, PROTOCOL, folder=folder, tell=print)
    with atomic_file(folder / "weights.pt") as scratch:
        torch.save(model.state_dict(), scratch)
    write_parquet(folder / "per_user.parquet", evaluate(model, split.test, PROTOCOL).per_user)


def begin(name: str, split: Split, folder: Path, **others: Any) -> None:
    """The same, killed at step 14."""
    kind = type(model_of(name, split))
    training_step = kind.training_step

    def dying(self: Recommender, part: Part, batch_index: int) -> Tensor:
        if self.global_step == 14:
            raise Killed
        return training_step(self, part, batch_index)

    with mock.patch.object(kind, "training_step", dying):
        try:
            train(name, split, folder, **others)
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
    search_divided(folder)
    with in_small_pieces():
        encode_by_rank(split, folder)
    for name in MODELS:
        train(name, split, folder / "whole" / name)
    for name in KILLED:
        begin(name, split, folder / "begun" / name)
        begin(name, split, folder / "resumed" / name)
        train(name, split, folder / "resumed" / name)
    begin("lmrec_fsdp", split, folder / "resumed/from_whole", strategy="auto")
    train("lmrec_fsdp", split, folder / "resumed/from_whole")
    for name in ACCUMULATED:
        train(name, split, folder / "accumulated" / name, accumulate=3)
    for name in MIXED:
        train(name, split, folder / "mixed" / name, precision="bf16-mixed")
    for name, ranking in RANKINGS.items():
        for kind, shard in (("plain", False), ("divided", True)):
            train_divided(split, folder / kind / name, ranking=ranking, shard=shard)
    train_divided(split, folder / "divided/accumulated", shard=True, accumulate=3)
    for name, first in FIRST.items():
        train_divided(split, folder / name, max_epochs=20, shard=first)
    for name in ("from_plain", "from_divided_by_two"):
        train_divided(split, folder / name, shard=True)  # the other is gone on with alone
    # Ranks that start at different moments think of different folders.
    of_rank = command(folder, f"run_of_{os.environ['RANK']}")
    assert recsys([*of_rank, "trainer.devices=2"]) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
