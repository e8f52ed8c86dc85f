"""Own chain: what a user does often, and what it did after the place where it is now.

Nothing of it is shared: it can be counted on the user's own device, and asks for no training.

    f_j         = (c_j + smoothing / n) / (sum of c + smoothing)   c: the user's own counts, decayed
    p(j | last) = (c_last,j + prior * f_j) / (c_last + prior)      c_last,j: of j right after `last`
    score(u, j) = log p(j | last)

The second line is a first-order chain with a Dirichlet prior at the user's own frequencies, as in
hierarchical language models (MacKay & Peto 1995). A user without a history gets popularity.

Shapes: B users, E events, n items.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.ranges import above, decays
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split
from recsys.types import Scores


class OwnChain(ClosedForm):
    """The logarithm of a user's own smoothed frequencies, and of its own first-order chain.

    Args:
        smoothing: events that are spread over the whole catalogue beside the user's own.
        prior: events after the last place that the user's frequencies stand for; None: frequencies
            alone, whatever the last place.
        decay: what an event counts less for each later one of the user.

    Raises:
        ConfigError: an option is out of its range.

    >>> model = OwnChain(smoothing=1.0, prior=1.0)
    >>> histories = BasketBatch.from_lists([[[0], [1], [0], [2], [0]]], num_items=3)
    >>> model.score(histories).exp().round(decimals=3).tolist()  # after 0 came 1 and 2
    [[0.185, 0.407, 0.407]]
    """

    def __init__(
        self, *, smoothing: float = 1.0, prior: float | None = 4.0, decay: float = 1.0
    ) -> None:
        super().__init__()
        above(0, smoothing=smoothing, prior=prior)
        decays(decay=decay)
        self.smoothing = smoothing
        self.prior = prior
        self.decay = decay

    def compute(self, split: Split) -> None:
        """Nothing: it reads histories alone."""

    def score(self, batch: BasketBatch) -> Scores:
        weights = self.decay ** batch.age().double()
        counts = batch.sum(weights)
        share = (counts + self.smoothing / batch.num_items) / (
            counts.sum(1, keepdim=True) + self.smoothing
        )
        if self.prior is None:
            return share.log()
        after = batch.sum(weights * _after_the_last(batch))
        return ((after + self.prior * share) / (after.sum(1, keepdim=True) + self.prior)).log()


def _after_the_last(batch: BasketBatch) -> Tensor:
    """(E,) bool: whether the event before is of the same user and of the item of its last one."""
    owners = batch.owners()
    last = batch.items[batch.offsets[1:][owners] - 1]
    follows = torch.zeros_like(owners, dtype=torch.bool)
    follows[1:] = (owners[1:] == owners[:-1]) & (batch.items[:-1] == last[1:])
    return follows
