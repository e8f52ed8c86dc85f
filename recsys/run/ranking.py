"""One run: from a composed config to a folder with a model, its numbers and its lists.

A run's folder holds

    config.yaml                  the composed config
    log.json                     which log it is of: its sizes and fingerprint
    train.csv                    a row per epoch, for models that are trained
    checkpoints/                 the last and the best epoch, see `recsys.checkpoints`
    model/                       see `recsys.scoring.saved_model`
    timing.json                  seconds of the fit and of the evaluation
    metrics.json, intervals.json means and 95% intervals, by part and metric
    per_user.parquet             every test and validation user's metrics
    recommendations.parquet      what the test users were given
    slices.json                  figures by columns of the users, where `report.slices` names some
    profiles.parquet             the training users' vectors, of a model that makes profiles
    baselines/<name>/            the same files for each model it is compared with
    report.html
    MODEL.md                     what the model is, what it reached, and how to load it

and a file `.lock` while a process is at work on it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning import seed_everything
from pytorch_lightning.loggers import Logger
from rich.progress import track
from rich.table import Table

from recsys import ranks
from recsys.batch.examples import Part
from recsys.batch.loader import Loader
from recsys.errors import ConfigError
from recsys.evaluation.beyond import Beyond
from recsys.evaluation.figures import write_figures
from recsys.evaluation.ranking import Evaluation, Protocol, evaluate
from recsys.evaluation.slices import MOST_VALUES, by_value, largest_gaps
from recsys.files import write_parquet, write_text
from recsys.log.event_log import USER, EventLog
from recsys.log.filters import filtered
from recsys.report import ranking_page, tables
from recsys.report.page import name_of
from recsys.report.screen import console, say, short, show
from recsys.report.user_map import attributes
from recsys.retrieval.index import ItemIndex
from recsys.run import model_card
from recsys.run.config import Sizes, as_values, plain, sized
from recsys.run.folder import about, at_work, claim, close, note_end, note_seconds
from recsys.run.log import filtered_log
from recsys.run.options import check_options
from recsys.run.task_kinds import LISTS
from recsys.run.tracking import loggers
from recsys.scoring import profiles, saved_model, trust
from recsys.scoring.kinds import Measured, ProfileEncoder, members_of
from recsys.scoring.lists import table_of_lists
from recsys.scoring.scorer import Scorer
from recsys.tasks.phases import VALIDATION
from recsys.tasks.splits import Split
from recsys.timing import clocked, timed
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

logger = logging.getLogger(__name__)

OF_A_TASK = {
    "data": EventLog,
    "task.split": Callable[..., Split],
    "task.filters": filtered,
    "task.ks": Sequence[int],
    "task.mask_history": bool,
    "retrieval.index": Callable[..., ItemIndex] | None,
}
"""Options of a log, how it is split and how a model is evaluated, and their types."""
OF_A_REPORT: dict[str, Any] = {
    "report.beyond": Sequence[str] | None,
    "report.slices": Sequence[str] | None,
}
"""Options of a report that say what is measured besides, and their types."""
KINDS = (
    OF_A_TASK
    | OF_A_REPORT
    | {
        "model": Scorer,
        "trainer": TrainingOptions,
        "baselines": Mapping[str, Scorer],
        "logger.loggers": Sequence[Callable[..., Logger]],
        "report.map_by": str | None,
        "seed": int,
        "device": str,
    }
)


@dataclass(frozen=True, eq=False)
class Task:
    """A split of a log and how models are evaluated on it.

    Attributes:
        split: training, validation and test.
        protocol: list lengths, and whether histories are masked.
        popularity: (n,) training events of each item.
        build_index: makes the retrieval index; None is an exact one, or scores.
        beyond: for figures beyond accuracy, where there are to be any.
        slices: columns of the users by which figures are taken, too.
    """

    split: Split
    protocol: Protocol
    popularity: torch.Tensor
    build_index: Callable[..., Any] | None
    beyond: Beyond | None = None
    slices: Sequence[str] = ()

    def with_report(self, options: Mapping[str, Any]) -> Task:
        """The same with what the section `report` of a config wants measured besides.

        Raises:
            ConfigError: items or users have no such column, or users too many values in it.
        """
        columns, slices = options.get("beyond"), options.get("slices") or ()
        for column in slices:
            _check_slices(self.split.log.users, column)
        if columns is None:
            return replace(self, slices=slices)
        beyond = Beyond.of(self.split.item_table, self.popularity, columns)
        return replace(self, beyond=beyond, slices=slices)


def _check_slices(users: pl.DataFrame, column: str) -> None:
    if column not in (known := attributes(users)):
        raise ConfigError(
            f"report.slices: users have no column {column}; there is {', '.join(known) or 'none'}"
        )
    if (count := users[column].drop_nulls().n_unique()) > MOST_VALUES:
        raise ConfigError(
            f"report.slices: {column} of the users has {count:,} values, and at most {MOST_VALUES} "
            "are compared; name a column of groups, such as of ages by decade"
        )


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Fit `config.model` on `config.data` and write what it reached to `folder`.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: another process is at work in the folder.
    """
    with at_work(config, folder, LISTS, KINDS):
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    task = prepare(config)
    config = sized(config, Sizes.of(task.split))
    check_map(config, task.split)
    claim(folder, config, about(task.split.log))
    say(tables.describe(task.split, task.protocol))
    evaluations, others = finished(task, config, folder)
    results = {name_of(config.model): evaluations} | others
    tests = {name: parts["test"] for name, parts in results.items()}
    show(tables.metrics(tests, task.split.log.name, task.protocol))
    for table in tables_besides(tests, task):
        show(table)
    test = task.split.test
    show(tables.samples(test, evaluations["test"].lists_of(test.users.unique()), task.split))
    close(folder, config, task.split.log, *tables.ties(task.split))
    return {part: result.means for part, result in evaluations.items()}


