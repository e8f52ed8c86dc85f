"""GLOIE: the next basket from global and local embeddings of items.

Paper: Jung et al., "Global-Local Item Embedding for Temporal Set Prediction", RecSys 2021 (arXiv
2109.02074).

Kept: global embeddings from a variational autoencoder of all users' decayed counts with a Tweedie
likelihood, local embeddings from a dynamic graph of one user's baskets, an attention that joins the
two, and one item table under all three.
Ours, because only the abstract could be read: the formulas of the join, the sizes and the joint
loss. The global embedding of user u and item i is the decoder's hidden vector times the item's row,
g_ui = h_u * W_i, whose sum is the autoencoder's logit without its bias. The local embedding l_ui is
that of DNNTSP, gated with the item's own row. Where the history holds i, and only there is a local
embedding, the two are joined:

    a_k = softmax_k(q^T tanh(K e_k + c)),  e_k in {g_ui, l_ui}       attention
    s_ui = w^T (a_g g_ui + a_l l_ui) + b_i                          score

and elsewhere s_ui = w^T g_ui + b_i, which is all that a user without a history gets. The loss is a
ranking loss of the next basket plus the autoencoder's negative evidence lower bound of the history.
Beyond the paper, each an option: what training users who are alike take, with a gate that says how
much it counts for a user; a scorer of personal frequency and recency, to which an item may respond
in its own way; a ranking loss for the order of the best nDCG@k; training on more than the last
basket of a user; and a bias that starts at the popularity of the latest baskets.

Shapes: B users, n items, U training users, E events, N nodes (a user's distinct items), D
dimensions, F features, K decays or localities. A suffix gives those of a tensor: `scores_Bn` is
(B, n).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys import ranks
from recsys.batch.bounds import check_tensor
from recsys.batch.examples import Part, Prefixes
from recsys.batch.graphs import NodeBatch
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.evaluation.metrics import ideal_dcg
from recsys.models.factors.count_vae import CountVAE
from recsys.models.graphs.dynamic_graph import (
    MAX_EVENTS,
    DynamicGraph,
    Timelines,
    check_max_events,
    in_pieces,
    say_who_is_cut,
)
from recsys.models.neighbours._neighbours import TrainingUsers
from recsys.models.neighbours.up_cf import asymmetric_cosine, recent_share
from recsys.nn.distributions import OutputHead
from recsys.nn.embedding import EmbeddingTable
from recsys.nn.losses import multilabel_soft_margin, softmax_cross_entropy
from recsys.precision import wide
from recsys.ranges import above, at_least, share
from recsys.scoring.kinds import Divisible
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split
from recsys.types import Scores, UserVectors

UNSEEN = 0.3  # targets that an item without any is taken to have


@dataclass(frozen=True)
class Autoencoder:
    """The global embeddings, see `CountVAE`.

    Attributes:
        head: the likelihood of the counts.
        latent_dim, decay, dropout, kl_weight, kl_steps: as there.
        elbo_weight: of its loss beside the ranking loss.

    Raises:
        ConfigError: `elbo_weight` is out of its range.
    """

    head: OutputHead
    latent_dim: int = 32
    decay: float = 0.9
    dropout: float = 0.5
    kl_weight: float = 0.2
    kl_steps: int = 1000
    elbo_weight: float = 0.003

    def __post_init__(self) -> None:
        at_least(0, elbo_weight=self.elbo_weight)


@dataclass(frozen=True)
class Graph:
    """The local embeddings, see `DNNTSP`.

    Attributes:
        num_layers, num_heads: as there.
        max_events: of a longer history the latest are read; the work grows with their square.

    Raises:
        ConfigError: `max_events` is out of its range.
    """

    num_layers: int = 2
    num_heads: int = 4
    max_events: int = MAX_EVENTS

    def __post_init__(self) -> None:
        check_max_events(self.max_events)


@dataclass(frozen=True)
class Join:
    """Which embeddings there are, and what makes one of two.

    Attributes:
        use_global, use_local: without the global one, an item scores by its row of the table and
            the autoencoder is not trained.
        attention: joins the two; otherwise their mean does.

    Raises:
        ConfigError: neither is used.
    """

    use_global: bool = True
    use_local: bool = True
    attention: bool = True

    def __post_init__(self) -> None:
        if not (self.use_global or self.use_local):
            raise ConfigError("use_global=false and use_local=false leave no embedding; use one")


@dataclass(frozen=True)
class Frequency:
    """What `PersonalFrequency` adds to the score of an item of the history.

    Attributes:
        personal: whether it does.
        calendar: gives it the days between the baskets too; None: where the log has dates.
        item_dim: of each item's own response to the inputs: milk is bought again within the week,
            a lamp is not; 0: all items respond alike.

    Raises:
        ConfigError: `calendar` or `item_dim` without `personal`, or `item_dim` out of its range.
    """

    personal: bool = False
    calendar: bool | None = False
    item_dim: int = 0

    def __post_init__(self) -> None:
        at_least(0, item_dim=self.item_dim)
        more = {
            "calendar=true": (self.calendar, "calendar=false"),
            f"item_dim={self.item_dim}": (self.item_dim, "item_dim=0"),
        }
        for option, (is_set, without) in more.items():
            if is_set and not self.personal:
                raise ConfigError(
                    f"{option} adds to personal=true, which is false; set that, or {without}"
                )


@dataclass(frozen=True)
class Alike:
    """What training users who are alike take, see `AlikeUsers`.

    Attributes:
        localities: the powers of the similarity at which they are asked, each a piece of evidence
            of its own; none: they are not.
        asymmetry: of the similarity, as of `UPCF`.
        gate: whether the weights of the evidence are learnt for each user; otherwise for all alike.

    Raises:
        ConfigError: an option is out of its range.
    """

    localities: Sequence[int | float] = ()
    asymmetry: float = 0.5
    gate: bool = True

    def __post_init__(self) -> None:
        for locality in self.localities:
            above(0, localities=locality)
        share(asymmetry=self.asymmetry)


@dataclass(frozen=True)
class Ranking:
    """The ranking loss, and the baskets that are its targets.

    Attributes:
        softmax: the softmax cross-entropy of the targets, and not the multi-label soft margin.
        ndcg_at: k; each target weighs 1 / IDCG@k of its basket, what a hit at the first place adds
            to nDCG@k. The order of the scores is then the one of the highest expected nDCG@k
            (Ravikumar et al., "On NDCG Consistency of Listwise Ranking Methods", AISTATS 2011).
            Personal frequency reads frequencies with these weights, too. None: every basket has the
            same weight.
        num_targets: so many of a training user's last baskets, each as the target of those before
            it; None: all but the first.
        latest_popularity: the bias starts at the share of training users whose last basket holds an
            item, not at the share of all baskets that do.

    Raises:
        ConfigError: `ndcg_at`, `num_targets` or `num_examples` is out of its range, or `ndcg_at`
            without `softmax`.
    """

    softmax: bool = False
    ndcg_at: int | None = None
    num_targets: int | None = 1
    num_examples: int | None = None
    latest_popularity: bool = False

    def __post_init__(self) -> None:
        at_least(
            1, ndcg_at=self.ndcg_at, num_targets=self.num_targets, num_examples=self.num_examples
        )
        if self.ndcg_at is not None and not self.softmax:
            raise ConfigError(
                f"ndcg_at={self.ndcg_at} weighs the targets of softmax=true, which is false; set "
                "that, or ndcg_at=null"
            )

    def targets_of(self, users: BasketBatch) -> int | None:
        """How many of each training user's last baskets are targets; None: all."""
        if self.num_examples is None:
            return self.num_targets
        targets = users.num_baskets() - 1
        for last in range(1, int(targets.max()) + 1):
            if targets.clamp(max=last).sum() >= self.num_examples:
                return last
        return None


