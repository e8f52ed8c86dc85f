"""SASRec: the next item from causal self-attention over a user's items.

Paper: Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018.

Kept: an item table that is input and output, learned positions, causal blocks
x + Dropout(f(LayerNorm(x))) of attention and a point-wise feed-forward layer of the same width, a
last layer normalisation, and every position of a training sequence predicting the item after it in
one pass. The paper's loss, binary cross-entropy against items drawn outside the user's sequence, is
`softmax=False, num_negatives=1`.
Changed: the default loss is the softmax over the catalogue. Positions count from the start of the
sequence, not from its end: a state then depends on nothing that comes after it, so that the states
which training sees are those that a user is asked with. Heads are joined by a linear layer, as has
become usual. Dropout is that of the embeddings and of each f, not of the attention weights.
Beyond the paper: a vector of an item's text beside that of its id, or in its place; a learnt weight
of what a history holds. A user without a history has a vector of zeros and gets popularity.

Users are not padded to one length: a batch is its events, one after the other, and only attention,
which has to lay them out, does so in groups of users of about one length.

Shapes: B users, E events, n items, K drawn items, D dimensions, T of the text. A suffix gives those
of a tensor: `states_ED` is (E, D).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self, cast, runtime_checkable

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from recsys import ranks
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, beginnings, ranges
from recsys.batch.sparse import right_singular_vectors
from recsys.errors import ConfigError
from recsys.models.neighbours.text_tfidf import item_texts, tfidf
from recsys.models.sequences._padded import PaddedRows, Rectangle
from recsys.nn import losses, negatives
from recsys.nn.attention import Layout
from recsys.nn.buffers import Memo
from recsys.nn.embedding import EmbeddingTable
from recsys.nn.repeats import RepeatWeight
from recsys.nn.row_adam import RowAdamW
from recsys.precision import wide
from recsys.ranges import at_least, heads, proper_share
from recsys.scoring.kinds import LogProbabilities, Portable, RepeatAware, Separable
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split
from recsys.types import ItemVectors, UserVectors

ITEMS_AT_ONCE = 2**13
"""Whose texts become vectors."""
NUM_GROUPS = 8
"""Of users of about one length, which attention lays out side by side."""


@dataclass(frozen=True)
class Encoder:
    """Sizes of the Transformer.

    Attributes:
        num_layers, num_heads: of the blocks.
        max_length: positions; of a longer history the last events count.
        dropout: of the embeddings, the attention's outputs and the feed-forward layers.

    Raises:
        ConfigError: an option is out of its range.
    """

    num_layers: int = 2
    num_heads: int = 1
    max_length: int = 50
    dropout: float = 0.2

    def __post_init__(self) -> None:
        at_least(0, num_layers=self.num_layers)
        at_least(1, max_length=self.max_length)
        proper_share(dropout=self.dropout)


@dataclass(frozen=True)
class Ranking:
    """The loss.

    Attributes:
        softmax: cross-entropy over the catalogue; otherwise binary cross-entropy.
        num_negatives: items drawn for the loss: with softmax, for all positions of a batch
            together, each standing for its share of the catalogue; without, for each position
            by itself. None: all, which softmax alone can do.
        repeats: learn a weight, below 0, that the items of a history get.

    Raises:
        ConfigError: no sampled negatives without softmax; a weight of repeats with sampled ones.
    """

    softmax: bool = True
    num_negatives: int | None = None
    repeats: bool = False

    def __post_init__(self) -> None:
        if self.repeats and self.num_negatives is not None:
            raise ConfigError(
                f"ranking.repeats=true with num_negatives={self.num_negatives}; needs null, all"
            )
        if self.num_negatives is None and not self.softmax:
            raise ConfigError("softmax=false needs num_negatives; set it, 1 as in the paper")

    def check(self, num_items: int) -> None:
        """See that a catalogue has as many items as are to be drawn.

        Raises:
            ConfigError: it has fewer, or none is to be drawn.
        """
        if self.num_negatives is not None and not 1 <= self.num_negatives <= num_items:
            raise ConfigError(
                f"num_negatives={self.num_negatives}; expected 1 .. {num_items}, the size of the "
                "catalogue, or null for all"
            )


class SASRec(RepeatAware, LogProbabilities, Portable, Separable):
    """Encodes a history to the state after its last item; a score is its product with an item.

    Args:
        num_items: n.
        embedding_dim: D, of items, positions and states.
        encoder: sizes.
        ranking: the loss.
        text: how the items' texts become vectors; None reads no text.
        use_id: whether items have a learned vector of their own.
        shard: whether ranks that train together divide the table of these by rows.
        sparse: whether a step changes only those of these that its batch and its drawn items ask
            for, by `RowAdamW`.
        learning_rate, weight_decay: of AdamW.
        id_weight_decay: of the ids' vectors, where it is another. Beside texts, which say what
            items have in common, a large one keeps ids to what they alone tell.

    Raises:
        ConfigError: neither text nor id, `num_heads` that do not divide `embedding_dim`, a loss or
            vectors that need the whole table, or an option is out of its range.

    >>> model = SASRec(4, embedding_dim=8).eval()
    >>> histories = BasketBatch.from_lists([[[0], [2]], []], num_items=4)
    >>> model.encode_users(histories).shape, model.score(histories).shape
    (torch.Size([2, 8]), torch.Size([2, 4]))
    """

    uses_every_weight = True

    def __init__(
        self,
        num_items: int,
        *,
        embedding_dim: int = 64,
        encoder: Encoder = Encoder(),
        ranking: Ranking = Ranking(),
        text: TextVectors | None = None,
        use_id: bool = True,
        shard: bool = False,
        sparse: bool = False,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        id_weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        self.id_weight_decay = weight_decay if id_weight_decay is None else id_weight_decay
        at_least(1, num_items=num_items, embedding_dim=embedding_dim)
        at_least(0, id_weight_decay=id_weight_decay)
        ranking.check(num_items)
        self.max_length = encoder.max_length
        self.ranking = ranking
        self.repeats = RepeatWeight() if ranking.repeats else None
        if shard and (text is not None or not ranking.softmax or ranking.repeats):
            raise ConfigError(
                "shard=true divides the vectors of ids under a softmax; set text=null, "
                "ranking.softmax=true and ranking.repeats=false"
            )
        if sparse and (text is not None or ranking.num_negatives is None or shard):
            raise ConfigError(
                "sparse=true steps the rows that a batch asks for; set ranking.num_negatives, "
                "text=null and shard=false"
            )
        self.items = ItemVectorTable(
            num_items, embedding_dim, text=text, use_id=use_id, shard=shard, sparse=sparse
        )
        self.encoder = CausalEncoder(embedding_dim, encoder)
        self._item_vectors: Memo[Tensor] = Memo()

    def prepare(self, split: Split) -> Part:
        """Training users with at least two events; of these the last max_length + 1."""
        self.items.read_texts(split)
        history = split.training
        lengths = history.lengths()
        (users,) = (lengths > 1).nonzero(as_tuple=True)
        lengths = lengths[users].clamp(max=self.max_length + 1)
        events, offsets = ranges(history.offsets[1:][users] - lengths, lengths)
        history = history.take(events, offsets, history.users[users])
        return Part("train", history, history.ragged)

    def loss(self, part: Part, progress: Progress) -> Tensor:
        """A mean over all events but each user's first."""
        sequences = part.history.ragged
        is_last = torch.zeros_like(sequences.values, dtype=torch.bool)
        is_last[sequences.offsets[1:] - 1] = True
        offsets = sequences.offsets - torch.arange(len(sequences) + 1, device=is_last.device)
        inputs = Ragged(sequences.values[~is_last], offsets)
        targets_E = sequences.values[1:][~is_last[:-1]]
        ids = self.items.id
        if ids is not None and (ids.is_divided or ids.sparse):
            return self._loss_of_rows(ids, inputs, targets_E, sequences)
        items_nD = self.items()
        states_ED = self.compared(self.encoder(items_nD, inputs))
        items_nD = self.compared(items_nD)
        if self.repeats is not None:
            scores_En = self.repeats(wide(states_ED) @ wide(items_nD).T, beginnings(inputs))
            return ranks.mean(F.cross_entropy(scores_En, targets_E, reduction="none"))
        if self.ranking.num_negatives is None:
            mean = losses.linear_cross_entropy(states_ED, items_nD, targets_E)
            return ranks.weighed(mean, len(targets_E))
        vectors_of = partial(F.embedding, weight=wide(items_nD))
        return ranks.mean(self._sampled(states_ED, vectors_of, inputs, targets_E, sequences))

    def _divided_table(self) -> EmbeddingTable | None:
        """The items' vectors, where ranks divide them: then they have no others."""
        table = self.items.id
        return table if table is not None and table.is_divided else None

    def num_terms(self, part: Part) -> int:
        return len(part.history.items) - len(part)

    def _loss_of_rows(
        self, items: EmbeddingTable, inputs: Ragged, targets_E: Tensor, sequences: Ragged
    ) -> Tensor:
        """The losses of `loss`, of which none reads all items in one place."""
        states_ED = self.encoder(items, inputs)
        if self.ranking.num_negatives is None:
            return items.cross_entropy(states_ED, targets_E)
        return ranks.mean(self._sampled(states_ED, items, inputs, targets_E, sequences))

    def _sampled(
        self,
        states_ED: Tensor,
        vectors_of: Callable[[Tensor], Tensor],
        inputs: Ragged,
        targets_E: Tensor,
        sequences: Ragged,
    ) -> Tensor:
        """(E,) of the drawn items, whose vectors `vectors_of` gives."""
        if self.ranking.softmax:
            return self._sampled_softmax(states_ED, vectors_of, targets_E)
        return self._sampled_bce(states_ED, vectors_of, targets_E, sequences, inputs.owners())

    def _sampled_softmax(
        self, states_ED: Tensor, vectors_of: Callable[[Tensor], Tensor], targets_E: Tensor
    ) -> Tensor:
        """(E,), from states (E, D), what gives items' vectors, and targets (E,)."""
        num_items = self.items.num_items
        negatives_K = torch.randperm(num_items, device=targets_E.device)
        negatives_K = ranks.of_first(negatives_K[: self.ranking.num_negatives])
        states_ED = wide(states_ED)
        scores_EK = states_ED @ vectors_of(negatives_K).T
        scores_EK = scores_EK.masked_fill(targets_E[:, None] == negatives_K, -torch.inf)
        positive_E = (states_ED * vectors_of(targets_E)).sum(1)
        return losses.sampled_softmax(positive_E, scores_EK, num_items)

    def _sampled_bce(
        self,
        states_ED: Tensor,
        vectors_of: Callable[[Tensor], Tensor],
        targets_E: Tensor,
        sequences: Ragged,
        owners_E: Tensor,
    ) -> Tensor:
        """(E,), with negatives outside of the sequence that owns a target (section III-E)."""
        states_ED, num_items = wide(states_ED), self.items.num_items
        user_items = sequences.distinct(num_items)
        num_negatives = cast(int, self.ranking.num_negatives)
        negatives_EK = negatives.uniform(user_items, num_items, num_negatives, rows=owners_E)
        positive_E = (states_ED * vectors_of(targets_E)).sum(1)
        none_EK = negatives_EK == num_items  # of a user who had every item
        negative_EKD = vectors_of(negatives_EK.masked_fill(none_EK, 0))
        negative_EK = (negative_EKD @ states_ED[:, :, None]).squeeze(2)
        negative_EK = negative_EK.masked_fill(none_EK, -torch.inf)
        return losses.binary_cross_entropy(positive_E, negative_EK)

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        """(B, D): the state after the last event, and zeros for a user without any."""
        histories, table = batch.ragged.last(self.max_length), self._divided_table()
        items = self._scored_items() if table is None else table.own_vectors
        (rows,) = (histories.lengths > 0).nonzero(as_tuple=True)
        vectors = items.new_zeros(len(batch), items.shape[1])
        states = self.encoder(items if table is None else table, histories)
        vectors[rows] = self.compared(states[histories.offsets[1:][rows] - 1])
        return vectors

    def encode_items(self) -> ItemVectors:
        return self.compared(self._scored_items())

    def encode_items_by_rank(self) -> ItemVectors:
        return self.compared(self._scored_items(by_rank=True))

    def _scored_items(self, *, by_rank: bool = False) -> ItemVectors:
        """(n, D): those of texts, where nothing is learnt, once until a parameter changes."""
        if self.items.from_text is None or self.training or torch.is_grad_enabled():
            return self.items()
        compute = partial(self.items.in_blocks, by_rank=by_rank)
        return self._item_vectors.get(compute, self.items, by_rank=by_rank)

    def train(self, mode: bool = True) -> Self:
        """Training mode forgets the vectors of the items, which training may change."""
        if mode:
            self._item_vectors.clear()
        return super().train(mode)

    def own_items(self) -> ItemVectors | None:
        table = self._divided_table()
        return None if table is None else self.compared(table.own_vectors)

    def compared(self, vectors: Tensor) -> Tensor:
        """(N, D): states or items as their inner products are taken, here as they are."""
        return vectors

    def portable(self) -> nn.Module:
        """Its scores of padded rows.

        Raises:
            ConfigError: ranks divide its items.
        """
        if self._divided_table() is not None:
            raise ConfigError("the items are divided among ranks; export the saved model")
        repeats = None if self.repeats is None else self.repeats.value.detach()
        return PaddedRows(
            self._scored_items().detach(),
            self.encode_items().detach(),
            self.encoder,
            self.compared,
            repeats,
        )

    def refuse_no_softmax(self) -> None:
        if not self.ranking.softmax:
            raise ConfigError("softmax=false gives no probabilities; train with softmax=true")

    def optimizer(self, num_steps: int) -> Optimizer:
        ids = [] if self.items.id is None else list(self.items.id.parameters())
        others = [p for p in self.parameters() if all(p is not of_id for of_id in ids)]
        groups = [
            {"params": others, "weight_decay": self.weight_decay},
            {"params": ids, "weight_decay": self.id_weight_decay},
        ]
        is_sparse = self.items.id is not None and self.items.id.sparse
        kind = RowAdamW if is_sparse else AdamW
        return kind(groups, lr=self.learning_rate, fused=True)


