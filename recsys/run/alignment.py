"""One run of alignment: a finished run's model goes on with what was taken up or not.

The run's folder is that of any model that ranks (`recsys.run.ranking`), so that it can be
evaluated, loaded and recommended from; besides it holds

    feedback.parquet             a row per labelled item: user, moment, phase, item, label,
                                 `reference`, its log-probability when the run started, and
                                 `log_probability`, what became of it
    baselines/before/            figures and lists of the model that it started from

The model and the log's filters are the start's. Validation and test of the ranking begin where
those of the feedback do, so that nothing that was taught is asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning import seed_everything
from torch import Tensor

from recsys.errors import ConfigError, LeakError, RunError
from recsys.evaluation.ranking import Evaluation
from recsys.files import write_parquet
from recsys.log.event_log import TIME, EventLog
from recsys.log.filters import filtered
from recsys.nn.preferences import PreferenceLoss
from recsys.reading import read_config, read_table, reading
from recsys.report import ranking_page, tables
from recsys.report.page import name_of
from recsys.report.screen import console, say, show
from recsys.retrieval.index import ItemIndex
from recsys.run import ranking
from recsys.run.config import Sizes, completed, plain, sized
from recsys.run.folder import about, at_work, claim, close, note_end
from recsys.run.log import filtered_log
from recsys.run.options import check_options
from recsys.run.task_kinds import ALIGNMENT
from recsys.run.tracking import loggers
from recsys.scoring import saved_model, trust
from recsys.scoring.other_logs import check_catalogue
from recsys.scoring.scorer import Scorer
from recsys.tasks.as_of import AS_OF, PHASE
from recsys.tasks.feedback import FeedbackTable
from recsys.tasks.phases import PHASES, VALIDATION
from recsys.tasks.splits import Split
from recsys.timing import timed
from recsys.training.alignment import Aligned
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

logger = logging.getLogger(__name__)

NAME = "feedback"
"""Of the table."""
BEFORE = "before"
NO_MODEL = "recsys.models.Popularity"
"""What a command that names no model names."""
OF_THE_TASK = ("feedback", "loss", "learning_rate", "weight_decay", "anchor", "drift")
OF_THE_START = ("filters", "ks", "mask_history")
KINDS = {
    "data": EventLog,
    "start": str,
    "task.feedback": Callable[..., FeedbackTable],
    "task.loss": PreferenceLoss,
    "task.learning_rate": float,
    "task.weight_decay": float,
    "task.anchor": float,
    "task.drift": float,
    "model": Scorer,
    "trainer": TrainingOptions,
    "retrieval.index": Callable[..., ItemIndex] | None,
    **ranking.OF_A_REPORT,
    "seed": int,
    "device": str,
}


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Align the model of `config.start` by `config.task.feedback` and write what it reached.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: the start is no finished run that ranks, or another process is at work here.
        ConfigError: the start is a run of another model or another log.
        LeakError: the start has learnt from what is to be predicted.
    """
    with at_work(_of_alignment(config), folder, ALIGNMENT, KINDS):
        return _run(config, folder)


def _of_alignment(config: DictConfig) -> DictConfig:
    """A copy without what the log's config says of other tasks, and without baselines."""
    task = {name: config.task[name] for name in OF_THE_TASK}
    return completed(config, task=task, baselines={}, num_items=None, num_users=None)


def _run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    start = Path(config.start)
    config, log = _started(_of_alignment(config), start)
    saved = saved_model.load(start)
    table = trust.build(plain(config.task.feedback))(log, NAME)
    split = trust.build(plain(config.task.split))(log)
    check_catalogue(saved, split)
    _check_leak(start, log, table)
    config = sized(config, Sizes.of(split))
    claim(folder, config, about(log) | {NAME: table.fingerprint})
    task = ranking.task_of(split, ranking.protocol_of(plain(config.task)), plain(config.retrieval))
    task = task.with_report(plain(config.report))
    say(tables.describe(split, task.protocol), *_describe(table))
    seed_everything(config.seed, verbose=False)
    aligned = _aligned(config, saved.model, table, folder, split)
    before = ranking.evaluate_model(aligned, task, folder / "baselines" / BEFORE)
    aligned.train()
    fit(
        aligned,
        split,
        trust.build(plain(config.trainer)),
        task.protocol,
        folder=folder,
        loggers=partial(loggers, config),
        progress=console.is_terminal,
        tell=say,
    )
    built = plain(config.model)
    masked = task.protocol.mask_history
    saved_model.save(folder / "model", aligned.model, split, built, mask_history=masked)
    evaluations = ranking.evaluate_model(aligned, task, folder)
    _write_feedback(folder, aligned, split)
    note_end(folder)
    ranking_page.write(folder)
    _show(config, {name_of(config.model): evaluations, BEFORE: before}, task)
    close(folder, config, log)
    return {part: result.means for part, result in evaluations.items()}


