"""Survival models beside lifelines and scikit-survival, whose numbers stand in a file.

`survival_expected.json` was computed by lifelines 0.30.3 and scikit-survival 0.28.0, on 60 rows
with tied times.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.errors import ConfigError
from recsys.models import Cox, DeepHit, Gap, HazardNet, HazardODE, LogisticHazard, WeibullAFT
from recsys.models.survival._baseline import ConstantHazards
from recsys.models.survival._intervals import Intervals
from recsys.nn.hazards import L1, efron
from recsys.scoring import Steps
from recsys.scoring.survival import Durations, SurvivalCurves, kaplan_meier
from recsys.testing.survival import gaps_and_noise


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (Path(__file__).parent / "survival_expected.json").read_text()
    )
    return found


@pytest.fixture(scope="module")
def rows(expected: dict[str, Any]) -> Durations:
    return Durations(
        torch.tensor(expected["covariates"], dtype=torch.float64),
        torch.tensor(expected["durations"], dtype=torch.float64),
        torch.tensor(expected["observed"]),
    )


def test_cox_has_the_coefficients_of_lifelines(expected: dict[str, Any], rows: Durations) -> None:
    model = Cox(l2=0.0).learn(rows, rows)
    theirs = torch.tensor(expected["cox"], dtype=torch.float64)
    torch.testing.assert_close(model.coefficients, theirs, rtol=1e-6, atol=1e-8)
    score = rows.covariates @ model.coefficients
    likelihood = efron(score, rows.durations, rows.observed).item()
    assert likelihood == pytest.approx(expected["cox_log_likelihood"])


def test_cox_has_the_curves_of_lifelines(expected: dict[str, Any], rows: Durations) -> None:
    curves = Cox(l2=0.0).learn(rows, rows).curves(rows.covariates[:3])
    found = curves.at(torch.tensor(expected["cox_times"]))
    torch.testing.assert_close(found, torch.tensor(expected["cox_survival"]), rtol=1e-4, atol=1e-5)


def test_a_ridge_of_cox_draws_coefficients_to_nothing(rows: Durations) -> None:
    free, drawn, held = (
        Cox(l2=l2).learn(rows, rows).coefficients.norm() for l2 in (0.0, 30.0, 1e8)
    )
    assert free > drawn > held
    assert held < 1e-5


def test_cox_of_copies_and_constants(rows: Durations) -> None:
    covariates = torch.cat([rows.covariates, rows.covariates, torch.ones(60, 1)], dim=1)
    twice = Durations(covariates, rows.durations, rows.observed)
    found = Cox(l2=1e-6).learn(twice, twice).coefficients
    once = Cox(l2=0.0).learn(rows, rows).coefficients
    torch.testing.assert_close(found[:3] + found[3:6], once, rtol=1e-4, atol=1e-5)
    assert found[6] == 0


def test_weibull_has_the_parameters_of_lifelines(expected: dict[str, Any], rows: Durations) -> None:
    theirs = expected["weibull"]
    model = WeibullAFT(l2=0.0).learn(rows, rows)
    assert model.log_k.item() == pytest.approx(theirs["log_rho"], abs=2e-4)
    found = [model.intercept.item(), *model.coefficients.tolist()]
    assert found == pytest.approx(theirs["lambda"], abs=2e-3)
    total = model.log_likelihood(rows).sum().item()
    assert total == pytest.approx(theirs["log_likelihood"], abs=1e-3)


def test_kaplan_meier_is_that_of_lifelines(expected: dict[str, Any], rows: Durations) -> None:
    times, survival = kaplan_meier(rows.durations, rows.observed)
    theirs = expected["kaplan_meier"]
    steps = SurvivalCurves(times, survival[None], steps=True)
    found = steps.at(torch.tensor(theirs["times"], dtype=torch.float64))[0]
    torch.testing.assert_close(found, torch.tensor(theirs["survival"], dtype=torch.float64))


def test_constant_hazards_are_events_over_time_at_risk() -> None:
    rows = Durations(
        torch.zeros(4, 1),
        torch.tensor([1.0, 2.0, 4.0, 6.0]),
        torch.tensor([True, True, False, True]),
    )
    hazards = ConstantHazards.of(rows, torch.tensor([0.0, 0.0, math.log(2.0), 0.0]), 2)
    assert hazards.times.tolist() == [0, 2]
    assert hazards.rates.tolist() == pytest.approx([2 / (1 + 2 + 2 * 2 + 2), 1 / (2 * 2 + 4)])
    assert hazards.cumulative(torch.tensor([3.0])).item() == pytest.approx(2 * 2 / 9 + 1 / 8)


def test_intervals_hold_as_many_events_and_count_from_their_middles() -> None:
    rows = Durations(torch.zeros(8, 1), torch.arange(1.0, 9.0), torch.ones(8, dtype=torch.bool))
    intervals = Intervals.of(rows, 4)
    assert intervals.cuts.tolist() == [0, 2, 4, 6, 8]
    asked = Durations(
        torch.zeros(6, 1),
        torch.tensor([0.0, 2.0, 2.5, 2.9, 3.0, 9.0]),
        torch.tensor([True, True, True, False, False, False]),
    )
    assert intervals.interval(asked).tolist() == [0, 0, 1, 1, 2, 4]


def test_gap_stretches_one_curve() -> None:
    rows = gaps_and_noise()
    model = Gap().learn(rows, rows)
    covariates = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    median = model.curves(covariates).median()
    assert median[1] / median[0] == pytest.approx(2, rel=0.1)
    usual = rows.covariates[:, 0].mean()
    assert median[2] / median[0] == pytest.approx(usual.item(), rel=0.1)
    one = Durations(torch.tensor([[1.0, 0.0]]), torch.tensor([0.7]), torch.tensor([True]))
    other = Durations(torch.tensor([[2.0, 0.0]]), torch.tensor([1.4]), torch.tensor([True]))
    difference = model.log_likelihood(one) - model.log_likelihood(other)
    assert difference.item() == pytest.approx(math.log(2), rel=1e-4)


def test_gap_asks_for_a_column_that_holds_one() -> None:
    rows = gaps_and_noise()
    with pytest.raises(ConfigError, match="column=2, and there are 2 covariates"):
        Gap(column=2).learn(rows, rows)
    none = Durations(-rows.covariates.abs(), rows.durations, rows.observed)
    with pytest.raises(ConfigError, match="column=1 has no number above 0"):
        Gap(column=1).learn(none, none)


BRIEF = Steps(learning_rate=0.02, weight_decay=0.0, batch_size=100, max_epochs=20)


def test_two_ways_to_integrate_a_hazard_agree() -> None:
    """Where the weights of what has accumulated are 0, the equation is an integral."""
    rows = gaps_and_noise()
    net = HazardNet(hidden_dim=8, steps=BRIEF).learn(rows, rows)
    ode = HazardODE(hidden_dim=8, num_steps=30, steps=Steps(max_epochs=1)).learn(rows, rows)
    state = net.network.state_dict()
    time = state["of_time.weight"]
    state["of_time.weight"] = torch.cat([time, torch.zeros_like(time)], dim=1)
    ode.network.load_state_dict(state)
    some = rows.rows(torch.arange(40))
    torch.testing.assert_close(
        ode.log_likelihood(some), net.log_likelihood(some), rtol=1e-3, atol=1e-3
    )


def test_l1_makes_weights_small() -> None:
    rows = gaps_and_noise()
    sizes = []
    for penalty in (None, L1(0.1)):
        model = HazardNet(hidden_dim=8, penalty=penalty, steps=BRIEF).learn(rows, rows)
        sizes.append(sum(float(w.detach().abs().sum()) for w in model.network.weights()))
    assert sizes[1] < 0.7 * sizes[0]


def test_ranking_of_deephit_compares_rows_that_last_longer() -> None:
    reached = torch.tensor([[0.2, 0.5, 1.0], [0.6, 0.9, 1.0], [0.1, 0.3, 1.0]])
    interval, observed = torch.tensor([0, 1, 1]), torch.tensor([True, True, False])
    found = DeepHit(temperature=0.5)._ranked(reached, interval, observed)
    # Row 0 before row 1, and before row 2, which has survived interval 0.
    expected = (math.exp((0.6 - 0.2) / 0.5) + math.exp((0.1 - 0.2) / 0.5)) / 2
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (Cox, {"l2": -1.0}),
        (WeibullAFT, {"grid_size": 1}),
        (HazardNet, {"num_points": 0}),
        (HazardNet, {"dropout": 1.0}),
        (HazardODE, {"num_steps": 0}),
        (LogisticHazard, {"num_intervals": 0}),
        (DeepHit, {"ranking": 1.5}),
        (DeepHit, {"temperature": 0.0}),
        (Gap, {"column": -1}),
    ],
)
def test_options_out_of_range(model: type, options: dict[str, float]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        model(**options)