class GLOIE(Divisible):
    """Scores an item by what all users' baskets say of it, and what the user's own do.

    Args:
        num_items: n.
        autoencoder, graph: of the global and the local embeddings.
        embedding_dim: D, of the item table, the autoencoder's hidden layers and the graph.
        join: of the two.
        ranking: the loss beside the autoencoder's.
        alike: what training users who are alike take.
        frequency: a scorer of personal frequency and recency.
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: an option is out of its range.
        DataError: a batch would take more memory than there is.
    """

    def __init__(
        self,
        num_items: int,
        *,
        autoencoder: Autoencoder,
        embedding_dim: int = 64,
        graph: Graph = Graph(),
        join: Join = Join(),
        ranking: Ranking = Ranking(),
        alike: Alike = Alike(),
        frequency: Frequency = Frequency(),
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        self.vae = CountVAE(
            num_items,
            head=autoencoder.head,
            embedding_dim=embedding_dim,
            latent_dim=autoencoder.latent_dim,
            decay=autoencoder.decay,
            dropout=autoencoder.dropout,
            kl_weight=autoencoder.kl_weight,
            kl_steps=autoencoder.kl_steps,
        )
        self.elbo_weight = autoencoder.elbo_weight
        self.max_events = graph.max_events
        self.use_global = self.uses_every_weight = join.use_global
        self.ranking = ranking
        self.ndcg_at = ranking.ndcg_at and min(ranking.ndcg_at, num_items)
        layers = DynamicGraph(embedding_dim, num_layers=graph.num_layers, num_heads=graph.num_heads)
        self.local = LocalEmbedding(num_items, layers) if join.use_local else None
        joined = join.attention and join.use_global and join.use_local
        self.attention = EmbeddingAttention(embedding_dim) if joined else None
        self.output = nn.Parameter(torch.ones(embedding_dim))
        self.bias = nn.Parameter(torch.zeros(num_items))
        self.alike = AlikeUsers(alike) if alike.localities else None
        self.calendar = frequency.calendar
        self.personal = (
            PersonalFrequency(
                num_items,
                calendar=frequency.calendar is not False,
                ndcg_at=self.ndcg_at,
                num_more=len(alike.localities),
                item_dim=frequency.item_dim,
            )
            if frequency.personal
            else None
        )

    def prepare(self, split: Split) -> Part:
        """The autoencoder's bias and ours start at mean counts; graphs are counted once.

        Raises:
            ConfigError: `calendar` on a log that knows only an order.
        """
        if self.calendar and not split.log.has_calendar_time:
            raise ConfigError(f"calendar=true: {split.log.name} has no dates; set calendar=false")
        self.vae.prepare(split)
        latest = split.train.target
        items, baskets = (
            (latest.values, len(latest))
            if self.ranking.latest_popularity
            else (split.training.items, int(split.training.num_baskets().sum()))
        )
        counts = torch.bincount(items, minlength=split.num_items).clamp(min=UNSEEN)
        with torch.no_grad():
            self.bias.copy_((counts / baskets).log())
        say_who_is_cut(split.training, self.max_events, type(self).__name__)
        nodes = NodeBatch.of(split.train.history.latest(self.max_events))
        if self.alike is not None:
            self.alike.remember_users(split, nodes)
        if self.personal is not None:
            self.personal.standardise(nodes, has_dates=split.log.has_calendar_time)
        if (last := self.ranking.targets_of(split.training)) != 1:
            most = self.max_events
            return Prefixes.of("train", split.training, last=last, max_events=most)
        return Part("train", self._graphs(nodes), latest)

    def cells_per_user(self, num_items: int) -> int:
        """As many as there are pieces of evidence for items, or training users to be alike."""
        if self.alike is None:
            return num_items
        return max(num_items * len(self.alike.localities), len(self.alike.users))

    def loss(self, part: Part, progress: Progress) -> Tensor:
        if not self.use_global:
            return ranks.mean(self._ranking_loss(self._score(part.history, None), part.target))
        hidden, evidence = self.vae.reconstruct(part.history, progress)
        ranking = self._ranking_loss(self._score(part.history, hidden), part.target)
        return ranks.mean(ranking + self.elbo_weight * evidence)

    def _ranking_loss(self, scores_Bn: Scores, targets: Ragged) -> Tensor:
        """(B,)."""
        if not self.ranking.softmax:
            return multilabel_soft_margin(scores_Bn, targets)
        loss_B = softmax_cross_entropy(scores_Bn, targets)
        if self.ndcg_at is None:
            return loss_B
        return loss_B * targets.lengths * _gains(targets.lengths, self.ndcg_at)

    def score(self, batch: BasketBatch) -> Scores:
        batches = in_pieces(batch.latest(self.max_events), self.vae.items.embedding_dim)
        hidden = self.vae.hidden if self.use_global else lambda _: None
        return torch.cat([self._score(nodes, hidden(some)) for some, nodes in batches])

    def _score(self, batch: BasketBatch, hidden_BD: UserVectors | None) -> Scores:
        """(B, n), from the decoder's hidden vectors (B, D) where there are global embeddings."""
        graphs = self._graphs(batch)
        users_N, items_N = graphs.node_owners(), graphs.node_items
        rows_ND, table_nD, embeddings = self.vae.items(items_N), wide(self.vae.items.vectors), []
        if hidden_BD is None:
            scores_Bn = (table_nD @ wide(self.output) + self.bias).repeat(len(batch), 1)
        else:
            scores_Bn = wide(hidden_BD * self.output) @ table_nD.T + self.bias
            embeddings.append(hidden_BD[users_N] * rows_ND)
        if self.local is not None:
            embeddings.append(self.local(self.vae.items, graphs))
        node_scores_N = wide(self._join(torch.stack(embeddings, 1))) @ wide(self.output)
        node_scores_N = node_scores_N + wide(self.bias)[items_N]
        more = []
        if self.alike is not None:
            evidence_KBn = self.alike.evidence(batch)
            alike_Bn = self.alike.weighted(evidence_KBn, graphs)
            scores_Bn = scores_Bn + alike_Bn
            node_scores_N = node_scores_N + alike_Bn[users_N, items_N]
            more = list(evidence_KBn[:, users_N, items_N])
        if self.personal is not None:
            node_scores_N = node_scores_N + self.personal(graphs, node_scores_N, more)
        return scores_Bn.index_put((users_N, items_N), node_scores_N)

    def _graphs(self, batch: BasketBatch) -> NodeBatch:
        """The nodes of histories, with their graphs where something looks at these."""
        return NodeBatch.of(batch) if self.local is None else Timelines.of(batch)

    def _join(self, embeddings: Tensor) -> Tensor:
        """(N, 1 or 2, D) to (N, D)."""
        return embeddings.mean(1) if self.attention is None else self.attention(embeddings)


class LocalEmbedding(nn.Module):
    """A node's vector from the user's dynamic graph, gated with the item's own (DNNTSP, eq. 7).

    Args:
        num_items: n.
        graph: of the same dimension as the item table.
    """

    def __init__(self, num_items: int, graph: DynamicGraph) -> None:
        super().__init__()
        self.graph = graph
        self.gate = nn.Parameter(torch.rand(num_items))

    def forward(self, items: EmbeddingTable, graphs: Timelines) -> Tensor:
        """(N, D)."""
        gate = wide(self.gate)[graphs.node_items, None]
        rows = items(graphs.node_items)
        return torch.lerp(wide(rows), self.graph(items, graphs), gate).to(rows.dtype)


class EmbeddingAttention(nn.Module):
    """A weighted mean of a node's embeddings, with weights that they have themselves."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, 1, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(N, K, D) to (N, D)."""
        weights = self.query(torch.tanh(self.key(embeddings))).softmax(1)
        return (weights * embeddings).sum(1)


class AlikeUsers(TrainingUsers):
    """What training users who are alike take, beyond what all do, and how much it counts.

    UP-CF's neighbours at several localities q_k, each a piece of evidence for an item:

        s_kui = sum over training users v of w(u, v)^q_k (share of v's baskets that hold i)
        e_kui = log((1 - L) s_kui / sum over j of s_kuj + L p_i) - log p_i

    with p the popularity of the latest baskets and L `LEAST`, so that who is like nobody has
    evidence 0 everywhere. A training user is no neighbour of itself: no evidence of its later
    baskets reaches its own examples. To the score is added sum over k of g_k(u) e_kui, where the
    gate g is a perceptron of how many baskets and items the user has had and how much it repeats.
    """

    LEAST = 0.05
    NUM_FEATURES = 4

    share: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, options: Alike, hidden_dim: int = 16) -> None:
        super().__init__()
        self.localities = options.localities
        self.asymmetry = options.asymmetry
        num_pieces = len(options.localities)
        self.weight = nn.Parameter(torch.full((num_pieces,), 1 / num_pieces))
        self.register_buffer("mean", torch.zeros(self.NUM_FEATURES))
        self.register_buffer("std", torch.ones(self.NUM_FEATURES))
        self.gate = None
        if options.gate:
            last = nn.Linear(hidden_dim, num_pieces)
            nn.init.zeros_(last.weight)  # it begins as no gate
            nn.init.zeros_(last.bias)
            self.gate = nn.Sequential(nn.Linear(self.NUM_FEATURES, hidden_dim), nn.ReLU(), last)

    def remember_users(self, split: Split, nodes: NodeBatch) -> None:
        """Keep what training users hold; `nodes` are of their histories."""
        longest = int(split.training.num_baskets().max())
        self.remember(split.training, recent_share(split.training, longest))
        counts = torch.bincount(split.train.target.values, minlength=split.num_items)
        counts = counts.clamp(min=UNSEEN)
        self.keep("share", counts / counts.sum())
        _copy_moments(self, self.features(nodes))

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("share", self.share, torch.float32, histories.num_items)
        for name in ("mean", "std"):
            check_tensor(name, getattr(self, name), torch.float32, self.NUM_FEATURES)

    @torch.no_grad()
    def evidence(self, batch: BasketBatch) -> Tensor:
        """(K, B, n)."""
        similarity_BU = asymmetric_cosine(self, batch, self.asymmetry)
        *others, last = self.localities
        # A second (B, U) for the last would take as long again.
        taken = [
            self.mix(similarity_BU if q == 1 else _raise(similarity_BU.clone(), q)) for q in others
        ]
        taken.append(self.mix(_raise(similarity_BU, last)))
        taken_KBn = torch.stack(taken)
        total_KB1 = taken_KBn.sum(2, keepdim=True)
        scale_n = (1 - self.LEAST) / self.LEAST / wide(self.share)
        evidence_KBn = taken_KBn.div_(total_KB1).mul_(scale_n).log1p_().add_(math.log(self.LEAST))
        return evidence_KBn.masked_fill_(total_KB1 == 0, 0)

    def weighted(self, evidence_KBn: Tensor, nodes: NodeBatch) -> Tensor:
        """(B, n): the evidence by the gates of its users."""
        gates_KB1 = self.gates(nodes).T.unsqueeze(2)
        return (evidence_KBn.to(gates_KB1.dtype) * gates_KB1).sum(0)

    def gates(self, nodes: NodeBatch) -> Tensor:
        """(B, K): what each piece of evidence weighs for each user."""
        weight = wide(self.weight)
        if self.gate is None:
            return weight.expand(len(nodes), -1)
        features = (self.features(nodes) - self.mean) / self.std
        return weight + wide(self.gate(features.to(next(self.gate.parameters()).dtype)))

    def features(self, nodes: NodeBatch) -> Tensor:
        """(B, 4): logs of baskets, items a basket, distinct items; the share of distinct ones."""
        baskets = nodes.num_baskets().float().clamp(min=1)
        events = nodes.lengths().float().clamp(min=1)
        distinct = nodes.node_offsets.diff().float().clamp(min=1)
        return torch.stack(
            [baskets.log(), (events / baskets).log(), distinct.log(), distinct / events], 1
        )