def _started(config: DictConfig, start: Path) -> tuple[DictConfig, EventLog]:
    """The config with what is the start's, and the log."""
    old = read_config(start)
    with reading(start / "config.yaml", fault="is of no run that ranks"):
        model, data, task = old["model"], old["data"], old["task"]
        of_start = {name: task[name] for name in OF_THE_START}
    _check_same(start, "model", plain(config.model), model)
    if plain(config.data) != data:
        raise ConfigError(
            f"data={plain(config.data)} is not {data}, which start={start} was trained on; name "
            "its data set"
        )
    trust.check(model, "model")
    check_options({"task": of_start}, {"task.filters": filtered})
    feedback = config.task.feedback
    split = {
        trust.TARGET: "recsys.tasks.global_time",
        trust.PARTIAL: True,
        "validation_start": feedback.validation,
        "test_start": feedback.test,
    }
    task = plain(config.task) | of_start | {"split": split}
    log = filtered_log(data, of_start["filters"])
    return completed(config, model=model, task=task), log


def _check_same(start: Path, what: str, given: Mapping[str, Any], of_start: Any) -> None:
    target = of_start[trust.TARGET]
    if given[trust.TARGET] not in (target, NO_MODEL):
        raise ConfigError(
            f"{what}: start={start} is a run of {name_of(of_start)}, not of {name_of(given)}; "
            f"leave {what} out"
        )


def _check_leak(start: Path, log: EventLog, table: FeedbackTable) -> None:
    """See that the start has not learnt from events after the first moment of validation."""
    split = trust.build(read_config(start)["task"]["split"], "split")(log)
    last = log.events[TIME][split.training_ends.numpy()].max()
    first = table.rows.filter(pl.col(PHASE) >= VALIDATION)[AS_OF].min()
    if last >= first:
        raise LeakError(
            f"start={start} has learnt from events up to {last!s}, after {first!s}, the first "
            "moment that is validated; train it with task=next_basket_time and "
            "task.split.validation_start before it"
        )


def _describe(table: FeedbackTable) -> list[str]:
    lines = []
    for phase, name in enumerate(PHASES):
        labels = table.labels_of(phase)
        share = float(labels.float().mean())
        lists = len(table.phase(phase))
        lines.append(f"{name}: {len(labels):,} labels in {lists:,} lists, {share:.1%} up")
    return lines


def _aligned(
    config: DictConfig, model: Scorer, table: FeedbackTable, folder: Path, split: Split
) -> Aligned:
    """The model, ready to be aligned, with the reference's column of the folder or a new one."""
    loss = trust.build(plain(config.task.loss))
    if not isinstance(loss, PreferenceLoss):
        raise ConfigError(
            f"task.loss: {type(loss).__name__} is no loss of feedback; choose loss=bco, bce, kto, "
            "dpo or sft"
        )
    options = config.task
    aligned = Aligned(
        model,
        loss,
        table,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        anchor=options.anchor,
        drift=options.drift,
        reference=_reference(folder, len(table.labels)),
        seed=config.seed,
    )
    if aligned.reference is None:
        with timed(logger, "log-probabilities of %s labels by the reference", len(table.labels)):
            aligned.reference = aligned.log_probabilities_of(split)
        write_parquet(folder / "feedback.parquet", _frame(table, reference=aligned.reference))
    return aligned


def _reference(folder: Path, num_labels: int) -> Tensor | None:
    """The column that the folder of a run that goes on holds."""
    path = folder / "feedback.parquet"
    if not path.is_file():
        return None
    column = read_table(path, "reference")["reference"]
    if len(column) != num_labels or column.dtype != pl.Float32:
        raise RunError(f"{path} has not the {num_labels} labels of this run; remove it")
    return torch.from_numpy(column.to_numpy().copy())


def _frame(table: FeedbackTable, **columns: Tensor) -> pl.DataFrame:
    values = [pl.Series(name, column.numpy()) for name, column in columns.items()]
    return table.frame().with_columns(values)


def _write_feedback(folder: Path, aligned: Aligned, split: Split) -> None:
    assert aligned.reference is not None
    now = aligned.log_probabilities_of(split)
    frame = _frame(aligned.table, reference=aligned.reference, log_probability=now)
    write_parquet(folder / "feedback.parquet", frame)


def _show(
    config: DictConfig, results: Mapping[str, Mapping[str, Evaluation]], task: ranking.Task
) -> None:
    tests = {name: parts["test"] for name, parts in results.items()}
    show(tables.metrics(tests, task.split.log.name, task.protocol))
    for name, parts in results.items():
        means = parts["test"].means
        figures = [f"{m} {means[m]:.4f}" for m in Aligned.measures if m in means]
        say(f"{name}: {', '.join(figures)}")
