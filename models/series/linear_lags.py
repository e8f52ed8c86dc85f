"""LinearLags: ridge regression of every period of the horizon on all periods of the context.

One regression for all series, each window in units of its scale; what one of earlier windows misses
later ones by gives the quantiles.
The linear model without feature engineering that Jung et al., "A Worrying Analysis of Probabilistic
Time-series Models for Sales Forecasting" (arXiv 2011.10715), hold deep models against; what is
known ahead is an option.

Shapes: B windows, C periods of context, H of the horizon, K numbers known ahead, F inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.batch.series import SeriesTable, Windows
from recsys.errors import ConfigError
from recsys.models.series._points import PointForecaster, all_windows
from recsys.ranges import at_least, share


class LinearLags(PointForecaster):
    """Ridge regression in closed form.

    Args:
        l2: penalty, in units of the number of windows.
        level_weight: how much more a series of a high level counts, from 0, all alike, to 1, by the
            square of it, as in the error of the sum.
        read_known: whether what is known of the horizon is an input.

    Raises:
        ConfigError: an option is out of its range; in fitting, without a penalty the windows leave
            more than one solution.
    """

    weights: Tensor

    def __init__(
        self, *, l2: float = 1e-3, level_weight: float = 0.0, read_known: bool = False
    ) -> None:
        at_least(0, l2=l2)
        share(level_weight=level_weight)
        self.l2, self.level_weight, self.read_known = l2, level_weight, read_known

    def learn(self, past: SeriesTable) -> None:
        gram = moments = torch.zeros((), dtype=torch.float64)
        for rows in all_windows(past):
            windows = past.windows(rows)
            inputs = self._inputs(windows).double()
            targets = (past.futures(rows) / windows.scale[:, None]).double()
            weighted = inputs * self._weight(windows)[:, None]
            gram = gram.to(inputs.device) + weighted.T @ inputs
            moments = moments.to(inputs.device) + weighted.T @ targets
        penalty = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        # The mean of all is not drawn to 0: the last input is 1.
        penalty[-1, -1] = 1e-6
        strength = self.l2 * gram[-1, -1]
        weights, info = torch.linalg.solve_ex(gram + strength * penalty, moments)
        if info or not weights.isfinite().all():
            raise ConfigError(
                f"l2={self.l2}: the windows of these series leave more than one solution; give a "
                "penalty above 0, such as l2=0.01"
            )
        self.weights = weights.float()

    def expected(self, windows: Windows, past: SeriesTable) -> Tensor:
        return self._inputs(windows) @ self.weights

    def _inputs(self, windows: Windows) -> Tensor:
        """(B, F): the scaled past, what is known ahead, and 1."""
        parts = [windows.scaled, torch.ones_like(windows.scale)[:, None]]
        if self.read_known:
            parts.insert(1, windows.ahead.flatten(1))
        return torch.cat(parts, dim=1)

    def _weight(self, windows: Windows) -> Tensor:
        return windows.scale.double() ** (2 * self.level_weight)
