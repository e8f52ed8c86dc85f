"""One run of a task that asks for forecasts: rolling origins, a model and the baselines beside it.

Every model is treated alike. Of its options and of `search` beside them, `task.trials` combinations
are tried, the first being the options themselves, each fitted once, before the first origin of the
validation, and judged by `task.monitor` over these origins alone. The best is then fitted from
`task.seeds` seeds: once for the validation, and for the test as `task.refit` says. A model without
an option `seed` is fitted once, since it has nothing random.

A run's folder holds

    config.yaml, log.json        the composed config, and of which log it is
    trials/<n>/                  options.json, rows.parquet: what a trial reached in the validation
    seeds/<n>/                   rows.parquet, forecasts.parquet, seconds.json
    metrics.json, intervals.json means over origins and seeds and their 95% intervals over series
    spread.json                  standard deviations over origins and over seeds, options, seconds
    per_series.parquet           a row per part, seed, origin and series
    forecasts.parquet            of the first seed, a row per origin, series and period
    baselines/<name>/            the same for each model it is compared with
    report.html

Trials and seeds that are finished are kept: a run that was killed goes on with the next.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from omegaconf import DictConfig
from pytorch_lightning import seed_everything

from recsys.devices import device_of
from recsys.errors import ConfigError
from recsys.evaluation import forecasts
from recsys.evaluation.figures import write_figures
from recsys.evaluation.forecasts import METRICS, Refit, backtest
from recsys.files import atomic_folder, write_parquet, write_text
from recsys.log.event_log import QUANTITY, EventLog
from recsys.reading import read_json, read_table
from recsys.report import forecast_page, forecast_tables
from recsys.report.screen import say, show
from recsys.run.config import of_task_alone, plain
from recsys.run.folder import about, at_work, claim, close, models_of, note_end
from recsys.run.log import read
from recsys.run.task_kinds import FORECASTS
from recsys.scoring import trust
from recsys.scoring.forecaster import Forecaster
from recsys.tasks.sales import Origins, Sales, check_leaks, cut, day_of, days_of
from recsys.timing import timed

logger = logging.getLogger(__name__)
OF_THE_TASK = ("series", "origins", "refit", "trials", "seeds", "monitor")
KINDS = {
    "data": EventLog,
    "task.series": Callable[..., Sales],
    "task.origins": Origins,
    "task.refit": Refit,
    "task.trials": int,
    "task.seeds": int,
    "task.monitor": str,
    "model": Forecaster,
    "baselines": Mapping[str, Forecaster],
    "seed": int,
    "device": str,
}
EXTRAS = {"search": Mapping[str, Sequence[Any]]}
"""What the config of a forecaster may hold besides its own options: what may be tried for them."""
MOST_COMBINATIONS = 100_000


@dataclass(frozen=True)
class Protocol:
    """How every model is asked.

    Attributes:
        refit: whether a model is fitted at each `origin` of the test, or once for the `phase`.
        trials: combinations of options, at most.
        seeds: from how many a model is fitted.
        monitor: the metric of the validation by which a trial is chosen; less is better.
        seed: the first one.

    Raises:
        ConfigError: no trial or seed, or no such metric.
    """

    refit: Refit
    trials: int
    seeds: int
    monitor: str
    seed: int

    def __post_init__(self) -> None:
        for name, number in (("trials", self.trials), ("seeds", self.seeds)):
            if number < 1:
                raise ConfigError(f"task.{name}={number}: expected 1 or more")
        errors = [name for name in METRICS if not name.startswith("coverage")]
        if self.monitor not in errors:
            raise ConfigError(
                f"task.monitor={self.monitor} is no error; choose among {', '.join(errors)}"
            )


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Let `config.model` and the baselines forecast the series of `config.task`.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: another process is at work in the folder.
    """
    with at_work(config, folder, FORECASTS, KINDS, EXTRAS):
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    config = of_task_alone(config, OF_THE_TASK)
    protocol = Protocol(**{n: config.task[n] for n in OF_THE_TASK[2:]}, seed=config.seed)
    log = read(config.data)
    sales = prepare(config, log)
    claim(folder, config, about(log))
    say(forecast_tables.describe(sales), *_uncounted(sales, log))
    models = models_of(config, folder)
    rows = {n: forecast(sales, m, place, protocol) for n, (m, place) in models.items()}
    note_end(folder)
    forecast_page.write(folder)
    tests = {name: of.filter(part="test") for name, of in rows.items()}
    show(forecast_tables.metrics(sales, tests))
    close(folder, config, log)
    return means(rows[next(iter(models))])


