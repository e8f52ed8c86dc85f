"""The texts of a log as tokens, the histories made of them, and the tokenizer of both.

A model holds all of it in its buffers; the classes here read those, and hold nothing themselves.

Shapes: B users, n items, T texts, C of these, C' wordings of those, E' events of the log, M ends
([EOS]) of documents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer
from torch import Tensor

from recsys.batch.bounds import check_index, check_offsets, check_tensor
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, beginnings, ranges
from recsys.batch.tokens import Documents


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts as tokens: of a log first those of its n items, then an item's with what an event said.

    Attributes:
        tokens: T rows of int32, each with its closing [EOS].
        num_items: n.
        items: (T + 1,) int64, the item of each text; last n, for the opening of a document.
        of_events: (E',) int64, the text of each event; None where it is its item's.
        end: () int64, [EOS].
        max_tokens: of a document; of a longer history the oldest texts are cut off.
    """

    tokens: Ragged
    num_items: int
    items: Tensor
    of_events: Tensor | None
    end: Tensor
    max_tokens: int

    @classmethod
    def of_strangers(cls, tokens: Ragged, num_items: int, end: Tensor, max_tokens: int) -> Texts:
        """Texts of no item of the catalogue."""
        items = torch.full((len(tokens) + 1,), num_items)
        return cls(tokens, num_items, items, None, end, max_tokens)

    @property
    def every_item(self) -> Tensor:
        """(n,), from 0; also the texts of the items themselves."""
        return torch.arange(self.num_items, device=self.items.device)

    def of_histories(self, history: BasketBatch) -> Ragged:
        """B rows of texts: of an event of the log its own text, of any other its item's."""
        if self.of_events is None:
            return history.ragged
        rows = history.log_rows
        texts = torch.where(rows < 0, history.items, self.of_events[rows])
        return Ragged(texts, history.offsets)

    def documents(self, rows: Ragged) -> Documents:
        """Rows of texts as tokens; what ends at an [EOS] is told by its item, n at an opening."""
        documents = Documents.of(rows, self.tokens, int(self.end), max_tokens=self.max_tokens)
        return replace(documents, items=self.items[documents.items])

    def alone(self, texts: Tensor) -> Documents:
        """A document for each of the texts (C,)."""
        return self.documents(Ragged(texts, torch.arange(len(texts) + 1, device=texts.device)))

    def same_words(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Of texts (C,) the first with each wording (C',), and which of these each has (C,)."""
        tokens = self.tokens.rows(texts)
        column = torch.arange(int(tokens.lengths.max()), device=texts.device)
        words = tokens.values.new_full((len(texts), len(column)), -1)
        words[column < tokens.lengths[:, None]] = tokens.values
        _, which = words.unique(dim=0, return_inverse=True)
        first = torch.full_like(texts, len(self.tokens)).scatter_reduce(0, which, texts, "amin")
        return first[: int(which.max()) + 1], which

    def without_words(self) -> Texts:
        """The same, each text its closing [EOS] alone."""
        ends = self.end.to(self.tokens.values.dtype).expand(len(self.tokens))
        offsets = torch.arange(len(ends) + 1, device=ends.device)
        return replace(self, tokens=Ragged(ends, offsets))

    def check(self, num_tokens: int, histories: BasketBatch) -> None:
        """Refuse what no log could have given.

        Args:
            num_tokens: of the decoder.
            histories: of the log, of all its users.

        Raises:
            ValueError: a tensor is of another type or shape, or out of range.
        """
        num_items, num_texts = self.num_items, len(self.tokens)
        check_index("text_tokens", self.tokens.values, num_tokens, dtype=torch.int32)
        check_offsets("text_offsets", self.tokens.offsets, num_texts, len(self.tokens.values))
        if not (self.tokens.lengths > 0).all():
            raise ValueError("text_offsets: a text without its end")
        check_tensor("text_items", self.items, torch.int64, num_texts + 1)
        check_index("text_items", self.items, num_items + 1)
        if not self.items[:num_items].equal(torch.arange(num_items)) or self.items[-1] != num_items:
            raise ValueError("text_items does not begin with all items and end with none")
        if self.of_events is not None:
            check_index("event_texts", self.of_events, num_texts)
            check_index("log_rows", histories.log_rows + 1, len(self.of_events) + 1)


@dataclass(frozen=True, eq=False)
class Beginnings:
    """The beginnings of B histories, and what came next: each event is predicted from those before.

    Attributes:
        users: (B,) int64, whose histories.
        documents: these without their last event, with M ends.
        targets: (M,) int64, the item that came after each end.
        is_whole: (M,) bool, whether the text up to an end is all of its history's beginning.
    """

    users: Tensor
    documents: Documents
    targets: Tensor
    is_whole: Tensor

    @classmethod
    def of(cls, history: BasketBatch, texts: Texts) -> Beginnings:
        """Those of histories of at least one event each."""
        before = _all_but_last(history)
        documents = texts.documents(texts.of_histories(before))
        targets = documents.items.roll(-1)
        targets[documents.end_offsets[1:] - 1] = history.items[history.offsets[1:] - 1]
        # A history that was cut does not begin where its document does.
        is_whole = torch.ones_like(targets, dtype=torch.bool)
        cut = documents.end_offsets.diff() <= before.lengths()
        is_whole[documents.end_offsets[:-1][cut]] = False
        return cls(history.users, documents, targets, is_whole)

    @property
    def held(self) -> Ragged:
        """The items up to each end that `is_whole`, as far as its document holds them."""
        before = beginnings(Ragged(self.documents.items, self.documents.end_offsets))
        (rows,) = self.is_whole.nonzero(as_tuple=True)
        starts, lengths = before.offsets[:-1][rows] + 1, before.lengths[rows] - 1
        positions, offsets = ranges(starts, lengths)  # without the opening
        return Ragged(before.values[positions], offsets)


def _all_but_last(history: BasketBatch) -> BasketBatch:
    """The same users without the last event of each."""
    keep = torch.ones(len(history.items), dtype=torch.bool, device=history.device)
    keep[history.offsets[1:] - 1] = False
    return history.where(keep)


def tokenizer_as_bytes(tokenizer: Tokenizer) -> Tensor:
    """(bytes,) uint8: in the weights, so that a saved model is whole without another file."""
    return torch.tensor(list(tokenizer.to_str().encode()), dtype=torch.uint8)


def tokenizer_of(json: Tensor) -> Tokenizer:
    """The tokenizer of `tokenizer_as_bytes`."""
    return Tokenizer.from_str(bytes(json.tolist()).decode())


def check_tokenizer(json: Tensor, end: Tensor, num_tokens: int) -> None:
    """Refuse a tokenizer that a decoder of `num_tokens` tokens was not trained with.

    Raises:
        ValueError: its tensors are of another type, or it has tokens that the decoder has not.
    """
    check_tensor("end", end, torch.int64)
    check_tensor("tokenizer_json", json, torch.uint8, len(json))
    tokenizer = tokenizer_of(json)
    known = torch.tensor(list(tokenizer.get_vocab().values()))
    check_index("tokens", torch.cat([known, end.flatten()]), num_tokens)
    if tokenizer.id_to_token(int(end)) is None:
        raise ValueError(f"end={int(end)} is no token")
