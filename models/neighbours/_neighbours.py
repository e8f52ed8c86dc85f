"""The training users' items as a sparse matrix to search and to mix: UPCF, TIFUKNN and GLOIE.

Shapes: B users asked, U training users, E pairs of a training user and an item, n items.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.batch.bounds import check_index, check_offsets, check_tensor
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, gather_positions, offsets_of
from recsys.nn.buffers import Keeper
from recsys.precision import wide
from recsys.scoring.parts import Parts
from recsys.scoring.scorer import ClosedForm


class TrainingUsers(Keeper):
    """What each training user holds, user by user and item by item.

    Attributes:
        users: (U,) user indices.
        items, weights: (E,), what each user holds, user by user.
        offsets: (U + 1,), where each user's items begin.
        item_owners, item_weights, item_offsets: the same pairs, item by item; owners are rows.

    Both products below touch only the pairs that exist, and add them in one order whatever the
    batch, so that rounding, and with it a tie between neighbours, does not depend on it. They are
    sums of rows of a dense matrix, a kernel that on histories outruns sparse matrix products.
    """

    users: Tensor
    items: Tensor
    offsets: Tensor
    weights: Tensor
    item_owners: Tensor
    item_offsets: Tensor
    item_weights: Tensor

    def remember(self, users: BasketBatch, weights: Tensor) -> None:
        """Keep `users` with the sum of their event weights (E',) by item, as `weights` (E,)."""
        num_items = users.num_items
        pairs, pair = torch.unique(users.owners() * num_items + users.items, return_inverse=True)
        owners, items = pairs // num_items, pairs % num_items
        by_item = items.argsort(stable=True)
        self.keep("users", users.users)
        self.keep("items", items)
        self.keep("offsets", offsets_of(torch.bincount(owners, minlength=len(users))))
        self.keep("weights", weights.new_zeros(len(pairs)).index_add_(0, pair, weights))
        self.keep("item_owners", owners[by_item])
        self.keep("item_offsets", offsets_of(torch.bincount(items, minlength=num_items)))
        self.keep("item_weights", self.weights[by_item])

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        num_users, num_pairs = len(self.users), len(self.items)
        check_index("users", self.users, torch.iinfo(torch.int64).max)
        check_index("items", self.items, histories.num_items)
        check_offsets("offsets", self.offsets, num_users, num_pairs)
        check_tensor("weights", self.weights, torch.float32, num_pairs)
        check_index("item_owners", self.item_owners, num_users)
        check_offsets("item_offsets", self.item_offsets, histories.num_items, num_pairs)
        check_tensor("item_owners", self.item_owners, torch.int64, num_pairs)
        check_tensor("item_weights", self.item_weights, torch.float32, num_pairs)

    def match(self, histories: Tensor, weights: Tensor | None = None) -> Tensor:
        """(B, U): inner products of `histories` (B, n) and the training users' items.

        Args:
            histories: what the users asked hold of each item.
            weights: (E,) of the training users' items; None: all 1.
        """
        return _sums(histories, self.items, self.offsets, weights)

    def mix(self, shares: Tensor) -> Tensor:
        """(B, n): sums of the training users' weighted items, each taken `shares` (B, U) times."""
        return _sums(shares, self.item_owners, self.item_offsets, wide(self.item_weights))

    def neighbour_parts(self, shares: Tensor, items: Tensor) -> Parts:
        """What each training user brings to the item (B,) of each row of `mix(shares)`."""
        pairs, offsets = gather_positions(self.item_offsets, items)
        rows, owners = Ragged(pairs, offsets).owners(), self.item_owners[pairs]
        values = shares[rows, owners].double() * self.item_weights[pairs]
        return Parts.summed("user", rows, self.users[owners], values)

    def same_user(self, batch: BasketBatch) -> tuple[Tensor, Tensor]:
        """Of a matrix (B, U), the cells where a training user is the one asked: no neighbour."""
        users, order = self.users.sort()
        place = torch.searchsorted(users, batch.users).clamp(max=len(users) - 1)
        (rows,) = (users[place] == batch.users).nonzero(as_tuple=True)
        return rows, order[place[rows]]


class UserNeighbours(TrainingUsers, ClosedForm):
    """A closed-form model that scores by training users who are like the one asked."""

    def cells_per_user(self, num_items: int) -> int:
        """As many as there are items or training users."""
        return max(num_items, len(self.users))


def _sums(dense: Tensor, columns: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    """(B, R): for each row r of R, the weighted sum of the columns of `dense` (B, C) it names."""
    columns_of = dense.T
    # Not contiguous(): it leaves the strides of a single row, for which other code then runs.
    if columns_of.stride() != (len(dense), 1):
        columns_of = columns_of.clone(memory_format=torch.contiguous_format)
    summed = F.embedding_bag(
        columns,
        columns_of,
        offsets,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )
    return summed.T