def _uncounted(sales: Sales, log: EventLog) -> Iterator[str]:
    """A line where units are asked for, and the log does not say how many."""
    if sales.measure == "units" and QUANTITY not in log.events.columns:
        yield (
            f"{log.name} has no column quantity: each row counts as one unit; "
            "data.columns.quantity=COLUMN names it"
        )


def prepare(config: DictConfig, log: EventLog) -> Sales:
    """The series that a config asks for, on the device in use.

    Raises:
        ConfigError: they begin before the log, or end behind it.
        LeakError: the series before the first origin of the test know what comes after it.
    """
    options = plain(config.task.series)
    origins = trust.build(plain(config.task.origins))
    series = trust.build(options)
    if log.has_calendar_time:
        _refuse_periods_without_log(options, log)
    with timed(logger, "series of %s", log.name):
        sales = cast(Sales, series(log, origins))
    first = min(sales.test)
    before = cut(log, sales.days[first], options.get("time_zone"))
    # The same periods, the later ones empty.
    again = series(before, origins, end=sales.end.isoformat())
    check_leaks(sales, again, first)
    return sales.to(device_of())


def _refuse_periods_without_log(options: Mapping[str, Any], log: EventLog) -> None:
    """Nothing is known of what was sold before a log and behind it: that is no zero."""
    days = days_of(log, options.get("time_zone"))
    opening, closing = days.min(), days.max()
    assert isinstance(opening, date)
    assert isinstance(closing, date)
    for option, last in (("start", closing), ("end", closing + timedelta(days=1))):
        name, text = f"task.series.{option}", options.get(option)
        if text is not None and not opening <= day_of(name, text) <= last:
            raise ConfigError(
                f"{name}={text} lies outside of {log.name}, which lasts from {opening} to "
                f"{closing}; leave it out, or choose a day within"
            )


def forecast(
    sales: Sales, options: Mapping[str, Any], folder: Path, protocol: Protocol
) -> pl.DataFrame:
    """Choose a model's options, ask it at every origin and write what it reached.

    Returns:
        What `per_series.parquet` holds.
    """
    if (folder / "metrics.json").is_file():
        logger.info("read what %s holds", folder)
        return read_table(folder / "per_series.parquet", "part", "series", "origin", "seed")
    number, chosen = _best_trial(sales, options, folder, protocol)
    is_random = _seeded(chosen, 0) != _seeded(chosen, 1)
    seeds = protocol.seeds if is_random else 1
    parts = [_of_seed(sales, chosen, folder, protocol, protocol.seed + n) for n in range(seeds)]
    rows = pl.concat([read_table(part / "rows.parquet") for part in parts])
    named = read_table(parts[0] / "forecasts.parquet")
    seconds = [read_json(part / "seconds.json") for part in parts]
    write_parquet(folder / "per_series.parquet", rows)
    write_parquet(folder / "forecasts.parquet", named)
    summary = {
        "trial": number,
        "options": chosen,
        "trials": len(list((folder / "trials").glob("[0-9]*"))),
        "seconds": {name: float(np.mean([s[name] for s in seconds])) for name in seconds[0]},
        **forecasts.spread(rows.filter(part="test")),
    }
    write_text(folder / "spread.json", json.dumps(summary, indent=2))
    of_parts = {part: rows.filter(part=part) for part in ("validation", "test")}
    ends = {part: forecasts.intervals(of) for part, of in of_parts.items()}
    write_figures(folder, means(rows), ends)
    return rows


