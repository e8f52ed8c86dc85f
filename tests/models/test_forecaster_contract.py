"""The contract of `recsys.testing.forecasters` for every model of the zoo that forecasts series."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import recsys.models
from recsys.errors import ConfigError, DataError
from recsys.models.series.forecast_mean import ForecastMean
from recsys.models.series.seasonal_naive import SeasonalNaive
from recsys.models.series.weekday_mean import WeekdayMean
from recsys.scoring.forecaster import Forecaster
from recsys.scoring.trust import build
from recsys.testing.forecasters import ForecasterContract, weekly_series

SMALL = {
    "steps": {
        "_target_": "recsys.scoring.Steps",
        "learning_rate": 0.003,
        "batch_size": 32,
        "max_epochs": 3,
    },
    "num_windows": 192,
    "num_samples": 100,
}
HEADS = {
    "tweedie": {"head": {"_target_": "recsys.nn.TweedieForecastHead"}},
    "counts": {"head": {"_target_": "recsys.nn.NegativeBinomialHead"}},
}


class TestSeasonalNaive(ForecasterContract):
    largest_error = 0.2

    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.SeasonalNaive"}


class TestWeekdayMean(ForecasterContract):
    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.WeekdayMean"}


class TestLinearLags(ForecasterContract):
    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.LinearLags", "read_known": True}


class TestLightGBMLags(ForecasterContract):
    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.LightGBMLags", "num_trees": 50, "num_leaves": 7}


class TestMLPLags(ForecasterContract):
    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.MLPLags", "num_members": 2, "hidden_dim": 16, **SMALL}


class TestTiDE(ForecasterContract):
    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.TiDE", "num_members": 1, "hidden_dim": 16, **SMALL}


class TestForecastMean(ForecasterContract):
    def config(self) -> dict[str, Any]:
        members = {"linear": TestLinearLags().config(), "week": TestWeekdayMean().config()}
        return {"_target_": "recsys.models.ForecastMean", "members": members}


class TestDeepAR(ForecasterContract):
    def config(self) -> dict[str, Any]:
        lags = {"lags": [1, 7, 14], "hidden_dim": 16}
        return {"_target_": "recsys.models.DeepAR", **lags, **SMALL}


class TestDeepARWithTweedie(TestDeepAR):
    def config(self) -> dict[str, Any]:
        return super().config() | HEADS["tweedie"]


class TestDeepARWithCounts(TestDeepAR):
    def config(self) -> dict[str, Any]:
        return super().config() | HEADS["counts"]


def test_every_forecaster_keeps_the_contract() -> None:
    tested = {name.removeprefix("Test") for name in globals() if name.startswith("Test")}
    forecasters = {
        name
        for name in recsys.models.__all__
        if issubclass(getattr(recsys.models, name), Forecaster)
    }
    assert {name.partition("With")[0] for name in tested} == forecasters


def test_the_naive_forecast_is_the_last_week_twice() -> None:
    past = weekly_series()
    said = SeasonalNaive().fit(past).forecast(past)
    torch.testing.assert_close(said.mean, past.values[:, -7:].repeat(1, 2))


def test_the_mean_of_weekdays_is_that_of_four_weeks() -> None:
    past = weekly_series()
    said = WeekdayMean().fit(past).forecast(past)
    torch.testing.assert_close(said.mean[:, :7], past.values[:, -28:].view(-1, 4, 7).mean(1))


def test_more_weeks_than_the_context_holds_are_all_of_them() -> None:
    past = weekly_series()
    means = [WeekdayMean(num_weeks=n).fit(past).forecast(past).mean for n in (4, 9)]
    assert means[0].equal(means[1])


def test_a_context_without_a_week() -> None:
    past = replace(weekly_series(), context=6)
    with pytest.raises(ConfigError, match="context=6: this model reads 7 periods"):
        SeasonalNaive().fit(past)


def test_a_linear_model_of_a_line_continues_it() -> None:
    line = torch.arange(1.0, 81)[None] * torch.tensor([[1.0], [3.0]])
    past = replace(weekly_series(num_series=2), values=line)
    said = build({"_target_": "recsys.models.LinearLags", "l2": 1e-9}).fit(past).forecast(past)
    expected = torch.arange(81.0, 95)[None] * torch.tensor([[1.0], [3.0]])
    torch.testing.assert_close(said.mean, expected, rtol=0.01, atol=0.0)


def test_inputs_that_say_the_same_ask_for_a_penalty() -> None:
    """The days of a week, each of them known, add up to one."""
    with pytest.raises(ConfigError, match=r"l2=0.0: the windows .* such as l2=0.01"):
        build({"_target_": "recsys.models.LinearLags", "l2": 0.0, "read_known": True}).fit(
            weekly_series()
        )


def test_the_mean_of_forecasts_is_that_of_its_members() -> None:
    past = weekly_series()
    built = [SeasonalNaive(), WeekdayMean()]
    both = ForecastMean(members=dict(zip("ab", built, strict=True))).fit(past).forecast(past)
    each = [model.forecast(past) for model in built]
    torch.testing.assert_close(both.mean, (each[0].mean + each[1].mean) / 2)
    torch.testing.assert_close(both.quantiles, (each[0].quantiles + each[1].quantiles) / 2)


@pytest.mark.parametrize("members", [{}, {"a": {"_target_": "recsys.models.EASE"}}])
def test_members_that_forecast_nothing(members: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"members.* name models such as"):
        build({"_target_": "recsys.models.ForecastMean", "members": members})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "recsys.models.DeepAR", "lags": [28]}, r"shorter than every lag of \[28\]"),
        ({"_target_": "recsys.models.DeepAR", "lags": [0]}, r"lags\.0=0: expected at least 1"),
        ({"_target_": "recsys.models.DeepAR", "lags": []}, r"lags=\[\]: give periods back"),
    ],
)
def test_contexts_that_are_too_short_and_lags_that_are_none(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(config).fit(weekly_series())


@pytest.mark.parametrize(
    ("head", "value", "message"),
    [
        ("counts", 0.5, "0.5 is sold in a period, which is no count"),
        ("tweedie", -1.0, "-1 is sold"),
    ],
)
def test_heads_refuse_what_they_cannot_have(head: str, value: float, message: str) -> None:
    past = weekly_series()
    past.values[0, 0] = value
    with pytest.raises(DataError, match=message):
        build({"_target_": "recsys.models.DeepAR", **SMALL, **HEADS[head]}).fit(past)


def test_training_that_diverges_is_one_line() -> None:
    steps = {"steps": SMALL["steps"] | {"learning_rate": 1e30}}
    with pytest.raises(DataError, match=r"MLPLags: the loss .* lower learning_rate=1e\+30"):
        build({"_target_": "recsys.models.MLPLags", **SMALL, **steps}).fit(weekly_series())
