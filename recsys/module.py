"""What a model is: a `Scorer`; one in closed form is fitted, one with a loss is trained.

A model says how to rank in one of two ways. Either it overrides `score`, or `encode_users` and
`encode_items`, whose inner products are the scores; they are then searched among the vectors, so
that equal vectors tie in any batch.

A user of whom a model says nothing, all of whose candidates score alike, is ranked by popularity:
the events of each item in training, or what the model itself keeps as the buffer `popularity`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import polars as pl
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import AdamW, Optimizer

from recsys.batch import BasketBatch
from recsys.bounds import check_tensor
from recsys.devices import place_of
from recsys.errors import ConfigError, DataError
from recsys.kept import Keeper
from recsys.precision import wide
from recsys.ragged import Ragged
from recsys.ranges import at_least
from recsys.retrieval import ExactIndex, ItemIndex, TopK, top_k
from recsys.splits import Part, Split
from recsys.types import ItemVectors, Scores, UserVectors

USERS_AT_ONCE = 1024
CELLS_AT_ONCE = 2**24
"""Scores that are held at once: 64 MiB in float32; what they are made of may take as much again."""
CELLS_ON_GPU = 2**26


class Scorer(Keeper):
    """Ranks the whole catalogue for histories."""

    measures: ClassVar[tuple[str, ...]] = ()
    popularity: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("popularity", None)

    def score(self, batch: BasketBatch) -> Scores:
        """(B, n): a score per user and item, higher is better.

        A model gives every item a finite score, for users that it has never seen too.
        """
        users, items = self.encode_users(batch), self.encode_items()
        # In double precision, so that the order of a product's sums does not show.
        return (users.double() @ items.double().T).to(wide(users).dtype)

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        """(B, D), where scores are inner products of vectors."""
        raise NotImplementedError(f"{type(self).__name__} has neither score nor encode_users")

    def encode_items(self) -> ItemVectors:
        """(n, D), likewise."""
        raise NotImplementedError(f"{type(self).__name__} has no item vectors")

    def encode_texts(self, histories: Sequence[Sequence[str]]) -> UserVectors:
        """(B, D) of histories whose items are given in words, oldest first.

        Raises:
            ConfigError: this model reads ids alone.
        """
        raise ConfigError(f"{type(self).__name__} reads no words; give histories of item ids")

    @property
    def trained_until(self) -> int | None:
        """The time of the last event that the model has learnt from, where it tells profiles."""
        return None

    @property
    def makes_profiles(self) -> bool:
        """Whether `encode_profiles` is there."""
        return type(self).encode_profiles is not Scorer.encode_profiles

    @property
    def reads_dates(self) -> bool:
        """Whether profiles depend on when things were done, not only on their order."""
        return False

    def read_items(self, items: pl.DataFrame) -> None:
        """Take the catalogue of another log, a row per item; later batches hold its rows.

        Raises:
            ConfigError: this model knows the items that it was trained on alone.
        """
        raise ConfigError(f"{type(self).__name__} makes no profiles; train shopperbert for that")

    def encode_profiles(self, batch: BasketBatch) -> UserVectors:
        """(B, D): what a user is, for questions about users; needs `read_items`."""
        raise NotImplementedError(f"{type(self).__name__} has no encode_profiles")

    def measure(self, split: Split, phase: int) -> dict[str, float]:
        """Further figures of a model's own, by name, beside those of its ranking.

        Those that are named in `measures` can be monitored in training; higher is better.

        Args:
            split: that it was trained on.
            phase: 1 in validation, 2 in test.
        """
        return {}

    def check_kept(self, histories: BasketBatch) -> None:
        if (counts := self.popularity) is not None:
            kind = torch.float32 if counts.is_floating_point() else torch.int64
            check_tensor("popularity", counts, kind, histories.num_items)

    def cells_per_user(self, num_items: int) -> int:
        """How many numbers scoring a user takes: a score per item, or what is more than that."""
        return num_items

    def users_at_once(self, num_items: int) -> int:
        """How many users to score at once: what bounds the memory, and changes no result."""
        cells = CELLS_AT_ONCE if place_of(self).type == "cpu" else CELLS_ON_GPU
        return min(max(cells // self.cells_per_user(num_items), 1), USERS_AT_ONCE)

    def check_size(self, split: Split) -> None:
        """Refuse a log that would take more memory than there is, before anything is fitted.

        Raises:
            DataError: it would.
        """
        for _, member in self.members():
            member.check_size(split)

    def keep_popularity(self, split: Split) -> None:
        """Count the training events of each item."""
        self.keep("popularity", torch.bincount(split.training.items, minlength=split.num_items))

    @property
    def has_vectors(self) -> bool:
        """Whether `encode_users` and `encode_items` are there for a retrieval index."""
        return type(self).encode_items is not Scorer.encode_items

    def members(self) -> Iterable[tuple[str, Scorer]]:
        """Models that this one is made of and that are fitted before it, by name."""
        return ()

    def item_index(self, build: Callable[[ItemVectors], ItemIndex] = ExactIndex) -> ItemIndex:
        """The vectors of all items, ready to be searched, where a model has them."""
        vectors = self.encode_items()
        return build(self._finite(vectors, "item", terms=vectors.shape[1]))

    @torch.inference_mode()
    def top_k(
        self,
        batch: BasketBatch,
        k: int,
        *,
        mask_history: bool = False,
        index: ItemIndex | None = None,
    ) -> TopK:
        """The k best items for each of B users.

        Args:
            batch: histories on the model's device.
            k: at most the size of the catalogue.
            mask_history: leave out the items of a user's history.
            index: of a model with vectors, where they have been put into one before (`item_index`).

        Returns:
            the lists; scores of a model with vectors are inner products, and those of users who
            are ranked by popularity are its counts.

        Raises:
            CatalogueError: k is not in 1 .. n.
            DataError: a score is not finite.
        """
        exclude = batch.ragged if mask_history else None
        # Two places show whether all candidates may be alike.
        width = 2 if k == 1 < batch.num_items else k
        if self.has_vectors:
            users = self.encode_users(batch)
            users = self._finite(users, "user", terms=users.shape[1])
            found = (index or self.item_index()).search(users, width, exclude)
        else:
            found = top_k(self._finite(self.score(batch), "user"), width, exclude)
        if self.popularity is not None:
            rows = self._silent(batch, found, exclude)
            excluded = None if exclude is None else exclude.rows(rows)
            popular = top_k(self.popularity.double().expand(len(rows), -1), width, excluded)
            found.items[rows], found.scores[rows] = popular.items, popular.scores.to(found.scores)
        return TopK(found.items[:, :k], found.scores[:, :k])

    def _finite(self, values: Tensor, of: str, terms: int | None = None) -> Tensor:
        """The scores (R, n) themselves, or vectors (R, D) whose products have D terms.

        Raises:
            DataError: a score is infinite or no number, or a product may be.
        """
        limit = torch.finfo(torch.float32).max
        limit = limit if terms is None else (limit / terms) ** 0.5
        if values.numel() and not all(bound.abs() <= limit for bound in values.aminmax()):
            row = int((~(values.abs() <= limit)).any(1).nonzero()[0])
            raise DataError(
                f"{type(self).__name__}: the scores of {of} {row} are not finite; if it was "
                "trained it diverged: lower learning_rate, or set trainer.gradient_clip"
            )
        return values

    def _silent(self, batch: BasketBatch, top: TopK, exclude: Ragged | None) -> Tensor:
        """The users (R,) whose candidates all score alike, given their best."""
        last = top.scores.masked_fill(top.items < 0, torch.inf).amin(1)
        (rows,) = (top.scores[:, 0] <= last).nonzero(as_tuple=True)
        if not len(rows):
            return rows
        scores = self.score(batch.rows(rows))
        alike = scores == scores.gather(1, top.items[rows, :1].clamp(min=0))
        if exclude is not None:
            excluded = exclude.rows(rows)
            alike[excluded.owners(), excluded.values] = True
        return rows[alike.all(1)]

    def export(self, folder: Path) -> None:
        """Write what other software reads of a saved model beside its files; mostly nothing."""


class ClosedForm(Scorer):
    """A model whose parameters are computed from the counts of a split, without gradients.

    What `compute` finds is kept in buffers (`keep`), which have the size that the log gives them.
    """

    def fit(self, split: Split) -> Self:
        """Compute the model, and popularity beside it, from `split.training`.

        Raises:
            DataError: it would take more memory than there is.
        """
        self.check_size(split)
        self.keep_popularity(split)
        self.compute(split)
        return self

    def compute(self, split: Split) -> None:
        """Compute the model from `split.training`."""
        raise NotImplementedError(f"{type(self).__name__} has no compute")


class Recommender(Scorer, LightningModule):
    """A model with a loss, trained by Lightning on batches of users.

    Args:
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: one of them is negative, infinite or no number.
    """

    def __init__(self, *, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        at_least(0, learning_rate=learning_rate, weight_decay=weight_decay)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def loss(self, part: Part) -> Tensor:
        """A scalar for a batch of training users, each with a history and a target."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def prepare(self, split: Split) -> Part:
        """Start from what the training data says, and return the users to train on.

        By default each training user's last basket as the target of those before it.
        """
        return split.train

    def training_step(self, part: Part, batch_index: int) -> Tensor:
        return self.loss(part)

    def configure_optimizers(self) -> Optimizer:
        return AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