def means(rows: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Means over origins and seeds, by part."""
    return {part: forecasts.means(rows.filter(part=part)) for part in ("validation", "test")}


def trials_of(options: Mapping[str, Any], number: int, seed: int) -> list[dict[str, Any]]:
    """Combinations of a model's options to try: its own, then others of `search`, in random order.

    Args:
        options: a model's, with `search`: for the names of options, `steps.learning_rate`, what
            may be tried.
        number: so many at most.
        seed: of the order, the same for every model.

    Raises:
        ConfigError: `search` names what is no option, or has too many combinations.

    >>> trials_of({"l2": 1.0, "search": {"l2": [1.0, 2.0]}}, 5, 0)
    [{'l2': 1.0}, {'l2': 2.0}]
    """
    grid = options.get("search") or {}
    of_model = _without_search(options)
    count = int(np.prod([len(values) for values in grid.values()]))
    if count > MOST_COMBINATIONS:
        raise ConfigError(
            f"search has {count:,} combinations; {MOST_COMBINATIONS:,} are allowed: name fewer"
        )
    combinations = [
        _with(of_model, dict(zip(grid, values, strict=True)))
        for values in itertools.product(*grid.values())
    ]
    order = np.random.default_rng(seed).permutation(len(combinations))
    others = [combinations[place] for place in order if combinations[place] != of_model]
    return [of_model, *others][:number]


def _without_search(options: Any) -> Any:
    """Options, and those of members, without what may be tried for them."""
    if not isinstance(options, Mapping):
        return options
    return {name: _without_search(value) for name, value in options.items() if name != "search"}


def _seeded(options: Any, seed: int) -> Any:
    """Options, and those of members, with a seed in the place of each that they have."""
    if not isinstance(options, Mapping):
        return options
    return {n: seed if n == "seed" else _seeded(value, seed) for n, value in options.items()}


def _with(options: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Options with other values of some, by their names with dots."""
    changed = copy.deepcopy(dict(options))
    for name, value in values.items():
        *path, last = name.split(".")
        place = changed
        for part in path:
            place = place.get(part, {})
        if last not in place:
            raise ConfigError(f"search.{name}: the model has no such option; name one that it has")
        place[last] = value
    return changed


def _best_trial(
    sales: Sales, options: Mapping[str, Any], folder: Path, protocol: Protocol
) -> tuple[int, dict[str, Any]]:
    """The number and the options of the trial that is best in the validation."""
    tried = trials_of(options, protocol.trials, protocol.seed)
    if len(tried) == 1:
        return 0, tried[0]
    figures = []
    for number, combination in enumerate(tried):
        place = folder / "trials" / str(number)
        if not (place / "rows.parquet").is_file():
            build = partial(_build, combination, protocol.seed)
            with timed(logger, "trial %s of %s", number, folder.name):
                result = backtest(sales.table, sales.validation, build)
            with atomic_folder(place) as scratch:
                write_text(scratch / "options.json", json.dumps(combination, indent=2))
                write_parquet(scratch / "rows.parquet", result.rows)
        rows = read_table(place / "rows.parquet").with_columns(seed=pl.lit(protocol.seed))
        figures.append(forecasts.means(rows)[protocol.monitor])
    best = int(np.nanargmin(figures)) if not np.isnan(figures).all() else 0
    return best, tried[best]


def _of_seed(
    sales: Sales, options: Mapping[str, Any], folder: Path, protocol: Protocol, seed: int
) -> Path:
    """The folder with what a model reached from a seed."""
    place = folder / "seeds" / str(seed)
    if (place / "rows.parquet").is_file():
        return place
    build = partial(_build, options, seed)
    parts = {
        "validation": backtest(sales.table, sales.validation, build),
        "test": backtest(sales.table, sales.test, build, protocol.refit),
    }
    fits = 1 + (len(sales.test) if protocol.refit == "origin" else 1)
    num_origins = len(sales.validation) + len(sales.test)
    fit, ask = (sum(part.seconds[n] for part in parts.values()) for n in range(2))
    with atomic_folder(place) as scratch:
        for name in ("rows", "forecasts"):
            frames = [
                getattr(part, name).with_columns(part=pl.lit(phase), seed=pl.lit(seed))
                for phase, part in parts.items()
            ]
            write_parquet(scratch / f"{name}.parquet", sales.named(pl.concat(frames)))
        summary = {"fit": fit / fits, "forecast": ask / num_origins}
        write_text(scratch / "seconds.json", json.dumps(summary))
    logger.info("%s: seed %s", folder.name, seed)
    return place


def _build(options: Mapping[str, Any], seed: int) -> Forecaster:
    """A forecaster from its options; whatever was fitted before it, it starts from the seed.

    Raises:
        ConfigError: it is a model of another kind.
    """
    seed_everything(seed, verbose=False)
    built = trust.build(_seeded(options, seed))
    if not isinstance(built, Forecaster):
        raise ConfigError(
            f"{type(built).__name__} forecasts no series; choose model=linear_lags, deepar, tide "
            "or another forecaster"
        )
    return built


def compare_forecasts(first: Path, second: Path) -> pl.DataFrame:
    """Paired differences of two runs' tests, series by series, a row per metric.

    Raises:
        RunError: they forecast other series, or at other origins.
    """
    frames = {
        str(run): read_table(run / "per_series.parquet", "part", *forecasts.SUMS).filter(
            part="test"
        )
        for run in (second, first)
    }
    return forecasts.leads(frames).drop("against")
