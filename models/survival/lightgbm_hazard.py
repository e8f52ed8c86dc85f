"""LightGBM on discrete hazards: boosted trees give the probability of an event in each interval.

Papers: Ke et al., "LightGBM", NeurIPS 2017; Singer & Willett, "It's about time: using discrete-time
survival analysis", 1993: a row for each interval in which a row was at risk.

    P(event in k | none before, x) = sigmoid(trees(x, k))

Shapes: R rows, K intervals, F covariates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recsys.memory import check_memory
from recsys.models.labels.lightgbm import lightgbm_package, tree_options
from recsys.models.survival._intervals import Intervals
from recsys.ranges import at_least
from recsys.scoring.survival import Durations, SurvivalCurves, SurvivalPredictor
from recsys.tasks.features import Feature


class LightGBMHazard(SurvivalPredictor):
    """Trees of covariates and the number of an interval.

    Args:
        features: of a user as of a moment.
        num_intervals: K, at most.
        num_trees: at most; fewer where the rows held out say so.
        patience: trees without a lower loss on the rows held out after which training stops.
        num_leaves: of a tree.
        learning_rate: what a tree's answer is multiplied by.
        min_leaf: rows of intervals in a leaf, at least.
        feature_fraction: share of the covariates that a tree may use.
        row_fraction: share of the rows that a tree learns from.
        l2: penalty of the leaves' values.
        seed: of the two fractions.

    Raises:
        ConfigError: the package lightgbm is not installed, or an option is out of its range.
    """

    holds_out = True
    standardises = False

    intervals: Intervals
    trees: Any

    def __init__(
        self,
        *,
        features: Sequence[Feature] = (),
        num_intervals: int = 20,
        num_trees: int = 600,
        patience: int = 40,
        num_leaves: int = 7,
        learning_rate: float = 0.05,
        min_leaf: int = 100,
        feature_fraction: float = 0.5,
        row_fraction: float = 0.8,
        l2: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(features=features)
        at_least(1, num_intervals=num_intervals, num_trees=num_trees, patience=patience)
        self.num_intervals, self.num_trees, self.patience = num_intervals, num_trees, patience
        self.options = tree_options(
            "binary",
            num_leaves=num_leaves,
            learning_rate=learning_rate,
            min_leaf=min_leaf,
            feature_fraction=feature_fraction,
            row_fraction=row_fraction,
            l2=l2,
            seed=seed,
        )
        self._package = lightgbm_package()

    def _learn(self, train: Durations, held_out: Durations) -> None:
        self.intervals = Intervals.of(train, self.num_intervals)
        rows = self._package.Dataset(*self._person_periods(train))
        self.trees = self._package.train(
            {**self.options, "num_threads": torch.get_num_threads()},
            rows,
            self.num_trees,
            valid_sets=[rows.create_valid(*self._person_periods(held_out))],
            callbacks=[self._package.early_stopping(self.patience, verbose=False)],
        )

    def _person_periods(self, rows: Durations) -> tuple[np.ndarray, np.ndarray]:
        """A row for each interval that a row was at risk in, and whether the event came in it."""
        interval = self.intervals.interval(rows)
        # An event's interval was begun, too.
        count = (interval + rows.observed).clamp(max=len(self.intervals))
        owner = torch.arange(len(rows)).repeat_interleave(count)
        begin = count.cumsum(0) - count
        number = torch.arange(len(owner)) - begin[owner]
        label = rows.observed[owner] & (number == interval[owner])
        return self._with_number(rows.covariates[owner], number), label.numpy().astype(np.float32)

    def _with_number(self, covariates: Tensor, number: Tensor) -> np.ndarray:
        check_memory(
            8 * covariates.numel(),
            f"{len(covariates):,} rows of intervals with {covariates.shape[1]} covariates",
            "lower num_intervals, or give fewer rows or features",
        )
        return torch.cat([covariates.float(), number[:, None].float()], dim=1).numpy()

    def _curves(self, covariates: Tensor) -> SurvivalCurves:
        count = len(self.intervals)
        number = torch.arange(count).repeat(len(covariates))
        inputs = self._with_number(covariates.repeat_interleave(count, dim=0), number)
        hazard = torch.from_numpy(self.trees.predict(inputs)).unflatten(0, (-1, count))
        survival = functional.pad((1 - hazard).cumprod(1), (1, 0), value=1.0)
        return SurvivalCurves(self.intervals.cuts.float(), survival.float())
