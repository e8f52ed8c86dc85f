"""Survival models on the ten splits of METABRIC and SUPPORT that the authors of SODEN ship.

    RECSYS_DATA=FOLDER python -m benchmarks.survival.soden metabric support

reads `FOLDER/survival_soden_splits`. Every model has 30 random trials of its options (one where it
has none); a trial is judged by the mean log-likelihood of the validation rows of the first splits,
three of METABRIC and one of SUPPORT, and the best is trained on each of the ten splits, from three
seeds where something is random, and evaluated on their test rows. Trials of the same number draw
the same learning rate and sizes, whichever the model. `results/<data>/<model>.json` is written
after every trial, and a run that was stopped goes on from there. `python -m
benchmarks.survival.report` compares.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.record import ROOT, write
from recsys.evaluation.survival import Outcomes, evaluate_survival
from recsys.models.survival.cox import Cox
from recsys.models.survival.deephit import DeepHit
from recsys.models.survival.hazard_net import HazardNet
from recsys.models.survival.hazard_ode import HazardODE
from recsys.models.survival.kaplan_meier import KaplanMeier
from recsys.models.survival.lightgbm_hazard import LightGBMHazard
from recsys.models.survival.logistic_hazard import LogisticHazard
from recsys.models.survival.weibull_aft import WeibullAFT
from recsys.nn.hazards import L1, HazardGradientPenalty
from recsys.scoring.predictor import Steps
from recsys.scoring.survival import Durations, SurvivalPredictor

RESULTS = ROOT / "benchmarks" / "survival" / "results"
NUM_TRIALS = 30
SPLITS = range(1, 11)
SEEDS = range(3)
"""Of a model's training on a split, where it has something random."""
CHOSEN_ON = {"metabric": (1, 2, 3), "support": (1,)}
HORIZONS = {"metabric": (0.1, 0.25, 0.4), "support": (0.1, 0.5, 2.0)}
"""About the quartiles of the times of events."""
Options = dict[str, Any]
TRAINING: dict[str, Options] = {
    "metabric": {"batch_size": 256, "max_epochs": 200, "patience": 10},
    "support": {"batch_size": 512, "max_epochs": 80, "patience": 6},
}
"""Of networks; SUPPORT has five times as many rows."""


def log_uniform(low: float, high: float) -> Callable[[np.random.Generator], float]:
    """To three places: the options that a record holds are those that were used."""
    return lambda draw: float(f"{np.exp(draw.uniform(np.log(low), np.log(high))):.3g}")


def uniform(low: float, high: float) -> Callable[[np.random.Generator], float]:
    return lambda draw: round(float(draw.uniform(low, high)), 3)


def one_of(*choices: Any) -> Callable[[np.random.Generator], Any]:
    return lambda draw: choices[int(draw.integers(len(choices)))]


NETWORK = {
    "learning_rate": log_uniform(5e-4, 1e-2),
    "hidden_dim": one_of(16, 32, 64),
    "num_layers": one_of(1, 2),
}
OF_INTERVALS = {"num_intervals": one_of(10, 20, 40), "dropout": uniform(0.0, 0.6)}


@dataclass(frozen=True)
class Candidate:
    """A model and what is drawn for a trial of it; options are drawn in their order."""

    make: Callable[..., SurvivalPredictor]
    space: dict[str, Callable[[np.random.Generator], Any]]

    def build(self, data: str, options: Options) -> SurvivalPredictor:
        is_network = "learning_rate" in self.space and self.make is not LightGBMHazard
        return self.make(**options, **({"training": TRAINING[data]} if is_network else {}))

    def draw(self, trial: int) -> Options:
        draw = np.random.default_rng(trial)
        return {name: of(draw) for name, of in self.space.items()}


def network(make: Callable[..., SurvivalPredictor]) -> Callable[..., SurvivalPredictor]:
    """A network with the options of its training beside its own."""

    def build(
        *, training: Options, learning_rate: float, weight_decay: float = 0.0, **options: Any
    ) -> Any:
        steps = Steps(learning_rate=learning_rate, weight_decay=weight_decay, **training)
        return make(steps=steps, **options)

    return build


def penalised(penalty: Callable[[float], Any]) -> Callable[..., SurvivalPredictor]:
    return network(lambda weight, **options: HazardNet(penalty=penalty(weight), **options))


