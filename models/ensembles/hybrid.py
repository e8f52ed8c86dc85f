"""Hybrid: a weighted sum of other models' scores.

    score(u, ·) = sum over members m of weight_m score_m(u, ·) / max over items of |score_m(u, ·)|

Each member is brought to one scale by the user's largest score. Where a member gives negative
scores, the largest absolute value divides, so that the order of its items never turns round; a
member that scores a user all zero adds nothing. The maximum is over the whole catalogue, whether
the history is masked or not. A user of whom no member says anything gets popularity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf

import polars as pl
import torch
from torch import Tensor, nn

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError
from recsys.ranges import above
from recsys.scoring.kinds import Composite, Explainable
from recsys.scoring.parts import Parts
from recsys.scoring.scorer import ClosedForm, Scorer
from recsys.tasks.splits import Split
from recsys.types import Scores


class Hybrid(Explainable, Composite, ClosedForm):
    """Adds the scores of its members, whatever they are.

    `recsys.training.fit` fits the members first, each in its own way; `fit` itself takes them as
    they are.

    Args:
        members: models by name.
        weights: of each member, by the same names.

    Raises:
        ConfigError: the names differ, there are none, or a weight is infinite or no number.
    """

    def __init__(self, *, members: Mapping[str, Scorer], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(members) != set(weights) or not members:
            raise ConfigError(
                f"members {sorted(members)} with weights {sorted(weights)}; expected at least one "
                "member, and a weight by the name of each"
            )
        above(-inf, **weights)
        # A list: members may be called what a module's own parts are.
        self.scorers = nn.ModuleList(members.values())
        self.weights = {name: weights[name] for name in members}

    def members(self) -> Iterable[tuple[str, Scorer]]:
        return zip(self.weights, self.scorers, strict=True)  # type: ignore[arg-type]

    def cells_per_user(self, num_items: int) -> int:
        """As many as its largest member's."""
        return max(member.cells_per_user(num_items) for _, member in self.members())

    def compute(self, split: Split) -> None:
        """Nothing: the members are fitted."""

    def score(self, batch: BasketBatch) -> Scores:
        total = torch.zeros(len(batch), batch.num_items, device=batch.device)
        for name, member in self.members():
            scores = member.score(batch)
            total.addcmul_(scores, self.weights[name] / _largest(scores))
        return total

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        """By member."""
        columns = []
        for name, member in self.members():
            scores = member.score(batch)
            shares = scores * (self.weights[name] / _largest(scores))
            columns.append(shares.gather(1, items[:, None]))
        return [Parts.of_each("member", torch.cat(columns, 1), list(self.weights))]


def _largest(scores: Tensor) -> Tensor:
    """(B, 1): the largest score of each user, without its sign; 1 where all are 0."""
    largest = torch.maximum(scores.amax(1, keepdim=True), -scores.amin(1, keepdim=True))
    return torch.where(largest > 0, largest, 1)
