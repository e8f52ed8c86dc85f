"""What only some models can do, each a class to inherit from and to ask for by `isinstance`.

A model in closed form or with a loss names its kind first: `class IALS(VectorScorer, ClosedForm)`.

Shapes: B users, R of them, n items, n_r of this rank, D dimensions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import polars as pl
import torch
from torch import Tensor, nn

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.nn.repeats import RepeatWeight
from recsys.precision import wide
from recsys.retrieval.divided import DividedIndex
from recsys.retrieval.index import ExactIndex, ItemIndex
from recsys.retrieval.lists import TopK, ordered
from recsys.scoring.parts import Parts
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split
from recsys.types import ItemVectors, Scores, UserVectors


class VectorScorer(Scorer):
    """Scores are inner products of vectors of users and items.

    Lists are searched among the vectors, so that equal vectors tie in any batch.

    >>> split = last_basket(checkerboard())
    >>> model = IALS(embedding_dim=4).fit(split)
    >>> model.encode_users(split.test.history).shape, model.encode_items().shape
    (torch.Size([60, 4]), torch.Size([40, 4]))
    >>> index = model.item_index()
    >>> model.top_k(split.test.history, k=3, index=index).items.shape
    torch.Size([60, 3])
    """

    @abstractmethod
    def encode_users(self, batch: BasketBatch) -> UserVectors:
        """(B, D)."""

    @abstractmethod
    def encode_items(self) -> ItemVectors:
        """(n, D)."""

    def score(self, batch: BasketBatch) -> Scores:
        """(B, n): the inner products."""
        users, items = self.encode_users(batch), self.encode_items()
        # In double precision, so that the order of a product's sums does not show.
        return (users.double() @ items.double().T).to(wide(users).dtype)

    def encode_items_by_rank(self) -> ItemVectors:
        """The same on all ranks, of which each may encode some. All of them have to call it."""
        return self.encode_items()

    def own_items(self) -> ItemVectors | None:
        """(n_r, D): of a table that ranks divide, those of this rank; None: it has all."""
        return None

    def item_index(
        self, build: Callable[[ItemVectors], ItemIndex] = ExactIndex, *, by_rank: bool = False
    ) -> ItemIndex:
        """The vectors of all items, or of a table that ranks divide, ready to be searched.

        Args:
            build: makes the index of vectors.
            by_rank: whether all ranks ask for it, to encode some items each.
        """
        vectors = self.own_items()
        if vectors is not None:
            return DividedIndex(self._finite(vectors, "item", terms=vectors.shape[1]), build)
        vectors = self.encode_items_by_rank() if by_rank else self.encode_items()
        return build(self._finite(vectors, "item", terms=vectors.shape[1]))

    def _best(
        self, batch: BasketBatch, k: int, exclude: Ragged | None, index: ItemIndex | None
    ) -> TopK:
        users = self.encode_users(batch)
        users = self._finite(users, "user", terms=users.shape[1])
        return (index or self.item_index()).search(users, k, exclude)

    def _silent(
        self, batch: BasketBatch, top: TopK, exclude: Ragged | None, index: ItemIndex | None
    ) -> Tensor:
        if not isinstance(index, DividedIndex):
            return super()._silent(batch, top, exclude, index)
        # No rank has all scores: the worst are searched, too, on all ranks, be it for nobody.
        rows = top.with_one_score()
        users = self.encode_users(batch.rows(rows))
        worst = index.search(-users, 1, None if exclude is None else exclude.rows(rows))
        return rows[-worst.scores[:, 0] == top.scores[rows, 0]]


class RepeatAware(VectorScorer):
    """Scores are inner products and, where there is a weight, that of what the history holds.

    Vectors by themselves do not hold the weight: who searches among them elsewhere goes without.
    """

    repeats: RepeatWeight | None

    def score(self, batch: BasketBatch) -> Scores:
        """(B, n)."""
        scores = super().score(batch)
        return scores if self.repeats is None else self.repeats(scores, batch.ragged)

    def _best(
        self, batch: BasketBatch, k: int, exclude: Ragged | None, index: ItemIndex | None
    ) -> TopK:
        if self.repeats is None:
            return super()._best(batch, k, exclude, index)
        num_items = batch.num_items
        held = batch.ragged.distinct(num_items)
        # The weight is below 0: what is not held rises by at most as many places as are held.
        longest = int(held.lengths.max()) if len(held) else 0
        best = super()._best(batch, min(k + longest, num_items), exclude, index)
        row = torch.arange(len(best.items), device=best.items.device)[:, None] * num_items
        is_held = torch.isin(best.items + row, held.values + held.owners() * num_items)
        scores = best.scores + is_held * self.repeats.value.to(best.scores.dtype)
        best = ordered(scores, best.items)
        return TopK(best.items[:, :k], best.scores[:, :k])


class LogProbabilities(Scorer):
    """Says how likely each item of the catalogue is to be next, given a history.

    Its scores are the logits of a softmax over the catalogue, on which it was trained.

    >>> split = last_basket(checkerboard())
    >>> model = SASRec(split.num_items, embedding_dim=4).eval()
    >>> model.log_probabilities(split.test.history).exp().sum(1).round(decimals=4).unique()
    tensor([1.], grad_fn=<Unique2Backward0>)
    """

    def refuse_no_softmax(self) -> None:
        """See that the model was trained to tell probabilities.

        Raises:
            ConfigError: it was trained on another loss.
        """

    def log_probabilities(self, batch: BasketBatch) -> Scores:
        """(B, n), of which a row's exponentials sum to 1; gradients go through it."""
        return wide(self.score(batch)).log_softmax(1)


