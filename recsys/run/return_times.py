"""One run of a task of return times: a survival model and the baselines beside it.

A model learns from the training rows alone, and is evaluated on those of validation and test. A
run's folder holds

    config.yaml, log.json        the composed config, and of which log and rows
    predictions.parquet          of each row what came, the median and survival at the horizons
    per_user.parquet             the mean log-likelihood of each user's rows
    curves.parquet, calibration.parquet   what the page draws
    intervals.json, metrics.json by part and metric
    baselines/<name>/            the same for each model it is compared with
    report.html

A model that is finished is kept: a run that was killed goes on with the next. No weights are saved:
`return_times_as_of` fits the model again, from its config, its seed and the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import polars as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning import seed_everything

from recsys.errors import ConfigError
from recsys.evaluation.return_times import (
    ReturnTimesResult,
    evaluate_return_times,
    likelihood_leads,
    medians,
)
from recsys.log.event_log import USER, EventLog
from recsys.log.time import Moment
from recsys.ranges import above
from recsys.report import return_times_page, return_times_tables
from recsys.report.screen import say, show
from recsys.run.config import of_task_alone, plain
from recsys.run.folder import about, at_work, claim, close, models_of, note_end
from recsys.run.log import log_of, read
from recsys.run.options import check_options
from recsys.run.task_kinds import RETURN_TIMES
from recsys.scoring import trust
from recsys.scoring.survival import SurvivalPredictor
from recsys.tasks.as_of import AS_OF
from recsys.tasks.features import Feature
from recsys.tasks.phases import TEST, TRAIN
from recsys.tasks.return_times import ReturnTimes, everyone_as_of
from recsys.timing import timed

logger = logging.getLogger(__name__)
NAME = "back"
"""Of the table."""
OF_THE_TASK = ("returns", "horizons", "features")
KINDS = {
    "data": EventLog,
    "task.returns": Callable[..., ReturnTimes],
    "task.horizons": Sequence[float],
    "task.features": Sequence[Feature],
    "model": SurvivalPredictor,
    "baselines": Mapping[str, SurvivalPredictor],
    "seed": int,
    "device": str,
}
NOT_AGAIN = ("task.features", "baselines", "device")
"""Options that do not matter where a model is fitted again."""
ROWS = 4096
"""So many rows' curves are asked for at once."""


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Fit and evaluate `config.model` and the baselines on the return times of `config.task`.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: another process is at work in the folder.
    """
    config = of_task_alone(config, OF_THE_TASK)
    with at_work(config, folder, RETURN_TIMES, KINDS):
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    horizons = [float(horizon) for horizon in config.task.horizons]
    _check_horizons(horizons)
    log = read(config.data)
    table = _table(plain(config.task.returns), log)
    claim(folder, config, about(log) | {"rows": table.fingerprint})
    say(*return_times_tables.describe(table))
    models = models_of(config, folder)
    results = {
        name: evaluate(table, options, place, horizons, seed=config.seed)
        for name, (options, place) in models.items()
    }
    note_end(folder)
    return_times_page.write(folder)
    show(return_times_tables.metrics(table, results, likelihood_leads(results)))
    close(folder, config, log)
    return results[next(iter(models))].means


def _check_horizons(horizons: Sequence[float]) -> None:
    """See that they are above 0, and each comes once as its metrics are named, `auc@7`."""
    for horizon in horizons:
        above(0, **{"task.horizons": horizon})
    names = [f"{horizon:g}" for horizon in horizons]
    if len(set(names)) < len(names):
        raise ConfigError(f"task.horizons=[{','.join(names)}]: one comes twice; name each once")


def evaluate(
    table: ReturnTimes,
    options: Mapping[str, Any],
    folder: Path,
    horizons: Sequence[float],
    *,
    seed: int,
) -> ReturnTimesResult:
    """What a model reached; a result that its folder holds is read from there."""
    if (folder / "metrics.json").is_file():
        logger.info("read what %s holds", folder)
    else:
        with timed(logger, "%s: %s on %s rows", table.name, options["_target_"], len(table)):
            model = _build(options, seed).fit(table, table.phase(TRAIN))
            evaluate_return_times(model, table, horizons).write(folder)
    return ReturnTimesResult.read(folder)


def return_times_as_of(
    config: Mapping[str, Any], when: Moment | None = None
) -> tuple[EventLog, pl.DataFrame]:
    """When every user of a run's log will be back, by the run's model, which is fitted again.

    Args:
        config: the whole config of a run, from its folder: it may call what is listed for it.
        when: a moment not before the training rows are known; None is just after the last event.

    Returns:
        the log, and `user_id`, `as_of`, `median_days`, null where it cannot be told, and
        `back_within_7_days` for each of the task's horizons that rows were followed for.

    Raises:
        ConfigError: the config calls what it may not, or there is no such moment.
    """
    returns, options = config["task"]["returns"], config["model"]
    trust.check(config["data"], "data")
    trust.check(returns, "table")
    trust.check(options, "model")
    # After that: what it checks, it imports.
    task = {"returns": returns, "horizons": config["task"]["horizons"]}
    again = {"data": config["data"], "task": task, "model": options, "seed": config["seed"]}
    check_options(again, {n: kind for n, kind in KINDS.items() if n not in NOT_AGAIN})
    log = log_of(config["data"], "data")
    table = _table(returns, log, "table")
    everyone = everyone_as_of(table, when, active=returns.get("active"))
    model = _build(options, config["seed"], "model").fit(everyone, everyone.phase(TRAIN))
    horizons = [float(h) for h in config["task"]["horizons"] if h <= table.horizon]
    rows = everyone.phase(TEST)
    frames = [_probabilities(model, everyone, part, horizons) for part in rows.split(ROWS)]
    return log, pl.concat(frames)


def _probabilities(
    model: SurvivalPredictor, table: ReturnTimes, rows: torch.Tensor, horizons: Sequence[float]
) -> pl.DataFrame:
    curves = model.predict(table, rows)
    back = 1 - curves.at(curves.times.new_tensor(horizons))
    names = [f"back_within_{horizon:g}_{table.unit}" for horizon in horizons]
    return table.rows.select(USER, AS_OF)[rows.numpy()].with_columns(
        medians(curves).alias(f"median_{table.unit}"),
        *(pl.Series(name, back[:, n].double().numpy()) for n, name in enumerate(names)),
    )


def _table(
    options: Mapping[str, Any], log: EventLog, purpose: trust.Purpose | None = None
) -> ReturnTimes:
    return cast(ReturnTimes, trust.build(dict(options), purpose)(log, NAME))


def _build(
    options: Mapping[str, Any], seed: int, purpose: trust.Purpose | None = None
) -> SurvivalPredictor:
    """A model from its config; whatever was fitted before it, it starts from the seed.

    Raises:
        ConfigError: it is a model of another kind.
    """
    seed_everything(seed, verbose=False)
    built = trust.build(dict(options), purpose)
    if not isinstance(built, SurvivalPredictor):
        raise ConfigError(
            f"{type(built).__name__} predicts no return times; choose model=cox, logistic_hazard, "
            "lightgbm_hazard, hazard_net or another survival model"
        )
    return built
