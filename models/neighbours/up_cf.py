"""UP-CF@r: user-based collaborative filtering over user-wise popularity.

Faggioli, Polato, Aiolli: "Recency Aware Collaborative Filtering for Next Basket Recommendation",
UMAP 2020.

    UWP@r(u, i) = baskets with i among u's last r baskets / min(r, baskets of u)
    w(u, v)     = |I_u ∩ I_v| / (|I_u|^a |I_v|^(1 - a)),  I_u: all items of u; w(u, u) = 1
    score(u, i) = sum over v of w(u, v)^q UWP@r(v, i)

Kept: the asymmetric cosine between all items ever taken, the locality q, every user a neighbour.
Changed: neighbours are the training users with all their training baskets, and u itself by the
history it is asked with; the paper takes the histories of all users, the other users asked too.

A user without a history has no neighbours and gets popularity.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.models.neighbours._neighbours import TrainingUsers, UserNeighbours
from recsys.ranges import above, at_least, share
from recsys.scoring.kinds import Explainable
from recsys.scoring.parts import Parts
from recsys.tasks.splits import Split
from recsys.types import Scores


class UPCF(Explainable, UserNeighbours):
    """Own recent frequency, and that of users with similar items.

    Args:
        num_recent: r, the number of last baskets that are counted.
        asymmetry: a, from 0 (a neighbour's many items count against it) to 1 (they do not).
        locality: q, above 1 to let near neighbours count more.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self, *, num_recent: int = 10, asymmetry: float = 0.5, locality: float = 5.0
    ) -> None:
        super().__init__()
        at_least(1, num_recent=num_recent)
        share(asymmetry=asymmetry)
        above(0, locality=locality)
        self.num_recent = num_recent
        self.asymmetry = asymmetry
        self.locality = locality

    def compute(self, split: Split) -> None:
        self.remember(split.training, recent_share(split.training, self.num_recent))

    def score(self, batch: BasketBatch) -> Scores:
        return batch.sum(recent_share(batch, self.num_recent)) + self.mix(self._shares(batch))

    def _shares(self, batch: BasketBatch) -> Tensor:
        """(B, U): w(u, v)^q."""
        return asymmetric_cosine(self, batch, self.asymmetry) ** self.locality

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        own = Parts.of_own(batch, items, recent_share(batch, self.num_recent))
        return [own, self.neighbour_parts(self._shares(batch), items)]


def recent_share(batch: BasketBatch, num_recent: int) -> Tensor:
    """(E,): what an event adds to its user's UWP@r of its item, with r `num_recent`."""
    num_baskets = batch.num_baskets()[batch.owners()]
    return (batch.age() < num_recent) / num_baskets.clamp(max=num_recent)


def asymmetric_cosine(training: TrainingUsers, batch: BasketBatch, asymmetry: float) -> Tensor:
    """(B, U): w(u, v) of the users asked and the training users; 0 of a user with itself."""
    held_items = batch.multi_hot()
    own_size = held_items.sum(1, keepdim=True).clamp(min=1)
    similarity = training.match(held_items)
    # In place: what is as large as all training users is laid out as `match` leaves it.
    similarity /= own_size**asymmetry
    similarity /= training.offsets.diff() ** (1 - asymmetry)
    similarity[training.same_user(batch)] = 0
    return similarity
