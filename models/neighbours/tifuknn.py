"""TIFUKNN: temporally decayed item frequencies of a user and of its nearest neighbours.

Hu, He, Gao, Zhang: "Modeling Personalized Item Frequency Information for Next-basket
Recommendation", SIGIR 2020.

A user's L baskets are cut into m groups in time order. Basket t of group g (both from 0) weighs

    within_decay^(L-1-t) group_decay^(m-1-g) / (baskets in the group) / (number of groups)

and the user's vector sums the weighted baskets. The score is alpha times the own vector plus
(1 - alpha) times the mean vector of the k nearest users by Euclidean distance.

Kept, as the authors' code has it: the last L mod m groups hold a basket more; a user with fewer
than m baskets has a group for each, the first with g = 0; the inner decay runs over all baskets and
not anew within a group as in the paper's equation 1.
Changed: a neighbour's vector holds its last training basket too (the authors: the baskets before
it, `with_targets=False`); equal distances go to the lower user index; a training user who is asked
is no neighbour of its own.

A user without a history is near nobody and gets popularity.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from recsys.batch.bounds import check_tensor
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.models.neighbours._neighbours import UserNeighbours
from recsys.ranges import at_least, share
from recsys.retrieval.lists import top_k
from recsys.scoring.kinds import Explainable
from recsys.scoring.parts import Parts
from recsys.tasks.splits import Split
from recsys.types import Scores


class TIFUKNN(Explainable, UserNeighbours):
    """Own decayed frequencies mixed with the neighbours' mean.

    Args:
        num_groups: m, the number of groups that a history is cut into.
        within_decay: of a basket's weight by each later basket.
        group_decay: of a group's weight by each later group.
        num_neighbors: k, or all training users if there are fewer.
        alpha: weight of the own vector against the neighbours', from 0 to 1.
        with_targets: whether neighbours hold their targets, the last training baskets, too.

    Raises:
        ConfigError: an option is out of its range.

    >>> split = last_basket(checkerboard())
    >>> model = TIFUKNN(num_neighbors=10, alpha=0.5).fit(split)
    >>> evaluate(model, split.test, Protocol(ks=(10,))).means["recall@10"] > 0.6
    True
    """

    squared_norms: Tensor

    def __init__(
        self,
        *,
        num_groups: int = 7,
        within_decay: float = 0.9,
        group_decay: float = 0.7,
        num_neighbors: int = 300,
        alpha: float = 0.7,
        with_targets: bool = True,
    ) -> None:
        super().__init__()
        at_least(1, num_groups=num_groups, num_neighbors=num_neighbors)
        share(within_decay=within_decay, group_decay=group_decay, alpha=alpha)
        self.num_groups = num_groups
        self.within_decay = within_decay
        self.group_decay = group_decay
        self.num_neighbors = num_neighbors
        self.alpha = alpha
        self.with_targets = with_targets

    def compute(self, split: Split) -> None:
        users = split.training if self.with_targets else split.train.history
        self.remember(users, self._decayed(users))
        owners = Ragged(self.items, self.offsets).owners()
        self.keep("squared_norms", torch.zeros(len(users)).index_add_(0, owners, self.weights**2))

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("squared_norms", self.squared_norms, torch.float32, len(self.users))

    def score(self, batch: BasketBatch) -> Scores:
        user_vectors = batch.sum(self._decayed(batch))
        return self.alpha * user_vectors + (1 - self.alpha) * self.mix(
            self._neighbours(batch, user_vectors)
        )

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        weights = self._decayed(batch)
        shares = (1 - self.alpha) * self._neighbours(batch, batch.sum(weights))
        own = Parts.of_own(batch, items, self.alpha * weights)
        return [own, self.neighbour_parts(shares, items)]

    def _neighbours(self, batch: BasketBatch, user_vectors: Tensor) -> Tensor:
        """(B, U): 1/k for the nearest k training users, 0 for the others and without a history."""
        # |x - y|^2 without |x|^2, which is the same for all y.
        nearness = 2 * self.match(user_vectors, self.weights) - self.squared_norms
        nearness[self.same_user(batch)] = -torch.inf
        nearest = top_k(nearness, min(self.num_neighbors, len(self.users)))
        is_neighbour = ((nearest.items >= 0) & (batch.lengths() > 0)[:, None]).float()
        shares = is_neighbour / is_neighbour.sum(1, keepdim=True).clamp(min=1)
        return torch.zeros_like(nearness).scatter_add_(1, nearest.items.clamp(min=0), shares)

    def _decayed(self, batch: BasketBatch) -> Tensor:
        """(E,): the weight of each event's basket."""
        length, basket, m = batch.num_baskets()[batch.owners()], batch.baskets, self.num_groups
        size, num_larger = length // m, length % m
        begin_larger = (m - num_larger) * size
        group = torch.where(
            basket < begin_larger,
            basket // size.clamp(min=1),
            m - num_larger + (basket - begin_larger) // (size + 1),
        )
        size = size + (basket >= begin_larger)
        # A short history's baskets are groups of one, counted from the first.
        group = torch.where(length < m, basket, group)
        # Powers in double: a float's last digit depends on its place in a batch, and splits ties.
        within = self.within_decay ** (length - 1 - basket).double()
        weight = within * self.group_decay ** (m - 1 - group).double()
        return (weight / size / length.clamp(max=m)).float()
