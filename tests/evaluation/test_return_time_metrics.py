"""Metrics as sums over rows beside those of `evaluate_survival`, and their resamples by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.evaluation.return_times import Predicted, Sums, _resampled, _weighted_kaplan_meier
from recsys.evaluation.survival import Outcomes, evaluate_survival
from recsys.scoring.survival import SurvivalCurves, kaplan_meier


@pytest.fixture
def predicted() -> Predicted:
    """Rows of 60 users whose hazards are known but for noise; times are tied."""
    generator = torch.Generator().manual_seed(0)
    rate = torch.rand(180, generator=generator) + 0.05
    event = (torch.empty(180).exponential_(generator=generator) / rate).ceil()
    end = torch.randint(1, 12, (180,), generator=generator)
    times = torch.tensor([0.0, 12.0])
    curves = SurvivalCurves(times, (-rate[:, None] * times).exp())
    outcomes = Outcomes(torch.minimum(event, end), event <= end)
    likelihood = curves.log_likelihood(outcomes.durations, outcomes.observed)
    return Predicted(curves, likelihood, outcomes, torch.arange(180) // 3, (2.0, 5.0))


def test_sums_are_the_metrics(predicted: Predicted) -> None:
    means, intervals = predicted.measured(resamples=200)
    expected = evaluate_survival(
        predicted.curves, predicted.log_likelihood, predicted.outcomes, horizons=(2.0, 5.0)
    )
    assert means == pytest.approx(expected, abs=1e-9)
    assert list(intervals) == list(means)
    for name, (low, high) in intervals.items():
        if not name.startswith("calibration"):  # an absolute value, which resamples make larger
            assert low < means[name] < high
            assert high - low < 0.7


def test_a_resample_of_everybody_once_is_the_figure(predicted: Predicted) -> None:
    for name, sums in predicted.sums().items():
        mean = float(sums.above.sum() / sums.below.sum())
        assert _resampled(sums, np.ones((2, 180))) == pytest.approx([mean] * 2), name


def test_pairs_of_a_resample_are_nearly_those_of_its_rows(predicted: Predicted) -> None:
    """Against the concordance of rows that are drawn, copies and all."""
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(180, np.full(180, 1 / 180), size=60)
    linear = _resampled(predicted.sums()["concordance"], drawn.astype(float))
    exact = []
    for counts in drawn:
        rows = torch.from_numpy(np.repeat(np.arange(180), counts))
        outcomes = Outcomes(predicted.outcomes.durations[rows], predicted.outcomes.observed[rows])
        part = Predicted(
            predicted.curves.rows(rows), predicted.log_likelihood[rows], outcomes, rows, ()
        )
        of = part.sums()["concordance"]
        exact.append(float(of.above.sum() / of.below.sum()))
    assert np.std(linear) == pytest.approx(np.std(exact), rel=0.1)
    assert np.corrcoef(linear, exact)[0, 1] > 0.97


def test_shares_of_few_pairs_stay_shares() -> None:
    """Two pairs that all count one row: resamples of the others have fewer than none."""
    few = Sums(torch.tensor([2.0, 1.0, 1.0]), torch.tensor([2.0, 2.0, 2.0]), pairs=True)
    drawn = np.random.default_rng(0).multinomial(3, np.full(3, 1 / 3), size=50)
    shares = _resampled(few, drawn.astype(float))
    assert ((shares >= 0) & (shares <= 1) | np.isnan(shares)).all()
    assert np.isnan(_resampled(few, np.zeros((1, 3)))).all()


def test_a_weight_is_so_many_copies() -> None:
    outcomes = Outcomes(
        torch.tensor([1.0, 2.0, 2.0, 2.0, 4.0]), torch.tensor([True, True, False, True, True])
    )
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 3, 1, 0], [0, 1, 2, 2, 1]], dtype=float)
    found = _weighted_kaplan_meier(outcomes, torch.arange(5), weights, 3.0)
    for shares, row in zip(found, weights, strict=True):
        copies = torch.from_numpy(np.repeat(np.arange(5), row.astype(int)))
        times, survival = kaplan_meier(outcomes.durations[copies], outcomes.observed[copies])
        assert shares == pytest.approx(float(survival[times <= 3][-1]), abs=1e-6)


def test_a_sum_of_nothing_is_no_number() -> None:
    nothing = Sums(torch.zeros(3), torch.zeros(3), pairs=True)
    assert np.isnan(_resampled(nothing, np.ones((1, 3)))).all()
