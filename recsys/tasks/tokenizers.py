"""Words as tokens."""

from __future__ import annotations

from typing import Literal

import polars as pl
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from recsys.batch.ragged import Ragged, offsets_of
from recsys.batch.tokens import END
from recsys.errors import ConfigError
from recsys.tasks.morphemes import cut_into_morphemes
from recsys.tasks.tensors import tensor_of

PreSplit = Literal["none", "whitespace", "kiwi"]
"""Pieces of a text over whose ends no token goes: the whole text; words, numbers and punctuation,
as GPT-2 has them, each with the blank before it; Korean morphemes, with the blanks after them."""


def train_tokenizer(
    texts: pl.Series, vocab_size: int, *, pre_split: PreSplit = "whitespace"
) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens, the first of them `END`.

    Whatever the text, it has tokens: the 256 bytes are among them.

    Raises:
        ConfigError: `vocab_size` has no room for the bytes, or `pre_split=kiwi` without kiwipiepy.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise ConfigError(
            f"vocab_size={vocab_size} has no room beside the {len(alphabet)} bytes and {END}; "
            "raise it"
        )
    tokenizer = Tokenizer(BPE())
    words = pre_split == "whitespace"
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(END, special=True)],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    pieces = texts.to_list()
    if pre_split == "kiwi":
        pieces = [piece for row in cut_into_morphemes(pieces) for piece in row]
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def tokenize(
    tokenizer: Tokenizer,
    texts: pl.Series,
    max_length: int,
    end: int,
    *,
    pre_split: PreSplit = "whitespace",
) -> Ragged:
    """A row of tokens int32 for each text, at most `max_length` and then `end`.

    Whatever stands in a text is words: a text that holds the name of a special token does not end.

    Args:
        pre_split: as the tokenizer was trained with.

    Raises:
        ConfigError: `pre_split=kiwi` without kiwipiepy.

    >>> texts = pl.Series(["green tea", "black tea"])
    >>> tokenizer = train_tokenizer(texts, vocab_size=270)
    >>> rows = tokenize(tokenizer, texts, max_length=20, end=0)
    >>> tokenizer.decode_batch([row.tolist() for row in rows.values.split(rows.lengths.tolist())])
    ['green tea', 'black tea']
    """
    tokenizer.encode_special_tokens = True
    cut = pre_split == "kiwi"  # the others are the tokenizer's own
    pieces = cut_into_morphemes(texts.to_list()) if cut else texts.to_list()
    encoded = tokenizer.encode_batch_fast(pieces, is_pretokenized=cut, add_special_tokens=False)
    rows = pl.Series([e.ids for e in encoded], dtype=pl.List(pl.Int32)).list.head(max_length)
    rows = rows.list.concat(pl.Series([[end]], dtype=pl.List(pl.Int32)))
    values = torch.from_numpy(rows.explode().to_numpy(writable=True))
    return Ragged(values, offsets_of(tensor_of(rows.list.len())))
