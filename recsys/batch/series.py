"""Series of one length in shared tensors, and windows of them by index arithmetic.

A table ends at an origin: what came later is not in it, so nothing that is computed of a table can
know it. What is known ahead, such as weekdays, reaches a horizon further.

Shapes: S series, T periods, K numbers known ahead, C periods of context, H of the horizon,
W windows, B windows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-6
"""Of a series of zeros, which is then zero in units of its scale, too."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Stretches of series, before which nothing is read and after which something is forecast.

    Attributes:
        past: (B, C) values.
        known: (B, C + H, K) of the past and the periods after it.
        scale: (B,) above 0, a level of the values.
        series: (B,) int64.
    """

    past: Tensor
    known: Tensor
    scale: Tensor
    series: Tensor

    def rows(self, rows: Tensor) -> Windows:
        """Some of the windows, (B',) int64."""
        return Windows(self.past[rows], self.known[rows], self.scale[rows], self.series[rows])

    @property
    def scaled(self) -> Tensor:
        """(B, C): the past in units of its scale."""
        return self.past / self.scale[:, None]

    @property
    def ahead(self) -> Tensor:
        """(B, H, K): what is known of the periods to forecast."""
        return self.known[:, self.past.shape[1] :]


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """Series up to an origin, the period after the last value.

    Attributes:
        values: (S, T) float32.
        known: (T + H or more, K) float32 of each period, or (S, T + H or more, K).
        context: C, periods that a window reads.
        horizon: H, periods that are forecast.
        season: periods after which things repeat, 7 for days.

    >>> table = SeriesTable(torch.arange(6.0)[None], torch.zeros(6, 0), 2, 1, 1)
    >>> table.num_windows, table.windows(torch.tensor([1])).past, table.futures(torch.tensor([1]))
    (4, tensor([[1., 2.]]), tensor([[3.]]))
    >>> table.before(3).values, table.after(3)
    (tensor([[0., 1., 2.]]), tensor([[3.]]))
    """

    values: Tensor
    known: Tensor
    context: int
    horizon: int
    season: int

    def __len__(self) -> int:
        return len(self.values)

    @property
    def num_periods(self) -> int:
        return self.values.shape[1]

    @property
    def width(self) -> int:
        """Periods of a window and its horizon."""
        return self.context + self.horizon

    @property
    def starts(self) -> int:
        """Windows of one series whose whole horizon is known."""
        return self.num_periods - self.width + 1

    @property
    def num_windows(self) -> int:
        """W: those of all series; window w is series w // starts at w % starts."""
        return len(self) * self.starts

    @cached_property
    def level(self) -> Tensor:
        """(S,) mean absolute value of each series."""
        return self.values.abs().mean(1)

    @property
    def is_nonnegative(self) -> bool:
        return bool((self.values >= 0).all())

    def to(self, device: torch.device) -> SeriesTable:
        return replace(self, values=self.values.to(device), known=self.known.to(device))

    def before(self, origin: int) -> SeriesTable:
        """The table as it was known at an earlier origin."""
        known = self.known[..., : origin + self.horizon, :]
        return replace(self, values=self.values[:, :origin], known=known)

    def after(self, origin: int) -> Tensor:
        """(S, H): what came in the horizon of an earlier origin."""
        return self.values[:, origin : origin + self.horizon]

    def windows(self, rows: Tensor) -> Windows:
        """The windows (B,) int64 whose horizon is known."""
        series, start = rows // self.starts, rows % self.starts
        past = self.values.unfold(1, self.context, 1)[series, start]
        return self._windows(past, series, start)

    def futures(self, rows: Tensor) -> Tensor:
        """(B, H): what came after the windows (B,) int64."""
        series, start = rows // self.starts, rows % self.starts
        return self.values.unfold(1, self.horizon, 1)[series, start + self.context]

    def last(self) -> Windows:
        """The window of each series (S) that ends at the origin."""
        series = torch.arange(len(self), device=self.values.device)
        start = torch.full_like(series, self.num_periods - self.context)
        return self._windows(self.values[:, -self.context :], series, start)

    def _windows(self, past: Tensor, series: Tensor, start: Tensor) -> Windows:
        periods = start[:, None] + torch.arange(self.width, device=start.device)
        of_all = self.known.dim() == 2
        known = self.known[periods] if of_all else self.known[series[:, None], periods]
        return Windows(past, known, self._scale(past, series), series)

    def _scale(self, past: Tensor, series: Tensor) -> Tensor:
        """Between the window's own level and that of the series: a quiet window has one, too."""
        return ((past.abs().mean(1) + self.level[series]) / 2).clamp_min(SMALLEST_SCALE)