def check_map(config: DictConfig, split: Split) -> None:
    """See that users have the column by which a map is coloured.

    Raises:
        ConfigError: they have not.
    """
    columns = attributes(split.log.users)
    if (by := config.report.map_by) not in (None, *columns):
        raise ConfigError(
            f"report.map_by={by}: of users is known {', '.join(columns) or 'nothing'}"
        )


def finished(
    task: Task, config: DictConfig, folder: Path
) -> tuple[dict[str, Evaluation], dict[str, dict[str, Evaluation]]]:
    """Fit and evaluate the models of a config on a task, and write everything that a run writes.

    Args:
        task: of the config.
        config: with the sizes of its log.
        folder: the run's, which it has claimed.

    Returns:
        What the run's model reached, by part; and what its members and the baselines did, by name.
    """
    model = _fit_and_save(config.model, config, task, folder)
    evaluations = evaluate_model(model, task, folder)
    others = {}
    for name, member in members_of(model):
        others[f"  {name} alone"] = evaluate_model(member, task, folder / "members" / name)
    for name, baseline in config.baselines.items():
        place = folder / "baselines" / str(name)
        others[str(name)] = evaluate_model(
            _fit_and_save(baseline, config, task, place), task, place
        )
    if isinstance(model, ProfileEncoder):
        write_parquet(folder / "profiles.parquet", profiles.of_training(model, task.split))
    if ranks.is_first():
        note_end(folder)
        ranking_page.write(folder)
        model_card.write(folder, task.split, [name for name, _ in members_of(model)])
    return evaluations, others


def prepare(config: DictConfig) -> Task:
    """Read the log, filter it and split it.

    Raises:
        ConfigError: an option that is not what is expected.
        DataError: what the log's source raises.
    """
    check_options(as_values(config, "data", "task", "retrieval"), OF_A_TASK)
    protocol = protocol_of(plain(config.task))
    log = filtered_log(plain(config.data), plain(config.task.filters))
    with timed(logger, "divided %s events into training, validation and test", log.num_events):
        split = trust.build(plain(config.task.split))(log)
    task = task_of(split, protocol, plain(config.retrieval))
    return task.with_report(plain(config.report))


def protocol_of(task: Mapping[str, Any]) -> Protocol:
    """How lists are evaluated, by the section `task` of a config."""
    return Protocol(list(task["ks"]), task["mask_history"])


def task_of(
    split: Split,
    protocol: Protocol,
    retrieval: Mapping[str, Any],
    purpose: Literal["index"] | None = None,
) -> Task:
    """How models are evaluated on a split, by the section `retrieval` of a config.

    Raises:
        ConfigError: lists longer than the catalogue, or no such index.
    """
    if max(protocol.ks) > split.num_items:
        raise ConfigError(
            f"task.ks: k={max(protocol.ks)} exceeds the {split.num_items} items of "
            f"{split.log.name}; lower it"
        )
    index = trust.build(retrieval["index"], purpose) if retrieval["index"] else None
    return Task(split, protocol, split.popularity, index)


def _fit_and_save(model_config: DictConfig, config: DictConfig, task: Task, folder: Path) -> Scorer:
    """Fit a model and save it; and note the seconds of a fit, of the epochs that are new at least.

    A process that is killed notes nothing: the epochs say what was measured.
    """
    figures: dict[str, Any] = {}
    before = _epochs(folder)
    with clocked(figures):
        model = fitted(model_config, config, task, folder, say)
    if (after := _epochs(folder)) != before or not after:
        note_seconds(folder, "fit", figures | ({"epochs": [before + 1, after]} if after else {}))
    built, masked = plain(model_config), task.protocol.mask_history
    saved_model.save(folder / "model", model, task.split, built, mask_history=masked)
    return model


