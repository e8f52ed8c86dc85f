"""One run of a task of label tables: several tables, a model and the baselines beside it.

A run's folder holds

    config.yaml, log.json        the composed config, and of which log and labels the tables are
    pretraining/                 a run of its own (`recsys.run.ranking`), where one comes first
    tables/<table>/              metrics.json, intervals.json, folds.parquet, predictions.parquet
    metrics.json, intervals.json of all tables: `kids/auroc`, by part
    baselines/<name>/            the same for each model it is compared with
    report.html

A table that is finished is kept: a run that was killed goes on with the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning import seed_everything

from recsys.errors import ConfigError, RunError
from recsys.evaluation.figures import write_figures
from recsys.evaluation.prediction import Folds, TableResult, cross_validate, leads
from recsys.log.event_log import EventLog
from recsys.reading import read_config
from recsys.report import prediction_page
from recsys.report.screen import say, show
from recsys.report.tables import table_results
from recsys.run import ranking
from recsys.run.config import Sizes, completed, plain
from recsys.run.folder import about, at_work, claim, close, folder_of_a_run, note_end
from recsys.run.log import filtered_log, read
from recsys.run.task_kinds import LABELS
from recsys.scoring import trust
from recsys.scoring.predictor import Predictor
from recsys.tasks.features import Feature
from recsys.tasks.labels import LabelTable
from recsys.tasks.phases import PHASES
from recsys.timing import timed

logger = logging.getLogger(__name__)
SIZES = tuple(field.name for field in fields(Sizes))
OF_A_RUN = ("data", "retrieval", "logger", "report", "seed", "device", *SIZES)
"""What a run of pre-training has in common with the tables that follow."""
OTHER_TASKS = ("split", "filters", "mask_history", "ks")
KINDS = {
    "data": EventLog,
    "task.labels": Mapping[str, Callable[..., LabelTable]],
    "task.folds": Folds,
    "model": Mapping[str, Any],
    "baselines": Mapping[str, Mapping[str, Any]],
    "seed": int,
    "device": str,
}
OF_FEATURES = {"task.features": Sequence[Feature]}
"""Where the task has them."""
EXTRAS = {"tables": Sequence[str], "folds": Folds}
"""What the config of a predictor may hold besides its own options."""
Results = Mapping[str, TableResult]
"""By the name of the table."""


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Fit and evaluate `config.model` and the baselines on the label tables of `config.task`.

    A model or baseline is a predictor, or one for each of the tables that it predicts, by name.
    Where there is `config.pretraining`, of a `task`, `model` and `trainer`, that run comes first,
    in `pretraining/`; predictors know its folder as `${folder}/pretraining`.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: another process is at work in the folder.
    """
    kinds = KINDS | (OF_FEATURES if "features" in config.get("task", {}) else {})
    with at_work(config, folder, LABELS, kinds, EXTRAS):
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    if config.get("pretraining") is not None:
        pretrain(config, folder / "pretraining")
    config = completed(without_other_tasks(config), folder=str(folder))
    log, tables = prepare(config)
    claimed = completed(config, folder=".")  # wherever it stands
    of_tables = {f"labels/{name}": table.fingerprint for name, table in tables.items()}
    claim(folder, claimed, about(log) | of_tables)
    say(*map(describe, tables.values()))
    folds = Folds(**plain(config.task.folds))
    label = prediction_page.label_of(config.model)
    places = {label: (config.model, folder)}
    for name, model in config.baselines.items():
        places[str(name)] = (model, folder / "baselines" / str(name))
    results = {}
    for name, (model, place) in places.items():
        results[name] = predict_tables(tables, model, place, folds, seed=config.seed)
        write(place, results[name])
    note_end(folder)
    prediction_page.write(folder)
    by_table = {
        name: {model: of[name] for model, of in results.items() if name in of} for name in tables
    }
    ahead = leads(by_table)
    for name, of_table in by_table.items():
        show(table_results(name, of_table, ahead.filter(table=name)))
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
    """A copy of a config without pretraining, and what a log brings to predict what comes next."""
    config = completed(config, num_items=None, num_users=None)
    with open_dict(config):
        config.pop("pretraining", None)
        for name in OTHER_TASKS:
            config.task.pop(name, None)
    return config


