"""Compare settings over folds of the training and validation users; test users are not looked at.

    python -m benchmarks.folds gloie_plus/dc_any gloie_plus/dc_any_with_graph

The validation users of some logs are too few to tell two settings apart. So the users whom the
split trains on or validates with are dealt into folds, and each fold's are predicted by a model
that is trained on the others' and stopped by the fold, as it is by validation users. Fold f is
trained with seed f. The record, `benchmarks/folds/<name>.json`, holds each experiment's mean over
all users and by fold, and the paired difference from the first, whose name it has unless `--name`
gives another. What is done is kept in `runs/folds`, from which it goes on when it is started again:
remove what a change of settings has made old. `--folds 0 1` asks for some alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks.record import ROOT, write
from benchmarks.run import PACKAGES, SHOWN, overrides
from recsys.cli.compose import compose
from recsys.errors import RunError
from recsys.evaluation.statistics import compare
from recsys.files import write_parquet
from recsys.log.event_log import USER
from recsys.run.config import Sizes, sized
from recsys.run.ranking import evaluate_part, fitted, prepare
from recsys.tasks.phases import TEST, TRAIN, VALIDATION
from recsys.tasks.splits import Split

RESULTS = ROOT / "benchmarks" / "folds"
RUNS = ROOT / "runs" / "folds"
NUM_FOLDS, SEED = 4, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="+")
    parser.add_argument("--folds", nargs="+", type=int, default=range(NUM_FOLDS))
    parser.add_argument("--name", help="of the record")
    options = parser.parse_args()
    users = {name: users_of(name, options.folds) for name in options.experiments}
    first = options.experiments[0]
    write(
        RESULTS / f"{options.name or first}.json",
        {"folds": list(options.folds), "experiments": compared(users, first)},
        packages=PACKAGES,
        seed=SEED,
    )


def users_of(experiment: str, folds: list[int]) -> pl.DataFrame:
    """Metrics of each user of the folds, with its fold."""
    frames = []
    for fold in folds:
        path = RUNS / experiment / f"{fold}.parquet"
        if not path.exists():
            write_parquet(path, predicted(experiment, fold))
        frames.append(pl.read_parquet(path, glob=False).with_columns(fold=pl.lit(fold)))
    return pl.concat(frames)


def predicted(experiment: str, fold: int) -> pl.DataFrame:
    """Metrics of each user of a fold, by a model that is trained on the others."""
    config = compose(overrides(experiment, fold))
    task = prepare(config)
    split = folded(task.split, fold)
    task = replace(task, split=split, popularity=split.popularity)
    config = sized(config, Sizes.of(split))
    with TemporaryDirectory() as scratch:
        model = fitted(config.model, config, task, Path(scratch))
        users = evaluate_part(model, split.validation, task).per_user
    return users.rename({"user": USER})


def folded(split: Split, fold: int) -> Split:
    """The same split, whose validation users are a fold of those of training and validation.

    Raises:
        RunError: the split divides the events of a user.
    """
    events = split.events
    if events.group_by("user").agg(pl.col("phase").n_unique())["phase"].max() != 1:
        raise RunError(
            f"{split.log.name}: the split divides the events of a user; folds need one that "
            "divides users, such as task=next_basket_holdout"
        )
    phase_of_user = np.full(len(split.users), TEST)
    phase_of_user[events["user"].to_numpy()] = events["phase"].to_numpy()
    known = np.flatnonzero(phase_of_user != TEST)
    folds = np.arange(len(known)) % NUM_FOLDS
    is_held_out = folds == fold
    phase_of_user[np.random.default_rng(SEED).permutation(known)] = np.where(
        is_held_out, VALIDATION, TRAIN
    )
    phase = pl.Series(phase_of_user[events["user"].to_numpy()], dtype=pl.UInt8)
    return replace(split, events=events.with_columns(phase=phase))


def compared(users: dict[str, pl.DataFrame], first: str) -> dict[str, Any]:
    """Of each experiment the means over users, by fold too, and how it differs from the first."""
    return {
        name: {
            "users": len(frame),
            "means": frame.select(SHOWN).mean().row(0, named=True),
            "by_fold": frame.group_by("fold").agg(pl.col(SHOWN).mean()).sort("fold").to_dicts(),
            "difference": []
            if name == first
            else compare(users[first], frame, names=SHOWN).to_dicts(),
        }
        for name, frame in users.items()
    }


if __name__ == "__main__":
    main()
