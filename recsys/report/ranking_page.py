"""The page of a run that says what comes next, as `recsys.report.page` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys.evaluation.beyond import names
from recsys.evaluation.figures import read_figures
from recsys.evaluation.ranking import Evaluation, Protocol
from recsys.evaluation.statistics import compare, level_with_best, with_holm
from recsys.log.event_log import ITEM, USER
from recsys.log.vocabulary import Vocabulary
from recsys.reading import read_json, read_table, read_tensors
from recsys.report import page, plots, tables
from recsys.report.page import name_of
from recsys.report.plots import Bar, Plot
from recsys.report.user_map import UserMap, user_map
from recsys.retrieval.lists import TopK

TEMPLATE = "ranking.html.jinja"


def write(folder: Path) -> None:
    """Write `report.html` of a finished run, whole or not at all.

    Args:
        folder: the run's, as `recsys.run.ranking` describes it.

    Raises:
        RunError: the folder holds no finished run.
    """
    page.write(folder, TEMPLATE, _content)


@dataclass(frozen=True, eq=False)
class Result:
    """What a model reached on the test users.

    Attributes:
        name: of the model.
        means: every metric's mean.
        intervals: their 95% intervals over users, `[low, high]`.
        per_user: a row per test user.
    """

    name: str
    means: dict[str, float]
    intervals: dict[str, list[float]]
    per_user: pl.DataFrame

    @classmethod
    def read(cls, folder: Path, name: str) -> Result:
        """The result of a run's folder, or of a baseline's below it."""
        means, intervals = (figures["test"] for figures in read_figures(folder))
        per_user = read_table(folder / "per_user.parquet", "part").filter(part="test").drop("part")
        return cls(name, means, intervals, per_user)

    def slices(self, by: str, metric: str) -> pl.DataFrame:
        """As `Evaluation.slices`, which needs no lists."""
        no_items = torch.empty(0, 0, dtype=torch.int64)
        return Evaluation(self.per_user, {}, TopK(no_items, no_items.float())).slices(by, metric)


def _content(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    task = config["task"]
    k = task["ks"][0]
    model = Result.read(folder, name_of(config["model"]))
    baselines = [
        Result.read(folder / "baselines" / str(name), str(name)) for name in config["baselines"]
    ]
    results = [model, *baselines]
    metrics = [f"{name}@{k}" for name in tables.SHOWN]
    return {
        "split": name_of(task["split"]).replace("_", " "),
        "history_rule": tables.history_rule(Protocol(mask_history=task["mask_history"])),
        "num_items": config["num_items"],
        "num_users": len(read_table(folder / "model" / "users.parquet")),
        "k": k,
        "metrics": metrics,
        "model_name": model.name,
        "model": model,
        "results": results,
        "level": {metric: level(results, metric) for metric in metrics},
        "differences": _differences(model, baselines, metrics),
        "bars": [plot for metric in metrics for plot in _bars([metric], results)],
        "curves": list(_curves(folder, f"validation/{config['trainer']['monitor']}")),
        "slices": list(_slices(f"recall@{k}", model, baselines)),
        "repeats": list(_repeats(f"recall@{k}", results)),
        "beyond": _beyond(config, k, model),
        "by_column": read_json(at) if (at := folder / "slices.json").is_file() else {},
        "map": _map(folder, config.get("report", {}).get("map_by")),
        **_calibration(folder),
        "samples": list(_samples(folder, model.per_user)),
    }


def level(results: Sequence[Result], metric: str) -> set[str]:
    """The names of the best, and of those whose interval reaches it."""
    of = {result.name: result for result in results}
    means = {name: result.means[metric] for name, result in of.items()}
    return level_with_best(means, {name: result.intervals[metric] for name, result in of.items()})


def _differences(
    model: Result, baselines: Sequence[Result], metrics: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The model minus each baseline, with Holm's correction over all rows of all baselines."""
    if not baselines:
        return {}
    comparisons = [
        compare(other.per_user, model.per_user, names=metrics).with_columns(against=pl.lit(n))
        for n, other in enumerate(baselines)
    ]
    rows = with_holm(pl.concat(comparisons)).partition_by("against", maintain_order=True)
    return {other.name: of.to_dicts() for other, of in zip(baselines, rows, strict=True)}


def _bars(metrics: Sequence[str], results: Sequence[Result]) -> Iterator[Plot]:
    """A plot per metric of several models, all on one scale; none where no user defines it."""
    if len(results) < 2:
        return
    metrics = [name for name in metrics if name in results[0].means]
    groups = [[Bar(r.name, r.means[m], *r.intervals[m]) for r in results] for m in metrics]
    limit = max((bar.high for bars in groups for bar in bars), default=0.0)
    for metric, bars in zip(metrics, groups, strict=True):
        yield plots.bars(metric, bars, limit=limit)


def _repeats(metric: str, results: Sequence[Result]) -> Iterator[Plot]:
    """The metric of repeats and of others: a plot of each, or of both where there is one model."""
    kinds = [kind for kind in ("repeat", "explore") if f"{kind}/{metric}" in results[0].means]
    if len(results) > 1:
        yield from _bars([f"{kind}/{metric}" for kind in kinds], results)
    elif len(kinds) > 1:
        (of,) = results
        bars = [Bar(k, of.means[f"{k}/{metric}"], *of.intervals[f"{k}/{metric}"]) for k in kinds]
        yield plots.bars(metric, bars, limit=max(bar.high for bar in bars))


