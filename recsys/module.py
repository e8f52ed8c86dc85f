"""What a model is: a `Scorer`; one in closed form is fitted, one with a loss is trained.

A model says how to rank in one of two ways. Either it overrides `score`, or `encode_users` and
`encode_items`, whose inner products are the scores; retrieval then searches the vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import polars as pl
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import AdamW, Optimizer

from recsys.batch import BasketBatch
from recsys.devices import place_of
from recsys.errors import ConfigError
from recsys.kept import Keeper
from recsys.retrieval import ItemIndex, TopK, top_k
from recsys.splits import Part, Split
from recsys.types import ItemVectors, Scores, UserVectors

USERS_AT_ONCE = 1024
CELLS_AT_ONCE = 2**24
"""Scores that are held at once: 64 MiB in float32; what they are made of may take as much again."""
CELLS_ON_GPU = 2**26


class Scorer(Keeper):
    """Ranks the whole catalogue for histories."""

    measures: ClassVar[tuple[str, ...]] = ()

    def score(self, batch: BasketBatch) -> Scores:
        """(B, n): a score per user and item, higher is better.

        A model gives every item a finite score, for users that it has never seen too.
        """
        return self.encode_users(batch) @ self.encode_items().T

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

    def cells_per_user(self, num_items: int) -> int:
        """How many numbers scoring a user takes: a score per item, or what is more than that."""
        return num_items

    def users_at_once(self, num_items: int) -> int:
        """How many users to score at once: what bounds the memory, and changes no result."""
        cells = CELLS_AT_ONCE if place_of(self).type == "cpu" else CELLS_ON_GPU
        return min(max(cells // self.cells_per_user(num_items), 1), USERS_AT_ONCE)

    @property
    def has_vectors(self) -> bool:
        """Whether `encode_users` and `encode_items` are there for a retrieval index."""
        return type(self).encode_items is not Scorer.encode_items

    def members(self) -> Iterable[tuple[str, Scorer]]:
        """Models that this one is made of and that are fitted before it, by name."""
        return ()

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
            index: searches the item vectors of a model that has them, instead of scoring all.
        """
        exclude = batch.ragged if mask_history else None
        if index is not None and self.has_vectors:
            return index.search(self.encode_users(batch), k, exclude)
        return top_k(self.score(batch), k, exclude)

    def export(self, folder: Path) -> None:
        """Write what other software reads of a saved model beside its files; mostly nothing."""


class ClosedForm(Scorer):
    """A model whose parameters are computed from the counts of a split, without gradients.

    What `fit` computes is kept in buffers (`keep`), which have the size that the log gives them.
    """

    def fit(self, split: Split) -> Self:
        """Compute the model from `split.training`."""
        raise NotImplementedError(f"{type(self).__name__} has no fit")


class Recommender(Scorer, LightningModule):
    """A model with a loss, trained by Lightning on batches of users.

    Args:
        learning_rate, weight_decay: of AdamW.
    """

    def __init__(self, *, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
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
