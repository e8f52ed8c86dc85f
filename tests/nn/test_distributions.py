"""The Tweedie density against an explicit sum of gammas, and each head against its likelihood."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp
from torch import Tensor
from torch.distributions import Distribution, Multinomial

from recsys.errors import ConfigError
from recsys.nn.distributions import (
    MAX_LOG_MEAN,
    GaussianHead,
    MultinomialHead,
    OutputHead,
    Tweedie,
    TweedieHead,
    tweedie_loss,
)


@pytest.fixture(autouse=True)
def _validated() -> None:
    """The compiler, which other tests of this process may have used, turns the checks off."""
    Distribution.set_default_validate_args(True)


SETTINGS = [(0.02, 1.0, 1.5), (1.0, 0.5, 1.2), (3.0, 2.0, 1.7), (40.0, 1.5, 1.05)]
HEADS: list[OutputHead] = [
    TweedieHead(),
    TweedieHead(power=1.2, dispersion=3.0),
    MultinomialHead(),
    GaussianHead(variance=0.3),
]

powers = st.floats(1.02, 1.98)
means = st.floats(-4, 4).map(math.exp)


def double(*values: float) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


def tweedie64(mean: float, dispersion: float, power: float) -> Tweedie:
    return Tweedie(torch.tensor(mean, dtype=torch.float64), dispersion, power)


def explicit_log_density(y: float, mean: float, dispersion: float, power: float) -> float:
    """Every number of parts up to far beyond the likely ones: Poisson mass times gamma density."""
    rate = mean ** (2 - power) / (dispersion * (2 - power))
    shape, scale = (2 - power) / (power - 1), dispersion * (power - 1) * mean ** (power - 1)
    likely = y ** (2 - power) / (dispersion * (2 - power))
    parts = np.arange(1, int(likely + 20 * likely**0.5 + 200))
    mass = stats.poisson.logpmf(parts, rate)
    return float(logsumexp(mass + stats.gamma.logpdf(y, parts * shape, scale=scale)))


@settings(deadline=None, max_examples=200)
@given(mean=means, dispersion=means, power=powers, ratio=st.floats(-5, 3).map(math.exp))
def test_log_prob_equals_the_explicit_sum(
    mean: float, dispersion: float, power: float, ratio: float
) -> None:
    y = mean * ratio
    actual = tweedie64(mean, dispersion, power).log_prob(torch.tensor(y))
    y = torch.tensor(y).item()
    expected = explicit_log_density(y, mean, dispersion, power)
    assert actual.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("power", [1.1, 1.5, 1.9])
@pytest.mark.parametrize("parts", [63.0, 65.0, 120.0, 3_000.0, 50_000.0])
def test_log_prob_with_many_parts_equals_the_explicit_sum(power: float, parts: float) -> None:
    dispersion = 1 / (parts * (2 - power))
    actual = tweedie64(1.1, dispersion, power).log_prob(*double(1.0))
    expected = explicit_log_density(1.0, 1.1, dispersion, power)
    assert actual.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("mean", "dispersion", "power"), [*SETTINGS, (0.5, 2.0, 1.95)])
def test_density_and_point_mass_add_up_to_one(mean: float, dispersion: float, power: float) -> None:
    distribution = tweedie64(mean, dispersion, power)
    log_y = torch.linspace(-500, 10, 10_001, dtype=torch.float64)
    density = (distribution.log_prob(log_y.exp()) + log_y).exp()
    first_moment = torch.trapezoid(density * log_y.exp(), log_y)
    total = torch.trapezoid(density, log_y) + distribution.zero_probability
    assert total.item() == pytest.approx(1, abs=1e-6)
    assert first_moment.item() == pytest.approx(mean, rel=1e-5)


def test_log_prob_of_zero_is_the_point_mass() -> None:
    distribution = Tweedie(torch.tensor([0.1, 1.0, 5.0]), 2.0, 1.4)
    expected = -(torch.tensor([0.1, 1.0, 5.0]) ** 0.6) / (2.0 * 0.6)
    torch.testing.assert_close(distribution.log_prob(torch.zeros(3)), expected)
    torch.testing.assert_close(distribution.zero_probability, expected.exp())


def test_log_prob_is_computed_in_double_and_returned_in_the_parameters_type() -> None:
    parameters = torch.tensor([30.0, 0.001, 1.5])
    single = Tweedie(*parameters).log_prob(torch.tensor(29.0))
    exact = Tweedie(*parameters.double()).log_prob(torch.tensor(29.0))
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(exact.item(), rel=1e-6)


def test_log_prob_prefers_the_power_that_made_the_sample() -> None:
    torch.manual_seed(0)
    sample = Tweedie(2.0, 1.0, 1.5).sample((4_000,))
    likelihood = {p: Tweedie(2.0, 1.0, p).log_prob(sample).mean() for p in (1.3, 1.5, 1.7)}
    assert max(likelihood, key=lambda p: likelihood[p].item()) == 1.5


def test_log_prob_has_the_right_gradients() -> None:
    y = torch.tensor([0.0, 0.3, 2.0, 900.0], dtype=torch.float64)
    parameters = [x.expand(4).clone().requires_grad_() for x in double(1.5, 0.8, 1.4)]
    assert torch.autograd.gradcheck(
        lambda *parameter: Tweedie(*parameter).log_prob(y), parameters, rtol=1e-4
    )


@pytest.mark.parametrize(("mean", "dispersion", "power"), SETTINGS)
def test_samples_have_the_stated_mean_and_variance(
    mean: float, dispersion: float, power: float
) -> None:
    torch.manual_seed(0)
    distribution = tweedie64(mean, dispersion, power)
    sample = distribution.sample((200_000,))
    squares = (sample - mean).square()
    assert distribution.mean.item() == mean
    assert distribution.variance.item() == pytest.approx(dispersion * mean**power)
    for values, expected in [(sample, mean), (squares, distribution.variance.item())]:
        standard_error = values.std().item() / len(values) ** 0.5
        assert values.mean().item() == pytest.approx(expected, abs=4 * standard_error)


@pytest.mark.parametrize(("mean", "dispersion", "power"), [*SETTINGS, (1e-9, 40.0, 1.98)])
def test_samples_are_exactly_zero_at_the_stated_rate(
    mean: float, dispersion: float, power: float
) -> None:
    """The last setting's parts underflow in float32, which must not make a zero of them."""
    torch.manual_seed(0)
    distribution = Tweedie(mean, dispersion, power)
    zeros = (distribution.sample((100_000,)) == 0).sum().item()
    expected = distribution.zero_probability.item()
    assert stats.binomtest(zeros, 100_000, expected).pvalue > 1e-3


