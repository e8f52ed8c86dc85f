"""Heads of forecasts against scipy, and the closed form of the Tweedie density."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import softplus

from recsys.errors import ConfigError
from recsys.nn.distributions import Tweedie
from recsys.nn.forecast_heads import (
    ForecastHead,
    NegativeBinomialHead,
    StudentTHead,
    TweedieForecastHead,
)

HEADS: list[ForecastHead] = [StudentTHead(), NegativeBinomialHead(), TweedieForecastHead()]


def test_negative_binomials_are_those_of_scipy() -> None:
    scale, parameters = torch.tensor([4.0]), torch.tensor([[1.0, 0.3]])
    distribution = NegativeBinomialHead().distribution(parameters, scale)
    mean = float(distribution.mean)
    beyond = (float(softplus(torch.tensor(0.3))) + 1e-4) / 2
    count = 1 / beyond
    expected = stats.nbinom.logpmf([0, 3, 9], count, count / (count + mean))
    found = distribution.log_prob(torch.tensor([0.0, 3.0, 9.0]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert float(distribution.variance) == pytest.approx(mean + beyond * mean**2, rel=1e-4)


def test_students_are_those_of_scipy() -> None:
    distribution = StudentTHead().distribution(torch.tensor([[0.5, 0.2, 1.0]]), torch.tensor([3.0]))
    degrees = 2.1 + float(softplus(torch.tensor(1.0)))
    width = 3 * (float(softplus(torch.tensor(0.2))) + 1e-4)
    expected = stats.t.logpdf([-1.0, 4.0], degrees, 1.5, width)
    np.testing.assert_allclose(
        distribution.log_prob(torch.tensor([-1.0, 4.0])), expected, rtol=1e-4
    )


@pytest.mark.parametrize("dispersion", [0.02, 1.0, 30.0])
def test_the_closed_form_at_one_and_a_half_is_the_series(dispersion: float) -> None:
    values = torch.tensor([1e-3, 0.5, 3.0, 400.0], dtype=torch.float64)
    closed = Tweedie(2.0, dispersion, 1.5).log_prob(values)
    near = [Tweedie(2.0, dispersion, 1.5 + shift).log_prob(values) for shift in (-1e-6, 1e-6)]
    torch.testing.assert_close(closed, (near[0] + near[1]) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_scales_multiply_means_and_gradients_reach_every_parameter(head: ForecastHead) -> None:
    parameters = torch.full((2, head.num_parameters), 0.7, requires_grad=True)
    distribution = head.distribution(parameters, torch.tensor([1.0, 10.0]))
    mean = distribution.mean.detach()
    assert float(mean[1] / mean[0]) == pytest.approx(10, rel=1e-4)
    distribution.log_prob(torch.tensor([0.0, 5.0])).sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()
    assert (parameters.grad.abs().sum(0) > 0).all()


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_powers_that_are_no_tweedie(power: float) -> None:
    with pytest.raises(ConfigError, match=f"power={power}"):
        TweedieForecastHead(power=power)
