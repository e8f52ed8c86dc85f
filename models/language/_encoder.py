"""Texts as hidden states of a decoder, and what of these a frozen decoder computes once.

The vector of a text is the decoder's last hidden state at its closing [EOS]. [EOS] also stands
before the first item and between any two, so that one pass gives that of every beginning.

Shapes: B documents, L tokens of the longest or of a row, M ends ([EOS]), R rows, T tokens that are
predicted, C items, D dimensions. A suffix gives those of a tensor: `hidden_BLD` is (B, L, D).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, gather_positions
from recsys.batch.tokens import Documents
from recsys.models.language._texts import Texts
from recsys.models.language.decoders import causal_of
from recsys.nn.buffers import Memo
from recsys.nn.embedding import EmbeddingTable

T = TypeVar("T")

TOKENS_AT_ONCE = 2**15


@dataclass(frozen=True, eq=False)
class TextStates:
    """Reads texts by a decoder.

    Attributes:
        decoder: a causal language model, which may be wrapped in low-rank updates.
        ids: vectors of item ids, added to the [EOS] that closes an item; None adds none.
        texts: of the log.
    """

    decoder: nn.Module
    ids: EmbeddingTable | None
    texts: Texts

    @property
    def head(self) -> Tensor:
        """(vocabulary, D), whose products with a state are the logits of the next token."""
        return causal_of(self.decoder).get_output_embeddings().weight

    def at_ends(self, documents: Documents) -> Tensor:
        """(M, D): the state at each end."""
        embed = causal_of(self.decoder).get_input_embeddings()
        states, places = [], []
        for which, group in documents.groups(TOKENS_AT_ONCE):
            tokens_BL, ends_M = group.padded()
            embedded_BLD = embed(tokens_BL)
            if self.ids is not None:
                flat = embedded_BLD.flatten(0, 1)
                ids_MD = self.ids(group.items).to(flat.dtype)
                embedded_BLD = flat.index_add(0, ends_M, ids_MD).view_as(embedded_BLD)
            # Padding stands at the right, where a causal decoder does not look.
            hidden_BLD = self._hidden(inputs_embeds=embedded_BLD)
            states.append(hidden_BLD.flatten(0, 1)[ends_M])
            places.append(gather_positions(documents.end_offsets, which)[0])
        states_MD = torch.cat(states)
        return torch.empty_like(states_MD).index_copy(0, torch.cat(places), states_MD)

    def before_tokens(self, tokens_RL: Tensor, positions_RL: Tensor) -> tuple[Tensor, Tensor]:
        """States (T, D) that a token of their own document follows, and that token (T,)."""
        hidden_RLD = self._hidden(input_ids=tokens_RL, position_ids=positions_RL)
        follows = positions_RL[:, 1:] > 0
        return hidden_RLD[:, :-1][follows], tokens_RL[:, 1:][follows]

    def _hidden(self, **inputs: Tensor) -> Tensor:
        return causal_of(self.decoder).base_model(**inputs, use_cache=False).last_hidden_state

    def of_documents(self, documents: Documents) -> Tensor:
        """(B, D): the state at the last end of each."""
        return self.at_ends(documents.last_ends())

    def of_items(self, items: Tensor) -> Tensor:
        """(C, D): of each item's own text, behind the [EOS] that opens it."""
        return self.at_ends(self.texts.alone(items))[1::2]

    def of_catalogue(self, items: Tensor) -> Tensor:
        """As `of_items`; items of the same words have the same state, to the last digit."""
        if self.ids is not None:  # the state is of the id, too
            return self.of_items(items)
        first, which = self.texts.same_words(items)
        return self.of_items(first)[which]


class FrozenStates:
    """What a frozen decoder makes of the training histories and the items: each is read once.

    Args:
        num_items: n.
    """

    def __init__(self, num_items: int) -> None:
        self.history = BasketBatch.from_lists([], num_items)
        self._at_ends: Memo[Ragged] = Memo()
        self._of_items: Memo[Tensor] = Memo()

    def read(self, history: BasketBatch) -> None:
        """Take the training histories; what was made of others is forgotten."""
        self.history = history
        self._at_ends.clear()
        self._of_items.clear()

    def at_ends(self, states: TextStates, users: Tensor) -> Tensor:
        """As `TextStates.at_ends` of these users' training histories without their last events."""
        ends = self._once(self._at_ends, states, lambda: self._training_ends(states))
        rows = torch.searchsorted(self.history.users.to(users.device), users)
        return ends.rows(rows).values

    def _training_ends(self, states: TextStates) -> Ragged:
        texts = states.texts
        before = all_but_last(self.history.to(texts.items.device))
        documents = texts.documents(texts.of_histories(before))
        return Ragged(states.at_ends(documents), documents.end_offsets)

    def of_catalogue(self, states: TextStates, items: Tensor) -> Tensor:
        """As `TextStates.of_catalogue` of all items."""
        return self._once(self._of_items, states, lambda: states.of_catalogue(items))

    def _once(self, memo: Memo[T], states: TextStates, compute: Callable[[], T]) -> T:
        texts = states.texts
        read = [texts.tokens.values, texts.tokens.offsets, texts.items, texts.end]
        read += [] if texts.of_events is None else [texts.of_events]
        return memo.get(compute, states.decoder, *read)


def all_but_last(history: BasketBatch) -> BasketBatch:
    """The same users without the last event of each."""
    keep = torch.ones(len(history.items), dtype=torch.bool, device=history.device)
    keep[history.offsets[1:] - 1] = False
    return history.where(keep)
