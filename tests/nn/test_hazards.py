import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.nn.hazards import (
    L1,
    HazardGradientPenalty,
    breslow,
    censored_log_likelihood,
    cumulative_on_grid,
    discrete_log_likelihood,
    draw_times,
    efron,
    gauss_legendre,
    hazard_and_cumulative,
    mass_log_likelihood,
    ties,
)


def test_likelihood_of_a_constant_hazard_is_scipys() -> None:
    times = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    rate = torch.full_like(times, 0.4)
    right = stats.expon(scale=2.5)
    for observed, expected in ((True, right.logpdf(times)), (False, right.logsf(times))):
        seen = torch.full((3,), observed)
        found = censored_log_likelihood(rate.log(), rate * times, seen)
        torch.testing.assert_close(found, torch.from_numpy(expected))


def test_fifteen_points_integrate_weibulls_hazard() -> None:
    until = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    hazard, cumulative = hazard_and_cumulative(lambda t: 2.5 * t**1.5, until)
    torch.testing.assert_close(hazard, 2.5 * until**1.5)
    torch.testing.assert_close(cumulative, until**2.5, rtol=1e-5, atol=0)
    points, weights = gauss_legendre(15, until)
    assert (weights * points**29).sum().item() == pytest.approx(1 / 30)


def test_integral_on_a_grid() -> None:
    grid = torch.tensor([0.0, 0.2, 1.0, 1.5], dtype=torch.float64)
    found = cumulative_on_grid(lambda t: (t**2).expand(2, -1), grid, num_points=2)
    torch.testing.assert_close(found, (grid**3 / 3).expand(2, -1))
    middle = cumulative_on_grid(lambda t: (2 * t).expand(1, -1), grid)
    torch.testing.assert_close(middle[0], grid**2)


def test_discrete_likelihood_multiplies_what_was_survived() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    for interval, observed, share in (
        (0, True, 0.5),
        (1, True, 0.5 * 0.75),
        (0, False, 1.0),
        (1, False, 0.5),
        (2, False, 0.5 * 0.25),
    ):
        found = discrete_log_likelihood(logits, torch.tensor([interval]), torch.tensor([observed]))
        assert found.exp().item() == pytest.approx(share)


def test_mass_likelihood_sums_what_may_still_come() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log()
    for interval, observed, share in (
        (1, True, 0.5),
        (0, False, 1.0),
        (1, False, 0.8),
        (2, False, 0.3),
    ):
        found = mass_log_likelihood(logits, torch.tensor([interval]), torch.tensor([observed]))
        assert found.exp().item() == pytest.approx(share)


def _rows(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    scores = torch.tensor(generator.normal(size=30), dtype=dtype)
    durations = torch.tensor(generator.integers(1, 8, size=30), dtype=dtype)
    return scores, durations, torch.tensor(generator.random(30) < 0.7)


def _partial_by_hand(
    scores: Tensor, durations: Tensor, observed: Tensor, *, leave_out: bool
) -> float:
    total = 0.0
    for time in durations[observed].unique():
        tied = scores[observed & (durations == time)]
        at_risk = scores[durations >= time].exp().sum()
        for place in range(len(tied)):
            less = place / len(tied) * tied.exp().sum() if leave_out else 0.0
            total += float(tied[place] - torch.log(at_risk - less))
    return total


@pytest.mark.parametrize("seed", range(3))
def test_partial_likelihoods_are_sums_over_risk_sets(seed: int) -> None:
    rows = _rows(seed)
    assert breslow(*rows).item() == pytest.approx(_partial_by_hand(*rows, leave_out=False))
    assert efron(*rows).item() == pytest.approx(_partial_by_hand(*rows, leave_out=True))


def test_partial_likelihoods_of_extreme_scores() -> None:
    scores, durations, observed = _rows(0, torch.float32)
    for of in (breslow, efron):
        assert of(scores + 500, durations, observed).item() == pytest.approx(
            of(scores, durations, observed).item(), rel=1e-3
        )
        assert of(200 * scores, durations, observed).isfinite()


def test_ties_are_counted_within_a_time() -> None:
    group, part = ties(torch.tensor([3.0, 1.0, 3.0, 3.0, 2.0]))
    assert group.tolist() == [2, 0, 2, 2, 1]
    assert part.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 0])


def test_drawn_times_have_the_density_given_that_they_lie_on_the_grid() -> None:
    grid = torch.linspace(0, 3, 64, dtype=torch.float64)
    uniform = torch.linspace(0, 1, 2001, dtype=torch.float64)
    found = draw_times((0.8 * grid).expand(2001, -1), grid, uniform)
    expected = stats.truncexpon(b=3 * 0.8, scale=1 / 0.8).ppf(uniform)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=2e-3)


class _Linear(nn.Module):
    """h(t|x) = 1 + t x w."""

    horizon = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[0.3], [-0.4]]))
        self.bias = nn.Parameter(torch.ones(1))

    def hazard(self, until: Tensor, covariates: Tensor) -> Tensor:
        return self.bias + until * (covariates @ self.w)[:, 0]

    def cumulative_on(self, grid: Tensor, covariates: Tensor) -> Tensor:
        return grid + grid**2 / 2 * (covariates @ self.w)

    def weights(self) -> list[nn.Parameter]:
        return [self.w]


def test_hazard_gradient_penalty_is_the_mean_norm_of_the_gradient() -> None:
    torch.manual_seed(0)
    network, covariates = _Linear(), torch.zeros(4000, 2)
    penalty = HazardGradientPenalty(0.5)
    found = penalty(network, covariates)
    # || grad || = t |w|, |w| = 0.5; t is of the unit exponential, given that it is below 2.
    density = stats.truncexpon(b=2.0)
    assert found.item() == pytest.approx(0.5 * 0.5 * density.mean(), rel=0.03)
    found.backward()
    assert network.w.grad is not None
    # d |w| / d w = w / |w|; no gradient through the drawn times.
    expected = 0.5 * density.mean() * torch.tensor([[0.6], [-0.8]])
    torch.testing.assert_close(network.w.grad, expected.float(), rtol=0.03, atol=0)


def test_hazard_gradient_penalty_without_a_gradient_is_nothing() -> None:
    network = _Linear()
    nn.init.zeros_(network.w)
    found = HazardGradientPenalty()(network, torch.randn(8, 2))
    found.backward()
    assert found == 0
    assert network.w.grad is not None
    assert network.w.grad.isfinite().all()


def test_l1_leaves_biases_out() -> None:
    assert L1(2.0)(_Linear(), torch.zeros(1, 2)).item() == pytest.approx(1.4)


def test_options_out_of_range() -> None:
    with pytest.raises(ConfigError, match="weight=-1"):
        L1(-1.0)
    with pytest.raises(ConfigError, match="weight=-1"):
        HazardGradientPenalty(-1.0)
    with pytest.raises(ConfigError, match="num_points=1"):
        HazardGradientPenalty(num_points=1)


def test_density_of_an_integrated_hazard_is_one() -> None:
    def density(time: float) -> float:
        until = torch.tensor([time], dtype=torch.float64)
        hazard, cumulative = hazard_and_cumulative(lambda t: 0.2 + torch.sin(t) ** 2, until)
        seen = torch.tensor([True])
        return censored_log_likelihood(hazard.log(), cumulative, seen).exp().item()

    found, _ = integrate.quad(density, 0, 12)
    _, cumulative = hazard_and_cumulative(
        lambda t: 0.2 + torch.sin(t) ** 2, torch.tensor([12.0], dtype=torch.float64)
    )
    assert found == pytest.approx(1 - math.exp(-cumulative.item()), abs=1e-3)