class TextEncoder(VectorScorer):
    """Reads histories in words, too, of items that no log holds."""

    @abstractmethod
    def encode_texts(self, histories: Sequence[Sequence[str]]) -> UserVectors:
        """(B, D) of histories whose items are given in words, oldest first."""


class ProfileEncoder(Scorer):
    """Encodes what a user is, for tables of labels: a profile is no vector to rank items by."""

    @property
    @abstractmethod
    def trained_until(self) -> int:
        """The time of the last event that the model has learnt from, in seconds since 1970."""

    @property
    @abstractmethod
    def reads_dates(self) -> bool:
        """Whether profiles depend on when things were done, not only on their order."""

    @abstractmethod
    def read_items(self, items: pl.DataFrame) -> None:
        """Take the catalogue of another log, a row per item; later batches hold its rows."""

    @abstractmethod
    def encode_profiles(self, batch: BasketBatch) -> UserVectors:
        """(B, D): what each user is."""


class Measured(Scorer):
    """Has figures of its own beside those of its ranking.

    Attributes:
        measures: the names of those that can be monitored in training; higher is better.

    >>> class Counted(EASE, Measured):
    ...     def measure(self, split, phase):
    ...         return {"weights": float(self.item_weights.count_nonzero())}
    >>> split = last_basket(checkerboard(num_items=4))
    >>> Counted().fit(split).measure(split, phase=1)  # between items of one colour alone
    {'weights': 4.0}
    """

    measures: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def measure(self, split: Split, phase: int) -> dict[str, float]:
        """The figures by name.

        Args:
            split: that it was trained on.
            phase: 1 in validation, 2 in test.
        """


class Divisible(Recommender):
    """Trains on several ranks as it does on one: its loss is a share of the whole batch's.

    Means are taken by `recsys.ranks`, and what is drawn once for a batch comes from rank 0. A rank
    may have no row of a batch.

    Attributes:
        uses_every_weight: whether each step has a gradient for every weight. Where it may not,
            ranks look in each step for those that it has none for.
    """

    uses_every_weight: bool = False


class Separable(Divisible):
    """Its loss is a mean of terms, each of one example: its micro-batches add up to a batch.

    What `prepare` takes from all users together is a count that ranks add up (`Split.total`).
    """

    @abstractmethod
    def num_terms(self, part: Part) -> int:
        """How many terms the loss of a part is a mean of."""


class TwoPass(Divisible):
    """Its loss reads vectors of the whole batch, each made of a few rows: in micro-batches.

    First all vectors are made without what their gradients need, then the loss of all, and, once
    the gradient of a micro-batch's vectors is known, these are made again, with it: gradient
    caching (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
    RepL4NLP 2021). The same random numbers are drawn both times.

    Attributes:
        micro_batches: of a batch.
    """

    micro_batches: int = 1


def check_by_rank(kind: type[Scorer]) -> None:
    """Refuse a model that reads all users at once, of which ranks have some each.

    Raises:
        ConfigError: it does.
    """
    if not issubclass(kind, Separable):
        raise ConfigError(
            f"data.by_rank=true: {kind.__name__} reads the events of all users at once; set "
            "data.by_rank=false"
        )


class Blockwise(Divisible):
    """Most of its weights are in blocks, of each of which ranks may hold a part: `strategy=fsdp`.

    In a step every rank calls each block as often as the others do, and has gradients for the same
    weights.
    """

    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """These, in the order in which they are called.

        Raises:
            ConfigError: an option does not let them be divided.
        """


class Generative(Scorer):
    """Draws users who do not exist."""

    @abstractmethod
    def draw_preferences(self, num_users: int) -> Scores:
        """(B, n): of each drawn user how likely each item is in an event; a row sums to 1."""


class Explainable(Scorer):
    """Says what brought a score.

    >>> split = last_basket(checkerboard())
    >>> model, history = ItemKNN().fit(split), split.test.history.rows(torch.tensor([7]))
    >>> (parts,) = model.parts(history, torch.tensor([15]), split.item_table)
    >>> score = model.score(history)[0, 15].double()
    >>> parts.kind, len(parts.sources), bool(parts.sum(1).isclose(score))
    ('history', 12, True)
    """

    @abstractmethod
    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        """What brought the score of one item for each user: parts that add up to it.

        Args:
            batch: histories of B users, on the model's device.
            items: (B,) the item of each.
            item_table: the catalogue, a row per item index.
        """


class Portable(Scorer):
    """Computes its scores from plain tensors alone, so that it can be written as ONNX."""

    @abstractmethod
    def portable(self) -> nn.Module:
        """A function of `items` (B, L) int64 and `lengths` (B,) int64 to the scores (B, n).

        Items are indices, oldest first, each a basket of its own; behind the length of a row may
        stand any.
        """


class Exported(Scorer):
    """Is written for other software, too."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write what other software reads beside the files of the saved model."""


class Composite(Scorer):
    """Is made of other models, which are fitted before it."""

    @abstractmethod
    def members(self) -> Iterable[tuple[str, Scorer]]:
        """These models by name."""

    def check_size(self, split: Split) -> None:
        for _, member in self.members():
            member.check_size(split)


def members_of(model: Scorer) -> Iterable[tuple[str, Scorer]]:
    """The models that a model is made of, by name; of most there are none."""
    return model.members() if isinstance(model, Composite) else ()


def profile_encoder(model: Scorer) -> ProfileEncoder:
    """The model itself.

    Raises:
        ConfigError: it encodes no profiles.
    """
    if not isinstance(model, ProfileEncoder):
        raise ConfigError(f"{type(model).__name__} makes no profiles; train shopperbert for that")
    return model
