"""Texts as hidden states of a decoder, and what of these a frozen decoder computes once.

The vector of a text is the decoder's last hidden state at its closing [EOS]. [EOS] also stands
before the first item and between any two, so that one pass gives that of every beginning.

Shapes: B documents, L tokens of the longest or of a row, M ends ([EOS]), R rows, T tokens that are
predicted, C items, D dimensions. A suffix gives those of a tensor: `hidden_BLD` is (B, L, D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recsys import ranks
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, gather_positions
from recsys.batch.tokens import Documents
from recsys.models.language._added import Added
from recsys.models.language._texts import Beginnings, Texts
from recsys.models.language.decoders import causal_of, is_divided, logit_scale
from recsys.nn.buffers import Memo

T = TypeVar("T")

TOKENS_AT_ONCE = 2**15


@dataclass(frozen=True, eq=False)
class TextStates:
    """Reads texts by a decoder.

    Attributes:
        decoder: a causal language model, which may be wrapped in low-rank updates.
        added: vectors that are added to the [EOS] that closes an item.
        texts: of the log.
        micro_batches: in which texts are read where gradients are wanted. With more than one, what
            the gradients of a micro-batch need is made again when it is gone back through.
    """

    decoder: nn.Module
    added: Added
    texts: Texts
    micro_batches: int = field(default=1, kw_only=True)

    @property
    def reads_twice(self) -> bool:
        """Whether micro-batches are read now, and then again for their gradients."""
        return self.micro_batches > 1 and torch.is_grad_enabled()

    @property
    def head(self) -> Tensor:
        """(vocabulary, D), whose products with a scaled state are the logits of the next token."""
        return causal_of(self.decoder).get_output_embeddings().weight

    def at_ends(self, documents: Documents, *, by_rank: bool = False) -> Tensor:
        """(M, D): the state at each end; by rank each reads some groups, and all get all."""
        groups = list(documents.groups(self._tokens_at_once(len(documents.tokens))))
        if by_rank:
            groups = groups[ranks.rank() :: ranks.world()]
        states = [self._of_nothing() for _ in range(self._most(len(groups)) - len(groups))]
        places = [documents.end_offsets[:0]]
        for which, group in groups:
            states.append(self._of_padded(*group.padded(), group.items))
            places.append(gather_positions(documents.end_offsets, which)[0])
        if not states:
            states = [self.head.new_zeros(0, self.head.shape[1])]
        states_MD, places_M = torch.cat(states), torch.cat(places)
        if by_rank:
            states_MD, places_M = ranks.gather(states_MD), ranks.gather(places_M)
        return torch.empty_like(states_MD).index_copy(0, places_M, states_MD)

    def _tokens_at_once(self, number: int) -> int:
        """Of so many tokens."""
        if not self.reads_twice:
            return TOKENS_AT_ONCE
        return min(TOKENS_AT_ONCE, math.ceil(number / self.micro_batches))

    def _most(self, number: int) -> int:
        """Of groups: as many as the rank has that reads most, where all have to read as often."""
        if not (torch.is_grad_enabled() and is_divided(self.decoder)):
            return number
        return int(ranks.largest(torch.tensor(number, device=self.head.device)))

    def _of_nothing(self) -> Tensor:
        """(0, D): no state, of a pass over one [EOS] that closes no item."""
        end_M, no_item = self.texts.end.view(1) * 0, self.texts.items[-1:]
        return self._of_padded(self.texts.end.view(1, 1), end_M, no_item)[:0]

    def _of_padded(self, tokens_BL: Tensor, ends_M: Tensor, items_M: Tensor) -> Tensor:
        """(M, D): the states at ends, with what is added there of items."""
        return self._read(self._at_ends_of, tokens_BL, ends_M, items_M)

    def _read(self, read: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """States, with what their gradients need, or to be read again with the same dropout."""
        if not self.reads_twice:
            return read(*inputs)
        states: Tensor = checkpoint(read, *inputs, use_reentrant=False)
        return states

    def _at_ends_of(self, tokens_BL: Tensor, ends_M: Tensor, items_M: Tensor) -> Tensor:
        embedded_BLD = causal_of(self.decoder).get_input_embeddings()(tokens_BL)
        if self.added:
            flat = embedded_BLD.flatten(0, 1)
            added_MD = self.added(items_M).to(flat.dtype)
            embedded_BLD = flat.index_add(0, ends_M, added_MD).view_as(embedded_BLD)
        # Padding stands at the right, where a causal decoder does not look.
        return self._hidden(inputs_embeds=embedded_BLD).flatten(0, 1)[ends_M]

    def before_tokens(
        self, tokens_RL: Tensor, positions_RL: Tensor, *, parts: int = 1
    ) -> tuple[Tensor, Tensor]:
        """States (T, D) that a token of their own document follows, and that token (T,).

        The states are scaled so that their products with `head` are the logits. They are read in so
        many parts of the rows.
        """
        rows = zip(tokens_RL.tensor_split(parts), positions_RL.tensor_split(parts), strict=True)
        before_TD = torch.cat([self._read(self._before_tokens_of, *part) for part in rows])
        scale = logit_scale(self.decoder)
        following_T = tokens_RL[:, 1:][positions_RL[:, 1:] > 0]
        return before_TD if scale == 1.0 else before_TD * scale, following_T

    def _before_tokens_of(self, tokens_RL: Tensor, positions_RL: Tensor) -> Tensor:
        hidden_RLD = self._hidden(input_ids=tokens_RL, position_ids=positions_RL)
        return hidden_RLD[:, :-1][positions_RL[:, 1:] > 0]

    def _hidden(self, **inputs: Tensor) -> Tensor:
        return causal_of(self.decoder).base_model(**inputs, use_cache=False).last_hidden_state

    def at_beginnings(self, beginnings: Beginnings) -> Tensor:
        """(M, D): the state at each end of the documents of training histories."""
        return self.at_ends(beginnings.documents)

    def of_documents(self, documents: Documents) -> Tensor:
        """(B, D): the state at the last end of each; what is added is added at all of its ends."""
        if not self.added:
            return self.at_ends(documents.last_ends())
        return self.at_ends(documents)[documents.end_offsets[1:] - 1]

    def of_items(self, items: Tensor) -> Tensor:
        """(C, D): of each item's own text, behind the [EOS] that opens it."""
        return self._of_texts(items)

    def of_catalogue(self, *, by_rank: bool = False) -> Tensor:
        """(n, D); items of the same words have the same state, to the last digit."""
        items = self.texts.every_item
        if self.added:  # the state is of the id, too
            return self._of_texts(items, by_rank=by_rank)
        first, which = self.texts.same_words(items)
        return self._of_texts(first, by_rank=by_rank)[which]

    def _of_texts(self, texts: Tensor, *, by_rank: bool = False) -> Tensor:
        return self.at_ends(self.texts.alone(texts), by_rank=by_rank)[1::2]


