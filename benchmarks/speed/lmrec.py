"""Language modelling of histories: packed rows beside padded batches as they are usually trained.

    RECSYS_DATA=FOLDER python -m benchmarks.speed.lmrec

Both sides take the same histories of a log, the same decoder from the same weights, and AdamW.
`padded` is the plain loop: batches of histories in random order, padded to the longest, an
attention mask, and Hugging Face's own loss. `packed` reads full rows of the token stream, documents
kept apart in attention, as `LMRec` does. `states grouped` and `states padded` are the other half
of LMRec's training: the states at the ends of items, of groups of about equal length or of batches
padded to the longest. Histories of more than 512 tokens are left out. Before anything is timed,
both must give the same loss of every token of histories that stand whole in their row, and the same
states.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.record import ROOT, alternate, ratio, write
from recsys.batch.ragged import Ragged
from recsys.batch.tokens import Documents, TokenStream
from recsys.data.sources import amazon_sequences
from recsys.log.words import Template
from recsys.models import LMRec
from recsys.models.language import Decoder, Language, Ranking
from recsys.nn.losses import linear_cross_entropy
from recsys.tasks.splits import leave_last_out

RESULT = ROOT / "benchmarks/speed/results/lmrec.json"


def padded(documents: Documents) -> dict[str, Tensor]:
    """What Hugging Face's models take: documents padded to the longest, with their labels."""
    tokens, _ = documents.padded()
    real = torch.arange(tokens.shape[1]) < documents.lengths[:, None]
    labels = tokens.masked_fill(~real, -100)
    return {"input_ids": tokens, "attention_mask": real.long(), "labels": labels}


def train_padded(model: LMRec, batches: list[Documents]) -> None:
    optimizer = torch.optim.AdamW(model.causal.parameters(), lr=1e-5)
    for documents in batches:
        optimizer.zero_grad()
        model.causal(**padded(documents)).loss.backward()
        optimizer.step()


def train_packed(model: LMRec, stream: TokenStream, steps: int) -> None:
    """In as many steps as the padded side takes over the same text."""
    optimizer = torch.optim.AdamW(model.causal.parameters(), lr=1e-5)
    for rows in torch.arange(len(stream)).chunk(steps):
        optimizer.zero_grad()
        states, targets = model.states.before_tokens(*stream.rows(rows))
        linear_cross_entropy(states, model.states.head, targets).backward()
        optimizer.step()


def read_padded(model: LMRec, batches: list[Documents]) -> list[Tensor]:
    """States of all ends, with gradients of their sum."""
    states_of_ends = []
    for documents in batches:
        inputs = padded(documents)
        inputs.pop("labels")
        states = model.causal.base_model(**inputs, use_cache=False).last_hidden_state
        _, ends = documents.padded()
        states_of_ends.append(states.flatten(0, 1)[ends])
        states_of_ends[-1].sum().backward()
    return states_of_ends


def read_grouped(model: LMRec, batches: list[Documents]) -> list[Tensor]:
    states_of_ends = []
    for documents in batches:
        states_of_ends.append(model.states.at_ends(documents))
        states_of_ends[-1].sum().backward()
    return states_of_ends


@torch.no_grad()
def check(
    model: LMRec, documents: Documents, stream: TokenStream, batches: list[Documents]
) -> None:
    """Both sides must compute the same numbers."""
    packed = torch.full((len(stream.tokens),), torch.nan)
    place = torch.arange(len(stream) * stream.row_length).view(len(stream), -1)
    for rows in torch.arange(len(stream)).split(16):
        tokens, positions = stream.rows(rows)
        states, targets = model.states.before_tokens(tokens, positions)
        losses = F.cross_entropy(states @ model.states.head.T, targets, reduction="none")
        packed[place[rows, 1:][positions[:, 1:] > 0]] = losses
    plain = []
    for which in torch.arange(len(documents)).split(16):
        inputs = padded(documents.rows(which))
        logits = model.causal(**{**inputs, "labels": None}).logits[:, :-1]
        losses = F.cross_entropy(logits.transpose(1, 2), inputs["labels"][:, 1:], reduction="none")
        real = inputs["attention_mask"].bool()
        plain.append(F.pad(losses, (1, 0), value=torch.nan)[real])
    row_begin = torch.arange(len(stream.tokens)) // stream.row_length * stream.row_length
    begins = documents.offsets[:-1].repeat_interleave(documents.lengths)
    is_whole = (begins >= row_begin) & packed.isfinite()
    torch.testing.assert_close(packed[is_whole], torch.cat(plain)[is_whole], rtol=1e-3, atol=1e-4)
    print(f"{int(is_whole.sum()):,} tokens have the same loss on both sides")
    with torch.enable_grad():
        for ours, theirs in zip(
            read_grouped(model, batches), read_padded(model, batches), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def padding(shapes: list[tuple[int, int]]) -> float:
    """Share of cells (real, all) that are padding."""
    real, cells = (sum(numbers) for numbers in zip(*shapes, strict=True))
    return 1 - real / cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--histories", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32, help="histories of a padded batch")
    parser.add_argument("--row-length", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    split = leave_last_out(amazon_sequences.scientific())
    model = LMRec(
        split.num_items,
        decoder=Decoder(),
        template=Template(),
        language=Language(row_length=options.row_length),
        ranking=Ranking(),
    )
    model.prepare(split)
    words = Ragged(model.text_tokens, model.text_offsets)
    everyone = Documents.of(split.training.ragged, words, int(model.end))
    (fits,) = (everyone.lengths <= model.template.max_tokens).nonzero(as_tuple=True)
    users = fits[torch.randperm(len(fits))[: options.histories]]
    histories = split.training.rows(users).ragged
    stream = TokenStream.of(histories, words, int(model.end), options.row_length)
    documents = Documents.of(histories, words, int(model.end))
    batches = [documents.rows(rows) for rows in torch.arange(len(users)).split(options.batch_size)]
    check(model, documents, stream, batches)
    sides = alternate(
        {
            "padded": partial(train_padded, model, batches),
            "packed": partial(train_packed, model, stream, len(batches)),
            "states padded": partial(read_padded, model, batches),
            "states grouped": partial(read_grouped, model, batches),
        },
        repeats=options.turns,
    )
    pairs = (("padded", "packed"), ("states padded", "states grouped"))
    ratios = {f"{slow}/{fast}": ratio(sides, slow, fast) for slow, fast in pairs}
    cells = [(int(b.lengths.sum()), len(b) * int(b.lengths.max())) for b in batches]
    groups = [g for b in batches for _, g in b.groups(2**15)]
    grouped = [(int(g.lengths.sum()), len(g) * int(g.lengths.max())) for g in groups]
    tokens = len(stream.tokens)
    measured = {
        "tokens": tokens,
        "packed tokens per CPU second": round(tokens / sides["packed"]["cpu"]["median"]),
        "padding": {"padded": padding(cells), "packed": 0.0, "states grouped": padding(grouped)},
        "sides": sides,
        "ratios": ratios,
    }
    for name, side in sides.items():
        print(f"{name}: {side['wall']['median']:.2f} s wall, {side['cpu']['median']:.2f} s CPU")
    for name, values in ratios.items():
        print(f"{name}: {values['wall']['median']:.2f} wall, {values['cpu']['median']:.2f} CPU")
    print(measured["padding"], measured["packed tokens per CPU second"], "tokens a CPU second")
    settings = {k: v for k, v in vars(options).items() if k != "seed"}
    write(RESULT, settings | measured, packages=["torch", "transformers"], seed=options.seed)


if __name__ == "__main__":
    main()