class PersonalFrequency(nn.Module):
    """What the times at which a user had an item say of its next time.

    A perceptron of: the log of the item's decayed frequency, for several decays; how many baskets
    ago it was had last, and that relative to the mean gap between its baskets; the user's number
    of baskets, their mean size and the share of distinct items; and the score that it adds to.
    What it says of an item is the same for all items with these inputs x, but for v_i^T tanh(A x),
    the item's own response, where items have vectors v_i.

    Args:
        num_items: n.
        calendar: the log of its frequency decayed by days, and the days since the last, too; in a
            log without dates all days are 0.
        ndcg_at: k; for each decay also the frequency in which a basket counts 1 / IDCG@k of its
            size, which of a basket that `latest` cut is what is left; None: without these.
        num_more: further inputs, in deviations already.
        item_dim: of the items' vectors v_i; 0: without.
        hidden_dim: of the perceptron's two hidden layers.
        dropout: after the first.
    """

    DECAYS = (0.3, 0.6, 0.8, 0.9, 0.97, 1.0)  # a basket
    DAYS = (7.0, 30.0, 90.0)  # after which an event weighs 1/e

    mean: Tensor
    std: Tensor
    days_between: Tensor

    def __init__(
        self,
        num_items: int,
        *,
        calendar: bool = False,
        ndcg_at: int | None = None,
        num_more: int = 0,
        item_dim: int = 0,
        hidden_dim: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.calendar = calendar
        self.ndcg_at = ndcg_at
        num_decays = len(self.DECAYS) * (1 if ndcg_at is None else 2)
        num_features = num_decays + 5 + calendar * (len(self.DAYS) + 1)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))
        self.register_buffer("days_between", torch.tensor(7.0))
        num_inputs = num_features + 1 + num_more
        self.perceptron = nn.Sequential(
            nn.Linear(num_inputs, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, 1),
        )
        self.response = None
        if item_dim:
            self.response = nn.Linear(num_inputs, item_dim)
            self.items = nn.Parameter(torch.randn(num_items, item_dim) / 10)

    def standardise(self, nodes: NodeBatch, *, has_dates: bool = True) -> None:
        """Features of other nodes are brought to the mean and deviation of these."""
        if not has_dates:
            self.days_between.zero_()
        elif self.calendar:
            # Days per basket, over all events: a mean that leans on long histories.
            ages = nodes.age().sum().clamp(min=1)
            self.days_between.copy_(self._days(nodes).sum() / ages)
        _copy_moments(self, self.features(nodes))

    def forward(self, nodes: NodeBatch, scores: Tensor, more: Sequence[Tensor] = ()) -> Tensor:
        """(N,), to be added to the scores (N,) of the nodes; `more` are further inputs (N,)."""
        features = (self.features(nodes) - self.mean) / self.std
        inputs = torch.cat([features, torch.stack([scores, *more], 1)], 1)
        inputs = inputs.to(next(self.perceptron.parameters()).dtype)
        added_N = self.perceptron(inputs).squeeze(1)
        if self.response is None:
            return added_N
        return added_N + (self.response(inputs).tanh() * self.items[nodes.node_items]).sum(1)

    def features(self, nodes: NodeBatch) -> Tensor:
        """(N, F)."""
        users_N, age_E = nodes.node_owners(), nodes.age().float()
        decays_K = torch.tensor(self.DECAYS, device=age_E.device)
        baskets_B = nodes.num_baskets().float()
        frequencies_NK = self._sum(nodes, decays_K ** age_E[:, None])
        latest_N, oldest_N = (self._extreme(nodes, age_E, which) for which in ("amin", "amax"))
        count_N = frequencies_NK[:, -1]
        mean_gap_N = (oldest_N - latest_N) / (count_N - 1).clamp(min=1)
        gap_N = torch.where(count_N > 1, mean_gap_N, baskets_B[users_N])
        lengths_B = nodes.lengths().clamp(min=1)
        columns = [
            *_log(frequencies_NK).T,
            (latest_N + 1).log(),
            ((latest_N + 1) / gap_N).log(),
            baskets_B[users_N].log(),
            (lengths_B / baskets_B.clamp(min=1)).log()[users_N],
            (nodes.node_offsets.diff() / lengths_B)[users_N],
        ]
        if self.ndcg_at is not None:
            baskets_E, begins = nodes.basket_rows()
            gains_E = _gains(begins.diff(), self.ndcg_at)[baskets_E]
            weights_EK = gains_E[:, None] * decays_K ** age_E[:, None]
            columns += _log(self._sum(nodes, weights_EK)).T
        if self.calendar:
            columns += self._calendar(nodes)
        return torch.stack(columns, 1)

    def _calendar(self, nodes: NodeBatch) -> list[Tensor]:
        """Columns (N,) of days before the user's last basket."""
        days = self._days(nodes)
        rates = torch.tensor(self.DAYS, device=days.device)
        frequencies = self._sum(nodes, (-days[:, None] / rates).exp())
        return [*_log(frequencies).T, self._extreme(nodes, days, "amin").log1p()]

    def _days(self, nodes: NodeBatch) -> Tensor:
        """(E,), from an event to the user's last basket; an unknown user's baskets have no dates.

        They are taken to lie as far apart as those of training users do in the mean.
        """
        owners = nodes.owners()
        now = nodes.times.new_zeros(len(nodes))
        now = now.scatter_reduce(0, owners, nodes.times, "amax", include_self=False)
        days = (now[owners] - nodes.times).float() / 86400
        has_none = (nodes.users[owners] < 0) | (self.days_between == 0)
        return torch.where(has_none, nodes.age() * self.days_between, days)

    @staticmethod
    def _sum(nodes: NodeBatch, values: Tensor) -> Tensor:
        """(N, K), of the events' (E, K)."""
        zeros = values.new_zeros(len(nodes.node_items), values.shape[1])
        return zeros.index_add(0, nodes.nodes, values)

    @staticmethod
    def _extreme(nodes: NodeBatch, values: Tensor, which: str) -> Tensor:
        """(N,), the `amin` or `amax` of the events' values (E,)."""
        zeros = values.new_zeros(len(nodes.node_items))
        return zeros.scatter_reduce(0, nodes.nodes, values, which, include_self=False)


