"""One run of `task=rolling`: a model at several moments one after the other.

Each window is a run of its own (`recsys.run.ranking`) on the log up to the window's end: trained on
what lies before, tuned on the days before the moment, evaluated on the days after it. Windows do
not overlap, and what varies between them is what a table of one split cannot show.

A run's folder holds

    config.yaml, log.json        the composed config, and of which log it is
    windows/<moment>/            the run of each moment
    windows.parquet              a row per window, model and metric: mean, interval over users
    metrics.json, intervals.json of the model: means over the windows, with their intervals
    report.html

A window that is finished is kept: a run that was killed goes on with the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig, open_dict

from recsys.errors import ConfigError
from recsys.evaluation.figures import read_figures, write_figures
from recsys.evaluation.rolling import over_windows
from recsys.files import write_parquet
from recsys.log.event_log import TIME, EventLog
from recsys.log.time import Moment, days_after, moment, next_day
from recsys.ranges import at_least
from recsys.reading import read_table
from recsys.report import rolling_page, rolling_tables
from recsys.report.page import name_of
from recsys.report.screen import say, show
from recsys.run import ranking
from recsys.run.config import Sizes, completed, of_task_alone, plain, sized
from recsys.run.folder import about, at_work, claim, close, note_end
from recsys.run.log import read
from recsys.run.task_kinds import ROLLING

OF_THE_TASK = ("moments", "days", "filters", "ks", "mask_history")
KINDS = {name: kind for name, kind in ranking.KINDS.items() if name != "task.split"} | {
    "task.moments": int | Sequence[str],
    "task.days": int,
}


@dataclass(frozen=True)
class Window:
    """The starts of a window's validation and test, and its end, as options name them."""

    validation_start: str
    test_start: str
    test_end: str

    @property
    def folder(self) -> str:
        """The name of its run's folder."""
        return self.test_start.replace(":", "-")


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Fit and evaluate `config.model` and the baselines at each moment.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: another process is at work in the folder.
        ConfigError: a log without dates, or windows that it has no room for.
    """
    config = of_task_alone(config, OF_THE_TASK)
    with at_work(config, folder, ROLLING, KINDS):
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    log = read(config.data)
    windows = windows_of(log, plain(config.task)["moments"], config.task.days)
    claim(folder, config, about(log))
    models = [name_of(config.model), *map(str, config.baselines)]
    rows = []
    for number, window in enumerate(windows, start=1):
        place = folder / "windows" / window.folder
        say(f"window {number} of {len(windows)}: {window.test_start} to {window.test_end}")
        _run_window(config, window, place)
        rows += _rows(window, place, models)
    table = pl.DataFrame(rows)
    write_parquet(folder / "windows.parquet", table)
    means = over_windows(table)
    of_model = means.filter(model=models[0])
    figures = {"test": dict(of_model.select("metric", "mean").rows())}
    ends = {
        "test": {m: [low, high] for m, low, high in of_model.select("metric", "low", "high").rows()}
    }
    write_figures(folder, figures, ends)
    note_end(folder)
    rolling_page.write(folder)
    for model in models:
        show(rolling_tables.windows(log.name, model, table, means, config.task.ks[0]))
    close(folder, config, log)
    return figures


def windows_of(log: EventLog, moments: int | Sequence[str], days: int) -> list[Window]:
    """Windows of a log, in order.

    Args:
        log: with dates.
        moments: how many, of which the last ends with the log's last day; or their tests' starts.
        days: of a test, and of the validation before it.

    Raises:
        ConfigError: the log knows only an order, or has no room for the windows; or they overlap.
    """
    at_least(1, **{"task.days": days})
    if not log.has_calendar_time:
        raise ConfigError(
            f"task=rolling asks for dates, and the timestamps of {log.name} are an order; name a "
            "column of dates, or take task=next_item"
        )
    end = next_day(log.events[TIME].sort()[-1:])
    if isinstance(moments, int):
        at_least(1, **{"task.moments": moments})
        starts = [days_after(end, -days * n) for n in range(moments, 0, -1)]
    else:
        starts = _starts(log, moments, days)
    first = days_after(starts[0], -days)
    if first[0] <= log.events[TIME].min() or days_after(starts[-1], days)[0] > end[0]:
        raise ConfigError(
            f"task.moments={moments} task.days={days}: the windows are {_words(first[0])} to "
            f"{_words(days_after(starts[-1], days)[0])}, and {log.name} is from "
            f"{_words(log.events[TIME].min())} to {_words(end[0])}; give fewer or shorter ones"
        )
    ends = [(days_after(at, -days), at, days_after(at, days)) for at in starts]
    return [Window(*(_words(at[0]) for at in of)) for of in ends]


def _starts(log: EventLog, moments: Sequence[Moment], days: int) -> list[pl.Series]:
    if not moments:
        raise ConfigError("task.moments=[]: give at least one time, such as [2024-03-01]")
    starts = [moment(log, "task.moments", when) for when in moments]
    for before, after in pairwise(starts):
        if days_after(before, days)[0] > after[0]:
            raise ConfigError(
                f"task.moments: {_words(after[0])} is not {days} days after {_words(before[0])}; "
                "give them in order, or lower task.days"
            )
    return starts


def _words(at: Any) -> str:
    """A time as options name it: the day, where it is one's beginning on its clock."""
    assert isinstance(at, datetime)
    return f"{at:%Y-%m-%d}" if at.time() == at.time().min else at.isoformat()


def window_config(config: DictConfig, window: Window) -> DictConfig:
    """The config of a window's run, which is one of `global_time`."""
    task = plain(config.task)
    split = {"_target_": "recsys.tasks.global_time", "_partial_": True, **vars(window)}
    filters = task["filters"] | {"until": window.validation_start}
    of_window = {"split": split, "filters": filters, "ks": task["ks"]}
    config = completed(config)
    with open_dict(config):
        config.task = of_window | {"mask_history": task["mask_history"]}
    return config


def _run_window(config: DictConfig, window: Window, folder: Path) -> None:
    """The run of a window; one that is finished is kept."""
    config = window_config(config, window)
    task = ranking.prepare(config)
    config = sized(config, Sizes.of(task.split))
    ranking.check_map(config, task.split)
    claim(folder, config, about(task.split.log))
    if not (folder / "report.html").is_file():
        ranking.finished(task, config, folder)


def _rows(window: Window, folder: Path, models: Sequence[str]) -> list[dict[str, Any]]:
    """What each model reached in a window, metric by metric."""
    users = len(read_table(folder / "per_user.parquet", "part").filter(part="test"))
    places = {name: folder / "baselines" / name for name in models[1:]}
    rows = []
    for model, place in ({models[0]: folder} | places).items():
        means, intervals = (figures["test"] for figures in read_figures(place))
        rows += [_row(window, users, model, m, mean, intervals) for m, mean in means.items()]
    return rows


def _row(
    window: Window, users: int, model: str, metric: str, mean: float, ends: Mapping[str, Any]
) -> dict[str, Any]:
    low, high = ends.get(metric, (None, None))
    about_window = {"moment": window.test_start, "until": window.test_end, "users": users}
    figures = {"mean": float(mean), "low": low, "high": high}
    return about_window | {"model": model, "metric": metric} | figures