def test_samples_follow_the_distribution_function() -> None:
    torch.manual_seed(0)
    mean, dispersion, power = 2.0, 1.3, 1.6
    sample = Tweedie(mean, dispersion, power).sample((20_000,)).numpy()
    parts = np.arange(1, 100)
    mass = stats.poisson.pmf(parts, mean**0.4 / (dispersion * 0.4))
    shape, scale = 0.4 / 0.6, dispersion * 0.6 * mean**0.6

    def positive_part(y: np.ndarray) -> np.ndarray:
        return stats.gamma.cdf(y[:, None], parts * shape, scale=scale) @ mass / mass.sum()

    assert stats.kstest(sample[sample > 0], positive_part).pvalue > 1e-3


def test_the_seed_decides_the_sample() -> None:
    distribution = Tweedie(torch.tensor([0.5, 2.0]), 1.0, 1.5)
    samples = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        samples.append(distribution.sample((50,)))
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


def test_shapes_broadcast_and_expand() -> None:
    distribution = Tweedie(torch.rand(3, 1) + 0.1, torch.ones(4), 1.5)
    assert distribution.batch_shape == (3, 4)
    assert distribution.sample((2,)).shape == (2, 3, 4)
    assert distribution.log_prob(torch.ones(2, 3, 4)).shape == (2, 3, 4)
    wider = distribution.expand((5, 3, 4))
    assert wider.batch_shape == (5, 3, 4)
    torch.testing.assert_close(wider.variance[2], distribution.variance)
    torch.testing.assert_close(
        wider.log_prob(torch.tensor(0.7))[4], distribution.log_prob(torch.tensor(0.7))
    )


