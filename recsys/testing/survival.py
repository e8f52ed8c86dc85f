"""For people who add survival models: rows whose hazard is known, and the tests every model passes.

from recsys.testing.survival import SurvivalContract

class TestMyModel(SurvivalContract):
def config(self):
return {"_target_": "my_package.MyModel"}
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor

from recsys.errors import DataError
from recsys.evaluation.survival import Outcomes, concordance
from recsys.scoring import trust
from recsys.scoring.survival import Durations, SurvivalCurves, SurvivalPredictor
from recsys.testing.second_device import second_device


def gaps_and_noise(num_rows: int = 300, *, seed: int = 0) -> Durations:
    """Rows whose hazard is constant, one over the first covariate; the second says nothing.

    A third of the rows are censored.
    """
    generator = torch.Generator().manual_seed(seed)
    gap = torch.randn(num_rows, generator=generator).exp()
    noise = torch.randn(num_rows, generator=generator)
    event = gap * torch.empty(num_rows).exponential_(generator=generator)
    end = 2 * gap * torch.empty(num_rows).exponential_(generator=generator)
    return Durations(torch.stack([gap, noise], 1), torch.minimum(event, end), event <= end)


class SurvivalContract:
    """What every survival model must do. A subclass says how it is built.

    Attributes:
        tells_rows_apart: whether it ranks rows by how early their events come. False for a model
            that gives all rows one curve.
        tolerance: of probabilities, between the curves and the likelihood: where curves are steps
            or points on a grid, and the likelihood is not.
        briefly: options with which it learns little but fast, on a device that is slow.
    """

    tells_rows_apart: ClassVar[bool] = True
    tolerance: ClassVar[float] = 5e-3
    briefly: ClassVar[dict[str, Any]] = {}

    def config(self) -> dict[str, Any]:
        """The model's config, as its YAML file would give it, with `_target_`."""
        raise NotImplementedError

    def learnt(self, train: Durations, held_out: Durations) -> SurvivalPredictor:
        """A model, built and taught from a fixed seed."""
        torch.manual_seed(0)
        model: SurvivalPredictor = trust.build(self.config())
        return model.learn(train, held_out)

    @pytest.fixture(scope="class")
    @classmethod
    def test_rows(cls) -> Durations:
        return gaps_and_noise(seed=2)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> SurvivalPredictor:
        return cls().learnt(gaps_and_noise(), gaps_and_noise(seed=1))

    def test_curves_fall_from_one(self, model: SurvivalPredictor, test_rows: Durations) -> None:
        curves = model.curves(test_rows.covariates)
        assert len(curves) == len(test_rows)
        assert curves.times[0] == 0
        assert (curves.times.diff() > 0).all()
        assert (curves.survival[:, 0] == 1).all()
        assert (curves.survival.diff(dim=1) <= 0).all()
        assert (curves.survival >= 0).all()
        assert (curves.median() > 0).all()

    def test_it_finds_what_is_there(self, model: SurvivalPredictor, test_rows: Durations) -> None:
        outcomes = Outcomes(test_rows.durations, test_rows.observed)
        found = concordance(model.curves(test_rows.covariates), outcomes)
        assert found > 0.65 if self.tells_rows_apart else found == 0.5

    def test_density_integrates_to_what_has_not_survived(
        self, model: SurvivalPredictor, test_rows: Durations
    ) -> None:
        row = test_rows.covariates[:1]
        # The rule's points are in no cell twice, and dense where a density may rise.
        times = torch.linspace(0, 1, 4001) ** 2 * 3.0
        middles = (times[1:] + times[:-1]) / 2
        density = self._log_likelihood(model, row, middles, True).double().exp()
        survival = self._log_likelihood(model, row, times[-1:], False).exp()
        assert (density * times.diff()).sum().item() == pytest.approx(1 - survival.item(), abs=2e-3)

    def test_likelihood_of_censored_rows_is_that_of_the_curves(
        self, model: SurvivalPredictor, test_rows: Durations
    ) -> None:
        row, times = test_rows.covariates[:1], torch.linspace(0.05, 2.0, 40)
        survival = self._log_likelihood(model, row, times, False).exp()
        curve = model.curves(row).at(times)[0]
        torch.testing.assert_close(curve.float(), survival, rtol=0, atol=self.tolerance)

    def test_constant_hazards_have_the_likelihood_of_scipy(self) -> None:
        generator = torch.Generator().manual_seed(3)
        event = 2 * torch.empty(900).exponential_(generator=generator)
        end = 4 * torch.empty(900).exponential_(generator=generator)
        # Alike: nothing is to be learnt from the covariates.
        covariates = torch.full((900, 2), 1.0)
        rows = Durations(covariates, torch.minimum(event, end), event <= end)
        every = torch.arange(900)
        model = self.learnt(rows.rows(every < 400), rows.rows((every >= 400) & (every < 600)))
        asked = rows.rows(every >= 600)
        times, right = asked.durations.numpy(), stats.expon(scale=2.0)
        expected = torch.where(
            asked.observed,
            torch.from_numpy(right.logpdf(times)),
            torch.from_numpy(right.logsf(times)),
        )
        found = model.log_likelihood(asked).double()
        assert found.mean().item() == pytest.approx(expected.mean().item(), abs=0.08)

    def test_a_row_has_the_same_curve_among_any_others(
        self, model: SurvivalPredictor, test_rows: Durations
    ) -> None:
        together = model.curves(test_rows.covariates).survival
        for rows in torch.arange(6).split(1):
            alone = model.curves(test_rows.covariates[rows]).survival
            torch.testing.assert_close(alone, together[rows], rtol=1e-4, atol=1e-5)

    def test_same_seed_gives_the_same_numbers(
        self, model: SurvivalPredictor, test_rows: Durations
    ) -> None:
        again = self.learnt(gaps_and_noise(), gaps_and_noise(seed=1))
        assert again.log_likelihood(test_rows).equal(model.log_likelihood(test_rows))

    def test_all_of_it_is_on_one_device(self) -> None:
        rows, held_out = gaps_and_noise(60), gaps_and_noise(60, seed=1)
        config = self.config() | self.briefly

        def learnt() -> tuple[SurvivalCurves, Tensor]:
            torch.manual_seed(0)
            model = trust.build(config).learn(rows, held_out)
            return model.curves(rows.covariates), model.log_likelihood(held_out)

        here = learnt()[1]
        with second_device():
            curves, there = learnt()
        assert curves.survival.device == there.device == torch.device("cpu")
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)

    def test_rows_without_an_event_are_refused(self) -> None:
        rows = gaps_and_noise()
        censored = Durations(rows.covariates, rows.durations, torch.zeros_like(rows.observed))
        with pytest.raises(DataError, match="none of the 300 rows to learn from has an event"):
            self.learnt(censored, rows)

    def _log_likelihood(
        self, model: SurvivalPredictor, row: Tensor, times: Tensor, observed: bool
    ) -> Tensor:
        rows = Durations(row.expand(len(times), -1), times, torch.full((len(times),), observed))
        return model.log_likelihood(rows)
