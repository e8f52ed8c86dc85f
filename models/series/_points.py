"""Forecasters that say one number a period: what they missed by so far says how sure they are.

Shapes: S series, W windows, B of a batch, H periods of the horizon, Q levels.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor

from recsys.batch.series import SeriesTable, Windows
from recsys.scoring.forecaster import LEVELS, Forecast, Forecaster

WINDOWS_AT_ONCE = 2**14
MOST_ERRORS = 2**22
"""Whose quantiles are taken of one period of the horizon; of more, every so manieth."""


class PointForecaster(Forecaster):
    """A forecast of the mean, and the quantiles of what it missed by on the windows so far.

    What has learnt a window may know it by heart, and misses it by less than what comes next. So
    the errors are those of a fit on the first half of the periods, asked at every later origin of
    the table with what was known by then; the means are those of a second fit, on all of them.

    Errors are taken in units of the window's scale and of how far the series is missed by on
    average, so that the shape of their distribution is that of all series and its width a series'
    own. Forecasts of series that were never negative are not either.

    Attributes:
        learns_windows: whether `learn` takes anything from windows; errors of what does not are
            those of all windows.
    """

    learns_windows: ClassVar[bool] = True
    quantiles: Tensor
    width: Tensor

    @abstractmethod
    def learn(self, past: SeriesTable) -> None:
        """Learn what `expected` needs, and nothing of what was learnt before."""

    @abstractmethod
    def expected(self, windows: Windows, past: SeriesTable) -> Tensor:
        """(B, H): the means after windows, in units of their scale."""

    def fit(self, past: SeriesTable) -> Self:
        errors = self._later_errors(past) if self.learns_windows else None
        self.learn(past)
        errors = self._errors_of_all(past) if errors is None else errors
        typical = errors.abs().mean((1, 2))
        # Series of few windows are missed by as all are.
        self.width = (0.9 * typical + 0.1 * typical.mean()).clamp_min(1e-6)
        apart = (errors / self.width[:, None, None]).flatten(0, 1)
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

    def _later_errors(self, past: SeriesTable) -> Tensor:
        """(S, W, H): what a fit on the first half is missed by at the origins after it.

        Of fewer periods than two windows that share nothing but their context need, the errors of
        each window's own mean, which has learnt nothing.
        """
        middle = max(past.width, (past.context + past.num_periods) // 2)
        origins = range(middle, past.num_periods - past.horizon + 1)
        if not origins:
            rows = torch.cat(all_windows(past))
            windows = past.windows(rows)
            said = windows.scaled.mean(1, keepdim=True)
            return self._by_series(past, past.futures(rows) / windows.scale[:, None] - said)
        self.learn(past.before(middle))
        return torch.stack([self._errors_at(past, origin) for origin in origins], dim=1)

    def _errors_at(self, past: SeriesTable, origin: int) -> Tensor:
        """(S, H): what it is missed by at an earlier origin."""
        known = past.before(origin)
        windows = known.last()
        return past.after(origin) / windows.scale[:, None] - self.expected(windows, known)

    def _errors_of_all(self, past: SeriesTable) -> Tensor:
        """(S, W, H): what it is missed by on every window."""
        parts = []
        for rows in all_windows(past):
            windows = past.windows(rows)
            said = self.expected(windows, past)
            parts.append(past.futures(rows) / windows.scale[:, None] - said)
        return self._by_series(past, torch.cat(parts))

    def _by_series(self, past: SeriesTable, errors: Tensor) -> Tensor:
        return errors.view(len(past), past.starts, past.horizon)


def all_windows(past: SeriesTable) -> tuple[Tensor, ...]:
    """The windows of a table whose horizon is known, in parts (B,) int64 that fit the memory."""
    rows = torch.arange(past.num_windows, device=past.values.device)
    return rows.split(WINDOWS_AT_ONCE)