def test_its_text_shows_all_parameters() -> None:
    assert repr(Tweedie(2.0, 1.0, 1.5)) == "Tweedie(mean: 2.0, dispersion: 1.0, power: 1.5)"
    assert "mean: torch.Size([3])" in repr(Tweedie(torch.ones(3), 1.0, 1.5))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ((0.0, 1.0, 1.5), r"parameter mean .* GreaterThan\(lower_bound=0.0\)"),
        ((1.0, -1.0, 1.5), r"parameter dispersion .* GreaterThan\(lower_bound=0.0\)"),
        ((1.0, 1.0, 1.0), "parameter power .* 1 < power < 2"),
        ((1.0, 1.0, 2.0), "parameter power .* 1 < power < 2"),
    ],
)
def test_parameters_out_of_range_are_refused(
    parameters: tuple[float, float, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Tweedie(*parameters)


def test_log_prob_refuses_negative_values() -> None:
    with pytest.raises(ValueError, match="within the support"):
        Tweedie(1.0, 1.0, 1.5).log_prob(torch.tensor(-0.5))


@settings(deadline=None)
@given(eta=st.floats(-11, 11), y=st.one_of(st.just(0.0), means), power=powers)
def test_loss_and_gradient_are_the_stated_formulas(eta: float, y: float, power: float) -> None:
    (log_mean, target), mean = double(eta, y), math.exp(eta)
    log_mean.requires_grad_()
    loss = tweedie_loss(log_mean, target, power)
    (gradient,) = torch.autograd.grad(loss, log_mean)
    expected = -y * mean ** (1 - power) / (1 - power) + mean ** (2 - power) / (2 - power)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    size = mean ** (1 - power) * (mean + y)
    assert gradient.item() == pytest.approx(mean ** (1 - power) * (mean - y), abs=1e-12 * size)


@settings(deadline=None)
@given(y=means, mean=means, other=means, dispersion=means, power=powers)
def test_loss_differs_from_log_prob_by_a_constant(
    y: float, mean: float, other: float, dispersion: float, power: float
) -> None:
    target, phi, p = double(y, dispersion, power)
    assume(y ** (2 - power) / dispersion < 1e6)
    losses = [tweedie_loss(m.log(), target, power) / dispersion for m in double(mean, other)]
    log_probs = [Tweedie(m, phi, p).log_prob(target) for m in double(mean, other)]
    size = max(abs(loss.item()) for loss in losses)
    assert (losses[0] - losses[1]).item() == pytest.approx(
        (log_probs[1] - log_probs[0]).item(), abs=1e-9 * (1 + size)
    )


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("y", [0.0, 3.0])
def test_loss_goes_on_along_its_tangent_beyond_the_bound(sign: int, y: float) -> None:
    log_mean = sign * torch.tensor([MAX_LOG_MEAN, MAX_LOG_MEAN + 1, 1e4])
    log_mean.requires_grad_()
    loss = tweedie_loss(log_mean, torch.full((3,), y), 1.5)
    (gradient,) = torch.autograd.grad(loss.sum(), log_mean)
    assert gradient[0] != 0
    torch.testing.assert_close(gradient, gradient[0].expand(3))
    torch.testing.assert_close(loss[1] - loss[0], sign * gradient[0])


def test_loss_near_power_one_is_the_poisson_loss() -> None:
    eta = torch.linspace(-3, 3, 13, dtype=torch.float64)
    target = torch.arange(13, dtype=torch.float64)
    power = 1 + 1e-7
    loss = tweedie_loss(eta, target, power) - tweedie_loss(torch.zeros_like(eta), target, power)
    poisson = torch.nn.functional.poisson_nll_loss(eta, target, reduction="none") - 1
    torch.testing.assert_close(loss, poisson, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.0, math.nan])
def test_a_power_outside_one_to_two_is_refused(power: float) -> None:
    one = torch.ones(())
    for build in (
        lambda: tweedie_loss(one, one, power),
        lambda: TweedieHead(power=power),
    ):
        with pytest.raises(ConfigError, match=f"power={power} is not between 1 and 2"):
            build()


def test_options_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dispersion=0\.0: expected above 0"):
        TweedieHead(dispersion=0.0)
    with pytest.raises(ConfigError, match=r"variance=-1\.0: expected above 0"):
        GaussianHead(variance=-1.0)


@pytest.fixture
def logits() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 5, dtype=torch.float64)


