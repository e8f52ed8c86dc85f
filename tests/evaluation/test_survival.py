"""Metrics of survival curves beside scikit-survival's, whose numbers stand in a file.

`survival_expected.json` was computed by scikit-survival 0.28.0 and lifelines 0.30.3 on random rows:
seeds 1 and 3 with tied times, 3 with tied predictions.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.errors import DataError
from recsys.evaluation.survival import (
    Censoring,
    Outcomes,
    auc_at,
    binomial_log_likelihood,
    brier,
    calibration_at,
    calibration_error,
    concordance,
    evaluate_survival,
    even_times,
    integrated,
    risk_concordance,
)
from recsys.scoring.survival import SurvivalCurves

EXPECTED = json.loads((Path(__file__).parent / "survival_expected.json").read_text())["metrics"]


def outcomes_of(case: dict[str, Any]) -> Outcomes:
    durations = torch.tensor(case["durations"], dtype=torch.float64)
    return Outcomes(durations, torch.tensor(case["observed"]))


def exponential(rate: Tensor, last: float = 60.0) -> SurvivalCurves:
    times = torch.tensor([0.0, last], dtype=torch.float64)
    return SurvivalCurves(times, (-rate[:, None] * times).exp())


@pytest.fixture(params=EXPECTED, ids=lambda case: f"seed {case['seed']}")
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def test_concordance_is_scikit_survivals(case: dict[str, Any]) -> None:
    outcomes, rate = outcomes_of(case), torch.tensor(case["rate"], dtype=torch.float64)
    assert risk_concordance(rate, outcomes) == pytest.approx(case["harrell"], abs=1e-9)
    weighted = risk_concordance(rate, outcomes, censoring=Censoring.of(outcomes), until=case["tau"])
    assert weighted == pytest.approx(case["uno"], abs=1e-9)


def test_curves_that_do_not_cross_rank_as_their_rates_do(case: dict[str, Any]) -> None:
    outcomes, rate = outcomes_of(case), torch.tensor(case["rate"], dtype=torch.float64)
    curves = exponential(0.02 * rate)
    assert concordance(curves, outcomes) == pytest.approx(case["harrell"], abs=1e-9)
    weighted = concordance(curves, outcomes, censoring=Censoring.of(outcomes), until=case["tau"])
    assert weighted == pytest.approx(case["uno"], abs=1e-9)


def test_brier_scores_are_scikit_survivals(case: dict[str, Any]) -> None:
    outcomes, rate = outcomes_of(case), torch.tensor(case["rate"], dtype=torch.float64)
    times = torch.tensor(case["times"], dtype=torch.float64)
    survival = (-rate[:, None] * times).exp()
    scores = brier(survival, outcomes, times, Censoring.of(outcomes))
    torch.testing.assert_close(scores, torch.tensor(case["brier"], dtype=torch.float64))
    assert integrated(scores, times) == pytest.approx(case["ibs"])


def test_auc_is_scikit_survivals(case: dict[str, Any]) -> None:
    outcomes, rate = outcomes_of(case), torch.tensor(case["rate"], dtype=torch.float64)
    censoring = Censoring.of(outcomes)
    for time, expected in zip(case["times"], case["auc"], strict=True):
        survival = (-rate * time).exp()
        assert auc_at(survival, outcomes, time, censoring) == pytest.approx(expected, abs=1e-9)


def test_crossing_curves_are_compared_at_the_time_of_the_event() -> None:
    times = torch.tensor([0.0, 1.0, 2.0])
    curves = SurvivalCurves(times, torch.tensor([[1.0, 0.4, 0.3], [1.0, 0.6, 0.2]]))
    early = Outcomes(torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    late = Outcomes(torch.tensor([2.0, 3.0]), torch.tensor([True, False]))
    assert concordance(curves, early) == 1
    assert concordance(curves, late) == 0


def test_ties_make_pairs_with_censored_rows_alone() -> None:
    curves = exponential(torch.tensor([0.03, 0.01, 0.02], dtype=torch.float64))
    durations = torch.ones(3, dtype=torch.float64)
    assert concordance(curves, Outcomes(durations, torch.tensor([True, True, False]))) == 0.5
    with pytest.raises(DataError, match="3 rows with 3 events no two can be compared"):
        concordance(curves, Outcomes(durations, torch.tensor([True, True, True])))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=2, max_size=12))
def test_blocks_do_not_change_concordance(rows: list[tuple[int, bool]]) -> None:
    durations, observed = zip(*rows, strict=True)
    outcomes = Outcomes(torch.tensor(durations).double(), torch.tensor(observed))
    rate = torch.arange(len(rows)).double() / 40
    agreed = total = 0.0
    for i, (time, event) in enumerate(rows):
        for j, (other, seen) in enumerate(rows):
            if event and (other > time or (other == time and not seen)):
                total += 1
                agreed += float(rate[i] > rate[j]) + 0.5 * float(i == j)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.evaluation.survival.CELLS", len(rows))
        if total:
            assert risk_concordance(rate, outcomes) == pytest.approx(agreed / total)
        else:
            with pytest.raises(DataError, match="no two"):
                risk_concordance(rate, outcomes)


def test_scores_without_censoring_are_means_over_rows() -> None:
    outcomes = Outcomes(torch.tensor([1.0, 3.0]), torch.tensor([True, True]))
    times = torch.tensor([2.0], dtype=torch.float64)
    survival, censoring = torch.tensor([[0.25], [0.5]]), Censoring.of(outcomes)
    assert brier(survival, outcomes, times, censoring).item() == pytest.approx(0.15625)
    expected = float(torch.tensor([0.75, 0.5]).log().mean())
    found = binomial_log_likelihood(survival, outcomes, times, censoring).item()
    assert found == pytest.approx(expected)


def test_calibration_compares_with_what_was_seen() -> None:
    outcomes = Outcomes(torch.tensor([1.0, 5.0, 5.0, 1.0]), torch.tensor([True, False, True, True]))
    groups = calibration_at(torch.tensor([0.9, 0.8, 0.3, 0.1]), outcomes, 2.0, num_groups=2)
    assert groups["seen"].to_list() == pytest.approx([0.5, 0.5])
    assert groups["predicted"].to_list() == pytest.approx([0.15, 0.8])
    assert calibration_error(groups) == pytest.approx((0.35 + 0.3) / 2)


def test_true_curves_are_calibrated_and_others_are_not() -> None:
    torch.manual_seed(0)
    rate = 0.02 + 0.1 * torch.rand(1500, dtype=torch.float64)
    event = torch.empty_like(rate).exponential_() / rate
    end = torch.empty_like(rate).exponential_(0.02)
    outcomes = Outcomes(torch.minimum(event, end), event <= end)
    right, wrong = (
        evaluate_survival(
            exponential(rates),
            torch.zeros(len(rate)),
            outcomes,
            times=even_times(outcomes, num_times=40)[:24],
        )
        for rates in (rate, rate.mean() * (rate / rate.mean()) ** 2)
    )
    assert right["calibration@30"] < 0.06
    assert wrong["calibration@7"] > 1.5 * right["calibration@7"]
    assert right["concordance"] == pytest.approx(wrong["concordance"])
    assert right["ibs"] < wrong["ibs"]
    assert right["ibll"] > wrong["ibll"]
    assert right["auc@30"] > 0.55


def test_nothing_is_known_of_horizons_beyond_the_rows() -> None:
    outcomes = Outcomes(torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    assert torch.isnan(torch.tensor(auc_at(torch.rand(2), outcomes, 5.0, Censoring.of(outcomes))))