@runtime_checkable
class TextVectors(Protocol):
    """Texts as vectors: `SingularVectors`, `SideBySide`, `recsys.nn.SentenceVectors`."""

    @property
    def dim(self) -> int:
        """T."""
        ...

    def read(self, texts: pl.Series) -> Tensor:
        """(n, T), zeros for a text that is null."""
        ...


@dataclass(frozen=True)
class SingularVectors:
    """TF-IDF rows projected on their leading singular vectors, which is to say on what varies most.

    Attributes:
        dim: T.

    Raises:
        ConfigError: it is not positive.
    """

    dim: int = 256

    def __post_init__(self) -> None:
        at_least(1, dim=self.dim)

    def read(self, texts: pl.Series) -> Tensor:
        """(n, T). Raises ConfigError where the texts span fewer dimensions."""
        return leading_vectors(texts, self.dim)


@dataclass(frozen=True)
class SideBySide:
    """Several vectors of a text as one.

    Attributes:
        parts: by name, in the order in which they stand.
    """

    parts: Mapping[str, TextVectors]

    @property
    def dim(self) -> int:
        return sum(part.dim for part in self.parts.values())

    def read(self, texts: pl.Series) -> Tensor:
        """(n, T)."""
        return torch.cat([part.read(texts) for part in self.parts.values()], dim=1)


