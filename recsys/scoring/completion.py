"""What completes a basket of which some items are known: of any model, with what goes together.

    score(u, i | G) = logit p_ui + weight e_i(G)
    e_i(G)          = |G|^(-1/2) sum over g of G of log(1 + (c_gi / c_i) (N / SMOOTH))

G are the items that the basket holds already, p_ui the chance of item i without them
(`recsys.scoring.calibration`), N the number of baskets, c_i those with i, and c_gi those with both.
A term of the sum is the log of how much more often i is in a basket with g than in any, smoothed by
`SMOOTH` baskets like all others, but for what is the same for every i. The root lies between the
sum, for which items say things of their own, and the mean, for which all say the same.

One weight holds for all users: that of a logistic regression on baskets of which half is taken as
known.

Shapes: B users, n items, N baskets, R pairs of a user and an item.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.lists import TopK
from recsys.scoring.calibration import (
    LEAST_SLOPE,
    Calibrated,
    Calibration,
    Rows,
    regression,
    sampled_pairs,
    scored,
    some_users,
)
from recsys.scoring.scorer import Scorer, joined
from recsys.types import Scores

SMOOTH = 30.0
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class Companions:
    """Which items are in which baskets.

    Attributes:
        baskets: (N, n), 1 where a basket holds an item.
        counts: (n,) baskets that hold each.
    """

    baskets: csc_array
    counts: np.ndarray

    @classmethod
    def of(cls, histories: BasketBatch) -> Companions:
        """Of all baskets of some histories, on the CPU."""
        rows, offsets = histories.basket_rows()
        ones = np.ones(len(rows), dtype=np.float32)
        places = rows.numpy(), histories.items.numpy()
        baskets = csc_array((ones, places), shape=(len(offsets) - 1, histories.num_items))
        baskets.data[:] = 1  # an item that stood twice in a basket
        return cls(baskets, np.diff(baskets.indptr).clip(1))

    def evidence(self, given: Ragged) -> Tensor:
        """(B, n) float32: e of all items for each row of given items.

        >>> histories = BasketBatch.from_lists([[[0, 1], [0, 1], [2]]], num_items=3)
        >>> evidence = Companions.of(histories).evidence(Ragged.from_lists([[0], [2]]))
        >>> (evidence[:, 1] > 0).tolist()
        [True, False]
        """
        items, places = given.values.cpu().unique(return_inverse=True)
        offsets, lengths = given.offsets.cpu(), given.lengths.cpu()
        weights = lengths.clamp(min=1).float().rsqrt()[given.to("cpu").owners()]
        shape = len(given), len(items)
        holds = csr_array((weights.numpy(), places.numpy(), offsets.numpy()), shape=shape).tocsc()
        evidence = np.zeros((len(given), len(self.counts)), dtype=np.float32)
        for first in range(0, len(items), _ROWS_AT_ONCE):
            piece = slice(first, first + _ROWS_AT_ONCE)
            evidence += (holds[:, piece] @ self._terms(items[piece].numpy())).toarray()
        return torch.from_numpy(evidence)

    def _terms(self, items: np.ndarray) -> csr_array:
        """(len(items), n): the terms of the sum, of some items g."""
        both = (self.baskets[:, items].T @ self.baskets).tocsr()
        share = both.data / self.counts[both.indices]
        both.data = np.log1p(share * (self.baskets.shape[0] / SMOOTH))
        return both


class Completing(Scorer):
    """Ranks what completes the last basket of each history, whose items are never in a list.

    Args:
        model: calibrated.
        companions: of the baskets that are known.
    """

    def __init__(self, model: Calibrated, companions: Companions) -> None:
        super().__init__()
        self.model = model
        self.companions = companions
        self.weight = model.calibration.basket_weight or 0.0

    def cells_per_user(self, num_items: int) -> int:
        return self.model.cells_per_user(num_items)

    def score(self, batch: BasketBatch) -> Scores:
        before, given = without_last(batch)
        evidence = self.companions.evidence(given).to(batch.device)
        return self.model.score(before) + self.weight * evidence

    def top_k(
        self,
        batch: BasketBatch,
        k: int,
        *,
        mask_history: bool = False,
        candidates: Tensor | None = None,
        exclude: Ragged | None = None,
        index: ItemIndex | None = None,
    ) -> TopK:
        given = without_last(batch)[1]
        return super().top_k(
            batch,
            k,
            mask_history=mask_history,
            candidates=candidates,
            exclude=given if exclude is None else joined([exclude, given]),
        )


def without_last(batch: BasketBatch) -> tuple[BasketBatch, Ragged]:
    """Histories before their last baskets, and the items (B rows) of these."""
    return batch.where(batch.age() > 0), batch.last(1).ragged


def half_known(part: Part, seed: int = 0) -> Part:
    """Users with two targets or more, half of whose target is the last basket of the history.

    The half is rounded down; the other one is the target.

    >>> history = BasketBatch.from_lists([[[0]], [[1]]], num_items=5)
    >>> half = half_known(Part("test", history, Ragged.from_lists([[2], [2, 3, 4]])))
    >>> half.history.baskets.tolist(), half.target.lengths.tolist()
    ([0, 1], [2])
    """
    whole = part.to("cpu").rows(torch.arange(len(part)))  # also of a part whose rows share events
    whole = whole.rows((whole.target.lengths > 1).nonzero()[:, 0])
    target = whole.target
    owners = target.owners()
    draws = torch.rand(len(owners), generator=torch.Generator().manual_seed(seed)).double()
    order = (owners + draws).argsort()  # within a user at random
    place = torch.arange(len(order)) - target.offsets[owners]
    is_given = torch.zeros(len(order), dtype=torch.bool)
    is_given[order] = place < (target.lengths // 2)[owners]
    given, rest = (_where(target, which) for which in (is_given, ~is_given))
    return Part(part.name, whole.history.with_basket(given), rest)


def fit_basket_weight(
    model: Calibrated,
    companions: Companions,
    part: Part,
    *,
    mask_history: bool = False,
    seed: int = 0,
) -> Calibration:
    """The model's calibration with the weight of a basket's companions.

    Args:
        model: calibrated.
        companions: of baskets before those of the part.
        part: users with targets that the model has not learnt from.
        mask_history: leave out items of the history.
        seed: draws users, halves and items.
    """
    pieces, first = [], 0
    half = half_known(some_users(part, seed), seed)
    before, given = without_last(half.history)
    for batch, logits in scored(model, replace(half, history=before)):
        known = given.rows(torch.arange(first, first + len(batch)))
        evidence = companions.evidence(known).to(logits)
        hidden = known.to(logits.device)
        if mask_history:
            hidden = joined([batch.history.ragged, hidden])
        pieces.append(_sample(batch.target, logits, evidence, hidden, seed + first))
        first += len(batch)
    if not any(piece.labels.any() for piece in pieces):
        return model.calibration
    (of_logits, of_evidence), _ = regression(Rows.cat(pieces), np.array([LEAST_SLOPE, 0.0]))
    return replace(model.calibration, basket_weight=float(of_evidence / of_logits))


def _sample(target: Ragged, logits: Tensor, evidence: Tensor, hidden: Ragged, seed: int) -> Rows:
    """Of some users: a pair's logit and evidence."""
    labels, is_hidden = (of.dense(logits.shape[1]) for of in (target, hidden))
    users, items, weights = sampled_pairs(logits, labels, ~is_hidden, seed)
    inputs = torch.stack([logits[users, items], evidence[users, items]], 1)
    return Rows.of(inputs, labels[users, items], weights)


def _where(rows: Ragged, keep: Tensor) -> Ragged:
    """The values at `keep` (E,) bool only, by row."""
    lengths = torch.bincount(rows.owners()[keep], minlength=len(rows))
    return Ragged(rows.values[keep], offsets_of(lengths))