@dataclass(frozen=True, eq=False)
class WordlessStates(TextStates):
    """Histories as rows of [EOS] with the vectors of their items; an item's state is its vector."""

    def of_items(self, items: Tensor) -> Tensor:
        return self.added.of_texts[items]

    def of_catalogue(self, *, by_rank: bool = False) -> Tensor:
        return self.added.of_texts


class Remembered:
    """What a frozen decoder has made of the training histories and of the items.

    Args:
        history: of training, of all its users, ascending.
    """

    def __init__(self, history: BasketBatch) -> None:
        self.history = history
        self.at_ends: Memo[Ragged] = Memo()
        self.of_catalogue: Memo[Tensor] = Memo()


@dataclass(frozen=True, eq=False)
class FrozenStates(TextStates):
    """As a frozen decoder reads them: the training histories and the items once.

    Attributes:
        remembered: what it has read.
    """

    remembered: Remembered

    def at_beginnings(self, beginnings: Beginnings) -> Tensor:
        at_ends = self._once(self.remembered.at_ends, self._at_all_beginnings)
        users = self.remembered.history.users.to(beginnings.users.device)
        return at_ends.rows(torch.searchsorted(users, beginnings.users)).values

    def _at_all_beginnings(self) -> Ragged:
        history = self.remembered.history.to(self.texts.items.device)
        documents = Beginnings.of(history, self.texts).documents
        return Ragged(self.at_ends(documents), documents.end_offsets)

    def of_items(self, items: Tensor) -> Tensor:
        return self.of_catalogue()[items]

    def of_catalogue(self, *, by_rank: bool = False) -> Tensor:
        compute = partial(super().of_catalogue, by_rank=by_rank)
        return self._once(self.remembered.of_catalogue, compute, by_rank=by_rank)

    def _once(self, memo: Memo[T], compute: Callable[[], T], *, by_rank: bool = False) -> T:
        texts = self.texts
        read = [texts.tokens.values, texts.tokens.offsets, texts.items, texts.end]
        read += [] if texts.of_events is None else [texts.of_events]
        return memo.get(compute, self.decoder, *read, by_rank=by_rank)
