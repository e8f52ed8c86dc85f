"""Intervals of forecasters that say one number: of noise, which can be learnt by heart alone."""

from dataclasses import replace

import torch

from recsys.batch.series import SeriesTable
from recsys.models.series.linear_lags import LinearLags
from recsys.scoring.forecaster import LEVELS, Forecast
from recsys.scoring.trust import build
from recsys.testing.forecasters import weekly_series

TREES = {
    "_target_": "recsys.models.LightGBMLags",
    "num_trees": 60,
    "learning_rate": 0.3,
    "min_leaf": 5,
}


def noise(seed: int) -> SeriesTable:
    """Twenty weeks of five series of counts about 20 that nothing tells."""
    values = torch.poisson(torch.full((5, 154), 20.0), torch.Generator().manual_seed(seed))
    return SeriesTable(values, torch.eye(7).repeat(22, 1), 42, 14, 7)


def share_inside(forecast: Forecast, came: torch.Tensor, low: float, high: float) -> float:
    ends = [forecast.quantiles[..., LEVELS.index(level)] for level in (low, high)]
    return ((came >= ends[0]) & (came <= ends[1])).float().mean().item()


def test_what_is_learnt_by_heart_makes_no_interval_narrow() -> None:
    """By the errors of windows that were learnt, .20 and .49 were inside."""
    shares = []
    for table in map(noise, range(3)):
        past = table.before(140)
        forecast = build(TREES).fit(past).forecast(past)
        came = table.after(140)
        shares.append(
            [share_inside(forecast, came, *ends) for ends in ((0.25, 0.75), (0.05, 0.95))]
        )
    half, most = torch.tensor(shares).mean(0).tolist()
    assert 0.4 < half < 0.65
    assert 0.82 < most < 0.98


def test_the_means_are_those_of_all_windows() -> None:
    past = weekly_series()
    fitted, learnt = LinearLags().fit(past), LinearLags()
    learnt.learn(past)
    assert fitted.weights.equal(learnt.weights)


def test_errors_are_those_of_windows_behind_the_ones_that_were_learnt() -> None:
    """What a fit on the first half would be missed by, if it was asked at each later origin."""
    past = weekly_series(num_weeks=12)
    middle = (28 + 84) // 2
    early = LinearLags()
    early.learn(past.before(middle))
    errors = []
    for origin in range(middle, 84 - 14 + 1):
        known = past.before(origin)
        windows = known.last()
        errors.append(past.after(origin) / windows.scale[:, None] - early.expected(windows, known))
    typical = torch.stack(errors, dim=1).abs().mean((1, 2))
    width = LinearLags().fit(past).width
    torch.testing.assert_close(width, 0.9 * typical + 0.1 * typical.mean())


def test_periods_that_are_too_few_to_hold_some_out_give_wide_intervals() -> None:
    """28 + 14 + 13: the errors are those of a window's mean, not the 0 of what was learnt."""
    past = weekly_series().before(55)
    exact = replace(past, values=torch.tensor([1.0, 9.0, 1.0, 1.0, 1.0]).repeat(6, 11))
    model = LinearLags(l2=1e-9).fit(exact)
    assert (model._errors_of_all(exact).abs().mean() < 0.01).all()
    assert (model.width > 0.5).all()