class ItemVectorTable(nn.Module):
    """A vector per item: of its id, of its text, or the sum of both.

    That of the text is a linear map of what `text` reads; items without text have zeros there.

    Args:
        num_items: n.
        embedding_dim: D.
        text: how texts become vectors, or None without text.
        use_id: whether there is a vector of the id.
        shard, sparse: of the table of these.

    Raises:
        ConfigError: neither.
    """

    text: Tensor

    def __init__(
        self,
        num_items: int,
        embedding_dim: int,
        *,
        text: TextVectors | None,
        use_id: bool,
        shard: bool = False,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.num_items = num_items
        if text is None and not use_id:
            raise ConfigError("use_id=false and text=null leave items without a vector")
        self.id = None
        if use_id:
            self.id = EmbeddingTable(num_items, embedding_dim, shard=shard, sparse=sparse)
        self.reader = text
        self.from_text: nn.Module | None = None
        if text is not None:
            self.from_text = nn.Linear(text.dim, embedding_dim, bias=False)
            self.register_buffer("text", torch.zeros(num_items, text.dim))

    def read_texts(self, split: Split) -> None:
        """Take the texts of a log, where there is a vector of text.

        Raises:
            ConfigError: `text` cannot read them.
            DataError: items have no text.
        """
        if self.reader is not None:
            self.text.copy_(self.reader.read(item_texts(split)))

    def forward(self) -> ItemVectors:
        """(n, D)."""
        if self.from_text is None:
            assert self.id is not None
            return self.id.vectors
        return self._with_text(slice(None))

    def in_blocks(self, *, by_rank: bool = False) -> ItemVectors:
        """The same with texts, a block of items at a time; by rank each makes some of them."""
        starts = torch.arange(0, self.num_items, ITEMS_AT_ONCE)
        own = (ranks.own(starts) if by_rank else starts).tolist()
        blocks = [slice(0), *(slice(start, start + ITEMS_AT_ONCE) for start in own)]
        vectors = torch.cat([self._with_text(block) for block in blocks])
        return ranks.gather(vectors) if by_rank else vectors

    def _with_text(self, rows: slice) -> ItemVectors:
        assert self.from_text is not None
        text = self.text[rows].to(next(self.from_text.parameters()).dtype)
        from_text = self.from_text(text)
        return from_text if self.id is None else self.id.vectors[rows] + from_text


def leading_vectors(texts: pl.Series, dim: int) -> Tensor:
    """(n, dim): TF-IDF rows projected on their leading right singular vectors.

    Raises:
        ConfigError: the texts span fewer dimensions.
    """
    rows = tfidf(texts)
    if dim > min(rows.shape):
        raise ConfigError(
            f"dim={dim}; {rows.shape[0]} texts of {rows.shape[1]} words that any two share "
            f"span {min(rows.shape)} dimensions at most; lower it"
        )
    directions, _ = right_singular_vectors(rows, dim)
    return torch.from_numpy((rows @ directions).astype(np.float32))


class CausalEncoder(nn.Module):
    """States of sequences of items, each a function of the items up to it.

    Args:
        embedding_dim: D.
        sizes: of the rest.

    Raises:
        ConfigError: `num_heads` does not divide `embedding_dim`.
    """

    def __init__(self, embedding_dim: int, sizes: Encoder) -> None:
        super().__init__()
        heads(num_heads=sizes.num_heads, embedding_dim=embedding_dim)
        self.positions = nn.Embedding(sizes.max_length, embedding_dim)
        self.dropout = Dropout(sizes.dropout)
        self.blocks = nn.ModuleList(
            Block(embedding_dim, sizes.num_heads, sizes.dropout) for _ in range(sizes.num_layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, items: ItemVectors | EmbeddingTable, sequences: Ragged) -> Tensor:
        """(E, D): a state after each event.

        Args:
            items: (n, D), or the table of them.
            sequences: B rows of at most `max_length` item indices, E in all.
        """
        layout = Layout.of(sequences, NUM_GROUPS)
        if isinstance(items, EmbeddingTable):
            x = items(sequences.values)
        else:  # an item's gradient is a sum over all its events
            x = F.embedding(sequences.values, wide(items)).to(items.dtype)
        x = x * x.shape[1] ** 0.5
        x = self.dropout(x + self.positions(layout.position))
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)


class Dropout(nn.Dropout):
    """`nn.Dropout` with a mask that a processor draws several times faster."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.p) or x.device.type != "cpu":
            return super().forward(x)
        keep_rate = 1 - self.p
        return x * torch.rand_like(x).lt_(keep_rate).div_(keep_rate)


class Block(nn.Module):
    """Attention and a feed-forward layer, each on a normalised input and added to it.

    Section III-B of the paper.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.projections = nn.Linear(dim, 3 * dim)
        self.joint = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), Dropout(dropout), nn.Linear(dim, dim)
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout | Rectangle) -> Tensor:
        """(E, D) to (E, D)."""
        queries_keys_values = self.projections(self.attention_norm(x))
        context = layout.attention(queries_keys_values, self.num_heads, causal=True)
        x = x + self.dropout(self.joint(context))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
