"""Time in intervals, for models of discrete hazards.

Shapes: R rows, K intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.scoring.survival import Durations, kaplan_meier


@dataclass(frozen=True, eq=False)
class Intervals:
    """K intervals, each without its beginning and with its end.

    Attributes:
        cuts: (K + 1) ascending from 0.
    """

    cuts: Tensor

    @classmethod
    def of(cls, rows: Durations, num_intervals: int) -> Intervals:
        """Intervals in which the Kaplan-Meier curve falls by as much, as far as times differ."""
        times, survival = kaplan_meier(rows.durations, rows.observed)
        wanted = torch.linspace(1, float(survival[-1]), num_intervals + 1)[1:-1]
        place = (survival[None] <= wanted[:, None] + 1e-6).int().argmax(1)
        inner = times[place].unique()
        last = rows.durations.max()
        # A last interval without an event would be one without a hazard.
        inner = inner[(inner > 0) & (inner < times[-1])]
        return cls(torch.cat([last.new_zeros(1), inner, last[None]]))

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def interval(self, rows: Durations) -> Tensor:
        """(R) int64, of an event its interval; of a censored row, how many it has survived.

        An interval is survived from its middle on, as in Gensheimer & Narasimhan.
        """
        event = (torch.searchsorted(self.cuts, rows.durations) - 1).clamp(0, len(self) - 1)
        middles = (self.cuts[1:] + self.cuts[:-1]) / 2
        survived = torch.searchsorted(middles, rows.durations, right=True)
        return torch.where(rows.observed, event, survived)
