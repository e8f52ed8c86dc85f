"""A run's page: `report.html`, one file without scripts that needs no network.

Everything on it is read from the run's folder: `write` can be called on a finished run at any time
and gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import OmegaConf
from safetensors.numpy import load_file

from recsys import plots, tables
from recsys.errors import RunError
from recsys.evaluate import Evaluation, Protocol, compare, with_holm
from recsys.events import ITEM, USER
from recsys.files import write_text
from recsys.plots import Bar, Plot
from recsys.retrieval import TopK
from recsys.user_map import UserMap, user_map
from recsys.vocab import Vocabulary

TEMPLATE = "report.html.jinja"


def write(folder: Path) -> None:
    """Write `report.html` of a finished run, whole or not at all.

    Args:
        folder: the run's, as `recsys.train` describes it.

    Raises:
        RunError: the folder holds no finished run.
    """
    check_finished(folder)
    render(folder, TEMPLATE, _content(folder))


def check_finished(folder: Path) -> None:
    """Raise a `RunError` unless a folder holds a finished run."""
    for name in ("config.yaml", "metrics.json"):
        if not (folder / name).is_file():
            raise RunError(f"{folder} holds no finished run: there is no {name}")


def render(folder: Path, template: str, content: dict[str, Any]) -> None:
    """Write `report.html` from a template beside this file, whole or not at all."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # titles and ids are whatever the log holds
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(content)
    write_text(folder / "report.html", page)


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
        means, intervals = (
            json.loads((folder / file).read_text())["test"]
            for file in ("metrics.json", "intervals.json")
        )
        per_user = pl.read_parquet(folder / "per_user.parquet", glob=False)
        return cls(name, means, intervals, per_user.filter(part="test").drop("part"))

    def slices(self, by: str, metric: str) -> pl.DataFrame:
        """As `Evaluation.slices`, which needs no lists."""
        no_items = torch.empty(0, 0, dtype=torch.int64)
        return Evaluation(self.per_user, {}, TopK(no_items, no_items.float())).slices(by, metric)


def _content(folder: Path) -> dict[str, Any]:
    """What the template shows."""
    text = (folder / "config.yaml").read_text("utf-8")
    config = OmegaConf.create(text)
    k = config.task.ks[0]
    model = Result.read(folder, _last_name(config.model))
    baselines = [
        Result.read(folder / "baselines" / str(name), str(name)) for name in config.baselines
    ]
    results = [model, *baselines]
    shown = [f"{name}@{k}" for name in tables.SHOWN]
    return {
        "data": _last_name(config.data),
        "file": Path(config.data.get("path") or "").name,
        "split": _last_name(config.task.split).replace("_", " "),
        "history_rule": tables.history_rule(Protocol(mask_history=config.task.mask_history)),
        "num_items": config.num_items,
        "num_users": len(pl.read_parquet(folder / "model" / "users.parquet", glob=False)),
        "seed": config.seed,
        "k": k,
        "metrics": shown,
        "model": model,
        "results": results,
        "differences": _differences(model, baselines, shown),
        "bars": [plot for metric in shown for plot in _bars([metric], results)],
        "curves": list(_curves(folder, f"validation/{config.trainer.monitor}")),
        "slices": list(_slices(f"recall@{k}", model, baselines)),
        "repeats": list(_bars([f"repeat/recall@{k}", f"explore/recall@{k}"], results)),
        "map": _map(folder, OmegaConf.select(config, "report.map_by")),
        "samples": list(_samples(folder, model.per_user)),
        "config": text,
        "colours": plots.COLOURS,
    }


