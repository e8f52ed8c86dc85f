"""Forecasters that say one number a period: what they missed by so far says how sure they are.

Shapes: S series, W windows, B of a batch, H periods of the horizon, Q levels.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import torch
from torch import Tensor

from recsys.batch.series import SeriesTable, Windows
from recsys.scoring.forecaster import LEVELS, Forecast, Forecaster

WINDOWS_AT_ONCE = 2**14
MOST_ERRORS = 2**22
"""Whose quantiles are taken of one period of the horizon; of more, every so manieth."""


class PointForecaster(Forecaster):
    """A forecast of the mean, and the quantiles of what it missed by on the windows so far.

    Errors are taken in units of the window's scale and of how far the series is missed by on
    average, so that the shape of their distribution is that of all series and its width a series'
    own. Forecasts of series that were never negative are not either.
    """

    quantiles: Tensor
    width: Tensor

    @abstractmethod
    def learn(self, past: SeriesTable) -> None:
        """Learn what `expected` needs."""

    @abstractmethod
    def expected(self, windows: Windows, past: SeriesTable) -> Tensor:
        """(B, H): the means after windows, in units of their scale."""

    def fit(self, past: SeriesTable) -> Self:
        self.learn(past)
        errors = torch.cat([self._errors(past, rows) for rows in all_windows(past)])
        of_series = errors.view(len(past), past.starts, past.horizon)
        typical = of_series.abs().mean((1, 2))
        # Series of few windows are missed by as all are.
        self.width = (0.9 * typical + 0.1 * typical.mean()).clamp_min(1e-6)
        apart = (of_series / self.width[:, None, None]).flatten(0, 1)
        levels = torch.tensor(LEVELS, device=apart.device)
        step = max(1, -(-len(apart) // MOST_ERRORS))
        self.quantiles = torch.quantile(apart[::step], levels, dim=0).T
        return self

    def forecast(self, past: SeriesTable) -> Forecast:
        windows = past.last()
        scale = windows.scale[:, None]
        mean = self.expected(windows, past) * scale
        apart = self.quantiles * (self.width[:, None] * scale)[..., None]
        quantiles = mean[..., None] + apart
        if past.is_nonnegative:
            mean, quantiles = mean.clamp_min(0), quantiles.clamp_min(0)
        return Forecast(mean, quantiles)

    def _errors(self, past: SeriesTable, rows: Tensor) -> Tensor:
        windows = past.windows(rows)
        return past.futures(rows) / windows.scale[:, None] - self.expected(windows, past)


def all_windows(past: SeriesTable) -> tuple[Tensor, ...]:
    """The windows of a table whose horizon is known, in parts (B,) int64 that fit the memory."""
    rows = torch.arange(past.num_windows, device=past.values.device)
    return rows.split(WINDOWS_AT_ONCE)
