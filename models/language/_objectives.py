"""What LMRec is trained on: L1, the language modelling of texts, and L2, the recommendation.

Shapes: P predictions, C candidates, n items, R rows of L tokens, D dimensions.
A suffix gives those of a tensor: `scores_PC` is (P, C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys import ranks
from recsys.batch.ragged import Ragged
from recsys.batch.tokens import TokenStream
from recsys.errors import ConfigError
from recsys.models.language._states import TextStates
from recsys.nn.losses import linear_cross_entropy
from recsys.precision import wide
from recsys.ranges import at_least


@runtime_checkable
class Corpus(Protocol):
    """Further text to model: a log's (`recsys.data.LogCorpus`), or anything of this form."""

    weight: float

    def read(self) -> tuple[pl.Series, Ragged]:
        """Texts, and histories of them: rows of places among the texts, oldest first."""
        ...


@dataclass(frozen=True)
class Language:
    """The language modelling beside the recommendation, L1.

    Attributes:
        batch_size: R, rows a step; 0 leaves L1 out.
        row_length: L, tokens a row.
        corpora: further text beside the training histories, by name. A row is drawn from each in
            proportion to its `weight`; that of the training histories is 1.

    Raises:
        ConfigError: an option is out of its range.
    """

    batch_size: int = 16
    row_length: int = 256
    corpora: Mapping[str, Corpus] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(0, batch_size=self.batch_size)
        at_least(2, row_length=self.row_length)  # a token, and one that follows it

    def streams(self, logs: Sequence[tuple[Ragged, Ragged]], end: int) -> list[TokenStream]:
        """Of each log, the training histories' and then each corpus's, what rows are read from.

        Args:
            logs: texts as tokens, and histories as rows of texts.
            end: [EOS].
        """
        if not self.batch_size:
            return []
        return [TokenStream.of(rows, tokens, end, self.row_length) for tokens, rows in logs]

    def draw(self, streams: Sequence[TokenStream], device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens (R, L) of rows of the streams, and their positions within their documents."""
        weights = [1.0, *(corpus.weight for corpus in self.corpora.values())]
        drawn = torch.multinomial(torch.tensor(weights), self.batch_size, replacement=True)
        drawn = ranks.of_first(drawn.to(device))
        counts = drawn.bincount(minlength=len(weights)).tolist()
        rows = []
        for stream, count in zip(streams, counts, strict=True):
            index = ranks.of_first(torch.randint(len(stream), (count,), device=device))
            rows.append(stream.rows(index))
        tokens_RL, positions_RL = (torch.cat(pieces) for pieces in zip(*rows, strict=True))
        return tokens_RL, positions_RL

    def loss(self, streams: Sequence[TokenStream], states: TextStates) -> Tensor:
        """L1: mean cross-entropy of the next token, on rows drawn from the streams."""
        every_RL, positions_RL = self.draw(streams, states.head.device)
        tokens_RL, positions_RL = ranks.own(every_RL), ranks.own(positions_RL)
        if not len(tokens_RL):  # more ranks than rows: a row of another, in which nothing follows
            tokens_RL = every_RL[:1]
            positions_RL = torch.zeros_like(tokens_RL)
        # No part without rows, and on all ranks as many.
        parts = max(1, min(states.micro_batches, len(every_RL) // ranks.world()))
        before, following = states.before_tokens(tokens_RL, positions_RL, parts=parts)
        mean = linear_cross_entropy(before, states.head, following)
        return ranks.weighed(mean, len(following))


@dataclass(frozen=True)
class Ranking:
    """The recommendation loss, L2.

    Attributes:
        weight: lambda; 0 leaves L2 out.
        softmax: cross-entropy among the candidates; otherwise the paper's binary cross-entropy of
            each target and of the drawn items.
        num_negatives: items drawn for a batch; None takes the whole catalogue.
        repeats: learn a weight, below 0, that the items of a history get.

    Raises:
        ConfigError: binary cross-entropy without anything that is no target, or an option is out of
            its range.
    """

    weight: float = 1.0
    softmax: bool = True
    num_negatives: int | None = 0
    repeats: bool = False

    def __post_init__(self) -> None:
        at_least(0, weight=self.weight, num_negatives=self.num_negatives)
        if not self.softmax and self.num_negatives == 0:
            raise ConfigError("ranking.num_negatives=0 with softmax=false; draw at least one")

    def loss(
        self,
        users_PD: Tensor,
        targets_P: Tensor,
        item_vectors: Callable[[Tensor], Tensor],
        share_n: Tensor,
        repeats: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """L2: a mean over predictions; the candidates are those of the whole batch, of all ranks.

        A rank makes the vectors of some of them.

        Args:
            users_PD: vectors of the beginnings of histories.
            targets_P: the items that came next.
            item_vectors: from items (C,) to (C, D).
            share_n: of each item among the events of training.
            repeats: from scores (P, C) of candidates (C,) to those with the weight of repeats.
        """
        batch_targets = ranks.gather(targets_P)
        candidates_C, drawn = self.candidates(batch_targets, len(share_n))
        vectors_CD = ranks.gather(item_vectors(ranks.own(candidates_C)))
        scores_PC = wide(users_PD) @ wide(vectors_CD).T
        if repeats is not None:
            scores_PC = repeats(scores_PC, candidates_C)
        hit_P = torch.searchsorted(candidates_C, targets_P)
        if self.softmax:
            correction_C = self.log_inclusion(
                share_n[candidates_C], len(batch_targets), len(share_n)
            )
            scores_PC = wide(scores_PC) - correction_C
            return ranks.mean(F.cross_entropy(scores_PC, hit_P, reduction="none"))
        positive_P = scores_PC.gather(1, hit_P[:, None]).squeeze(1)
        negative = F.softplus(scores_PC[:, torch.searchsorted(candidates_C, drawn)])
        negative_P = (negative * (drawn != targets_P[:, None])).mean(1)
        return ranks.mean(F.softplus(-positive_P) + negative_P)

    def candidates(self, targets: Tensor, num_items: int) -> tuple[Tensor, Tensor]:
        """(C,) items to score, ascending, and those among them that are drawn."""
        if self.num_negatives is None:
            every = torch.arange(num_items, device=targets.device)
            return every, every
        drawn = torch.randint(num_items, (self.num_negatives,), device=targets.device)
        drawn = ranks.of_first(drawn)
        return torch.cat([targets, drawn]).unique(), drawn

    def log_inclusion(self, share: Tensor, num_targets: int, num_items: int) -> Tensor:
        """(C,): log probability that an item is a target of a batch or drawn for it.

        Args:
            share: (C,), of the candidates among the events of training.
            num_targets: of the batch.
            num_items: n.
        """
        if (drawn := self.num_negatives) is None:
            return torch.zeros_like(share)
        # The only item of a catalogue is in every draw.
        missed = math.log1p(-1 / num_items) if num_items > 1 else -math.inf
        absent = -num_targets * share + (drawn * missed if drawn else 0.0)
        return torch.log(-torch.expm1(absent))
