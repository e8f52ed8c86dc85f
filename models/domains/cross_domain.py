"""CrossDomain: one sequence of a user's events in several domains, and what each gets of it.

Papers: Park et al., "Cracking the Code of Negative Transfer" (CGRec), CIKM 2023, arXiv 2311.13188;
Park et al., "Pacer and Runner" (SyNCRec), SIGIR 2024, arXiv 2407.11245.

Kept: a causal Transformer over the events of all domains, an item being its vector and that of its
domain; CGRec's coarse head before the fine one, here the domain and then the item in it; SyNCRec's
shared and own experts behind a gate of each domain; weights of the domains in the loss, which both
papers change while training goes on: `DomainWeighting`, passed in.
Changed: the losses are softmaxes, over the domains and over the items of the target's domain, not
pairwise ones against a drawn item; the weighting measures on held-out training users every so many
steps, not in every step on the batch that is trained on; SyNCRec's separate passes with detached
halves, and its mutual information, are left out. The encoder is that of `SASRec`.

A score is log P(domain) + log P(item | domain): within a domain it ranks by the domain's own state,
and over everything it is a probability. A user without a history gets popularity.

Shapes: B users, E events, n items, d domains, D dimensions. A suffix gives those of a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.batch.bounds import check_index, check_tensor
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, ranges
from recsys.errors import ConfigError, DataError
from recsys.models.domains._weightings import DomainWeighting, MeasuredWeighting, Uniform
from recsys.models.sequences.sasrec import CausalEncoder, Dropout, Encoder
from recsys.nn import losses
from recsys.nn.embedding import EmbeddingTable
from recsys.precision import wide
from recsys.ranges import at_least
from recsys.scoring.recommender import Progress, Recommender
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of
from recsys.types import Scores


class CrossDomain(Recommender):
    """Encodes a history of all domains; each domain reads the state through experts of its own.

    Args:
        num_items: n.
        num_classes: how many values each column of the items takes.
        column: of the items, whose values are the domains.
        embedding_dim: D.
        encoder: sizes of the Transformer.
        num_shared: experts that all domains share, beside one of each.
        weighting: of the domains in the loss.
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: no such column, or an option is out of its range.

    >>> model = CrossDomain(4, num_classes={"shop": 2}, column="shop", embedding_dim=8).eval()
    >>> model.score(BasketBatch.from_lists([[[0], [2]], []], num_items=4)).shape
    torch.Size([2, 4])
    """

    domain_of_item: Tensor
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
        num_shared: int = 2,
        weighting: DomainWeighting = Uniform(),
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        at_least(1, num_items=num_items, embedding_dim=embedding_dim)
        at_least(0, num_shared=num_shared)
        if column not in num_classes:
            raise ConfigError(
                f"column={column}: items have no such column; there is "
                f"{', '.join(num_classes) or 'none'}"
            )
        num_domains = num_classes[column]
        at_least(1, **{f"num_classes.{column}": num_domains})
        self.column = column
        self.max_length = encoder.max_length
        self.weighting = weighting
        self.items = EmbeddingTable(num_items, embedding_dim)
        self.domains = nn.Embedding(num_domains, embedding_dim)
        self.encoder = CausalEncoder(embedding_dim, encoder)
        self.experts = Experts(embedding_dim, num_domains, num_shared, encoder.dropout)
        self.which_domain = nn.Linear(embedding_dim, num_domains)
        nn.init.normal_(self.domains.weight, std=0.02)
        self.register_buffer("domain_of_item", torch.zeros(num_items, dtype=torch.int64))
        self.register_buffer("domain_weights", torch.ones(num_domains))
        self.register_buffer("domain_values", torch.zeros(num_domains))
        self.held_out: Part | None = None

    @property
    def num_domains(self) -> int:
        """How many there are."""
        return self.which_domain.out_features

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("domain_of_item", self.domain_of_item, torch.int64, histories.num_items)
        check_index("domain_of_item", self.domain_of_item, self.num_domains)
        for name in ("domain_weights", "domain_values"):
            check_tensor(
                name, getattr(self, name), self.which_domain.weight.dtype, self.num_domains
            )

    def prepare(self, split: Split) -> Part:
        """Training users with at least two events; of these the last max_length + 1.

        Those whom the weighting measures on are left out.

        Raises:
            DataError: an item has no domain.
        """
        self.domain_of_item.copy_(self._read_domains(split))
        history = split.training
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

    def _read_domains(self, split: Split) -> Tensor:
        values = split.item_table[self.column].cast(pl.String)
        if values.null_count():
            raise DataError(
                f"{split.log.name}: {values.null_count()} items have no {self.column}; give each "
                "item a domain, or leave them out"
            )
        return tensor_of(values.rank("dense").cast(pl.Int64) - 1)

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
        targets_E = sequences.values[1:][~is_last[:-1]]
        states_ED = self._states(Ragged(sequences.values[~is_last], offsets))
        domains_E = self.domain_of_item[targets_E]
        means_d, counts_d = self._losses(states_ED, targets_E)
        weights_d = self.domain_weights / (self.domain_weights * counts_d).sum()
        of_items = (means_d * counts_d * weights_d.to(means_d)).sum()
        return of_items + F.cross_entropy(wide(self.which_domain(states_ED)), domains_E)

    def _states(self, sequences: Ragged) -> Tensor:
        """(E, D)."""
        items_nD = self.items.vectors
        return self.encoder(items_nD + self.domains(self.domain_of_item), sequences)

    def _losses(self, states_ED: Tensor, targets_E: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss (d,) of the targets of each domain among its items, 0 of none; counts."""
        domains_E = self.domain_of_item[targets_E]
        counts_d = torch.bincount(domains_E, minlength=self.num_domains)
        means = []
        for domain, count in enumerate(counts_d.tolist()):
            if not count:
                means.append(wide(states_ED[:0]).sum())
                continue
            (rows,), (items,) = (
                (of == domain).nonzero(as_tuple=True) for of in (domains_E, self.domain_of_item)
            )
            states = self.experts(states_ED[rows], domain)
            places = torch.searchsorted(items, targets_E[rows])
            vectors = F.embedding(items, self.items.vectors)
            means.append(losses.linear_cross_entropy(states, vectors, places))
        return torch.stack(means), counts_d

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
        states_BD = self._last_states(part.history.where(is_kept))
        means_d, counts_d = self._losses(states_BD, part.target.values)
        return means_d.masked_fill(counts_d == 0, torch.nan).float().cpu()

    def _last_states(self, batch: BasketBatch) -> Tensor:
        """(B, D): the state after the last event, and zeros for a user without any."""
        histories = batch.ragged.last(self.max_length)
        (rows,) = (histories.lengths > 0).nonzero(as_tuple=True)
        vectors = self.items.vectors.new_zeros(len(batch), self.items.vectors.shape[1])
        if len(rows):
            vectors[rows] = self._states(histories)[histories.offsets[1:][rows] - 1]
        return vectors

    def score(self, batch: BasketBatch) -> Scores:
        """(B, n): log-probabilities; zeros for a user without a history."""
        states_BD = self._last_states(batch)
        # In double precision, so that the order of a product's sums does not show.
        log_domains_Bd = self.which_domain(states_BD).double().log_softmax(1)
        scores_Bn = states_BD.new_zeros(len(batch), len(self.domain_of_item), dtype=torch.float64)
        for domain in range(self.num_domains):
            (items,) = (self.domain_of_item == domain).nonzero(as_tuple=True)
            states = self.experts(states_BD, domain).double()
            logits = states @ self.items.vectors[items].double().T
            scores_Bn[:, items] = logits.log_softmax(1) + log_domains_Bd[:, domain, None]
        scores_Bn[batch.lengths() == 0] = 0
        return scores_Bn.to(wide(states_BD).dtype)


class Experts(nn.Module):
    """States as each domain reads them: a gate of the domain over shared experts and its own.

    Args:
        dim: D.
        num_domains: d.
        num_shared: experts for all domains.
        dropout: of what experts add to a state.
    """

    def __init__(self, dim: int, num_domains: int, num_shared: int, dropout: float) -> None:
        super().__init__()
        self.shared = nn.ModuleList(expert(dim) for _ in range(num_shared))
        self.own = nn.ModuleList(expert(dim) for _ in range(num_domains))
        self.gates = nn.ModuleList(nn.Linear(dim, num_shared + 1) for _ in range(num_domains))
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, domain: int) -> Tensor:
        """(E, D) to (E, D)."""
        shares = self.gates[domain](states).softmax(1)
        outputs = [of(states) for of in (*self.shared, self.own[domain])]
        mixed = (torch.stack(outputs, dim=2) * shares[:, None]).sum(2)
        return states + self.dropout(mixed)


def expert(dim: int) -> nn.Sequential:
    """(E, D) to (E, D)."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
