"""Labelled items with the histories that they were shown after.

Shapes: B rows, E labelled items of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from recsys.batch.examples import Part, Prefixes
from recsys.batch.ragged import Ragged, gather_positions


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """What is known of the E labelled items of a part, in the order of its targets.

    Attributes:
        up: (E,) bool, whether the item was taken up.
        reference: (E,) float32, its log-probability under the reference.
        others: (E,) int64, an item that was shown after another history.
        others_reference: (E,) float32, its log-probability after this one.
    """

    up: Tensor
    reference: Tensor
    others: Tensor
    others_reference: Tensor

    def at(self, positions: Tensor) -> Labels:
        """Those at positions (E',) int64."""
        return Labels(**{f.name: getattr(self, f.name)[positions] for f in fields(self)})

    def to(self, device: torch.device | str) -> Labels:
        return Labels(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledPart(Part):
    """Histories with labelled items in place of targets.

    Attributes:
        target: B rows of item indices, the labelled items of each history.
        labels: of these items.
        odds: (B,) float32, of each history that its items are taken up; ones where nobody tells.
        following: B rows of item indices, what each user did next; empty where nobody tells.
    """

    labels: Labels
    odds: Tensor
    following: Ragged


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledPrefixes(Prefixes):
    """As `LabelledPart`, of histories that share the events of their users.

    >>> history = BasketBatch.from_lists([[[0], [1], [2]]], num_items=3)
    >>> shown, two = Ragged.from_lists([[1, 2], [0]]), torch.zeros(3)
    >>> of = Labels(up=two > 0, reference=two, others=two.long(), others_reference=two)
    >>> first, ends = torch.zeros(2).long(), torch.tensor([1, 3])
    >>> told = {"labels": of, "odds": torch.ones(2), "following": Ragged.from_lists([[1], []])}
    >>> part = LabelledPrefixes("train", history, shown, first, ends, **told)
    >>> batch = part.rows(torch.tensor([1, 0]))
    >>> batch.history.lengths().tolist(), batch.target.values.tolist(), len(batch.labels.up)
    ([3, 1], [0, 1, 2], 3)
    >>> batch.following.lengths.tolist()
    [0, 1]
    """

    labels: Labels
    odds: Tensor
    following: Ragged

    def rows(self, index: Tensor) -> LabelledPart:
        """The rows at `index` (B,) int64, in that order, with histories of their own."""
        part = super().rows(index)
        positions, _ = gather_positions(self.target.offsets, index)
        return LabelledPart(
            part.name,
            part.history,
            part.target,
            labels=self.labels.at(positions),
            odds=self.odds[index],
            following=self.following.rows(index),
        )

    def some(self, index: Tensor) -> Self:
        """The rows at `index` (B,) int64, whose histories are still shared."""
        positions, offsets = gather_positions(self.target.offsets, index)
        return replace(
            self,
            target=Ragged(self.target.values[positions], offsets),
            owners=self.owners[index],
            ends=self.ends[index],
            labels=self.labels.at(positions),
            odds=self.odds[index],
            following=self.following.rows(index),
        )
