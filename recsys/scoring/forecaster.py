"""Forecasters: what says how series go on, as a `Scorer` says what a user takes next.

Shapes: S series, H periods of the horizon, Q levels, P paths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from recsys.batch.series import SeriesTable

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Of the quantiles of every forecast: .05, .10, … .95."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is expected of each series and period.

    Attributes:
        mean: (S, H), which squared errors are asked of.
        quantiles: (S, H, Q) at `LEVELS`, ascending; absolute errors are asked of the median.
    """

    mean: Tensor
    quantiles: Tensor

    @classmethod
    def of_paths(cls, paths: Tensor) -> Forecast:
        """A forecast by samples (S, P, H)."""
        levels = torch.tensor(LEVELS, dtype=paths.dtype, device=paths.device)
        quantiles = torch.quantile(paths, levels, dim=1)
        return cls(paths.mean(1), quantiles.permute(1, 2, 0))

    @property
    def median(self) -> Tensor:
        """(S, H)."""
        return self.quantiles[..., LEVELS.index(0.5)]


class Forecaster(ABC):
    """Learns from series up to an origin, and says how series go on after theirs.

    What is beyond the origin is not in the table that a forecaster is given. One that was fitted at
    an origin may be asked at later ones, with all that is known by then.
    """

    @abstractmethod
    def fit(self, past: SeriesTable) -> Self:
        """Learn from a table of at least one window whose horizon is known."""

    @abstractmethod
    def forecast(self, past: SeriesTable) -> Forecast:
        """The horizon after the table's last period; its series are those of `fit`."""
