"""Epsilon against dp-accounting 0.6.0, run once outside of this environment."""

import json
from pathlib import Path

import pytest
import torch

from recsys.errors import ConfigError
from recsys.training.privacy import GaussianNoise, epsilon

CASES = json.loads((Path(__file__).parent / "epsilon_expected.json").read_text())["cases"]
ids = [f"{case['share']:.2f}-{case['multiplier']}" for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_epsilon_of_an_independent_accountant(case: dict[str, float]) -> None:
    options = (case["share"], case["multiplier"], case["num_rounds"], case["delta"])
    assert epsilon(*options) == pytest.approx(case["rdp_same_orders"], rel=1e-9)
    # An accountant of another kind, by the distribution of privacy losses, is tighter by a little.
    assert case["pld"] < epsilon(*options) < 1.25 * case["pld"]


def test_more_rounds_and_less_noise_cost_more() -> None:
    noise = GaussianNoise(multiplier=1.0)
    assert noise.epsilon(0.1, 10) < noise.epsilon(0.1, 20)
    assert noise.epsilon(0.1, 10) < GaussianNoise(multiplier=0.5).epsilon(0.1, 10)
    assert noise.epsilon(0.1, 10) < noise.epsilon(0.2, 10)


def test_noise_has_the_deviation_that_is_counted() -> None:
    noise = GaussianNoise(clip=3.0, multiplier=0.5)
    noisy = noise.added(torch.ones(100_000), torch.Generator().manual_seed(0))
    assert noisy.mean().item() == pytest.approx(1, abs=0.02)
    assert noisy.std().item() == pytest.approx(1.5, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0.0}, r"clip=0\.0: expected above 0"),
        ({"multiplier": 0.0}, r"multiplier=0\.0: expected above 0"),
        ({"delta": 2.0}, r"delta=2\.0: expected a share"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GaussianNoise(**options)


def test_a_share_of_no_clients() -> None:
    with pytest.raises(ConfigError, match=r"share=0\.0: expected above 0, to 1"):
        epsilon(0.0, 1.0, 1, 1e-5)
