"""Korean text in tokens: cut into morphemes first, at blanks, or not at all.

    python -m benchmarks.language.pre_split

needs `recsys[korean]`. Decoders of one shape are trained from the same seeds on the same sentences
(`benchmarks.language.sentences`) in the same batches; what differs is how texts are cut before the
byte-level BPE. The epoch with the least validation loss is tested. Perplexities of different
tokens do not compare, so the loss of all tokens of a text, its end among them, is divided by the
characters of the text.
"""

from __future__ import annotations

import math
import statistics
from typing import get_args

import polars as pl
import torch
from torch.nn.functional import cross_entropy

from benchmarks.language.sentences import sentences
from benchmarks.record import ROOT, write
from recsys.batch.ragged import Ragged
from recsys.batch.tokens import Documents
from recsys.models.language import Decoder
from recsys.models.language.decoders import PreSplit
from recsys.tasks.tokenizers import tokenize

RESULT = ROOT / "benchmarks/language/results/pre_split.json"
TRAIN, VALIDATION, TEST = 560, 80, 160
VOCABULARIES = (768, 1536)
SEEDS = (0, 1, 2)
EPOCHS, BATCH, RATE = 40, 20, 3e-3


def documents(decoder: Decoder, texts: list[str], words: pl.Series) -> Documents:
    """The texts, as a tokenizer has them that was trained on `words`."""
    tokenizer = decoder.tokenizer(words).backend_tokenizer
    tokens = tokenize(tokenizer, pl.Series(texts), 10**6, 0, cut=decoder.cut)
    each = Ragged(torch.arange(len(texts)), torch.arange(len(texts) + 1))
    return Documents.of(each, tokens, 0)


def nats(model: torch.nn.Module, of: Documents, rows: torch.Tensor) -> torch.Tensor:
    """The loss of all tokens of some documents."""
    some = of.rows(rows)
    tokens, _ = some.padded()
    lengths = some.offsets.diff()
    real = torch.arange(tokens.shape[1]) < lengths[:, None]
    logits = model(input_ids=tokens).logits
    labels = tokens.masked_fill(~real, -100)[:, 1:]
    return cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction="sum")


def bits_per_character(
    model: torch.nn.Module, of: Documents, rows: range, texts: list[str]
) -> float:
    characters = sum(len(texts[row]) for row in rows)
    with torch.no_grad():
        return float(nats(model.eval(), of, torch.tensor(rows))) / math.log(2) / characters


def trained(cut: PreSplit, vocab_size: int, seed: int) -> dict[str, float]:
    texts = sentences(TRAIN + VALIDATION + TEST)
    decoder = Decoder(vocab_size=vocab_size, pre_split=cut, semantic_start=False, max_length=256)
    of = documents(decoder, texts, pl.Series(texts[:TRAIN]))
    torch.manual_seed(seed)
    model = decoder.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    validation = range(TRAIN, TRAIN + VALIDATION)
    test = range(TRAIN + VALIDATION, len(texts))
    best = (math.inf, math.inf, 0)
    for epoch in range(EPOCHS):
        model.train()
        for rows in torch.randperm(TRAIN).split(BATCH):
            optimizer.zero_grad()
            # By characters: the same weight of a sentence, however many tokens it has.
            (nats(model, of, rows) / sum(len(texts[row]) for row in rows)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        found = bits_per_character(model, of, validation, texts)
        if found < best[0]:
            best = (found, bits_per_character(model, of, test, texts), epoch + 1)
    lengths = of.offsets.diff()[list(test)] - 1  # the opening token is not predicted
    characters = sum(len(texts[row]) for row in test)
    return {
        "validation_bits_per_character": best[0],
        "bits_per_character": best[1],
        "epochs": best[2],
        # Without the end.
        "characters_per_token": characters / float((lengths - 1).sum()),
    }


def main() -> None:
    rows = []
    for vocab_size in VOCABULARIES:
        for cut in get_args(PreSplit):
            runs = [trained(cut, vocab_size, seed) for seed in SEEDS]
            bits = [run["bits_per_character"] for run in runs]
            rows.append(
                {
                    "vocab_size": vocab_size,
                    "pre_split": cut,
                    "characters_per_token": round(runs[0]["characters_per_token"], 4),
                    "bits_per_character": round(statistics.mean(bits), 4),
                    "spread": round(statistics.stdev(bits), 4),
                    "seeds": [{k: round(v, 4) for k, v in run.items()} for run in runs],
                }
            )
            print({k: v for k, v in rows[-1].items() if k != "seeds"}, flush=True)
    shape = Decoder(semantic_start=False, max_length=256)
    measured = {
        "decoder": {
            k: str(v) for k, v in vars(shape).items() if k not in ("vocab_size", "pre_split")
        },
        "sentences": {"train": TRAIN, "validation": VALIDATION, "test": TEST},
        "training": {"epochs": EPOCHS, "batch": BATCH, "learning_rate": RATE, "seeds": [*SEEDS]},
        "rows": rows,
    }
    packages = ["torch", "transformers", "tokenizers", "kiwipiepy", "kiwipiepy_model"]
    write(RESULT, measured, packages=packages, seed=SEEDS[0])


if __name__ == "__main__":
    main()
