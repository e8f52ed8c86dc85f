"""One run: from a composed config to a folder with a model, its numbers and its lists.

A run's folder holds

    config.yaml                  the composed config
    train.csv                    a row per epoch, for models that are trained
    checkpoints/                 the last and the best epoch
    model/                       see `recsys.checkpoint`
    metrics.json, intervals.json means and 95% intervals, by part and metric
    per_user.parquet             every test and validation user's metrics
    recommendations.parquet      what the test users were given
    profiles.parquet             the training users' vectors, of a model that makes profiles
    baselines/<name>/            the same files for each model it is compared with
    report.html

and a file `.lock` while a process is at work on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import polars as pl
import torch
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning import seed_everything
from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.progress import track

from recsys import checkpoint, profiles, report, tables
from recsys.data.cache import cached
from recsys.errors import ConfigError
from recsys.evaluate import Evaluation, Protocol, evaluate
from recsys.events import USER, EventLog
from recsys.files import held, write_parquet, write_text
from recsys.filters import filtered
from recsys.loader import Loader
from recsys.module import Scorer
from recsys.options import check_options, create, unset
from recsys.splits import VALIDATION, Part, Split
from recsys.training import fit
from recsys.user_map import attributes

console = Console()

OF_A_TASK = {
    "data": object,
    "task.split": object,
    "task.filters": filtered,
    "task.ks": Sequence[int],
    "task.mask_history": bool,
    "retrieval.index": object | None,
}
"""Options of a log, how it is split and how a model is asked, and their types."""
KINDS = OF_A_TASK | {
    "model": object,
    "trainer": object,
    "baselines": Mapping[str, object],
    "logger.loggers": Sequence[object],
    "report.map_by": str | None,
    "seed": int,
    "device": str,
}


@dataclass(frozen=True, eq=False)
class Task:
    """A split of a log and how it is asked about.

    Attributes:
        split: training, validation and test.
        protocol: list lengths, and whether histories are masked.
        popularity: (n,) training events of each item.
        build_index: makes the retrieval index; None is an exact one, or scores.
    """

    split: Split
    protocol: Protocol
    popularity: torch.Tensor
    build_index: Callable[..., Any] | None


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Fit `config.model` on `config.data` and write what it reached to `folder`.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: another process is at work in the folder.
    """
    with folder_of_a_run(folder):
        check_options(as_values(config), KINDS)
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    task = prepare(config)
    known = attributes(task.split.log.users)
    if (by := config.report.map_by) not in (None, *known):
        raise ConfigError(f"report.map_by={by}: of users is known {', '.join(known) or 'nothing'}")
    claim(folder, config)
    console.print(tables.describe(task.split, task.protocol), soft_wrap=True)
    model = _fitted(config.model, config, task, folder)
    own = _asked(model, task, folder)
    results = {_label(config): own}
    for name, member in model.members():
        results[f"  {name} alone"] = _asked(member, task, folder / "members" / name)
    for name, baseline in config.baselines.items():
        place = folder / "baselines" / str(name)
        results[str(name)] = _asked(_fitted(baseline, config, task, place), task, place)
    if model.makes_profiles:
        write_parquet(folder / "profiles.parquet", profiles.of_training(model, task.split))
    report.write(folder)
    tests = {name: parts["test"] for name, parts in results.items()}
    console.print(tables.metrics(tests, task.split.log.name, task.protocol))
    console.print(tables.samples(task.split.test, own["test"].top, task.split))
    say(*tables.ties(task.split), *tables.unread(task.split.log, config_words(config)))
    console.print(f"run folder: {folder}", soft_wrap=True)
    return {part: result.means for part, result in own.items()}


@contextmanager
def folder_of_a_run(folder: Path) -> Iterator[None]:
    """Keep others out of a run's folder; what a new run leaves that fitted nothing is removed."""
    with held(folder):
        before = set(folder.iterdir())
        try:
            yield
        except Exception:
            made = set(folder.iterdir()) - before
            # A checkpoint, a model or a table of predictions has a folder of its own.
            if folder / "config.yaml" in made and not any(path.is_dir() for path in made):
                for path in made:
                    path.unlink()
            raise


def as_values(config: DictConfig, *sections: str) -> dict[str, Any]:
    """A config, or sections of it, as dicts, lists and values.

    What a run finds out has stand-ins.

    Raises:
        ConfigError: an option that has no default is not set.
    """
    config = OmegaConf.masked_copy(config, list(sections or map(str, config)))
    with open_dict(config):
        config.update(num_items=1, num_users=1, num_classes={}, folder=".")
    # Before what refers to them is resolved.
    if missing := sorted(unset(OmegaConf.to_container(config, resolve=False))):
        raise ConfigError(f"{missing[0]} is not set; give it as {missing[0]}=VALUE")
    return _plain(config)


