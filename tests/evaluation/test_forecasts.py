"""Metrics of forecasts by hand, against the normal distribution's closed form, and backtests."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

from recsys.batch.series import SeriesTable
from recsys.errors import ConfigError, RunError
from recsys.evaluation import forecasts
from recsys.evaluation.forecasts import SUMS, backtest, by_group, crps, leads, means, spread, sums
from recsys.models.series.seasonal_naive import SeasonalNaive
from recsys.scoring.forecaster import LEVELS, Forecast
from recsys.testing.forecasters import weekly_series

PAST = SeriesTable(torch.tensor([[1.0, 3.0, 1.0, 3.0]]), torch.zeros(6, 0), 2, 2, 1)
"""Whose naive error is 2."""


def flat(value: float, width: float = 0.0) -> Forecast:
    """The same quantiles, evenly about a value, for two periods of a series."""
    away = torch.tensor(LEVELS) - 0.5
    quantiles = value + width * away.expand(1, 2, -1)
    return Forecast(torch.full((1, 2), value), quantiles)


def row(forecast: Forecast, came: list[float]) -> dict[str, float]:
    found = sums(forecast, torch.tensor([came]), PAST)
    return by_group(found.with_columns(origin=0), "origin").row(0, named=True)


def test_every_metric_by_hand() -> None:
    found = row(flat(4.0), [6.0, 0.0])
    assert found["rmse"] == pytest.approx(np.sqrt((4 + 16) / 2))
    assert found["nrmse"] == pytest.approx(np.sqrt(10) / 3)
    assert found["wape"] == pytest.approx(6 / 6)
    assert found["mape"] == pytest.approx(2 / 6)  # of the day that is not zero
    assert found["mase"] == pytest.approx((2 + 4) / 2 / 2)
    # Twice the loss is 2 a 2 where 6 came, and 2 (1 - a) 4 where nothing did: on average 2 and 4.
    assert found["wql"] == pytest.approx((2 + 4) / 6)
    # By trapezoids over .05 … .95: .05 times the sum of 2 a 2, which is 1.9, and of 2 (1 - a) 4.
    assert found["crps"] == pytest.approx((1.9 + 3.8) / 2)
    assert (found["coverage_50"], found["coverage_90"]) == (0, 0)


def test_coverage_counts_what_lies_within_the_middle() -> None:
    # The middle half is 3 to 5, the middle nine tenths 2.2 to 5.8.
    found = row(flat(4.0, width=4.0), [4.9, 5.7])
    assert (found["coverage_50"], found["coverage_90"]) == (0.5, 1)


def test_series_of_zeros_count_where_they_can() -> None:
    zeros = replace(PAST, values=torch.zeros(1, 4))
    found = sums(flat(0.0), torch.zeros(1, 2), zeros).with_columns(origin=0)
    values = by_group(found, "origin").row(0, named=True)
    assert values["rmse"] == values["crps"] == 0
    assert np.isnan([values[name] for name in ("nrmse", "wape", "mape", "mase", "wql")]).all()


@pytest.mark.parametrize("came", [-2.0, 0.0, 0.7])
def test_crps_of_the_normal_distribution(came: float) -> None:
    """Gneiting & Raftery (2007): s (z (2 F(z) - 1) + 2 f(z) - 1 / sqrt(pi))."""
    quantiles = torch.from_numpy(stats.norm.ppf(LEVELS)).expand(1, 1, -1)
    exact = came * (2 * stats.norm.cdf(came) - 1) + 2 * stats.norm.pdf(came) - 1 / np.sqrt(np.pi)
    assert float(crps(quantiles, torch.tensor([[came]]).double())) == pytest.approx(exact, rel=0.02)


def test_paths_give_means_and_quantiles() -> None:
    forecast = Forecast.of_paths(torch.arange(101.0).view(1, 101, 1))
    assert forecast.mean.item() == 50
    assert forecast.quantiles[0, 0].tolist() == pytest.approx([100 * level for level in LEVELS])
    assert forecast.median.item() == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [(torch.nan, "series 0 is not finite"), (99.0, "do not ascend; sort them")],
)
def test_forecasts_that_are_none(change: float, message: str) -> None:
    forecast = flat(1.0, 1.0)
    quantiles = forecast.quantiles.clone()
    quantiles[0, 0, 3] = change
    with pytest.raises(RunError, match=message):
        sums(replace(forecast, quantiles=quantiles), torch.ones(1, 2), PAST)


def rows(shift: float, *, seeds: int = 2) -> pl.DataFrame:
    """What three series missed by at two origins."""
    generator = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "origin": np.repeat([1, 2], 3 * seeds),
            "seed": np.tile(np.repeat(np.arange(seeds), 3), 2),
            "series": np.tile(["a", "b", "c"], 2 * seeds),
        }
    )
    values = {name: generator.uniform(1, 2, len(frame)) + shift for name in SUMS}
    ones = {"sum/count": 1.0, "sum/total": 1.0, "sum/scalable": 1.0, "sum/nonzero": 1.0}
    return frame.with_columns(pl.Series(n, v) for n, v in values.items()).with_columns(
        pl.lit(value).alias(name) for name, value in ones.items()
    )


def test_means_are_over_origins_and_seeds_and_lie_in_their_intervals() -> None:
    frame = rows(0.0)
    each = frame.group_by("origin", "seed").agg(pl.col("sum/absolute").sum() / 3)
    assert means(frame)["wape"] == pytest.approx(each["sum/absolute"].mean())
    low, high = forecasts.intervals(frame, resamples=200)["wape"]
    assert low < means(frame)["wape"] < high
    over = spread(frame)
    assert over["over_origins"]["wape"] > 0
    assert spread(rows(0.0, seeds=1))["over_seeds"]["wape"] == 0


def test_the_lead_is_negative_where_the_first_misses_by_less() -> None:
    found = leads({"better": rows(0.0), "worse": rows(1.0)})
    mase = found.filter(metric="mase").row(0, named=True)
    assert mase["against"] == "worse"
    assert mase["difference"] == pytest.approx(-1)
    assert mase["origins_won"] == 2
    assert mase["p_holm"] < 1e-9
    with pytest.raises(RunError, match="forecast other series or origins"):
        leads({"a": rows(0.0), "b": rows(0.0).filter(origin=1)})


def test_a_forecaster_is_fitted_once_or_at_every_origin() -> None:
    table = weekly_series(num_series=2)
    built: list[SeasonalNaive] = []

    def build() -> SeasonalNaive:
        built.append(SeasonalNaive())
        return built[-1]

    once = backtest(table, [112, 126], build)
    again = backtest(table, [112, 126], build, "origin")
    assert len(built) == 3
    assert once.rows.shape == again.rows.shape
    assert once.forecasts.columns[:4] == ["series", "ahead", "came", "mean"]
    assert (
        once.forecasts["came"].to_list()
        == torch.cat([table.after(112).flatten(), table.after(126).flatten()]).tolist()
    )
    with pytest.raises(ConfigError, match=r"leaves 41 periods, and a window .* take 42"):
        backtest(table, [41], build)
