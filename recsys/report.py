"""A run's page: `report.html`, one file without scripts that needs no network.

Everything on it is read from the run's folder: `write` can be called on a finished run at any time
and gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recsys import plots, tables
from recsys.errors import RunError
from recsys.evaluate import Evaluation, Protocol, compare, with_holm
from recsys.events import ITEM, USER
from recsys.files import write_text
from recsys.plots import Bar, Plot
from recsys.retrieval import TopK
from recsys.run_folder import read_config, read_json, read_table, read_tensors, reading
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
    with reading(folder, fault="cannot be shown"):
        page = rendered(TEMPLATE, _content(folder))
    write_text(folder / "report.html", page)


def check_finished(folder: Path) -> None:
    """Raise a `RunError` unless a folder holds a finished run."""
    for name in ("config.yaml", "metrics.json"):
        if not (folder / name).is_file():
            raise RunError(f"{folder} holds no finished run: there is no {name}")


def rendered(template: str, content: dict[str, Any]) -> str:
    """The page that a template beside this file makes of its content."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # titles and ids are whatever the log holds
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)


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
            read_json(folder / file)["test"] for file in ("metrics.json", "intervals.json")
        )
        per_user = read_table(folder / "per_user.parquet", "part").filter(part="test").drop("part")
        return cls(name, means, intervals, per_user)

    def slices(self, by: str, metric: str) -> pl.DataFrame:
        """As `Evaluation.slices`, which needs no lists."""
        no_items = torch.empty(0, 0, dtype=torch.int64)
        return Evaluation(self.per_user, {}, TopK(no_items, no_items.float())).slices(by, metric)


def _content(folder: Path) -> dict[str, Any]:
    """What the template shows."""
    config = read_config(folder)
    task, data = config["task"], config["data"]
    k = task["ks"][0]
    model = Result.read(folder, _last_name(config["model"]))
    baselines = [
        Result.read(folder / "baselines" / str(name), str(name)) for name in config["baselines"]
    ]
    results = [model, *baselines]
    shown = [f"{name}@{k}" for name in tables.SHOWN]
    return {
        "data": _last_name(data),
        "file": Path(data.get("path") or "").name,
        "split": _last_name(task["split"]).replace("_", " "),
        "history_rule": tables.history_rule(Protocol(mask_history=task["mask_history"])),
        "num_items": config["num_items"],
        "num_users": len(read_table(folder / "model" / "users.parquet")),
        "seed": config["seed"],
        "k": k,
        "metrics": shown,
        "model": model,
        "results": results,
        "differences": _differences(model, baselines, shown),
        "bars": [plot for metric in shown for plot in _bars([metric], results)],
        "curves": list(_curves(folder, f"validation/{config['trainer']['monitor']}")),
        "slices": list(_slices(f"recall@{k}", model, baselines)),
        "repeats": list(_bars([f"repeat/recall@{k}", f"explore/recall@{k}"], results)),
        "map": _map(folder, config.get("report", {}).get("map_by")),
        "samples": list(_samples(folder, model.per_user)),
        "config": (folder / "config.yaml").read_text(),
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


def _last_name(config: dict[str, Any]) -> str:
    return str(config["_target_"]).rpartition(".")[2]


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
    return user_map(read_table(path), by) if path.is_file() else None


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
    items = read_table(folder / "model" / "items.parquet", ITEM)
    users = Vocabulary(read_table(folder / "model" / "users.parquet", USER)[USER])
    tensors = read_tensors(folder / "model" / "histories.safetensors")
    log = {name: tensor.numpy() for name, tensor in tensors.items()}
    lists = read_table(folder / "recommendations.parquet", USER, ITEM)
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
    """As `tables.words_of`, and of those at most 80 letters."""
    words = pl.col("words")
    short = words.str.slice(0, 79) + "…"
    of_items = tables.words_of(items).alias("words").to_frame()
    return of_items.select(pl.when(words.str.len_chars() > 80).then(short).otherwise(words))[:, 0]