def prepare(config: DictConfig) -> Task:
    """Read the log, filter it and split it; sets the sizes in `config`.

    Raises:
        ConfigError: an option that is not what is expected.
        DataError: what the log's source raises.
    """
    check_options(as_values(config, "data", "task", "retrieval"), OF_A_TASK)
    protocol = Protocol(list(config.task.ks), config.task.mask_history)
    log = read(config.data)
    log = filtered(log, **_plain(config.task.filters))
    split = create(config.task.split)(log)
    with open_dict(config):
        config.num_items, config.num_users = split.num_items, len(split.users)
        config.num_classes = split.num_classes
    if max(protocol.ks) > split.num_items:
        raise ConfigError(
            f"task.ks: k={max(protocol.ks)} exceeds the {split.num_items} items of {log.name}; "
            "lower it"
        )
    popularity = torch.bincount(split.training.items, minlength=split.num_items)
    index = create(config.retrieval.index) if config.retrieval.index else None
    return Task(split, protocol, popularity, index)


def config_words(config: DictConfig) -> set[str]:
    """Every word that a run's config says of its models, its task and its report."""
    parts = ("model", "baselines", "task", "report")
    return set(_strings([_plain(config[part]) for part in parts if part in config]))


def _strings(config: Any) -> Iterator[str]:
    values = config.values() if isinstance(config, dict) else config
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, (dict, list)):
            yield from _strings(value)


def say(*lines: str) -> None:
    """Print lines as they are: what they quote from a log is no markup."""
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def read(data: DictConfig) -> EventLog:
    """The log that a data config names, from the cache where it has been read before."""
    options = _plain(data)
    check_options({"data": options}, {"data": object})
    return cached(get_method(options.pop("_target_")), **options)


def claim(folder: Path, config: DictConfig) -> None:
    """Write the config to a new run's folder, or check that a resumed run has the same.

    Raises:
        ConfigError: the folder holds a run of another config.
    """
    composed = OmegaConf.to_yaml(config, resolve=True)
    path = folder / "config.yaml"
    if path.exists() and path.read_text("utf-8") != composed:
        raise ConfigError(
            f"{folder} holds a run of another config; choose another hydra.run.dir, or remove it"
        )
    write_text(path, composed)


def _fitted(model_config: DictConfig, config: DictConfig, task: Task, folder: Path) -> Scorer:
    """Fit a model and save it."""
    # Each model starts from the seed, whatever was fitted before it.
    seed_everything(config.seed, verbose=False)
    built = _plain(model_config)
    model = checkpoint.build(built)
    fit(
        model,
        task.split,
        create(config.trainer),
        task.protocol,
        folder=folder,
        loggers=partial(_loggers, config),
        progress=console.is_terminal,
    )
    masked = task.protocol.mask_history
    checkpoint.save(folder / "model", model, task.split, built, mask_history=masked)
    return model


def _asked(model: Scorer, task: Task, folder: Path) -> dict[str, Evaluation]:
    """Evaluate a model on the validation and test users, and write what it reached."""
    parts = (task.split.validation, task.split.test)
    results = {part.name: ask(model, part, task) for part in parts}
    for phase, result in enumerate(results.values(), start=VALIDATION):
        result.catalogue.update(model.measure(task.split, phase))
    write_results(folder, results, task.split)
    return results


def ask(model: Scorer, part: Part, task: Task) -> Evaluation:
    """Evaluate a model on a part, with a progress bar where there is a terminal."""
    return evaluate(
        model,
        part,
        task.protocol,
        popularity=task.popularity,
        build_index=task.build_index,
        progress=partial(_bar, f"evaluating on {part.name}"),
    )


def write_results(folder: Path, results: dict[str, Evaluation], split: Split) -> None:
    """`metrics.json`, `intervals.json`, `per_user.parquet` and `recommendations.parquet`."""
    parts = []
    for name, result in results.items():
        ids = split.users.ids_of(result.per_user["user"]).rename(USER)
        parts.append(
            result.per_user.drop("user").insert_column(0, ids).with_columns(part=pl.lit(name))
        )
    asked = split.users.ids_of(results["test"].per_user["user"]).rename(USER)
    top = results["test"].top
    lists = checkpoint.recommendations(asked, top.items, top.scores, split.item_table)
    write_parquet(folder / "per_user.parquet", pl.concat(parts, how="diagonal"))
    write_parquet(folder / "recommendations.parquet", lists)
    intervals = {name: result.intervals() for name, result in results.items()}
    write_text(folder / "intervals.json", json.dumps(intervals, indent=2))
    # Last, so that a folder with metrics is whole.
    means = {name: result.means for name, result in results.items()}
    write_text(folder / "metrics.json", json.dumps(means, indent=2))


def _bar(title: str, batches: Loader) -> Iterator[Part] | Iterable[Part]:
    return track(batches, title, console=console, disable=not console.is_terminal, transient=True)


def _loggers(config: DictConfig, folder: Path) -> list[Logger]:
    """Lightning's loggers, writing to a folder."""
    return [create(logger)(save_dir=folder) for logger in config.logger.loggers]


def _plain(config: DictConfig) -> dict[str, Any]:
    """A config as plain dicts and lists, interpolations resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _label(config: DictConfig) -> str:
    return str(config.model._target_).rpartition(".")[2]
