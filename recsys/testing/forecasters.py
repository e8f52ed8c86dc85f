"""Series whose right answer is known, and the contract of forecasters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from recsys.batch.series import SeriesTable
from recsys.devices import device_of
from recsys.evaluation.forecasts import backtest
from recsys.scoring import trust
from recsys.scoring.forecaster import LEVELS, Forecast, Forecaster
from recsys.testing.second_device import second_device


def weekly_series(*, num_series: int = 6, num_weeks: int = 20, seed: int = 0) -> SeriesTable:
    """Counts of sales of every series about its level, twice as many at weekends; 14 days ahead."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.arange(1, num_series + 1).float() * 20
    shape = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0])
    expected = level[:, None] * shape.repeat(num_weeks)
    known = torch.eye(7).repeat(num_weeks + 2, 1)
    return SeriesTable(torch.poisson(expected, generator), known, 28, 14, 7)


class ForecasterContract:
    """What every forecaster must do. A subclass says how it is built.

    Attributes:
        largest_error: sum of absolute errors over the sum of sales on `weekly_series`, whose
            noise alone makes about .1.
    """

    largest_error: ClassVar[float] = 0.15

    def config(self) -> dict[str, Any]:
        """The forecaster's config, as its YAML file would give it, with `_target_`."""
        raise NotImplementedError

    def built(self) -> Forecaster:
        """A forecaster, from a fixed seed."""
        torch.manual_seed(0)
        forecaster: Forecaster = trust.build(self.config())
        return forecaster

    @pytest.fixture(scope="class")
    @classmethod
    def table(cls) -> SeriesTable:
        return weekly_series()

    @pytest.fixture(scope="class")
    @classmethod
    def forecast(cls, table: SeriesTable) -> Forecast:
        past = table.before(table.num_periods - table.horizon)
        return cls().built().fit(past).forecast(past)

    def test_quantiles_are_finite_and_ascend(self, table: SeriesTable, forecast: Forecast) -> None:
        assert forecast.mean.shape == (len(table), table.horizon)
        assert forecast.quantiles.shape == (len(table), table.horizon, len(LEVELS))
        assert forecast.mean.isfinite().all()
        assert forecast.quantiles.isfinite().all()
        assert (forecast.quantiles.diff(dim=-1) >= 0).all()
        assert (forecast.quantiles >= 0).all()

    def test_it_finds_what_is_there(self, table: SeriesTable, forecast: Forecast) -> None:
        came = table.after(table.num_periods - table.horizon)
        for said in (forecast.mean, forecast.median):
            assert (said - came).abs().sum() / came.sum() < self.largest_error
        low, high = (forecast.quantiles[..., LEVELS.index(level)] for level in (0.05, 0.95))
        assert 0.7 < ((came >= low) & (came <= high)).float().mean() <= 1

    def test_same_seed_gives_the_same_numbers(self, table: SeriesTable, forecast: Forecast) -> None:
        past = table.before(table.num_periods - table.horizon)
        again = self.built().fit(past).forecast(past)
        assert again.mean.equal(forecast.mean)
        assert again.quantiles.equal(forecast.quantiles)

    def test_what_comes_after_an_origin_is_not_read(self, table: SeriesTable) -> None:
        origins = [table.num_periods - 28, table.num_periods - 14]
        values = table.values.clone()
        values[:, origins[1] :] = 1e6
        said = [
            backtest(replace(table, values=known), origins, self.built).forecasts.drop("came")
            for known in (table.values, values)
        ]
        assert said[0].equals(said[1])

    def test_series_of_zeros_are_no_trouble(self, table: SeriesTable) -> None:
        values = table.values.clone()
        values[0] = 0
        past = replace(table, values=values)
        forecast = self.built().fit(past).forecast(past)
        assert forecast.quantiles.isfinite().all()
        assert forecast.mean[0].abs().max() < 1

    def test_all_of_it_is_on_one_device(self, table: SeriesTable) -> None:
        config = self.config()
        few = {"num_windows": 32, "num_samples": 10, "num_members": 1}
        config |= {name: value for name, value in few.items() if name in config}
        if "steps" in config:
            config["steps"] = config["steps"] | {"max_epochs": 1}
        with second_device():
            past = table.to(device_of())
            forecast = trust.build(config).fit(past).forecast(past)
            assert forecast.mean.device == forecast.quantiles.device == past.values.device
