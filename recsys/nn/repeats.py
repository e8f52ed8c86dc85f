"""RepeatWeight: what a model has learnt of having an item again.

Where hardly anybody has an item twice, what lies nearest to a history is what nobody takes next,
the history itself. Inner products of a few dimensions cannot say so; one number can.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.batch.ragged import Ragged, offsets_of
from recsys.types import Scores

PACE = 10.0  # of a number among logits, beside that of the entries of a matrix


class RepeatWeight(nn.Module):
    """A learnt number, below 0, that is added to the scores of the items that a history holds.

    >>> repeats = RepeatWeight()
    >>> repeats(torch.zeros(1, 3), Ragged.from_lists([[2, 2]])).tolist()[0][:2]
    [0.0, 0.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(()))

    @property
    def value(self) -> Tensor:
        """() of the dtype of the weights."""
        return -F.softplus(PACE * self.raw)

    def forward(self, scores: Scores, histories: Ragged) -> Scores:
        """(B, n) for B histories, each of whose items counts once."""
        held = histories.distinct(scores.shape[1])
        amounts = self.value.to(scores.dtype).expand(len(held.values))
        return scores.index_put((held.owners(), held.values), amounts, accumulate=True)

    def of_candidates(self, scores: Tensor, candidates: Tensor, histories: Ragged) -> Tensor:
        """(B, C) likewise, of candidates (C,) alone, ascending."""
        column = torch.searchsorted(candidates, histories.values)
        is_candidate = candidates[column.clamp(max=len(candidates) - 1)] == histories.values
        counts = offsets_of(is_candidate.long())[histories.offsets]
        return self(scores, Ragged(column[is_candidate], counts))
