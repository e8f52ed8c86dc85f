"""One run of a task that asks questions: several tables, a model and the baselines beside it.

A run's folder holds

    config.yaml                  the composed config
    tables/<table>/              metrics.json, intervals.json, folds.parquet, predictions.parquet
    metrics.json, intervals.json of all tables: `kids/auroc`, by part
    per_user.parquet             every row's metrics, and every fold's
    baselines/<name>/            the same for each model it is compared with
    report.html

A table that is finished is kept: a run that was killed goes on with the next.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning import seed_everything
from rich.console import Console

from recsys import tables
from recsys.predictor import Predictor
from recsys.questions import Questions
from recsys.train import claim, read, write_text
from recsys.trials import Folds, Trial, trial

console = Console()
OTHER_TASKS = ("split", "filters", "mask_history", "ks")
Trials = Mapping[str, Trial]
"""By the name of the table."""


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Ask `config.model` and the baselines the questions of `config.task`.

    Returns:
        What `metrics.json` holds.
    """
    asked = prepare(config)
    claim(folder, config)
    for questions in asked.values():
        console.print(describe(questions), soft_wrap=True)
    divided = Folds(**OmegaConf.to_container(config.task.folds))  # type: ignore[arg-type]
    label = str(config.model._target_).rpartition(".")[2]
    places = {label: (config.model, folder)}
    for name, model in config.baselines.items():
        places[str(name)] = (model, folder / "baselines" / str(name))
    results = {}
    for name, (model, place) in places.items():
        results[name] = answered(asked, model, place, divided, seed=config.seed)
        write(place, results[name])
    for name in asked:
        console.print(tables.trials(name, {label: t[name] for label, t in results.items()}))
    console.print(f"run folder: {folder}", soft_wrap=True)
    return means(results[label])


def prepare(config: DictConfig) -> dict[str, Questions]:
    """The tables of questions that a config names, by name."""
    with open_dict(config):  # what the log brings for tasks that ask what comes next
        for name in OTHER_TASKS:
            config.task.pop(name, None)
        config.num_items = config.num_users = None
    log = read(config.data)
    return {
        str(name): instantiate(make, _convert_="all")(log, str(name))
        for name, make in config.task.questions.items()
    }


def answered(
    asked: Mapping[str, Questions], model: DictConfig, folder: Path, divided: Folds, *, seed: int
) -> dict[str, Trial]:
    """Let a model answer every table; those that a folder holds are read from there."""
    found = {}
    for name, questions in asked.items():
        place = folder / "tables" / name
        if not (place / "metrics.json").is_file():
            write_trial(place, trial(questions, partial(build, model, seed), divided))
        found[name] = Trial.read(place)
    return found


def build(model: DictConfig, seed: int) -> Predictor:
    """A predictor from its config; whatever was fitted before it, it starts from the seed."""
    seed_everything(seed, verbose=False)
    return instantiate(model, _convert_="all")


def write_trial(folder: Path, result: Trial) -> None:
    """Write a table's folder whole or not at all."""
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    result.folds.write_parquet(scratch / "folds.parquet")
    result.predictions.write_parquet(scratch / "predictions.parquet")
    (scratch / "intervals.json").write_text(json.dumps(result.intervals, indent=2))
    (scratch / "metrics.json").write_text(json.dumps(result.means, indent=2))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(scratch, folder)


def means(trials: Trials) -> dict[str, dict[str, float]]:
    """The means of all tables by part, `kids/auroc`."""
    return _together({name: result.means for name, result in trials.items()})


def write(folder: Path, trials: Trials) -> None:
    """`intervals.json` and `metrics.json` of all tables."""
    intervals = _together({name: result.intervals for name, result in trials.items()})
    write_text(folder / "intervals.json", json.dumps(intervals, indent=2))
    write_text(folder / "metrics.json", json.dumps(means(trials), indent=2))


def _together(of: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, parts in of.items():
        for part, values in parts.items():
            of_part = found.setdefault(part, {})
            of_part.update({f"{name}/{metric}": value for metric, value in values.items()})
    return found


def describe(questions: Questions) -> str:
    """One line: how many rows are asked, by phase, and what can be answered."""
    sizes = questions.rows["phase"].value_counts().sort("phase").rows()
    phases = ", ".join(f"{n:,} {('train', 'validation', 'test')[p]}" for p, n in sizes)
    if not questions.has_phases:
        phases = f"{len(questions):,}, by folds"
    named = len(questions.candidates)
    share = questions.answers.lengths.float().mean()
    answer = f"{named:,} candidates, {share:.1f} right" if named > 1 else f"{share:.1%} yes"
    return f"{questions.name}: {len(questions.users):,} users; rows: {phases}; {answer}"
