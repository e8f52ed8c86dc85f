"""The contract of `recsys.testing.survival` for every survival model of the zoo."""

from typing import Any

from recsys.testing.survival import SurvivalContract

STEPS = {
    "_target_": "recsys.scoring.Steps",
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "batch_size": 100,
    "max_epochs": 25,
    "patience": 8,
}
BRIEFLY = {"steps": STEPS | {"max_epochs": 2}}


class TestKaplanMeier(SurvivalContract):
    tells_rows_apart = False
    tolerance = 0.06

    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.KaplanMeier"}


class TestGap(SurvivalContract):
    tolerance = 0.1

    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.Gap"}


class TestCox(SurvivalContract):
    tolerance = 0.06

    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.Cox"}


class TestWeibullAFT(SurvivalContract):
    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.WeibullAFT"}


class TestLogisticHazard(SurvivalContract):
    briefly = BRIEFLY

    def config(self) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.LogisticHazard",
            "num_intervals": 10,
            "hidden_dim": 16,
            "steps": STEPS,
        }


class TestDeepHit(SurvivalContract):
    briefly = BRIEFLY

    def config(self) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.DeepHit",
            "num_intervals": 10,
            "hidden_dim": 16,
            "steps": STEPS,
        }


class TestLightGBMHazard(SurvivalContract):
    def config(self) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.LightGBMHazard",
            "num_intervals": 10,
            "num_trees": 60,
            "feature_fraction": 1.0,
            "min_leaf": 20,
        }


class TestHazardNet(SurvivalContract):
    briefly = BRIEFLY

    def config(self) -> dict[str, Any]:
        return {"_target_": "recsys.models.HazardNet", "hidden_dim": 16, "steps": STEPS}


class TestHazardNetWithPenalty(SurvivalContract):
    briefly = BRIEFLY

    def config(self) -> dict[str, Any]:
        penalty = {"_target_": "recsys.nn.HazardGradientPenalty", "num_points": 16}
        return {**TestHazardNet().config(), "penalty": penalty}


class TestHazardNetWithDropout(SurvivalContract):
    briefly = BRIEFLY

    def config(self) -> dict[str, Any]:
        return {**TestHazardNet().config(), "dropout": 0.2}


class TestHazardNetWithL1(SurvivalContract):
    briefly = BRIEFLY

    def config(self) -> dict[str, Any]:
        return {**TestHazardNet().config(), "penalty": {"_target_": "recsys.nn.L1"}}


class TestHazardODE(SurvivalContract):
    briefly = BRIEFLY

    def config(self) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.HazardODE",
            "hidden_dim": 16,
            "num_steps": 4,
            "steps": STEPS | {"max_epochs": 15},
        }
