"""SeasonalNaive: each period as it was one season before, of days a week.

Source: Hyndman & Athanasopoulos, Forecasting: Principles and Practice, section 5.2.

Shapes: B windows, H periods of the horizon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.batch.series import SeriesTable, Windows
from recsys.errors import ConfigError
from recsys.models.series._points import PointForecaster


class SeasonalNaive(PointForecaster):
    """The last season, again and again.

    Raises:
        ConfigError: the context is shorter than a season.
    """

    learns_windows = False

    def learn(self, past: SeriesTable) -> None:
        check_context(past, past.season)

    def expected(self, windows: Windows, past: SeriesTable) -> Tensor:
        return seasons(windows, past, 1)[:, 0]


def seasons(windows: Windows, past: SeriesTable, number: int) -> Tensor:
    """(B, number, H): the horizon as it was in each of the last seasons of the context."""
    ahead = torch.arange(past.horizon, device=windows.past.device) % past.season
    back = past.season * torch.arange(number, 0, -1, device=windows.past.device)
    return windows.scaled[:, past.context - back[:, None] + ahead]


def check_context(past: SeriesTable, needed: int) -> None:
    """Raise a `ConfigError` where windows have fewer periods than are needed."""
    if past.context < needed:
        raise ConfigError(
            f"task.origins.context={past.context}: this model reads {needed} periods; give as many"
        )
