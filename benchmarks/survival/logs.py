"""Days until the next basket or purchase, of the experiments `return_time/…` on behaviour logs.

    python -m benchmarks.survival.logs complete_journey           from fixed midnights
    python -m benchmarks.survival.logs complete_journey_visits    from the end of each basket
    RECSYS_DATA=FOLDER python -m benchmarks.survival.logs cdnow
    python -m benchmarks.survival.logs complete_journey --vectors RUN     …_vectors.json

Every model learns from 500 and from 3,000 rows, three times: a seed draws the rows of training,
validation and test, and the weights that networks start from. Options are those of `conf/model`,
`l2` of Cox and Weibull chosen on validation rows; features those of the experiment, and with
`--vectors` beside them the frozen vectors of a ShopperBERT whose training ended before the first
moment. A run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch

from benchmarks.record import ROOT, spread, write
from recsys.cli.compose import compose
from recsys.run import return_times
from recsys.run.options import argument
from recsys.scoring.profiles import Profile

RESULTS = ROOT / "benchmarks" / "survival" / "results"
RUNS = ROOT / "runs" / "return_time"
EXPERIMENTS = ("complete_journey", "complete_journey_visits", "cdnow")
SIZES = (500, 3000)
SEEDS = (0, 1, 2)
PACKAGES = ["recsys", "torch", "numpy", "scipy", "lightgbm"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--vectors", type=Path, help="the folder of a ShopperBERT's run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    name = given.experiment if given.vectors is None else f"{given.experiment}_vectors"
    measured: dict[str, Any] = {"experiment": f"return_time/{given.experiment}", "seeds": SEEDS}
    if given.vectors is not None:
        measured["trained_until"] = Profile(str(given.vectors)).trained_until
    for size in SIZES:
        runs = [run(name, given.experiment, size, seed, given.vectors) for seed in SEEDS]
        measured[f"rows={size}"] = {
            "censored": spread(float(of["censored"]) for of in runs),
            "models": {model: _together([of[model] for of in runs]) for model in runs[0]["models"]},
        }
        write(RESULTS / f"{name}.json", measured, packages=PACKAGES, seed=SEEDS[0])


def run(name: str, experiment: str, size: int, seed: int, vectors: Path | None) -> dict[str, Any]:
    """The test metrics by model, the share of censored test rows, and the names of the models."""
    overrides = [
        f"experiment=return_time/{experiment}",
        f"task.returns.max_rows.train={size}",
        f"seed={seed}",
    ]
    if vectors is not None:
        targets = [feature["_target_"] for feature in compose(overrides).task.features]
        features = [f"{{_target_: {target}}}" for target in targets]
        path = argument("run", str(vectors)).partition("=")[2].strip("'")
        features.append(f"{{_target_: recsys.scoring.Profile, run: {path}}}")
        overrides.append(f"task.features=[{', '.join(features)}]")
    folder = RUNS / name / f"{size}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    config = compose(overrides)
    own = return_times.run(config, folder)["test"]
    rows = pl.read_parquet(folder / "predictions.parquet", glob=False).filter(part="test")
    observed = float(rows["observed"].cast(pl.Float64).mean() or 0.0)  # type: ignore[arg-type]
    models = {"hazard_gradient_penalty": own} | {
        place.name: return_times.ReturnTimesResult.read(place).means["test"]
        for place in sorted((folder / "baselines").iterdir())
    }
    longest = math.log(config.task.returns.horizon)
    with_shares = {
        # The log-likelihood of durations as shares of the horizon.
        name: {**means, "log_likelihood_of_shares": means["log_likelihood"] + observed * longest}
        for name, means in models.items()
    }
    return {"censored": 1 - observed, "models": list(models), **with_shares}


def _together(runs: list[Mapping[str, float]]) -> dict[str, Any]:
    return {name: spread(of[name] for of in runs) for name in runs[0]}


if __name__ == "__main__":
    main()
