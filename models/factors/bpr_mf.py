"""BPRMF: matrix factorisation trained to rank what a user had above what the user had not.

Paper: Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from
Implicit Feedback", UAI 2009, section 4.3.1.

Kept: triples (u, i, j) of a user, an item that the user had and one drawn uniformly from the
others; the loss -log sigmoid(x_ui - x_uj) with x_ui = <user vector, item vector>.
Changed: a step takes all triples of a batch of users, not one, and is AdamW's, whose weight decay
stands for the regulariser. The paper ranks for the users it was trained on; others are folded in.

Shapes: B users, n items, D dimensions, P distinct pairs of a user and an item, M negatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.checkpoint import checkpoint

from recsys import ranks
from recsys.batch.bounds import check_tensor
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.nn import losses, negatives
from recsys.nn.embedding import EmbeddingTable
from recsys.nn.row_adam import RowAdamW
from recsys.precision import wide
from recsys.ranges import at_least
from recsys.scoring.kinds import Separable, VectorScorer
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split
from recsys.types import ItemVectors, UserVectors

VALUES_AT_ONCE = 2**26
"""Of the vectors of pairs."""


class BPRMF(VectorScorer, Separable):
    """A vector for each user and item; a score is their inner product.

    A user without training events, known to the log or not, is folded in: the mean vector of the
    history's items less that of all items, which is the direction of the loss's first gradient step
    from zero; without a history, the mean vector of the users that were trained.

    Args:
        num_items: n.
        num_users: users of the log, with training events or without.
        embedding_dim: D.
        num_negatives: M, drawn anew for each pair in each epoch.
        sparse: whether a step changes, and decays, only the vectors that its batch asks for, by
            `RowAdamW`.
        learning_rate, weight_decay: of AdamW.
    """

    uses_every_weight = True
    trained: Tensor

    def __init__(
        self,
        num_items: int,
        num_users: int,
        *,
        embedding_dim: int = 64,
        num_negatives: int = 1,
        sparse: bool = False,
        learning_rate: float = 0.02,
        weight_decay: float = 0.5,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        at_least(1, num_items=num_items, num_users=num_users)
        at_least(1, embedding_dim=embedding_dim, num_negatives=num_negatives)
        self.num_negatives = num_negatives
        self.items = EmbeddingTable(num_items, embedding_dim, sparse=sparse)
        self.users = EmbeddingTable(num_users, embedding_dim, sparse=sparse)
        self.register_buffer("trained", torch.zeros(num_users, dtype=torch.bool))

    def prepare(self, split: Split) -> Part:
        """All distinct training items of a user are positives."""
        history = split.training
        self.trained[history.users] = True
        self.trained = split.total(self.trained.long()) > 0
        return Part("train", history, history.ragged.distinct(split.num_items))

    def loss(self, part: Part, progress: Progress) -> Tensor:
        """BPR-Opt without its regulariser, a mean over the pairs and their negatives."""
        positives = part.target
        negative_items = negatives.uniform(positives, self.items.num_embeddings, self.num_negatives)
        users = self.users(part.history.users)
        pairs = positives.owners(), positives.values, negative_items
        step = max(VALUES_AT_ONCE // (self.num_negatives * users.shape[1]), 1)
        if len(negative_items) <= step:
            return ranks.mean(self._pair_losses(users, *pairs))
        # Users of many items: their vectors are gathered some pairs at a time, and again for the
        # gradient.
        pieces = zip(*(tensor.split(step) for tensor in pairs), strict=True)
        sums = [checkpoint(self._sum_of_losses, users, *p, use_reentrant=False) for p in pieces]
        mean = torch.stack(sums).sum() / negative_items.numel()
        return ranks.weighed(mean, negative_items.numel())

    def num_terms(self, part: Part) -> int:
        return len(part.target.values)

    def _sum_of_losses(self, *pairs: Tensor) -> Tensor:
        return self._pair_losses(*pairs).sum()

    def _pair_losses(
        self, users: Tensor, owners: Tensor, positives: Tensor, negative_items: Tensor
    ) -> Tensor:
        """(P, M), of users (B, D) and each pair's user (P,), item (P,) and negatives (P, M)."""
        user = wide(users)[owners].unsqueeze(1)
        positive_scores = (user * self.items(positives).unsqueeze(1)).sum(-1)
        negative_scores = (user * self.items(negative_items)).sum(-1)
        return losses.bpr(positive_scores, negative_scores)

    def optimizer(self, num_steps: int) -> Any:
        kind = RowAdamW if self.items.sparse else AdamW
        return kind(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("trained", self.trained, torch.bool, self.users.num_embeddings)

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        is_trained = (batch.users >= 0) & self.trained[batch.users]
        vectors = wide(self.users(batch.users.clamp(min=0)))
        return torch.where(is_trained[:, None], vectors, self.fold_in(batch))

    def fold_in(self, batch: BasketBatch) -> UserVectors:
        """(B, D) from the histories alone."""
        items, users = wide(self.items.weight), wide(self.users.vectors)
        mean = nn.functional.embedding_bag(batch.items, items, batch.offsets[:-1])
        step = mean - items[:-1].mean(0)
        empty = batch.lengths() == 0
        return torch.where(empty[:, None], users[self.trained].mean(0), step)

    def encode_items(self) -> ItemVectors:
        """(n, D), the table itself."""
        return self.items.vectors
