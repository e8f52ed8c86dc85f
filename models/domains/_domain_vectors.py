"""A user as a vector in each domain, mapped to one latent vector and from there to any domain.

A vector is the sum of the vectors of the items that a user had in the domain, weighted by the
logarithm of their counts, at length 1 and then in units of one per dimension. What is decoded for a
domain gives, by inner products with the same vectors, a softmax over the domain's items. A model is
trained on every domain of every user twice over: from the user's own vector there, and from the
mean latent vector of the user's other domains, as it is asked for where a user is new to a domain.

The score of an item is log P(domain) + log P(item | domain). How a user divides events among
domains is counted, and no part of the latent vector.

Shapes: B users, n items, d domains, D dimensions of a vector, Z of the latent vector, R rows, each
a user in a domain with a history there. A suffix gives those of a tensor.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor, nn

from recsys.batch.bounds import check_index, check_tensor
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.sparse import right_singular_vectors
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.models.domains._columns import domain_of_item, num_domains
from recsys.nn.embedding import EmbeddingTable
from recsys.precision import wide
from recsys.ranges import at_least, proper_share
from recsys.scoring.kinds import Measured
from recsys.scoring.recommender import Progress, Recommender
from recsys.tasks.domains import having_targets_in
from recsys.tasks.splits import Split
from recsys.types import Scores

PRIOR_EVENTS = 0.1
"""Events that every user is taken to have had beside the real ones, divided as all events are."""


WITHIN = "within/ndcg@10"
"""Of the targets of a user in a domain, among the items of that domain; a mean over all of these.
With `task=first_in_domain` it is what is to be known of users who are new to a domain."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Users in the domains where they have a history.

    Attributes:
        users, domains: (R,) int64, whose vectors they are, and where.
        points: (R, D), the vectors.
        shares: (B, n), of each item in what a user had in the item's domain.
        weights: (R,), what a row counts among its user's.
    """

    users: Tensor
    domains: Tensor
    points: Tensor
    shares: Tensor
    weights: Tensor


class DomainVectors(Recommender, Measured):
    """What `EncGAN` and `ConditionalAutoencoder` have in common; the map is theirs.

    Args:
        num_items: n.
        num_classes: how many values each column of the items takes.
        column: of the items, whose values are the domains.
        embedding_dim: D.
        latent_dim: Z.
        dropout: share of a user's items that is dropped in training.
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: no such column, or an option is out of its range.
    """

    domain_of_item: Tensor
    domain_shares: Tensor
    measures = (WITHIN,)

    def __init__(
        self,
        num_items: int,
        *,
        num_classes: Mapping[str, int],
        column: str,
        embedding_dim: int,
        latent_dim: int,
        dropout: float,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        at_least(1, num_items=num_items, embedding_dim=embedding_dim, latent_dim=latent_dim)
        proper_share(dropout=dropout)
        self.column = column
        self.num_domains = num_domains(num_classes, column)
        self.latent_dim = latent_dim
        self.items = EmbeddingTable(num_items, embedding_dim, std=embedding_dim**-0.5)
        self.item_bias = nn.Parameter(torch.zeros(num_items))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("domain_of_item", torch.zeros(num_items, dtype=torch.int64))
        self.register_buffer("domain_shares", torch.ones(self.num_domains) / self.num_domains)

    @abstractmethod
    def encode(self, points: Tensor, domains: Tensor) -> Tensor:
        """(R, Z), of vectors (R, D) in domains (R,)."""

    @abstractmethod
    def decode(self, latents: Tensor, domains: Tensor) -> Tensor:
        """(R, D), of latent vectors (R, Z), in domains (R,)."""

    def regularise(self, points: Tensor, domains: Tensor) -> Tensor:
        """What is added to the likelihood, of the rows of a batch."""
        return wide(points).new_zeros(())

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("domain_of_item", self.domain_of_item, torch.int64, histories.num_items)
        check_index("domain_of_item", self.domain_of_item, self.num_domains)
        check_tensor("domain_shares", self.domain_shares, torch.float32, self.num_domains)

    def prepare(self, split: Split) -> Part:
        """All training users; the bias of an item starts at the logarithm of its events.

        Raises:
            DataError: an item has no domain.
        """
        self.domain_of_item.copy_(domain_of_item(split, self.column))
        history = split.training
        events = torch.bincount(history.items, minlength=split.num_items)
        counts = torch.zeros(self.num_domains).index_add_(0, self.domain_of_item, events.float())
        self.domain_shares.copy_(counts / counts.sum())
        with torch.no_grad():
            self.item_bias.copy_((events + 0.5).log())
            start = singular_vectors(history, self.items.embedding_dim)
            self.items.weight[: split.num_items, : start.shape[1]] = start.to(self.items.weight)
        return Part("train", history, history.ragged)

    def loss(self, part: Part, progress: Progress) -> Tensor:
        """A mean over the rows of a batch, from the row itself and from the user's others."""
        rows = self.rows_of(part.history)
        latents = self.encode(rows.points, rows.domains)
        others = self._of_others(latents, rows, len(part))
        total = self.regularise(rows.points, rows.domains)
        for latents_of_rows in (latents, others):
            vectors = self.decode(latents_of_rows, rows.domains)
            total = total + self._cross_entropy(vectors, rows) / 2
        return total

    def rows_of(self, history: BasketBatch) -> Rows:
        """The rows of B users."""
        counts_Bn = history.counts().log1p()
        sums_Bd = self._by_domain(counts_Bn)
        squares_Bd = self._by_domain(counts_Bn.square())
        users, domains = (sums_Bd > 0).nonzero(as_tuple=True)
        weights_Bn = self.dropout(
            counts_Bn / squares_Bd.sqrt()[:, self.domain_of_item].clamp(min=1e-6)
        )
        vectors = self.items.vectors
        points = []
        for domain in range(self.num_domains):
            (items,) = (self.domain_of_item == domain).nonzero(as_tuple=True)
            points.append(weights_Bn[:, items].to(vectors.dtype) @ vectors[items])
        points_BdD = torch.stack(points, dim=1) * vectors.shape[1] ** 0.5
        shares_Bn = counts_Bn / sums_Bd[:, self.domain_of_item].clamp(min=1e-6)
        weights = sums_Bd[users, domains].log1p()
        return Rows(users, domains, points_BdD[users, domains], shares_Bn, weights)

    def _by_domain(self, values_Bn: Tensor) -> Tensor:
        """(B, d): the sum over the items of each domain."""
        total = values_Bn.new_zeros(len(values_Bn), self.num_domains)
        return total.index_add_(1, self.domain_of_item, values_Bn)

    def _sums(self, latents: Tensor, rows: Rows, num_users: int) -> tuple[Tensor, Tensor]:
        """Weighted sums (B, Z) of the latent vectors of each user's rows, and of weights (B, 1)."""
        weights = rows.weights[:, None]
        weighted = wide(latents) * weights
        total = weighted.new_zeros(num_users, self.latent_dim).index_add_(0, rows.users, weighted)
        count = weights.new_zeros(num_users, 1).index_add_(0, rows.users, weights)
        return total, count

    def _of_others(self, latents: Tensor, rows: Rows, num_users: int) -> Tensor:
        """(R, Z): the mean of the user's other rows; of a user who has no other, the row's own."""
        total, count = self._sums(latents, rows, num_users)
        weights = rows.weights[:, None]
        left = count[rows.users] - weights
        mean = (total[rows.users] - wide(latents) * weights) / left.clamp(min=1e-6)
        is_alone = torch.bincount(rows.users, minlength=num_users)[rows.users] == 1
        return torch.where(is_alone[:, None], wide(latents), mean).to(latents.dtype)

    def _cross_entropy(self, vectors: Tensor, rows: Rows) -> Tensor:
        """The mean over rows, of vectors (R, D)."""
        total = wide(vectors).new_zeros(())
        for domain in range(self.num_domains):
            (items,) = (self.domain_of_item == domain).nonzero(as_tuple=True)
            (places,) = (rows.domains == domain).nonzero(as_tuple=True)
            shares = rows.shares[rows.users[places]][:, items]
            total = total - (shares * self._log_softmax(vectors[places], items)).sum()
        return total / max(len(vectors), 1)

    def _log_softmax(self, vectors: Tensor, items: Tensor) -> Tensor:
        """(R, items): log-probabilities among some items."""
        table = wide(F.embedding(items, self.items.vectors))
        logits = wide(vectors) @ table.T / table.shape[1] ** 0.5
        return (logits + wide(self.item_bias)[items]).log_softmax(1)

    def measure(self, split: Split, phase: int) -> dict[str, float]:
        """`WITHIN`."""
        part = (split.train, split.validation, split.test)[phase]
        protocol = Protocol(ks=(min(10, split.num_items),))
        total, count = 0.0, 0
        for domain in range(self.num_domains):
            is_theirs = (self.domain_of_item == domain).cpu()
            of_domain = having_targets_in(part, is_theirs)
            if len(of_domain):
                per_user = evaluate(self, of_domain, protocol, candidates=is_theirs).per_user
                total += float(per_user[f"ndcg@{protocol.ks[0]}"].sum())
                count += len(per_user)
        return {WITHIN: total / max(count, 1)}

    def latents_of(self, batch: BasketBatch) -> Tensor:
        """(B, Z): the mean over a user's domains; 0 without a history."""
        rows = self.rows_of(batch)
        total, count = self._sums(self.encode(rows.points, rows.domains), rows, len(batch))
        return (total / count.clamp(min=1e-6)).to(self.items.weight.dtype)

    def events_by_domain(self, batch: BasketBatch) -> Tensor:
        """(B, d): how many each user has."""
        return self._by_domain(batch.counts())

    def log_shares_of(self, batch: BasketBatch) -> Tensor:
        """(B, d): the logarithm of the share of each domain in a user's events."""
        events = self.events_by_domain(batch) + PRIOR_EVENTS * self.domain_shares
        return (events / events.sum(1, keepdim=True)).clamp(min=1e-9).log()

    def within_domains(self, latents: Tensor) -> Tensor:
        """(B, n): log P(item | domain), of latent vectors (B, Z)."""
        scores_Bn = wide(latents).new_zeros(len(latents), len(self.domain_of_item))
        for domain in range(self.num_domains):
            (items,) = (self.domain_of_item == domain).nonzero(as_tuple=True)
            domains = torch.full_like(latents[:, 0], domain, dtype=torch.int64)
            scores_Bn[:, items] = self._log_softmax(self.decode(latents, domains), items)
        return scores_Bn

    def score(self, batch: BasketBatch) -> Scores:
        """(B, n): log-probabilities; zeros for a user without a history."""
        scores = self.within_domains(self.latents_of(batch))
        scores = scores + self.log_shares_of(batch)[:, self.domain_of_item]
        return scores.masked_fill((batch.lengths() == 0)[:, None], 0.0)


def singular_vectors(history: BasketBatch, dim: int) -> Tensor:
    """(n, at most D): right singular vectors of the logarithms of counts, users at length 1.

    Each at length 1: the bias of an item says how popular it is.
    """
    keys = history.owners() * history.num_items + history.items
    cells, counts = keys.unique(return_counts=True)
    users, items = cells // history.num_items, cells % history.num_items
    values = counts.double().log1p()
    lengths = values.new_zeros(len(history)).index_add_(0, users, values.square()).sqrt()
    shape = (len(history), history.num_items)
    cells = ((values / lengths[users]).numpy(), (users.numpy(), items.numpy()))
    vectors, scales = right_singular_vectors(csr_array(cells, shape=shape), min(dim, *shape))
    return F.normalize(torch.from_numpy(vectors * np.sqrt(scales)).float(), dim=1)
