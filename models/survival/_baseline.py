"""Hazards that all rows share, up to a factor: in steps, and constant between a few times.

Shapes: R rows, T times of events, K cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.scoring.survival import Durations


def breslow_steps(rows: Durations, log_factor: Tensor) -> tuple[Tensor, Tensor]:
    """Breslow's H0: at the time of each event it grows by d over the factors at risk.

    Args:
        rows: with durations and whether there was an event.
        log_factor: (R) what the hazard of a row is multiplied by; 0 gives Nelson and Aalen's.

    Returns:
        times, cumulative: (T) from 0, and H0.
    """
    order = rows.durations.argsort()
    durations, factor = rows.durations[order], log_factor.exp()[order]
    at_risk = factor.flip(0).cumsum(0).flip(0)
    times, events = rows.durations[rows.observed].unique(return_counts=True)
    jumps = events / at_risk[torch.searchsorted(durations, times)]
    zero = times.new_zeros(1)
    return torch.cat([zero, times]), torch.cat([zero, jumps.cumsum(0)])


@dataclass(frozen=True, eq=False)
class ConstantHazards:
    """A hazard that is constant between times, and behind the last: events over time at risk.

    What is in steps has no density, so that it has no likelihood beside those of other models;
    this has one, and as many numbers as there are cells.

    Attributes:
        times: (K) where cells begin, from 0.
        rates: (K) events a unit of time within.
    """

    times: Tensor
    rates: Tensor

    @classmethod
    def of(cls, rows: Durations, log_factor: Tensor, num_cells: int) -> ConstantHazards:
        """The likeliest rates in cells that hold as many events each, as far as times differ."""
        events = rows.durations[rows.observed]
        share = torch.linspace(0, 1, num_cells + 1, dtype=events.dtype)[1:-1]
        inner = events.quantile(share).unique()
        inner = inner[(inner > 0) & (inner < events.max())]
        times = torch.cat([events.new_zeros(1), inner])
        exposed = (_exposure(rows.durations, times) * log_factor.exp()[:, None]).sum(0)
        # An event at a border belongs to the cell that ends there.
        cell = (torch.searchsorted(times, events) - 1).clamp(min=0)
        counts = torch.bincount(cell, minlength=len(times))
        return cls(times, counts / exposed)

    def rate(self, times: Tensor) -> Tensor:
        """The hazard at times (R)."""
        return self.rates[(torch.searchsorted(self.times, times) - 1).clamp(min=0)]

    def cumulative(self, times: Tensor) -> Tensor:
        """The integral of the hazard up to times (R)."""
        return _exposure(times, self.times) @ self.rates


def _exposure(durations: Tensor, times: Tensor) -> Tensor:
    """(R, K) how long each duration lasts within each cell."""
    ends = torch.cat([times[1:], times.new_full((1,), torch.inf)])
    return (torch.minimum(durations[:, None], ends) - times).clamp(min=0)
