"""Epochs of five models on synthetic logs: seconds, events a second, memory, utilisation.

    python -m benchmarks.gpu.training --device cuda

Training is that of `recsys train`: Lightning, its checkpoints, one evaluation at the end. An epoch
is timed from its first batch to its last, waiting for the device at both; the first epoch warms up.
LMRec has 125M parameters, models the language of histories alone, and computes in bfloat16: beside
its tokens a second stands the share of the device's own rate that they take, which is that of a
bfloat16 product of two large matrices.

FLOPs of a token are 6 N + 12 L D T, forward and backward (Chowdhery et al., "PaLM", 2022, appendix
B): N parameters that a token is multiplied by, the table of tokens once; L layers of D dimensions;
rows of T tokens.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.gpu.card import keep, options_of, product_flops, synchronize, watched
from benchmarks.record import spread
from recsys import models
from recsys.evaluation.ranking import Protocol
from recsys.log.event_log import EventLog
from recsys.log.words import Template
from recsys.models import graphs, sequences
from recsys.models.language import Language, Ranking
from recsys.models.language.decoders import Decoder
from recsys.models.users.shopperbert import Encoder
from recsys.nn.distributions import TweedieHead
from recsys.scoring.recommender import Recommender
from recsys.tasks.splits import Split, last_basket
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

BIG = Decoder(
    num_layers=12,
    embedding_dim=768,
    num_heads=12,
    ffn_dim=2048,
    vocab_size=50_258,
    semantic_start=False,
)
LITTLE = Decoder(num_layers=1, vocab_size=300, semantic_start=False)
SYLLABLES = np.array([a + b for a in "bdfgklmnprst" for b in "aeiou"])


@dataclass(frozen=True)
class Case:
    """A model on a log, and how it is trained."""

    make: Callable[[Split], Recommender]
    log: EventLog
    batch_size: int
    epochs: int = 4
    precision: str = "32-true"


def baskets(num_users: int, num_items: int, num_baskets: int, size: int) -> EventLog:
    """Baskets of items by Zipf's law, a day apart; items have words and one of fifty kinds."""
    generator = np.random.default_rng(0)
    popularity = 1 / np.arange(10, num_items + 10)
    count = num_users * num_baskets * size
    item = generator.choice(num_items, count, p=popularity / popularity.sum())
    basket = np.repeat(np.arange(num_users * num_baskets), size)
    words = generator.choice(SYLLABLES, (num_items, 12, 3))
    items = pl.DataFrame(
        {
            "item_id": range(num_items),
            "kind": [f"kind {i % 50}" for i in range(num_items)],
            "text": [" ".join("".join(word) for word in of_item) for of_item in words],
        }
    )
    events = pl.DataFrame(
        {"user_id": basket // num_baskets, "item_id": item, "basket_id": basket}
    ).with_columns(
        timestamp=pl.datetime(2024, 1, 1) + pl.duration(days=pl.Series(basket % num_baskets))
    )
    return EventLog.from_frames(events, items, name="synthetic")


def cases(small: bool) -> dict[str, Case]:
    users = 60 if small else 8_000
    shop = baskets(users, 100 if small else 1_500, 10, 3)
    films = baskets(users, 120 if small else 3_400, 40 if small else 150, 1)
    long = baskets(users // 4, 120 if small else 5_000, 30 if small else 100, 4)
    wide = {} if small else {"embedding_dim": 256, "num_layers": 4, "num_heads": 4, "ffn_dim": 1024}
    rows = {"batch_size": 2, "row_length": 64} if small else {"batch_size": 64, "row_length": 512}
    return {
        "GLOIE": Case(gloie, shop, 256),
        "DNNTSP": Case(lambda split: models.DNNTSP(split.num_items), shop, 64),
        "SASRec": Case(
            lambda split: models.SASRec(
                split.num_items, encoder=sequences.Encoder(num_heads=2, max_length=200)
            ),
            films,
            128,
        ),
        "ShopperBERT": Case(
            lambda split: models.ShopperBERT(
                split.num_items,
                attributes=["kind", "item_id"],
                num_classes=split.num_classes,
                encoder=Encoder(**wide),
            ),
            long,
            128,
        ),
        "LMRec": Case(
            lambda split: models.LMRec(
                split.num_items,
                decoder=LITTLE if small else BIG,
                template=Template(),
                language=Language(**rows),
                ranking=Ranking(weight=0.0),
            ),
            long,
            16,
            epochs=2,
            precision="bf16-mixed",
        ),
    }


def gloie(split: Split) -> Recommender:
    return models.GLOIE(
        split.num_items,
        autoencoder=graphs.Autoencoder(TweedieHead(), latent_dim=64, elbo_weight=0.03),
        embedding_dim=128,
        ranking=graphs.Ranking(softmax=True, num_targets=None, latest_popularity=True),
        frequency=graphs.Frequency(personal=True),
    )


def measured(case: Case, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(0)
    split = last_basket(case.log)
    model = case.make(split)
    clock = Clock(model, device)
    training = TrainingOptions(
        max_epochs=case.epochs,
        batch_size=case.batch_size,
        evaluate_every=case.epochs,
        precision=case.precision,
        device=str(device),
    )
    with watched(device) as usage:
        fit(model, split, training, Protocol())
    seconds = spread(clock.epochs[1:])
    per_second = clock.num_events / seconds["median"]
    row = {"epoch_seconds": seconds, "events_per_second": round(per_second), **usage}
    row |= {"steps": clock.num_steps, "batch_size": case.batch_size, "precision": case.precision}
    row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if isinstance(model, models.LMRec):
        row |= of_language(model, clock.num_steps / seconds["median"], device)
    return row


def of_language(
    model: models.LMRec, steps_per_second: float, device: torch.device
) -> dict[str, Any]:
    """Tokens a second, and the share of the device's rate that their products take."""
    options, language = model.options, model.language
    assert isinstance(options, Decoder)
    tokens = language.batch_size * language.row_length
    inside = sum(p.numel() for p in model.causal.base_model.parameters())  # and the table, tied
    attention = 12 * options.num_layers * options.embedding_dim * language.row_length
    flops = (6 * inside + attention) * tokens * steps_per_second
    rate = product_flops(device, 8192 if device.type == "cuda" else 512)
    return {
        "tokens_per_second": round(tokens * steps_per_second),
        "teraflops": round(flops / 1e12, 4),
        "product_teraflops": round(rate / 1e12, 4),
        "flop_utilisation": round(flops / rate, 4),
    }


class Clock:
    """Seconds of each epoch of a model's training, and what the last one held."""

    def __init__(self, model: Recommender, device: torch.device) -> None:
        self.model, self.device = model, device
        self.epochs: list[float] = []
        self.num_events = self.num_steps = 0
        self.started = 0.0
        # As a method of the model's own would be, Lightning calls it.
        model.on_train_batch_start = self.before  # type: ignore[method-assign, assignment]
        model.on_train_batch_end = self.after  # type: ignore[method-assign, assignment]

    def before(self, batch: Any, index: int) -> None:
        if index == 0:
            self.num_events = self.num_steps = 0
            synchronize(self.device)
            self.started = time.perf_counter()

    def after(self, outputs: Any, batch: Any, index: int) -> None:
        self.num_steps += 1
        self.num_events += len(batch.history.items)
        if self.model.trainer.is_last_batch:
            synchronize(self.device)
            self.epochs.append(time.perf_counter() - self.started)


def main() -> int:
    device, small, folder = options_of(__doc__)
    rows: dict[str, Any] = {}
    for name, case in cases(small).items():
        rows[name] = measured(case, device)
        print(name, rows[name], flush=True)
        keep(folder / "training.json", device, {"models": rows})
    if device.type == "cpu":
        print("peak memory and utilisation need a CUDA device; they are null")
    return 0


if __name__ == "__main__":
    sys.exit(main())
