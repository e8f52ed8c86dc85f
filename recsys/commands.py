"""The commands that take a run's folder or a log: what `recsys` does after `train`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import FunctionType

import polars as pl
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from recsys import checkpoint, tables, train
from recsys.compose import compose, one_line
from recsys.data.audit import audit, describe
from recsys.errors import ConfigError, RunError
from recsys.evaluate import compare as compare_frames

console = Console()
SAFE = ("recsys.data.sources", "recsys.splits", "recsys.retrieval")
"""Whose definitions a folder's config may call to read its log and ask its model."""


def evaluate(given: Namespace) -> None:
    """Ask a run's model again, with other list lengths, another mask rule or another log."""
    config = _config(given.run, given.overrides)
    saved = checkpoint.load(given.run)
    task = train.prepare(config)
    if task.split.num_items != len(saved.item_table):
        raise ConfigError(
            f"the log has {task.split.num_items} items and the model {len(saved.item_table)}; "
            "evaluate a run on the catalogue that it was trained on"
        )
    parts = (task.split.validation, task.split.test)
    results = {part.name: train.ask(saved.model, part, task) for part in parts}
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
        train.write_results(given.output, results, task.split)
    label = f"{given.run} (test)"
    console.print(tables.metrics({label: results["test"]}, task.split.log.name, task.protocol))


def recommend(given: Namespace) -> None:
    """Print or write lists for users of the log, or for one history."""
    saved = checkpoint.load(given.run)
    if given.users:
        lists = saved.recommend(given.users, k=given.k)
    else:
        baskets = [entry.split(",") for entry in given.history]
        lists = saved.recommend(histories=[baskets], k=given.k)
    if given.output is None:
        console.print(tables.frame(lists))
        return
    if given.output.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--output {given.output}: give a .csv or .parquet file")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    scratch = given.output.with_name(f".{given.output.name}")
    (lists.write_csv if given.output.suffix == ".csv" else lists.write_parquet)(scratch)
    scratch.replace(given.output)


def vectors(given: Namespace) -> None:
    """Write a model's vectors of all items and users as Parquet."""
    tables_of = checkpoint.load(given.run).vectors()
    given.output.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(("items", "users"), tables_of, strict=True):
        path = given.output / f"{name}.parquet"
        train.write_parquet(path, frame)
        console.print(f"{path}: {len(frame):,} vectors", soft_wrap=True)


def compare(given: Namespace) -> None:
    """Print the paired differences of two runs, metric by metric."""
    first, second = (_per_user(run, given.part) for run in (given.first, given.second))
    table = compare_frames(first, second)
    console.print(tables.frame(table, title=f"{given.second} - {given.first} ({given.part})"))


def data(given: Namespace) -> None:
    """Print what a log is, or what is odd about it."""
    config = compose([f"data={given.name}", *given.overrides])
    log = train.read(config.data)
    found = describe(log) if given.what == "describe" else audit(log)
    console.print(tables.frame(found, title=log.name))


def _config(run: Path, overrides: list[str]) -> DictConfig:
    path = run / "config.yaml"
    if not path.is_file():
        raise RunError(f"{run} is no run's folder: it has no config.yaml")
    try:
        config = OmegaConf.load(path)
        OmegaConf.set_struct(config, True)
        config.merge_with_dotlist(overrides)
        assert isinstance(config, DictConfig)
        called = [OmegaConf.to_container(config[name]) for name in ("data", "task", "retrieval")]
    except OmegaConfBaseException as error:
        raise one_line(error) from error
    checkpoint.check_targets(called, SAFE, (type, FunctionType))
    return config


def _per_user(run: Path, part: str) -> pl.DataFrame:
    path = run / "per_user.parquet"
    if not path.is_file():
        raise RunError(f"{run} is no finished run's folder: it has no per_user.parquet")
    frame = pl.read_parquet(path)
    return frame.filter(pl.col("part") == part).drop("part")