@pytest.fixture
def counts() -> Tensor:
    values = [[0, 2, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 4, 0, 3]]
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_a_head_has_the_protocols_shapes(head: OutputHead, logits: Tensor, counts: Tensor) -> None:
    assert head.loss(logits, counts).shape == (3,)
    assert head.mean(logits).shape == (3, 5)
    assert head.initial_bias(counts.mean(0)).shape == (5,)
    distribution = head.distribution(logits)
    assert (distribution.batch_shape, distribution.event_shape) == ((3,), (5,))
    assert distribution.sample().shape == (3, 5)
    torch.testing.assert_close(distribution.mean, head.mean(logits))


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_a_heads_loss_is_its_negative_log_likelihood_up_to_a_constant(
    head: OutputHead, logits: Tensor
) -> None:
    single = torch.eye(5, dtype=torch.float64)[:3]
    other = logits.flip(0)
    loss = head.loss(logits, single) - head.loss(other, single)
    log_prob = head.distribution(logits).log_prob(single) - head.distribution(other).log_prob(
        single
    )
    torch.testing.assert_close(loss, -log_prob)


def test_multinomial_loss_is_torchs_without_the_multinomial_coefficient(
    logits: Tensor, counts: Tensor
) -> None:
    loss = MultinomialHead().loss(logits, counts)
    for row, user_logits, user_counts in zip(loss, logits, counts, strict=True):
        n = int(user_counts.sum())
        coefficient = math.lgamma(n + 1) - torch.lgamma(user_counts + 1).sum()
        log_prob = Multinomial(n, logits=user_logits).log_prob(user_counts)
        torch.testing.assert_close(row, coefficient - log_prob)


def test_gaussian_loss_is_the_closed_form(logits: Tensor, counts: Tensor) -> None:
    head = GaussianHead(variance=0.3)
    normal = stats.norm(logits.numpy(), 0.3**0.5).logpdf(counts.numpy()).sum(1)
    constant = 5 * 0.5 * math.log(2 * math.pi * 0.3)
    np.testing.assert_allclose(head.loss(logits, counts).numpy(), -normal - constant)


def test_tweedie_means_below_one_exist_and_stay_finite_for_any_logit() -> None:
    mean = TweedieHead().mean(torch.tensor([[-5.0, 0.0, -1e4, 1e4]]))
    expected = torch.tensor([[-5.0, 0.0, -MAX_LOG_MEAN, MAX_LOG_MEAN]]).exp()
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_the_initial_bias_is_where_the_loss_of_a_constant_is_least(
    head: OutputHead, counts: Tensor
) -> None:
    nonzero = counts[:, counts.sum(0) > 0]
    bias = head.initial_bias(nonzero.mean(0)).requires_grad_()
    loss = head.loss(bias.expand(nonzero.shape), nonzero).sum()
    (gradient,) = torch.autograd.grad(loss, bias)
    torch.testing.assert_close(gradient, torch.zeros_like(bias))


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_an_item_without_events_starts_with_the_least_finite_bias(head: OutputHead) -> None:
    bias = head.initial_bias(torch.tensor([0.5, 0.0, 0.01]))
    assert bias.isfinite().all()
    assert bias.argmin() == 1
    assert bias[1] >= -8


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_heads_are_values(head: OutputHead) -> None:
    assert dataclasses.replace(head) == head  # type: ignore[type-var]
    with pytest.raises(dataclasses.FrozenInstanceError):
        head.power = 1.1  # type: ignore[attr-defined]


def test_heads_come_from_a_config() -> None:
    config = {"_target_": "recsys.nn.TweedieHead", "power": 1.3, "dispersion": 2.0}
    assert instantiate(config) == TweedieHead(power=1.3, dispersion=2.0)
