"""ForecastMean: the mean of several forecasters' means and quantiles.

Source: Lichtendahl, Grushka-Cockayne & Winkler, "Is It Better to Average Probabilities or
Quantiles?", Management Science 2013: averaged quantiles stay as sharp as their members.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch

from recsys.batch.series import SeriesTable
from recsys.errors import ConfigError
from recsys.scoring.forecaster import Forecast, Forecaster


class ForecastMean(Forecaster):
    """Every member counts alike.

    Args:
        members: by name.

    Raises:
        ConfigError: there is none, or one is no forecaster.
    """

    def __init__(self, *, members: Mapping[str, object]) -> None:
        others = [name for name, member in members.items() if not isinstance(member, Forecaster)]
        if others or not members:
            wrong = f"members.{others[0]} forecasts no series" if others else "members={}"
            raise ConfigError(f"{wrong}; name models such as linear_lags or deepar")
        self.members = {n: model for n, model in members.items() if isinstance(model, Forecaster)}

    def fit(self, past: SeriesTable) -> Self:
        for member in self.members.values():
            member.fit(past)
        return self

    def forecast(self, past: SeriesTable) -> Forecast:
        forecasts = [member.forecast(past) for member in self.members.values()]
        means, quantiles = (
            torch.stack([getattr(forecast, name) for forecast in forecasts]).mean(0)
            for name in ("mean", "quantiles")
        )
        return Forecast(means, quantiles)