MODELS = {
    "kaplan_meier": Candidate(KaplanMeier, {}),
    "cox": Candidate(Cox, {"l2": log_uniform(1e-3, 1e3)}),
    "weibull_aft": Candidate(WeibullAFT, {"l2": log_uniform(1e-3, 1e3)}),
    "lightgbm": Candidate(
        LightGBMHazard,
        {
            "learning_rate": log_uniform(0.01, 0.1),
            "num_leaves": one_of(3, 7, 15),
            "min_leaf": one_of(30, 100, 300),
            "feature_fraction": uniform(0.3, 1.0),
            "num_intervals": one_of(10, 20, 40),
        },
    ),
    "logistic_hazard": Candidate(network(LogisticHazard), NETWORK | OF_INTERVALS),
    "deephit": Candidate(network(DeepHit), NETWORK | OF_INTERVALS | {"ranking": uniform(0, 0.5)}),
    "hazard_net": Candidate(network(HazardNet), NETWORK),
    "hazard_net_dropout": Candidate(network(HazardNet), NETWORK | {"dropout": uniform(0.05, 0.6)}),
    "hazard_net_l1": Candidate(penalised(L1), NETWORK | {"weight": log_uniform(1e-5, 1e-2)}),
    "hazard_net_weight_decay": Candidate(
        network(HazardNet), NETWORK | {"weight_decay": log_uniform(1e-3, 5.0)}
    ),
    "hazard_net_hgp": Candidate(
        penalised(HazardGradientPenalty), NETWORK | {"weight": log_uniform(1e-3, 0.3)}
    ),
    "hazard_ode": Candidate(network(HazardODE), NETWORK),
}
SAME_OPTIONS = {"hazard_ode": "hazard_net"}
"""Whose options are another's best, for they take long to train."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+", choices=CHOSEN_ON)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for data in given.data:
        for model in given.models:
            measure(data, model)


def measure(data: str, model: str) -> None:
    """Add to a model's record what it lacks."""
    path = RESULTS / data / f"{model}.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    trials, splits = record.get("trials", []), record.get("splits", [])
    for number in range(len(trials), num_trials(model)):
        trials.append(trial(data, model, MODELS[model].draw(number)))
        save(path, data, trials, splits)
    best = chosen(data, model, trials)
    measured = {(row["split"], row["seed"]) for row in splits}
    for seed in seeds(model):
        for split in SPLITS:
            if (split, seed) not in measured:
                splits.append(tested(data, model, best, split, seed))
                save(path, data, trials, splits)
    print(data, model, best, summary(splits), flush=True)


def seeds(model: str) -> range:
    """Linear models and curves have nothing random."""
    return SEEDS if "learning_rate" in MODELS[model].space else SEEDS[:1]


def num_trials(model: str) -> int:
    if model in SAME_OPTIONS:
        return 0
    return NUM_TRIALS if MODELS[model].space else 1


def chosen(data: str, model: str, trials: list[dict[str, Any]]) -> Options:
    """The options of the best trial, the first of equals."""
    if other := SAME_OPTIONS.get(model):
        trials = json.loads((RESULTS / data / f"{other}.json").read_text())["trials"]
    best: Options = max(trials, key=lambda trial: trial["log_likelihood"])["options"]
    return best


def trial(data: str, model: str, options: Options) -> dict[str, Any]:
    """The options with the mean log-likelihood of the validation rows of the first splits."""
    started = time.process_time()
    found = []
    for split in CHOSEN_ON[data]:
        train, validation, _ = parts(data, split)
        built = MODELS[model].build(data, options).learn(train, validation)
        found.append(float(built.log_likelihood(validation).mean()))
    seconds = time.process_time() - started
    mean = round(float(np.mean(found)), 6)
    return {"options": options, "log_likelihood": mean, "cpu_seconds": round(seconds, 1)}


def tested(data: str, model: str, options: Options, split: int, seed: int) -> dict[str, Any]:
    """The metrics of a split's test rows."""
    started = time.process_time()
    train, validation, test = parts(data, split)
    seeded = options | ({"seed": seed} if len(seeds(model)) > 1 else {})
    built = MODELS[model].build(data, seeded).learn(train, validation)
    seconds = time.process_time() - started
    metrics = evaluate_survival(
        built.curves(test.covariates),
        built.log_likelihood(test),
        Outcomes(test.durations, test.observed),
        horizons=HORIZONS[data],
    )
    rounded = {name: round(value, 6) for name, value in metrics.items()}
    # What the likelihood would be of durations that are divided by the longest.
    longest, share = float(train.durations.max()), float(test.observed.double().mean())
    rounded["log_likelihood_of_shares"] = round(
        rounded["log_likelihood"] + share * float(np.log(longest)), 6
    )
    return {"split": split, "seed": seed, **rounded, "cpu_seconds": round(seconds, 1)}


def parts(data: str, split: int) -> list[Durations]:
    """Training, validation and test rows of a split."""
    folder = Path(os.environ["RECSYS_DATA"]) / "survival_soden_splits" / data
    return [rows_of(folder / f"{part}_{split}.npz") for part in ("train", "valid", "test")]


def rows_of(path: Path) -> Durations:
    with np.load(path, allow_pickle=False) as arrays:
        covariates, outcome = arrays["arr_0"], arrays["arr_1"]
    return Durations(
        torch.from_numpy(covariates),
        torch.from_numpy(outcome[:, 0]).float(),
        torch.from_numpy(outcome[:, 1] == 1),
    )


def save(path: Path, data: str, trials: list[Any], splits: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = {
        "data": data,
        "chosen_on": CHOSEN_ON[data],
        "training": TRAINING[data],
        "trials": trials,
        "splits": splits,
    }
    write(path, measured, packages=["recsys", "torch", "numpy", "scipy", "lightgbm"], seed=0)


def by_split(splits: list[dict[str, Any]]) -> pl.DataFrame:
    """Metrics of each split, means over its seeds."""
    return pl.DataFrame(splits).group_by("split").mean().drop("seed").sort("split")


def summary(splits: list[dict[str, Any]]) -> dict[str, str]:
    """Mean and standard deviation of metrics over splits."""
    frame = by_split(splits)
    return {
        name: f"{frame[name].mean():.4f} ± {frame[name].std():.4f}"
        for name in ("log_likelihood", "concordance", "ibs")
    }


if __name__ == "__main__":
    main()
