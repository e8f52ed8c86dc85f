"""LightGBMLags: boosted trees over lags, seasonal means and the calendar, one for all periods.

Paper: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017; the
authors' package, which the extra `boosting` brings. A row is a window and one period of its
horizon; what trees of earlier windows miss later ones by gives the quantiles.

Shapes: B windows, H periods of the horizon, K numbers known ahead, F features.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from recsys.batch.series import SeriesTable, Windows
from recsys.models.labels.lightgbm import lightgbm_package, tree_options
from recsys.models.series._points import PointForecaster
from recsys.models.series.seasonal_naive import seasons
from recsys.ranges import at_least


class LightGBMLags(PointForecaster):
    """Trees that each correct the ones before.

    Args:
        objective: `l2` for the mean; `tweedie` for sales with many zeros.
        num_trees: of the ensemble.
        num_leaves: of a tree.
        learning_rate: what a tree's answer is multiplied by.
        min_leaf: rows in a leaf, at least.
        feature_fraction: share of the features that a tree may use.
        row_fraction: share of the rows that a tree learns from.
        l2: penalty of the leaves' values.
        num_windows: drawn from all, that teach.
        seed: of the two fractions and the windows.

    Raises:
        ConfigError: the package lightgbm is not installed, or an option is out of its range.
    """

    def __init__(
        self,
        *,
        objective: Literal["l2", "tweedie"] = "l2",
        num_trees: int = 200,
        num_leaves: int = 31,
        learning_rate: float = 0.05,
        min_leaf: int = 50,
        feature_fraction: float = 0.7,
        row_fraction: float = 0.7,
        l2: float = 1.0,
        num_windows: int = 8192,
        seed: int = 0,
    ) -> None:
        at_least(1, num_trees=num_trees, num_windows=num_windows)
        self.num_trees, self.num_windows, self.seed = num_trees, num_windows, seed
        self.options = tree_options(
            objective,
            num_leaves=num_leaves,
            learning_rate=learning_rate,
            min_leaf=min_leaf,
            feature_fraction=feature_fraction,
            row_fraction=row_fraction,
            l2=l2,
            seed=seed,
        )
        self._package = lightgbm_package()
        self._trees: Any = None

    def learn(self, past: SeriesTable) -> None:
        drawn = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(past.num_windows, generator=drawn)[: self.num_windows]
        rows = rows.to(past.values.device)
        windows = past.windows(rows)
        targets = (past.futures(rows) / windows.scale[:, None]).flatten()
        data = self._package.Dataset(
            _features(windows, past).cpu().numpy(), targets.cpu().numpy(), params={"verbosity": -1}
        )
        threads = {"num_threads": torch.get_num_threads()}
        self._trees = self._package.train({**self.options, **threads}, data, self.num_trees)

    def expected(self, windows: Windows, past: SeriesTable) -> Tensor:
        predicted = self._trees.predict(
            _features(windows, past).cpu().numpy(), num_threads=torch.get_num_threads()
        )
        return torch.from_numpy(predicted).to(windows.past).view(-1, past.horizon)


def _features(windows: Windows, past: SeriesTable) -> Tensor:
    """(B * H, F): the period's own lags by season, levels of the window, calendar, number, size."""
    scaled, horizon = windows.scaled, past.horizon
    number = max(1, min(4, past.context // past.season))
    lags = seasons(windows, past, number).transpose(1, 2)
    levels = [scaled[:, -n:].mean(1) for n in (past.season, 2 * past.season, past.context)]
    levels += [
        scaled.std(1),
        (windows.past == 0).float().mean(1),
        windows.scale.log(),
        scaled[:, -1],
    ]
    of_window = torch.stack(levels, dim=1)[:, None].expand(-1, horizon, -1)
    ahead = torch.arange(horizon, device=scaled.device).float().expand(len(scaled), -1)
    parts = [lags, lags.mean(2, keepdim=True), of_window, windows.ahead, ahead[..., None]]
    return torch.cat(parts, dim=-1).flatten(0, 1)
