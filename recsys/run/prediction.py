"""One run of a task that asks questions: several tables, a model and the baselines beside it.

A run's folder holds

    config.yaml, log.json        the composed config, and of which log and answers the tables are
    pretraining/                 a run of its own (`recsys.run.ranking`), where one comes first
    tables/<table>/              metrics.json, intervals.json, folds.parquet, predictions.parquet
    metrics.json, intervals.json of all tables: `kids/auroc`, by part
    baselines/<name>/            the same for each model it is compared with
    report.html

A table that is finished is kept: a run that was killed goes on with the next.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning import seed_everything

from recsys.errors import ConfigError, RunError
from recsys.evaluation.figures import write_figures
from recsys.evaluation.prediction import Folds, Trial, leads, trial
from recsys.log.event_log import EventLog
from recsys.reading import read_config
from recsys.report import prediction_page, tables
from recsys.run import ranking
from recsys.run.config import Sizes, completed, plain
from recsys.run.folder import about, at_work, claim, close, console, folder_of_a_run, say
from recsys.run.log import filtered_log, read
from recsys.scoring import trust
from recsys.scoring.predictor import Predictor
from recsys.tasks.labels import Questions
from recsys.tasks.phases import PHASES
from recsys.timing import timed

logger = logging.getLogger(__name__)
SIZES = tuple(field.name for field in fields(Sizes))
OF_A_RUN = ("data", "retrieval", "logger", "report", "seed", "device", *SIZES)
"""What a run of pre-training has in common with the questions that follow."""
OTHER_TASKS = ("split", "filters", "mask_history", "ks")
KINDS = {
    "data": object,
    "task.questions": Mapping[str, object],
    "task.folds": Folds,
    "model": Mapping[str, Any],
    "baselines": Mapping[str, Mapping[str, Any]],
    "seed": int,
    "device": str,
}
EXTRAS = {"tables": Sequence[str], "folds": Folds}
"""What the config of a predictor may hold besides its own options."""
Trials = Mapping[str, Trial]
"""By the name of the table."""


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Ask `config.model` and the baselines the questions of `config.task`.

    A model or baseline is a predictor, or one for each of the tables that it answers, by name.
    Where there is `config.pretraining`, of a `task`, `model` and `trainer`, that run comes first,
    in `pretraining/`; predictors know its folder as `${folder}/pretraining`.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: another process is at work in the folder.
    """
    with at_work(config, folder, KINDS, EXTRAS):
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    if config.get("pretraining") is not None:
        pretrain(config, folder / "pretraining")
    config = completed(without_other_tasks(config), folder=str(folder))
    log, asked = prepare(config)
    claimed = completed(config, folder=".")  # wherever it stands
    of_tables = {f"questions/{name}": table.fingerprint for name, table in asked.items()}
    claim(folder, claimed, about(log) | of_tables)
    say(*map(describe, asked.values()))
    divided = Folds(**plain(config.task.folds))
    label = prediction_page.label_of(config.model)
    places = {label: (config.model, folder)}
    for name, model in config.baselines.items():
        places[str(name)] = (model, folder / "baselines" / str(name))
    results = {}
    for name, (model, place) in places.items():
        results[name] = answered(asked, model, place, divided, seed=config.seed)
        write(place, results[name])
    prediction_page.write(folder)
    by_table = {
        name: {model: t[name] for model, t in results.items() if name in t} for name in asked
    }
    ahead = leads(by_table)
    for name, of_table in by_table.items():
        console.print(tables.trials(name, of_table, ahead.filter(table=name)))
    close(folder, config, log)
    return means(results[label])


def pretrain(config: DictConfig, folder: Path) -> None:
    """Run `config.pretraining`; a folder that holds it, finished and of the same config, is kept.

    Raises:
        ConfigError: the folder holds another run.
    """
    shared = [name for name in OF_A_RUN if name in config]
    whole = OmegaConf.masked_copy(config, shared)
    whole = completed(whole, baselines={}, **dict(config.pretraining.items()))
    if (folder / "report.html").is_file():
        held = read_config(folder)
        whole = completed(whole, **{size: held.get(size) for size in SIZES})
        with folder_of_a_run(folder):
            log = filtered_log(plain(whole.data), plain(whole.task.filters))
            claim(folder, whole, about(log))
        logger.info("pre-training: read what %s holds", folder)
        return
    ranking.run(whole, folder)


