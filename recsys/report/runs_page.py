"""A page of several runs that say what comes next, side by side, for `recsys compare --html`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import RunError
from recsys.evaluation.figures import read_figures
from recsys.evaluation.ranking import Protocol
from recsys.evaluation.statistics import compare, with_holm
from recsys.files import write_text
from recsys.report import page, plots, tables
from recsys.report.ranking_page import Result, level

TEMPLATE = "runs.html.jinja"
LONGEST = 28
"""Letters of a run's name in a plot."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A run of the page.

    Attributes:
        name: by which it is shown.
        folder: of the run, or of a baseline or member.
        config: of the run, options by their whole names.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]


def write(path: Path, runs: Sequence[Shown]) -> str:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        runs: at least two, of the same task and log.

    Returns:
        The name of the run with which the others are compared.

    Raises:
        RunError: they were evaluated on different users, or at no common length.
    """
    content = _content(runs)
    write_text(path, page.render(TEMPLATE, content))
    return str(content["best"])


def _content(runs: Sequence[Shown]) -> dict[str, Any]:
    """What the template shows."""
    results = [Result.read(run.folder, run.name) for run in runs]
    metrics = _metrics(results)
    best = _best(runs, metrics)
    rule = Protocol(mask_history=bool(runs[0].config.get("task.mask_history")))
    return {
        "model_name": f"{len(runs)} runs",
        **_head(runs[0]),
        "seed": ", ".join(dict.fromkeys(str(run.config.get("seed")) for run in runs)),
        "split": str(runs[0].config.get("task.split._target_")).rpartition(".")[2],
        "history_rule": tables.history_rule(rule),
        "num_users": len(results[0].per_user),
        "metrics": metrics,
        "results": results,
        "best": best,
        "level": {metric: level(results, metric) for metric in metrics},
        "differences": _differences(results, best, metrics),
        "bars": list(_bars(metrics, results)),
        "curves": list(_curves(runs)),
        "different": _different(runs),
        "every": [name for name in results[0].means if all(name in r.means for r in results)],
        "config": "\n".join(_options(run) for run in runs),
        "colours": plots.COLOURS,
    }


def _head(run: Shown) -> dict[str, Any]:
    """The log of a run, without when the run was: there are several."""
    data = {"_target_": run.config.get("data._target_"), "path": run.config.get("data.path")}
    head = page.head_of(run.folder, data)
    return head | {"head": [pair for pair in head["head"] if pair[0] not in page.OF_ONE_RUN]}


def _metrics(results: Sequence[Result]) -> list[str]:
    """The metrics of a report at the first length that all runs have."""
    of_all = [name for name in results[0].means if all(name in r.means for r in results)]
    frame = pl.DataFrame(schema=dict.fromkeys(of_all, pl.Float64))
    names = tables.main_metrics(frame, frame)
    if names is None:
        raise RunError(
            "the runs have no length of list in common; evaluate them at one, recsys evaluate RUN "
            "task.ks=[10] --output FOLDER"
        )
    return names


def _best(runs: Sequence[Shown], metrics: Sequence[str]) -> str:
    """The best on the validation users: to be chosen on those of the test would flatter it."""
    metric = metrics[min(1, len(metrics) - 1)]
    reached = {run.name: read_figures(run.folder)[0]["validation"].get(metric, 0) for run in runs}
    return max(reached, key=lambda name: reached[name])


def _differences(
    results: Sequence[Result], best: str, metrics: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Each run minus the best, with Holm's correction over all rows."""
    (first,) = (result for result in results if result.name == best)
    others = [result for result in results if result.name != best]
    comparisons = [
        compare(first.per_user, other.per_user, names=metrics).with_columns(of=pl.lit(n))
        for n, other in enumerate(others)
    ]
    rows = with_holm(pl.concat(comparisons)).partition_by("of", maintain_order=True)
    return {other.name: of.to_dicts() for other, of in zip(others, rows, strict=True)}


def _label(number: int, name: str) -> str:
    """A name that a plot has room for; of a long one the ends, and the number of its row."""
    return name if len(name) <= LONGEST else f"{number + 1}: {name[:10]}…{name[10 - LONGEST :]}"


def _bars(metrics: Sequence[str], results: Sequence[Result]) -> Iterator[plots.Plot]:
    for metric in metrics:
        bars = [
            plots.Bar(_label(n, r.name), r.means[metric], *r.intervals[metric])
            for n, r in enumerate(results)
        ]
        yield plots.bars(metric, bars, limit=max(bar.high for bar in bars))


def _curves(runs: Sequence[Shown]) -> Iterator[plots.Plot]:
    """By epoch the training loss and what the validation users reached, of runs that have it."""
    logs = {
        _label(n, run.name): pl.read_csv(run.folder / "train.csv", glob=False)
        for n, run in enumerate(runs)
        if (run.folder / "train.csv").is_file()
    }
    columns = dict.fromkeys(column for log in logs.values() for column in log.columns)
    for column in columns:
        if column == "train/loss" or column.startswith("validation/"):
            lines = {
                name: log.select(
                    "epoch", pl.col(column).cast(pl.Float64).alias("value")
                ).drop_nulls()
                for name, log in logs.items()
                if column in log.columns
            }
            yield plots.curves(column, lines)


def _different(runs: Sequence[Shown]) -> list[tuple[str, list[str]]]:
    """The options in which the runs differ, with the value of each; – where one has no such."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    values = {name: [run.config.get(name, "–") for run in runs] for name in names}
    return [
        (name, [str(value) for value in of])
        for name, of in values.items()
        if any(value != of[0] for value in of) and not name.startswith("hydra.")
    ]


def _options(run: Shown) -> str:
    lines = (f"  {name}: {value}" for name, value in run.config.items())
    return "\n".join([f"{run.name}:", *lines])
