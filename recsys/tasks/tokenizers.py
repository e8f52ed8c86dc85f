"""Words as tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import polars as pl
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from recsys.batch.ragged import Ragged, offsets_of
from recsys.batch.tokens import END
from recsys.errors import ConfigError
from recsys.tasks.tensors import tensor_of

Cut: TypeAlias = Callable[[list[str]], list[list[str]]]
"""From texts to the pieces of each, which joined are the text."""


def train_tokenizer(
    texts: pl.Series, vocab_size: int, *, cut: Cut | None = None, words: bool = True
) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens, the first of them `END`.

    Whatever the text, it has tokens: the 256 bytes are among them.

    Args:
        cut: no token goes over the end of a piece; None takes a text as one.
        words: no token goes over the end of a word, with the blank before it, a number or
            punctuation, as GPT-2 tells them apart.

    Raises:
        ConfigError: `vocab_size` has no room for the bytes.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise ConfigError(
            f"vocab_size={vocab_size} has no room beside the {len(alphabet)} bytes and {END}; "
            "raise it"
        )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(END, special=True)],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    pieces = texts.to_list()
    if cut is not None:
        pieces = [piece for row in cut(pieces) for piece in row]
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def tokenize(
    tokenizer: Tokenizer,
    texts: pl.Series,
    max_length: int,
    end: int,
    *,
    cut: Cut | None = None,
) -> Ragged:
    """A row of tokens int32 for each text, at most `max_length` and then `end`.

    Whatever stands in a text is words: a text that holds the name of a special token does not end.

    Args:
        cut: as the tokenizer was trained with.

    >>> texts = pl.Series(["green tea", "black tea"])
    >>> tokenizer = train_tokenizer(texts, vocab_size=270)
    >>> rows = tokenize(tokenizer, texts, max_length=20, end=0)
    >>> tokenizer.decode_batch([row.tolist() for row in rows.values.split(rows.lengths.tolist())])
    ['green tea', 'black tea']
    """
    tokenizer.encode_special_tokens = True
    pieces: list[Any] = texts.to_list() if cut is None else cut(texts.to_list())
    encoded = tokenizer.encode_batch_fast(
        pieces, is_pretokenized=cut is not None, add_special_tokens=False
    )
    rows = pl.Series([e.ids for e in encoded], dtype=pl.List(pl.Int32)).list.head(max_length)
    rows = rows.list.concat(pl.Series([[end]], dtype=pl.List(pl.Int32)))
    values = torch.from_numpy(rows.explode().to_numpy(writable=True))
    return Ragged(values, offsets_of(tensor_of(rows.list.len())))