def without_other_tasks(config: DictConfig) -> DictConfig:
    """A copy of a config without pretraining, and what a log brings to ask what comes next."""
    config = completed(config, num_items=None, num_users=None)
    with open_dict(config):
        config.pop("pretraining", None)
        for name in OTHER_TASKS:
            config.task.pop(name, None)
    return config


def prepare(config: DictConfig) -> tuple[EventLog, dict[str, Questions]]:
    """The log, and the tables of questions about it that a config names, by name."""
    log = read(config.data)
    made = plain(config.task.questions)
    return log, {str(name): trust.build(make)(log, str(name)) for name, make in made.items()}


def answered(
    asked: Mapping[str, Questions], model: DictConfig, folder: Path, divided: Folds, *, seed: int
) -> dict[str, Trial]:
    """Let a model answer every table; those that a folder holds are read from there.

    A predictor's config may name the `tables` that it answers, and `folds` that come before those
    of the task: fewer, where a fit takes long.
    """
    found = {}
    for name, questions in asked.items():
        options = _for_table(model, name)
        if options is None:
            continue
        place = folder / "tables" / name
        if (place / "metrics.json").is_file():
            logger.info("%s: read what %s holds", name, place)
        else:
            here = replace(divided, **options.pop("folds", {}))
            answerer = options.get("_target_")
            with timed(logger, "%s: %s answered %s rows", name, answerer, len(questions)):
                trial(questions, partial(build, options, seed), here).write(place)
        found[name] = Trial.read(place)
    return found


def _for_table(model: DictConfig, name: str) -> dict[str, Any] | None:
    """A predictor's config for a table; None where it does not answer it."""
    options = plain(model)
    if "_target_" not in options:
        return options.get(name)
    return options if name in options.pop("tables", [name]) else None


def build(model: dict[str, Any], seed: int) -> Predictor:
    """A predictor from its config; whatever was fitted before it, it starts from the seed.

    Raises:
        ConfigError: it is a model of another kind.
    """
    seed_everything(seed, verbose=False)
    built = trust.build(model)
    if not isinstance(built, Predictor):
        raise ConfigError(
            f"{type(built).__name__} says what comes next and answers no questions; choose "
            "model=logistic_regression, lightgbm, mlp or another predictor"
        )
    return built


def compare_tables(first: Path, second: Path) -> pl.DataFrame:
    """Paired differences of two runs' folds, a row per table and metric that both answered.

    As `recsys.evaluation.statistics.compare_folds`, with Holm's correction over all rows as
    `p_holm`.

    Raises:
        RunError: they answered no table in common by folds, or by other folds.
    """
    places = {place.name: place for place in sorted((first / "tables").glob("[!.]*"))}
    pairs = {
        name: {"second": Trial.read(other), "first": Trial.read(place)}
        for name, place in places.items()
        if (other := second / "tables" / name).is_dir()
    }
    found = leads(pairs)
    if found.is_empty():
        raise RunError(f"{first} and {second} answered no questions in common; compare others")
    return found.with_columns(metric=pl.format("{}/{}", "table", "metric")).drop("table", "against")


def means(trials: Trials) -> dict[str, dict[str, float]]:
    """The means of all tables by part, `kids/auroc`."""
    return _together({name: result.means for name, result in trials.items()})


def write(folder: Path, trials: Trials) -> None:
    """`intervals.json` and `metrics.json` of all tables."""
    intervals = _together({name: result.intervals for name, result in trials.items()})
    write_figures(folder, means(trials), intervals)


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
    phases = ", ".join(f"{n:,} {PHASES[p]}" for p, n in sizes)
    if not questions.has_phases:
        phases = f"{len(questions):,}, by folds"
    named = len(questions.candidates)
    share = questions.answers.lengths.float().mean()
    answer = f"{named:,} candidates, {share:.1f} right" if named > 1 else f"{share:.1%} yes"
    return f"{questions.name}: {len(questions.users):,} users; rows: {phases}; {answer}"