def prepare(config: DictConfig) -> tuple[EventLog, dict[str, LabelTable]]:
    """The log, and the label tables of it that a config names, by name."""
    log = read(config.data)
    made = plain(config.task.labels)
    return log, {str(name): trust.build(make)(log, str(name)) for name, make in made.items()}


def predict_tables(
    tables: Mapping[str, LabelTable],
    model_config: DictConfig,
    folder: Path,
    folds: Folds,
    *,
    seed: int,
) -> dict[str, TableResult]:
    """Let a model predict every table; results that a folder holds are read from there.

    A predictor's config may name the `tables` that it predicts, and `folds` that come before those
    of the task: fewer, where a fit takes long.
    """
    results = {}
    for name, table in tables.items():
        options = _for_table(model_config, name)
        if options is None:
            continue
        place = folder / "tables" / name
        if (place / "metrics.json").is_file():
            logger.info("%s: read what %s holds", name, place)
        else:
            here = replace(folds, **options.pop("folds", {}))
            predictor = options.get("_target_")
            with timed(logger, "%s: %s predicted %s rows", name, predictor, len(table)):
                cross_validate(table, partial(build, options, seed), here).write(place)
        results[name] = TableResult.read(place)
    return results


def _for_table(model: DictConfig, name: str) -> dict[str, Any] | None:
    """A predictor's config for a table; None where it does not predict it."""
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
            f"{type(built).__name__} says what comes next and predicts no labels; choose "
            "model=logistic_regression, lightgbm, mlp or another predictor"
        )
    return built


def compare_tables(first: Path, second: Path) -> pl.DataFrame:
    """Paired differences of two runs' folds, a row per table and metric that both have.

    As `recsys.evaluation.statistics.compare_folds`, with Holm's correction over all rows as
    `p_holm`.

    Raises:
        RunError: they have no table in common by the same folds.
    """
    places = {place.name: place for place in sorted((first / "tables").glob("[!.]*"))}
    pairs = {
        name: {"second": TableResult.read(other), "first": TableResult.read(place)}
        for name, place in places.items()
        if (other := second / "tables" / name).is_dir()
    }
    ahead = leads(pairs)
    if ahead.is_empty():
        raise RunError(f"{first} and {second} have no label table in common; compare others")
    return ahead.with_columns(metric=pl.format("{}/{}", "table", "metric")).drop("table", "against")


def means(results: Results) -> dict[str, dict[str, float]]:
    """The means of all tables by part, `kids/auroc`."""
    return _together({name: result.means for name, result in results.items()})


def write(folder: Path, results: Results) -> None:
    """`intervals.json` and `metrics.json` of all tables."""
    intervals = _together({name: result.intervals for name, result in results.items()})
    write_figures(folder, means(results), intervals)


def _together(of: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    by_part: dict[str, dict[str, Any]] = {}
    for name, parts in of.items():
        for part, values in parts.items():
            of_part = by_part.setdefault(part, {})
            of_part.update({f"{name}/{metric}": value for metric, value in values.items()})
    return by_part


def describe(table: LabelTable) -> str:
    """One line: how many rows there are, by phase, and what labels."""
    sizes = table.rows["phase"].value_counts().sort("phase").rows()
    phases = ", ".join(f"{n:,} {PHASES[p]}" for p, n in sizes)
    if not table.has_phases:
        phases = f"{len(table):,}, by folds"
    named = len(table.candidates)
    share = table.labels.lengths.float().mean()
    labels = f"{named:,} candidates, {share:.1f} right" if named > 1 else f"{share:.1%} yes"
    return f"{table.name}: {len(table.users):,} users; rows: {phases}; {labels}"
