"""What a model is: a `Scorer`; one in closed form is fitted, one with a loss is trained.

What only some models can do is a class of its own in `recsys.scoring.kinds`.

A user of whom a model says nothing, all of whose candidates score alike, is ranked by popularity:
the events of each item in training, or what the model itself keeps as the buffer `popularity`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Self

import torch
from torch import Tensor

from recsys.batch.bounds import check_tensor
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of
from recsys.devices import place_of
from recsys.errors import DataError
from recsys.nn.buffers import Keeper
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.lists import TopK, top_k
from recsys.tasks.splits import Split
from recsys.types import Scores

USERS_AT_ONCE = 1024
CELLS_AT_ONCE = 2**24
"""Scores that are held at once: 64 MiB in float32; what they are made of may take as much again."""
CELLS_ON_GPU = 2**26


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that keeps what it is given, from which `made_of` writes the model's config."""

    @wraps(init)
    def remembering(self: Scorer, *args: Any, **options: Any) -> None:
        vars(self).setdefault("made_with", (args, options))  # the outermost comes first
        init(self, *args, **options)

    return remembering


class Scorer(Keeper, ABC):
    """Ranks the whole catalogue for histories."""

    popularity: Tensor | None
    made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("popularity", None)

    @abstractmethod
    def score(self, batch: BasketBatch) -> Scores:
        """(B, n): a score per user and item, higher is better.

        A model gives every item a finite score, for users that it has never seen too.
        """

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

    def keep_popularity(self, split: Split) -> None:
        """Count the training events of each item."""
        self.keep("popularity", split.popularity)

    @torch.inference_mode()
    def top_k(
        self,
        batch: BasketBatch,
        k: int,
        *,
        mask_history: bool = False,
        candidates: Tensor | None = None,
        exclude: Ragged | None = None,
        index: ItemIndex | None = None,
    ) -> TopK:
        """The k best items for each of B users.

        Args:
            batch: histories on the model's device.
            k: at most the size of the catalogue.
            mask_history: leave out the items of a user's history.
            candidates: (n,) bool, the items that are ranked, such as those of a domain; None: all.
            exclude: B rows of items that are not ranked for one user each.
            index: of a model with vectors, where they have been put into one before
                (`VectorScorer.item_index`).

        Returns:
            the lists; scores of a model with vectors are inner products, and those of users who
            are ranked by popularity are its counts.

        Raises:
            CatalogueError: k is not in 1 .. n.
            DataError: a score is not finite.

        >>> split = last_basket(checkerboard(num_items=4))
        >>> lists = EASE().fit(split).top_k(split.test.history, k=2)
        >>> lists.items[:3].tolist()  # users 0 and 2 take even items, user 1 odd ones
        [[2, 0], [3, 1], [2, 0]]
        """
        exclude = _excluded(batch, mask_history, candidates, exclude)
        # Two places show whether all candidates may be alike.
        width = 2 if k == 1 < batch.num_items else k
        best = self._best(batch, width, exclude, index)
        if self.popularity is not None:
            rows = self._silent(batch, best, exclude, index)
            excluded = None if exclude is None else exclude.rows(rows)
            popular = top_k(self.popularity.double().expand(len(rows), -1), width, excluded)
            best.items[rows], best.scores[rows] = popular.items, popular.scores.to(best.scores)
        return TopK(best.items[:, :k], best.scores[:, :k])

    def _best(
        self, batch: BasketBatch, k: int, exclude: Ragged | None, index: ItemIndex | None
    ) -> TopK:
        """The k best by the model's own scores."""
        return top_k(self._finite(self.score(batch), "user"), k, exclude)

    def ranking_scores(self, batch: BasketBatch) -> Scores:
        """(B, n): by what lists rank: the scores, or popularity where all of a user's are alike.

        Raises:
            DataError: a score is infinite or no number.
        """
        scores = self._finite(self.score(batch), "user")
        if self.popularity is None:
            return scores
        alike = scores.amin(1) == scores.amax(1)
        return torch.where(alike[:, None], self.popularity.double().to(scores), scores)

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

    def _silent(
        self, batch: BasketBatch, top: TopK, exclude: Ragged | None, index: ItemIndex | None
    ) -> Tensor:
        """The users (R,) whose candidates all score alike, given their best."""
        rows = top.with_one_score()
        if not len(rows):
            return rows
        scores = self.score(batch.rows(rows))
        alike = scores == scores.gather(1, top.items[rows, :1].clamp(min=0))
        if exclude is not None:
            excluded = exclude.rows(rows)
            alike[excluded.owners(), excluded.values] = True
        return rows[alike.all(1)]


def _excluded(
    batch: BasketBatch, mask_history: bool, candidates: Tensor | None, exclude: Ragged | None
) -> Ragged | None:
    """B rows of the items that are not ranked; None where all are."""
    rows = [exclude] if exclude is not None else []
    if mask_history:
        rows.append(batch.ragged)
    if candidates is not None:
        rows.append(_for_all(~candidates.to(batch.device), len(batch)))
    return joined(rows) if rows else None


def joined(rows: Sequence[Ragged]) -> Ragged:
    """Each row's values of one after those of the other."""
    if len(rows) == 1:
        return rows[0]
    users, order = torch.cat([of.owners() for of in rows]).sort(stable=True)
    values = torch.cat([of.values for of in rows])[order]
    return Ragged(values, offsets_of(torch.bincount(users, minlength=len(rows[0]))))


def _for_all(mask: Tensor, num_users: int) -> Ragged:
    """The items at the mask (n,) bool in each row."""
    (items,) = mask.nonzero(as_tuple=True)
    lengths = torch.full((num_users,), len(items), device=mask.device)
    return Ragged(items.repeat(num_users), offsets_of(lengths))


class ClosedForm(Scorer):
    """A model whose parameters are computed from the counts of a split, without gradients.

    What `compute` finds is kept in buffers (`keep`), which have the size that the log gives them.

    >>> class Latest(ClosedForm):
    ...     def compute(self, split):
    ...         self.keep("counts", split.train.target.dense(split.num_items).sum(0).float())
    ...     def score(self, batch):
    ...         return self.counts.expand(len(batch), -1)
    >>> split = last_basket(checkerboard(num_items=4))
    >>> Latest().fit(split).top_k(split.test.history, k=1).items.unique()
    tensor([2])
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

    def size_to_fit(self, split: Split) -> int:
        """Bytes that fitting takes at its largest; 0 where the model does not say."""
        return 0

    @abstractmethod
    def compute(self, split: Split) -> None:
        """Compute the model from `split.training`."""
