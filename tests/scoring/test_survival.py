import math

import pytest
import torch

from recsys.errors import ConfigError, DataError
from recsys.scoring.survival import SMALLEST, Durations, SurvivalCurves, kaplan_meier

TIMES = torch.tensor([0.0, 1.0, 3.0])


def test_durations_that_cannot_be() -> None:
    seen = torch.tensor([True, True])
    with pytest.raises(DataError, match=r"\(1, 2, 2\) rows"):
        Durations(torch.zeros(1, 3), torch.ones(2), seen)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(DataError, match="durations: row 1 has"):
            Durations(torch.zeros(2, 3), torch.tensor([0.0, wrong]), seen)


def test_rows_are_joined_and_taken() -> None:
    one = Durations(torch.zeros(1, 2), torch.tensor([1.0]), torch.tensor([True]))
    two = Durations(torch.ones(2, 2), torch.tensor([2.0, 3.0]), torch.tensor([False, True]))
    joined = Durations.joined([one, two])
    assert len(joined) == 3
    assert joined.rows(torch.tensor([2])).durations.tolist() == [3]
    assert joined.rows(~joined.observed).covariates.tolist() == [[1, 1]]


def test_hazards_are_constant_between_times_and_behind_the_last() -> None:
    curves = SurvivalCurves(TIMES, torch.tensor([[0.0, -1.0, -2.0], [0.0, -2.0, -2.5]]).exp())
    found = curves.at(torch.tensor([0.5, 2.0, 5.0])).log()
    expected = torch.tensor([[-0.5, -1.5, -3.0], [-1.0, -2.25, -3.0]])
    torch.testing.assert_close(found, expected)
    own = curves.at(torch.tensor([[0.5], [2.0]])).log()
    torch.testing.assert_close(own, torch.tensor([[-0.5], [-2.25]]))
    likelihood = curves.log_likelihood(torch.tensor([0.5, 2.0]), torch.tensor([True, False]))
    torch.testing.assert_close(likelihood, torch.tensor([-0.5, -2.25]))
    later = curves.log_likelihood(torch.tensor([2.0, 5.0]), torch.tensor([True, True]))
    expected = torch.tensor([math.log(0.5) - 1.5, math.log(0.25) - 3.0])
    torch.testing.assert_close(later, expected)


def test_density_integrates_to_what_has_not_survived() -> None:
    curves = SurvivalCurves(TIMES, torch.tensor([[1.0, 0.7, 0.1]]))
    times = torch.linspace(0, 5, 20_001)
    middles = (times[1:] + times[:-1]) / 2
    found = (curves.density(middles) * times.diff()).sum()
    assert found.item() == pytest.approx(1 - curves.at(times[-1:]).item(), abs=1e-4)


def test_quantiles_are_where_curves_reach_them() -> None:
    curves = SurvivalCurves(TIMES, torch.tensor([[1.0, 0.5, 0.25], [1.0, 0.9, 0.8]]))
    median = curves.median()
    assert median[0] == 1
    torch.testing.assert_close(curves.at(median[:, None])[:, 0], torch.tensor([0.5, 0.5]))
    steps = SurvivalCurves(TIMES, curves.survival, steps=True)
    assert steps.median().tolist() == [1, math.inf]
    assert steps.quantile(0.75).tolist() == [3, math.inf]


def test_steps_fall_at_their_times_and_have_no_density() -> None:
    steps = SurvivalCurves(TIMES, torch.tensor([[1.0, 0.5, 0.25]]), steps=True)
    assert steps.at(torch.tensor([0.9, 1.0, 2.9, 9.0])).tolist() == [[1, 0.5, 0.5, 0.25]]
    with pytest.raises(ConfigError, match="curves of steps have no density"):
        steps.density(torch.tensor([1.0]))
    thinned = steps.thinned(torch.tensor([0.0, 3.0]))
    assert thinned.at(torch.tensor([1.5])).item() == pytest.approx(0.5)


def test_survival_of_nothing_has_a_finite_likelihood() -> None:
    curves = SurvivalCurves(TIMES, torch.tensor([[1.0, 0.5, 0.0]]))
    likelihood = curves.log_likelihood(torch.tensor([3.0]), torch.tensor([False]))
    assert likelihood.item() == pytest.approx(math.log(SMALLEST))


def test_events_at_the_beginning() -> None:
    observed = torch.tensor([True, False, True])
    times, survival = kaplan_meier(torch.tensor([0.0, 1.0, 2.0]), observed)
    assert times.tolist() == [0, 2]
    assert survival.tolist() == pytest.approx([2 / 3, 0])
