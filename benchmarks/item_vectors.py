"""Encode the texts of a log's items by a pretrained model, once, for `text=file`.

    python -m benchmarks.item_vectors scientific FOLDER vectors.parquet
    python -m benchmarks.item_vectors scientific FOLDER vectors.parquet --state end --scale
    recsys train data=scientific model=sasrec model.use_id=false +text@model.text=file \\
        model.text.path=vectors.parquet model.text.dim=640

FOLDER holds the model and its tokenizer in the form of Hugging Face, with weights as safetensors;
nothing is looked up elsewhere. `--state mean` is the mean over a text's tokens in the last layer,
as sentence encoders are trained; `--state end` is the last layer's state at the token behind the
text, where a causal model has read all of it. `--scale` divides each number by its standard
deviation over the texts, since a few numbers of a language model's states outweigh the others.
The file has a row per text, `text` and `vector`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.progress import track
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from recsys.cli.compose import compose
from recsys.files import write_parquet
from recsys.run.ranking import prepare

TEXTS_AT_ONCE = 32
SMALLEST = 1e-6  # standard deviation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--state", choices=["mean", "end"], default="mean")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--scale", action="store_true")
    options = parser.parse_args()
    items = prepare(compose([f"data={options.data}"])).split.item_table
    texts = items["text"].drop_nulls().unique().sort()
    vectors = encode(texts.to_list(), options)
    if options.scale:
        vectors = (vectors - vectors.mean(0)) / vectors.std(0).clamp(min=SMALLEST)
    vectors = normalize(vectors, dim=1)
    write_parquet(options.output, pl.DataFrame({"text": texts, "vector": vectors.numpy()}))
    print(f"{options.output}: {len(texts)} texts, {vectors.shape[1]} numbers each")


@torch.inference_mode()
def encode(texts: list[str], options: Any) -> Tensor:
    """(n, D) float32."""
    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(options.folder, **local)
    dtype = getattr(torch, options.dtype)
    model = AutoModel.from_pretrained(options.folder, dtype=dtype, use_safetensors=True, **local)
    at_end = options.state == "end"
    tokens = tokenizer(texts, truncation=True, max_length=options.max_tokens)["input_ids"]
    if at_end:
        tokens = [[*row, tokenizer.eos_token_id] for row in tokens]
    vectors = torch.zeros(len(texts), model.config.hidden_size)
    for rows in track(list(batches(tokens))):
        ids, is_token = padded([tokens[row] for row in rows])
        states = model.eval()(input_ids=ids, attention_mask=is_token).last_hidden_state.float()
        vectors[rows] = pooled(states, is_token, at_end=at_end)
    return vectors


def batches(tokens: list[list[int]]) -> Iterator[list[int]]:
    """Texts of about one length together."""
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    for first in range(0, len(order), TEXTS_AT_ONCE):
        yield order[first : first + TEXTS_AT_ONCE]


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Tokens (B, L) and whether each is one, zeros at the right."""
    pieces = [torch.tensor(row) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)
    ones = [torch.ones_like(piece) for piece in pieces]
    return ids, torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)


def pooled(states: Tensor, is_token: Tensor, *, at_end: bool) -> Tensor:
    """(B, D) of states (B, L, D)."""
    if at_end:
        return states[torch.arange(len(states)), is_token.sum(1) - 1]
    share = is_token / is_token.sum(1, keepdim=True)
    return torch.einsum("bld,bl->bd", states, share)


if __name__ == "__main__":
    main()
