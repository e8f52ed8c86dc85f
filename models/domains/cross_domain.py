"""CrossDomain: a user's events in several domains, read as a whole and one domain at a time.

Papers: Park et al., "Cracking the Code of Negative Transfer" (CGRec), CIKM 2023, arXiv 2311.13188;
Park et al., "Pacer and Runner" (SyNCRec), SIGIR 2024, arXiv 2407.11245.

Kept: SyNCRec's two passes, over the events of all domains and over those of a single one, by one
causal Transformer; experts of each domain beside what all share, here a residual of low rank;
CGRec's coarse head before the fine one, here the domain and then the item in it; weights of the
domains in the loss, which both papers change while training goes on: `DomainWeighting`, passed in.
Changed: the losses are softmaxes, of the whole reading over all items and of a domain's own over
its items, not pairwise ones against a drawn item; which domain is asked about is known when its
items are ranked, so its own reading ranks them, and the whole one, which trains the same items and
the same encoder, adds a little; the weighting measures on held-out training users every so many
steps, not in every step on the batch that is trained on; vectors of domains, gates, detached halves
and the mutual information are left out. The encoder is that of `SASRec`: of one domain both
readings are the same, and the model is `SASRec`.
Beyond the papers: who is new to a domain gets, beside what newcomers have learnt to get, what was
popular in it when the user was last seen elsewhere.

A score is log P(domain) + log P(item | domain): the whole reading says which domain is next, and
over everything a score is a probability. A user without a history gets popularity.

Shapes: B users, E events, n items, d domains, D dimensions, Q pairs of a user and a domain. A
suffix gives those of a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.batch.bounds import check_index, check_tensor
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of, ranges
from recsys.models.domains._columns import domain_of_item, num_domains
from recsys.models.domains._weightings import DomainWeighting, MeasuredWeighting, Uniform
from recsys.models.sequences.sasrec import CausalEncoder, Encoder
from recsys.nn import losses
from recsys.nn.embedding import EmbeddingTable
from recsys.precision import wide
from recsys.ranges import at_least, share
from recsys.scoring.recommender import Progress, Recommender
from recsys.tasks.splits import Split
from recsys.types import Scores

NUM_PERIODS = 16
"""Of equally many events, in which popularity is counted."""
PERIODS_AROUND = 2.0
"""Standard deviation of the weights of the periods around one."""


@dataclass(frozen=True)
class Readings:
    """How much the reading of a whole history counts, beside that of one domain's events.

    Attributes:
        whole_in_loss: its share of the loss.
        whole_in_score: its share of the scores within a domain.
        rank: of what each domain's own expert adds to a state; 0 adds nothing.

    Raises:
        ConfigError: an option is out of its range.
    """

    whole_in_loss: float = 0.25
    whole_in_score: float = 0.1
    rank: int = 0

    def __post_init__(self) -> None:
        share(whole_in_loss=self.whole_in_loss, whole_in_score=self.whole_in_score)
        at_least(0, rank=self.rank)


class CrossDomain(Recommender):
    """Reads a history twice: all of it, and the events of the domain that is asked about.

    Args:
        num_items: n.
        num_classes: how many values each column of the items takes.
        column: of the items, whose values are the domains.
        embedding_dim: D.
        encoder: sizes of the Transformer.
        readings: what each counts.
        weighting: of the domains in the loss.
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: no such column, or an option is out of its range.

    >>> model = CrossDomain(4, num_classes={"shop": 2}, column="shop", embedding_dim=8).eval()
    >>> model.score(BasketBatch.from_lists([[[0], [2]], []], num_items=4)).shape
    torch.Size([2, 4])
    """

    domain_of_item: Tensor
    period_starts: Tensor
    log_popularity: Tensor
    domain_weights: Tensor
    domain_values: Tensor

    def __init__(
        self,
        num_items: int,
        *,
        num_classes: Mapping[str, int],
        column: str = "department",
        embedding_dim: int = 64,
        encoder: Encoder = Encoder(),
        readings: Readings = Readings(),
        weighting: DomainWeighting = Uniform(),
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        at_least(1, num_items=num_items, embedding_dim=embedding_dim)
        count = num_domains(num_classes, column)
        self.column = column
        self.max_length = encoder.max_length
        self.readings = readings
        self.weighting = weighting
        self.items = EmbeddingTable(num_items, embedding_dim)
        self.encoder = CausalEncoder(embedding_dim, encoder)
        self.newcomers = nn.Parameter(torch.zeros(count, embedding_dim))
        self.experts = nn.ModuleList(
            expert(embedding_dim, readings.rank) for _ in range(count if readings.rank else 0)
        )
        self.register_buffer("domain_of_item", torch.zeros(num_items, dtype=torch.int64))
        self.register_buffer("period_starts", torch.zeros(NUM_PERIODS - 1, dtype=torch.int64))
        self.register_buffer("log_popularity", torch.zeros(NUM_PERIODS, num_items))
        self.register_buffer("domain_weights", torch.ones(count))
        self.register_buffer("domain_values", torch.zeros(count))
        self.held_out: Part | None = None

    @property
    def num_domains(self) -> int:
        """How many there are."""
        return len(self.newcomers)

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("domain_of_item", self.domain_of_item, torch.int64, histories.num_items)
        check_index("domain_of_item", self.domain_of_item, self.num_domains)
        check_tensor("period_starts", self.period_starts, torch.int64, NUM_PERIODS - 1)
        if len(histories.times) and bool((self.period_starts != 0).any()):
            first, last = histories.times.aminmax()
            if bool((self.period_starts < first).any() | (self.period_starts > last).any()):
                raise ValueError("period_starts lies outside of the times of the histories")
        dtype = self.newcomers.dtype
        check_tensor("log_popularity", self.log_popularity, dtype, NUM_PERIODS, histories.num_items)
        for name in ("domain_weights", "domain_values"):
            check_tensor(name, getattr(self, name), dtype, self.num_domains)

    def prepare(self, split: Split) -> Part:
        """Training users with at least two events; of these the last max_length + 1.

        Those whom the weighting measures on are left out.

        Raises:
            DataError: an item has no domain.
        """
        self.domain_of_item.copy_(domain_of_item(split, self.column))
        history = split.training
        self._keep_popularity_by_period(history)
        lengths = history.lengths()
        (users,) = (lengths > 1).nonzero(as_tuple=True)
        if isinstance(self.weighting, MeasuredWeighting):
            users = self._hold_out(users, history)
        lengths = lengths[users].clamp(max=self.max_length + 1)
        events, offsets = ranges(history.offsets[1:][users] - lengths, lengths)
        history = history.take(events, offsets, history.users[users])
        counts = torch.bincount(self.domain_of_item[history.items], minlength=self.num_domains)
        self.domain_weights.copy_(self.weighting.start(counts.float()))
        return Part("train", history, history.ragged)

    def _keep_popularity_by_period(self, history: BasketBatch) -> None:
        """Of periods of equally many events: events of an item then, and a tenth of all of them."""
        at = torch.arange(1, NUM_PERIODS) * len(history.times) // NUM_PERIODS
        self.period_starts.copy_(history.times.sort().values[at])
        counts = torch.zeros_like(self.log_popularity, dtype=torch.float32)
        places = (self._period_of(history.times), history.items)
        counts.index_put_(places, torch.ones(len(history.items)), accumulate=True)
        number = torch.arange(NUM_PERIODS)
        weights = (-0.5 * ((number[:, None] - number) / PERIODS_AROUND) ** 2).exp()
        self.log_popularity.copy_((weights @ counts + 0.1 * counts.sum(0) + 0.1).log())

    def _period_of(self, times: Tensor) -> Tensor:
        return torch.searchsorted(self.period_starts, times, right=True)

    def _hold_out(self, users: Tensor, history: BasketBatch) -> Tensor:
        """Set some users aside, each with the last event as the target; returns the others."""
        assert isinstance(self.weighting, MeasuredWeighting)
        number = min(self.weighting.num_held_out, len(users) // 10)
        order = torch.randperm(len(users), generator=torch.Generator().manual_seed(0))
        rows = users[order[:number].sort().values]
        last = history.offsets[1:][rows] - 1
        lengths = (history.lengths()[rows] - 1).clamp(max=self.max_length)
        events, offsets = ranges(last - lengths, lengths)
        before = history.take(events, offsets, history.users[rows])
        ones = torch.arange(number + 1)
        self.held_out = Part("held out", before, Ragged(history.items[last], ones))
        return users[order[number:].sort().values]

    def loss(self, part: Part, progress: Progress) -> Tensor:
        """A mean over all events but each user's first, weighted by the domain of the event."""
        if self.training and isinstance(self.weighting, MeasuredWeighting):
            self._measure(self.weighting, progress)
        sequences = part.history.ragged
        is_last = torch.zeros_like(sequences.values, dtype=torch.bool)
        is_last[sequences.offsets[1:] - 1] = True
        offsets = sequences.offsets - torch.arange(len(sequences) + 1, device=is_last.device)
        histories = Ragged(sequences.values[~is_last], offsets)
        targets_E = sequences.values[1:][~is_last[:-1]]
        whole_ED = self.encoder(self.items.vectors, histories)
        domains_E = self.domain_of_item[targets_E]
        own_ED = self._own_states(histories, histories.owners(), places_in(histories), domains_E)
        counts_d = torch.bincount(domains_E, minlength=self.num_domains)
        weights_d = self.domain_weights / (self.domain_weights * counts_d).sum()
        means_d = self._means(whole_ED, own_ED, targets_E)
        return (means_d * (counts_d * weights_d).to(means_d)).sum()

    def _means(self, whole_ED: Tensor, own_ED: Tensor, targets_E: Tensor) -> Tensor:
        """(d,): the mean loss of both readings for the targets of each domain, 0 of none."""
        domains_E = self.domain_of_item[targets_E]
        means_d = []
        for domain in range(self.num_domains):
            (rows,) = (domains_E == domain).nonzero(as_tuple=True)
            if not len(rows):
                means_d.append(wide(whole_ED[:0]).sum())
                continue
            targets = targets_E[rows]
            whole = losses.linear_cross_entropy(whole_ED[rows], self.items.vectors, targets)
            own = whole  # of one domain
            if self.num_domains > 1:
                items, vectors = self._items_of(domain)
                states, places = (
                    self._adapted(own_ED[rows], domain),
                    torch.searchsorted(items, targets),
                )
                own = losses.linear_cross_entropy(states, vectors, places)
            means_d.append(own.lerp(whole, self.readings.whole_in_loss))
        return torch.stack(means_d)

    def _items_of(self, domain: int) -> tuple[Tensor, Tensor]:
        """The items of a domain, ascending, and their vectors."""
        (items,) = (self.domain_of_item == domain).nonzero(as_tuple=True)
        # An item's gradient is a sum over all its uses.
        return items, F.embedding(items, wide(self.items.vectors)).to(self.items.vectors.dtype)

    def _adapted(self, states: Tensor, domain: int) -> Tensor:
        """(E, D): with what the domain's expert adds."""
        return states + self.experts[domain](states) if len(self.experts) else states

    def _own_states(
        self, histories: Ragged, users_Q: Tensor, places_Q: Tensor, domains_Q: Tensor
    ) -> Tensor:
        """(Q, D): of a user the state after the events of a domain up to and with a place.

        Who has none up to there has the state of the domain's newcomers.
        """
        newcomers_QD = F.embedding(domains_Q, wide(self.newcomers)).to(self.newcomers.dtype)
        if self.num_domains == 1 or not len(histories.values):
            return newcomers_QD
        group_E = histories.owners() * self.num_domains + self.domain_of_item[histories.values]
        order_E = group_E.argsort(stable=True)
        group_E, place_E = group_E[order_E], places_in(histories)[order_E]
        sequences = Ragged(
            histories.values[order_E], offsets_of(group_E.unique_consecutive(return_counts=True)[1])
        )
        states_ED = self.encoder(self.items.vectors, sequences)
        group_Q = users_Q * self.num_domains + domains_Q
        width = self.max_length + 1
        at_Q = torch.searchsorted(group_E * width + place_E, group_Q * width + places_Q, right=True)
        at_Q = (at_Q - 1).clamp(min=0)
        is_newcomer = (group_E[at_Q] != group_Q) | (place_E[at_Q] > places_Q)
        states_QD = F.embedding(at_Q, wide(states_ED)).to(states_ED.dtype)
        return torch.where(is_newcomer[:, None], newcomers_QD, states_QD)

    @torch.no_grad()
    def _measure(self, weighting: MeasuredWeighting, progress: Progress) -> None:
        """Take new weights, where it is time to."""
        if progress.step % weighting.every or not self.held_out:
            return
        self.eval()
        values = weighting.measure(self._losses_with, self.num_domains).to(self.domain_values)
        self.train()
        self.domain_values.lerp_(values, 1 - weighting.momentum)
        self.domain_weights.copy_(weighting.weights(self.domain_values))

    def _losses_with(self, kept: Tensor) -> Tensor:
        """(d,): as `Losses` of a weighting, for histories with the events of some domains alone."""
        assert self.held_out is not None
        part = self.held_out.to(self.domain_of_item.device)
        is_kept = kept.to(self.domain_of_item.device)[self.domain_of_item[part.history.items]]
        targets_B = part.target.values
        domains_B = self.domain_of_item[targets_B]
        history = part.history.where(is_kept)
        whole_BD, own_BdD = self._last_states(history)
        losses_d = torch.full((self.num_domains,), torch.nan)
        for domain in domains_B.unique().tolist():
            (rows,) = (domains_B == domain).nonzero(as_tuple=True)
            items, logits = self._logits(whole_BD[rows], own_BdD[rows, domain], domain)
            places_of = torch.searchsorted(items, targets_B[rows])
            losses_d[domain] = F.cross_entropy(logits, places_of).float()
        return losses_d

    def _last_states(self, batch: BasketBatch) -> tuple[Tensor, Tensor]:
        """(B, D) after the last event, zeros for a user without any; (B, d, D) of each domain."""
        histories = batch.ragged.last(self.max_length)
        (rows,) = (histories.lengths > 0).nonzero(as_tuple=True)
        whole_BD = self.items.vectors.new_zeros(len(batch), self.items.vectors.shape[1])
        if len(rows):
            states_ED = self.encoder(self.items.vectors, histories)
            whole_BD[rows] = states_ED[histories.offsets[1:][rows] - 1]
        if self.num_domains == 1:
            return whole_BD, whole_BD[:, None]
        users = torch.arange(len(batch), device=whole_BD.device)
        domains = torch.arange(self.num_domains, device=whole_BD.device)
        pairs = torch.cartesian_prod(users, domains)
        at_the_end = torch.full_like(pairs[:, 0], self.max_length)
        own_QD = self._own_states(histories, pairs[:, 0], at_the_end, pairs[:, 1])
        return whole_BD, own_QD.view(len(batch), self.num_domains, -1)

    def _logits(self, whole_BD: Tensor, own_BD: Tensor, domain: int) -> tuple[Tensor, Tensor]:
        """The items of a domain, and their logits by both readings."""
        items, vectors = self._items_of(domain)
        of_whole = self.readings.whole_in_score
        states = of_whole * whole_BD.double()
        states = states + (1 - of_whole) * self._adapted(own_BD, domain).double()
        # In double precision, so that the order of a product's sums does not show.
        return items, states @ vectors.double().T

    def score(self, batch: BasketBatch) -> Scores:
        """(B, n): log-probabilities; zeros for a user without a history."""
        whole_BD, own_BdD = self._last_states(batch)
        scores_Bn = whole_BD.double() @ self.items.vectors.double().T
        log_total_B1 = scores_Bn.logsumexp(1, keepdim=True)
        for domain in range(self.num_domains):
            items, logits = self._logits(whole_BD, own_BdD[:, domain], domain)
            rows = self._newcomers(batch, domain)
            last_seen = batch.times[batch.offsets[1:][rows] - 1]
            logits[rows] += self.log_popularity[self._period_of(last_seen)][:, items].double()
            log_domain_B1 = scores_Bn[:, items].logsumexp(1, keepdim=True) - log_total_B1
            scores_Bn[:, items] = logits.log_softmax(1) + log_domain_B1
        scores_Bn[batch.lengths() == 0] = 0
        return scores_Bn.to(wide(whole_BD).dtype)

    def _newcomers(self, batch: BasketBatch, domain: int) -> Tensor:
        """The rows of those who have a history, but none in a domain."""
        is_there = self.domain_of_item[batch.items] == domain
        count = torch.zeros_like(batch.users).index_add_(0, batch.owners(), is_there.long())
        return ((count == 0) & (batch.lengths() > 0)).nonzero(as_tuple=True)[0]


def places_in(rows: Ragged) -> Tensor:
    """(E,) int64, the place of each value in its row, from 0."""
    numbers = torch.arange(len(rows.values), device=rows.values.device)
    return numbers - rows.offsets[:-1][rows.owners()]


def expert(dim: int, rank: int) -> nn.Sequential:
    """(E, D) to (E, D), zeros before training."""
    up = nn.Linear(rank, dim, bias=False)
    nn.init.zeros_(up.weight)
    return nn.Sequential(nn.Linear(dim, rank, bias=False), up)