def _epochs(folder: Path) -> int:
    """How many epochs a model has been trained for, by its `train.csv`."""
    path = folder / "train.csv"
    return len(path.read_text("utf-8").splitlines()) - 1 if path.is_file() else 0


def fitted(
    model_config: DictConfig,
    config: DictConfig,
    task: Task,
    folder: Path,
    tell: Callable[[str], object] | None = None,
) -> Scorer:
    """Build a model, and fit it in a folder.

    Args:
        model_config: of the model.
        config: of the run: its seed, trainer and loggers.
        task: whose split it is fitted on.
        folder: for checkpoints; training goes on from those that it holds.
        tell: is given lines on what fitting will take, as by `fit`.
    """
    # Each model starts from the seed, whatever was fitted before it.
    seed_everything(config.seed, verbose=False)
    return fit(
        saved_model.build(plain(model_config)),
        task.split,
        trust.build(plain(config.trainer)),
        task.protocol,
        folder=folder,
        loggers=partial(loggers, config),
        progress=console.is_terminal,
        on_evaluation=partial(_say_epoch, config.trainer.monitor),
        tell=tell,
    )


def _say_epoch(monitor: str, epoch: int, value: float) -> None:
    """A line, where there is no terminal for a bar."""
    if not console.is_terminal:
        say(f"epoch {epoch}: validation {monitor} {short(value)}")


def evaluate_model(model: Scorer, task: Task, folder: Path) -> dict[str, Evaluation]:
    """Evaluate a model on the validation and test users, and write what it reached."""
    parts = (task.split.validation, task.split.test)
    figures: dict[str, Any] = {}
    with clocked(figures):
        results = {part.name: evaluate_part(model, part, task) for part in parts}
    figures = {"users": sum(len(result.per_user) for result in results.values())} | figures
    note_seconds(folder, "evaluate", figures)
    if isinstance(model, Measured):
        for phase, result in enumerate(results.values(), start=VALIDATION):
            result.catalogue.update(model.measure(task.split, phase))
    write_results(folder, results, task)
    return results


def evaluate_part(model: Scorer, part: Part, task: Task) -> Evaluation:
    """Evaluate a model on a part, with a progress bar where there is a terminal."""
    return evaluate(
        model,
        part,
        task.protocol,
        popularity=task.popularity,
        beyond=task.beyond,
        build_index=task.build_index,
        progress=partial(_bar, f"evaluating on {part.name}"),
    )


def write_results(folder: Path, results: dict[str, Evaluation], task: Task) -> None:
    """`metrics.json`, `intervals.json`, `per_user.parquet`, `recommendations.parquet`.

    And `slices.json`, where figures are taken by columns of the users.
    """
    split, parts = task.split, []
    for name, result in results.items():
        ids = split.users.ids_of(result.per_user["user"]).rename(USER)
        parts.append(
            result.per_user.drop("user").insert_column(0, ids).with_columns(part=pl.lit(name))
        )
    users = split.users.ids_of(results["test"].per_user["user"]).rename(USER)
    top = results["test"].top
    lists = table_of_lists(users, top.items, top.scores, split.item_table)
    write_parquet(folder / "per_user.parquet", pl.concat(parts, how="diagonal"))
    write_parquet(folder / "recommendations.parquet", lists)
    if task.slices:
        by_column = {
            c: {n: t.to_dicts() for n, t in of.items()} for c, of in slices(results["test"], task)
        }
        write_text(folder / "slices.json", json.dumps(by_column, indent=2))
    means = {name: result.means for name, result in results.items()}
    write_figures(folder, means, {name: result.intervals() for name, result in results.items()})


def slices(result: Evaluation, task: Task) -> Iterator[tuple[str, dict[str, pl.DataFrame]]]:
    """By each column of the users the figures of its values, and the largest gaps between them."""
    metrics = [f"{name}@{task.protocol.ks[0]}" for name in tables.SHOWN]
    users = task.split.users.ids_of(result.per_user["user"]).rename(USER).to_frame()
    known = users.join(task.split.log.users, on=USER, how="left", maintain_order="left")
    for column in task.slices:
        of = result.per_user, known[column], metrics
        yield column, {"values": by_value(*of), "gaps": largest_gaps(*of)}


def tables_besides(tests: Mapping[str, Evaluation], task: Task) -> Iterator[Table]:
    """What is printed of the first model by columns of the users, and of all beyond accuracy."""
    if task.beyond is not None:
        yield tables.beyond(tests, task.beyond.names(task.protocol.ks[0]))
    name, result = next(iter(tests.items()))
    for column, of in slices(result, task):
        yield tables.slices(f"{name} by {column} of the users", of["values"], of["gaps"])


def _bar(title: str, batches: Loader) -> Iterator[Part] | Iterable[Part]:
    return track(batches, title, console=console, disable=not console.is_terminal, transient=True)