def _copy_moments(module: AlikeUsers | PersonalFrequency, features: Tensor) -> None:
    """Hold the mean and the deviation of features (R, F) in the buffers of these names."""
    std = features.std(0, correction=0)
    module.mean.copy_(features.mean(0))
    module.std.copy_(std.where(std > 1e-3, 1.0))  # what never varied here is not blown up


def _gains(sizes: Tensor, k: int) -> Tensor:
    """(R,): 1 / IDCG@k of baskets of sizes (R,) int64; an empty one counts as one of one item."""
    of_size = 1 / ideal_dcg(torch.arange(1, k + 1), k)  # in float64, which not every device has
    return of_size.float().to(sizes.device)[sizes.clamp(1, k) - 1]


def _raise(x: Tensor, power: int | float) -> Tensor:
    """To a power, in its memory; by products where that is whole: `pow` takes six times as long."""
    if power != int(power):
        return x.pow_(power)
    for piece in x.T.split(1024):  # which stays in the cache
        factor = piece.clone()
        for bit in f"{int(power):b}"[1:]:
            piece.square_()
            if bit == "1":
                piece *= factor
    return x


def _log(frequency: Tensor) -> Tensor:
    """Of frequencies that may have decayed to nothing."""
    return frequency.clamp(min=math.exp(-6)).log()
