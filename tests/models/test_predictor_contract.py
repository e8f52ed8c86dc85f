"""The contract of `recsys.testing.contracts` for every model of the zoo that predicts labels."""

from pathlib import Path
from typing import Any

import pytest

import recsys.models
from recsys.scoring.predictor import Predictor
from recsys.testing.contracts import PredictorContract

COLOURS = {"_target_": "recsys.tasks.Counts", "column": "colour"}
ITEMS = {"_target_": "recsys.tasks.Counts", "column": "item_id"}


class TestLogisticRegression(PredictorContract):
    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.LogisticRegression", "features": [ITEMS]}


class TestLightGBM(PredictorContract):
    def config(self) -> dict[str, Any]:
        options = {"num_trees": 20, "min_leaf": 2, "feature_fraction": 1.0}
        return {"_target_": "recsys.models.LightGBM", "features": [COLOURS, ITEMS], **options}


class TestBlend(PredictorContract):
    def config(self) -> dict[str, Any]:
        members = {"linear": TestLogisticRegression().config(), "trees": TestLightGBM().config()}
        return {"_target_": "recsys.models.Blend", "members": members}


class TestFineTuned(PredictorContract):
    folder: str

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _its_run(cls, profile_run: Path) -> None:
        cls.folder = str(profile_run)

    def config(self) -> dict[str, Any]:
        steps = {
            "_target_": "recsys.scoring.Steps",
            "learning_rate": 0.03,
            "max_epochs": 8,
        }
        steps["batch_size"] = 12
        return {"_target_": "recsys.models.FineTuned", "run": self.folder, "steps": steps}


class TestMLP(PredictorContract):
    def config(self) -> dict[str, Any]:
        steps = {
            "_target_": "recsys.scoring.Steps",
            "learning_rate": 0.02,
            "max_epochs": 20,
        }
        return {
            "_target_": "recsys.models.MLP",
            "features": [ITEMS],
            "hidden_dim": 8,
            "steps": steps,
            "num_members": 2,
        }


class TestMLPWithRanking(TestMLP):
    """Of candidates that have weights of their own."""

    ranked = True


class TestMLPWithAPrior(TestMLPWithRanking):
    """That tells users apart, and candidates known by their colour alone."""

    def config(self) -> dict[str, Any]:
        shares = {"_target_": "recsys.tasks.CandidateShares", "column": "colour"}
        return {
            **super().config(),
            "candidate_features": [shares],
            "prior": TestNewEASE().config(),
        }


class TestNewPopularity(PredictorContract):
    ranked, finds_colours = True, False

    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.NewPopularity"}


class TestNewEASE(PredictorContract):
    ranked = True

    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.NewEASE", "l2": 10.0}


class TestOwnPurchases(PredictorContract):
    ranked, finds_new_items = True, False

    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.OwnPurchases"}


class TestCandidateSize(PredictorContract):
    ranked, finds_colours = True, False

    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.CandidateSize"}


def test_every_predictor_keeps_the_contract() -> None:
    tested = {name.removeprefix("Test") for name in globals() if name.startswith("Test")}
    predictors = {
        name
        for name in recsys.models.__all__
        if issubclass(getattr(recsys.models, name), Predictor)
    }
    assert {name.partition("With")[0] for name in tested} == predictors