def _curves(folder: Path, monitor: str) -> Iterator[Plot]:
    """Loss and validation metric by epoch, of the model and of those that it is made of."""
    for path in [folder / "train.csv", *sorted((folder / "members").glob("**/train.csv"))]:
        if not path.is_file():
            continue
        member = "" if path.parent == folder else f" of {path.parent.name}"
        log = pl.read_csv(path, glob=False).cast(pl.Float64)
        best = log.drop_nulls(monitor).sort(monitor, descending=True, maintain_order=True)
        for column, what in (("train/loss", "training loss"), (monitor, monitor)):
            rows = log.drop_nulls(column)
            label = f"{what}{member}"
            yield plots.curve(label, rows["epoch"], rows[column], best=best["epoch"][0])


def _slices(metric: str, model: Result, baselines: Sequence[Result]) -> Iterator[Plot]:
    """The metric by users' history and by their targets' popularity, beside the best baseline."""
    best = sorted(baselines, key=lambda result: -result.means[metric])[:1]
    for by, label, unit in (
        ("history_length", "events in the history", 1),
        ("target_popularity", "popularity of the targets, % of training events", 100),
    ):
        groups = {result.name: result.slices(by, metric) for result in [model, *best]}
        yield plots.slices(label, metric, groups, unit=unit)


def _beyond(config: dict[str, Any], k: int, model: Result) -> list[str]:
    """Figures of each user's list beyond accuracy, where they were measured."""
    columns = config.get("report", {}).get("beyond")
    return [] if columns is None else [n for n in names(columns, k) if n in model.intervals]


def _calibration(folder: Path) -> dict[str, Any]:
    """What the models reached that were calibrated, and the plot of it; None where none was."""
    path = folder / "calibration.json"
    if not path.is_file():
        return {"calibration": None, "reliability": []}
    figures = read_json(path)
    groups = {name: of["groups"] for name, of in figures["models"].items()}
    points = {n: (np.array(of["predicted"]), np.array(of["seen"])) for n, of in groups.items()}
    return {"calibration": figures, "reliability": [plots.reliability(points)]}


def _map(folder: Path, by: str | None) -> UserMap | None:
    """The map of the users, where the run's model makes profiles."""
    path = folder / "profiles.parquet"
    if not path.is_file():
        return None
    profiles = read_table(path)
    return user_map(profiles, _activity(folder, profiles[USER]), by)


def _activity(folder: Path, users: pl.Series) -> pl.Series:
    """How many events each user has."""
    known = Vocabulary(read_table(folder / "model" / "users.parquet", USER)[USER])
    log = read_tensors(folder / "model" / "histories.safetensors")
    events = pl.DataFrame({"user": log["users"].numpy(), "events": log["offsets"].diff().numpy()})
    rows = pl.DataFrame({"user": known.index_of(users)})
    events = events.cast({"user": rows.schema["user"]})
    return rows.join(events, on="user", how="left", maintain_order="left")["events"].fill_null(0)


@dataclass(frozen=True)
class Sample:
    """A test user in words.

    Attributes:
        user_id: the user's key.
        latest: distinct items of the history, latest first.
        recommendations: the recommended items, each with whether it was a target.
        targets: the target items, each with whether it was recommended; hits come first.
    """

    user_id: int | str
    latest: list[str]
    recommendations: list[tuple[str, bool]]
    targets: list[tuple[str, bool]]


def _samples(folder: Path, test_users: pl.DataFrame, *, num_users: int = 3) -> Iterator[Sample]:
    """Users at the quartiles of the test users: always the same, not chosen for their results."""
    items = read_table(folder / "model" / "items.parquet", ITEM)
    users = Vocabulary(read_table(folder / "model" / "users.parquet", USER)[USER])
    tensors = read_tensors(folder / "model" / "histories.safetensors")
    log = {name: tensor.numpy() for name, tensor in tensors.items()}
    lists = read_table(folder / "recommendations.parquet", USER, ITEM)
    words, catalogue = _words(items), Vocabulary(items[ITEM])
    sample = test_users[
        sorted({len(test_users) * (n + 1) // (num_users + 1) for n in range(num_users)})
    ]
    rows = np.searchsorted(log["users"], users.index_of(sample[USER]))
    for row, user, length in zip(rows, sample[USER], sample["history_length"], strict=True):
        start, end = log["offsets"][row], log["offsets"][row + 1]
        # What the user did: first the history, then the target, which is one basket.
        cut = start + length
        in_target = log["baskets"][cut:end] == log["baskets"][cut]
        past_items = dict.fromkeys(log["items"][start:cut][::-1].tolist())
        targets = log["items"][cut:end][in_target].tolist()
        top_items = catalogue.index_of(lists.filter(pl.col(USER) == user)[ITEM].head(10)).to_list()
        yield Sample(
            user,
            [words[item] for item in list(past_items)[:10]],
            [(words[item], item in targets) for item in top_items],
            [(words[item], True) for item in targets if item in top_items]
            + [(words[item], False) for item in targets if item not in top_items],
        )


def _words(items: pl.DataFrame) -> pl.Series:
    """As `tables.words_of`, and of those at most 80 letters."""
    words = pl.col("words")
    short = words.str.slice(0, 79) + "…"
    of_items = tables.words_of(items).alias("words").to_frame()
    return of_items.select(pl.when(words.str.len_chars() > 80).then(short).otherwise(words))[:, 0]