def _differences(
    model: Result, baselines: Sequence[Result], metrics: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The model minus each baseline, with Holm's correction over all rows of all baselines."""
    if not baselines:
        return {}
    found = [
        compare(other.per_user, model.per_user, names=metrics).with_columns(against=pl.lit(n))
        for n, other in enumerate(baselines)
    ]
    rows = with_holm(pl.concat(found)).partition_by("against", maintain_order=True)
    return {other.name: of.to_dicts() for other, of in zip(baselines, rows, strict=True)}


def _last_name(config: Any) -> str:
    return str(config._target_).rpartition(".")[2]


def _bars(metrics: Sequence[str], results: Sequence[Result]) -> Iterator[Plot]:
    """A plot per metric, all on one scale; a metric that no user defines has none."""
    metrics = [name for name in metrics if name in results[0].means]
    found = [[Bar(r.name, r.means[m], *r.intervals[m]) for r in results] for m in metrics]
    limit = max((bar.high for bars in found for bar in bars), default=0.0)
    for metric, bars in zip(metrics, found, strict=True):
        yield plots.bars(metric, bars, limit=limit)


def _curves(folder: Path, monitor: str) -> Iterator[Plot]:
    """Loss and validation metric by epoch, of the model and of those that it is made of."""
    for path in [folder / "train.csv", *sorted((folder / "members").glob("**/train.csv"))]:
        if not path.is_file():
            continue
        member = "" if path.parent == folder else f" of {path.parent.name}"
        log = pl.read_csv(path, glob=False).cast(pl.Float64)
        best = log.drop_nulls(monitor).sort(monitor, descending=True, maintain_order=True)
        for column, what in (("train/loss", "training loss"), (monitor, monitor)):
            known = log.drop_nulls(column)
            label = f"{what}{member}"
            yield plots.curve(label, known["epoch"], known[column], best=best["epoch"][0])


def _slices(metric: str, model: Result, baselines: Sequence[Result]) -> Iterator[Plot]:
    """The metric by users' history and by their targets' popularity, beside the best baseline."""
    best = sorted(baselines, key=lambda result: -result.means[metric])[:1]
    for by, label, unit in (
        ("history_length", "events in the history", 1),
        ("target_popularity", "popularity of the targets, % of training events", 100),
    ):
        groups = {result.name: result.slices(by, metric) for result in [model, *best]}
        yield plots.slices(label, metric, groups, unit=unit)


def _map(folder: Path, by: str | None) -> UserMap | None:
    """The map of the users, where the run's model makes profiles."""
    path = folder / "profiles.parquet"
    return user_map(pl.read_parquet(path, glob=False), by) if path.is_file() else None


@dataclass(frozen=True)
class Sample:
    """A test user in words.

    Attributes:
        user_id: the user's key.
        latest: distinct items of the history, latest first.
        given: the recommended items, and of each whether it was a target.
        wanted: the targets, and of each whether it was recommended; those that were come first.
    """

    user_id: int | str
    latest: list[str]
    given: list[tuple[str, bool]]
    wanted: list[tuple[str, bool]]


def _samples(folder: Path, asked: pl.DataFrame, *, num_users: int = 3) -> Iterator[Sample]:
    """Users at the quartiles of the test users: always the same, not chosen for their results."""
    items = pl.read_parquet(folder / "model" / "items.parquet", glob=False)
    users = Vocabulary(pl.read_parquet(folder / "model" / "users.parquet", glob=False)[USER])
    log = load_file(folder / "model" / "histories.safetensors")
    lists = pl.read_parquet(folder / "recommendations.parquet", glob=False)
    words, catalogue = _words(items), Vocabulary(items[ITEM])
    chosen = asked[sorted({len(asked) * (n + 1) // (num_users + 1) for n in range(num_users)})]
    rows = np.searchsorted(log["users"], users.index_of(chosen[USER]))
    for row, user, length in zip(rows, chosen[USER], chosen["history_length"], strict=True):
        start, end = log["offsets"][row], log["offsets"][row + 1]
        # What the user did: first the history, then the target, which is one basket.
        cut = start + length
        in_target = log["baskets"][cut:end] == log["baskets"][cut]
        seen = dict.fromkeys(log["items"][start:cut][::-1].tolist())
        wanted = log["items"][cut:end][in_target].tolist()
        given = catalogue.index_of(lists.filter(pl.col(USER) == user)[ITEM].head(10)).to_list()
        yield Sample(
            user,
            [words[item] for item in list(seen)[:10]],
            [(words[item], item in wanted) for item in given],
            [(words[item], True) for item in wanted if item in given]
            + [(words[item], False) for item in wanted if item not in given],
        )


def _words(items: pl.DataFrame) -> pl.Series:
    """What a person reads of each item: its title, else its text, else its id."""
    known = [pl.col(name) for name in ("title", "text") if name in items.columns]
    words = pl.coalesce(*known, pl.col(ITEM).cast(pl.String)).str.strip_chars()
    short = words.str.slice(0, 79) + "…"
    return items.select(pl.when(words.str.len_chars() > 80).then(short).otherwise(words))[:, 0]
