"""The commands that take a run's folder or a log: what `recsys` does after `train`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import FunctionType

import polars as pl
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from recsys import checkpoint, profiles, tables, train
from recsys.compose import compose, merge, one_line
from recsys.data.audit import audit, describe
from recsys.devices import running_on
from recsys.errors import ConfigError, RunError
from recsys.evaluate import compare as compare_frames
from recsys.files import write_parquet, write_text
from recsys.questions import AS_OF
from recsys.suite import compare_runs

console = Console()
SAFE = ("recsys.data.sources", "recsys.splits", "recsys.retrieval")
"""Whose definitions a folder's config may call to read its log and ask its model."""


def evaluate(given: Namespace) -> None:
    """Ask a run's model again, with other list lengths, another mask rule or another log."""
    _of_lists(given.run)
    config = _config(given.run, given.overrides)
    saved = checkpoint.load(given.run, device=given.device or config.device)
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
    _of_lists(given.run)
    saved = checkpoint.load(given.run, device=given.device or "auto")
    if given.users:
        lists = saved.recommend(given.users, k=given.k, progress=console.is_terminal)
    else:
        baskets = [entry.split(",") for entry in given.history]
        lists = saved.recommend(histories=[baskets], k=given.k)
    if given.output is None:
        console.print(tables.frame(lists))
        return
    if given.output.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--output {given.output}: give a .csv or .parquet file")
    if given.output.suffix == ".parquet":
        write_parquet(given.output, lists)
    else:
        write_text(given.output, lists.write_csv())


def vectors(given: Namespace) -> None:
    """Write a model's vectors of all items and users as Parquet."""
    _of_lists(given.run)
    tables_of = checkpoint.load(given.run, device=given.device or "auto").vectors()
    given.output.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(("items", "users"), tables_of, strict=True):
        path = given.output / f"{name}.parquet"
        write_parquet(path, frame)
        console.print(f"{path}: {len(frame):,} vectors", soft_wrap=True)


def profile(given: Namespace) -> None:
    """Write the vectors of all users of a log as of a moment, as Parquet."""
    if given.output is not None and given.output.suffix != ".parquet":
        raise ConfigError(f"--output {given.output}: give a .parquet file")
    moments = [o.partition("=")[2] for o in given.overrides if o.startswith("as_of=")]
    overrides = [o for o in given.overrides if not o.startswith("as_of=")]
    is_other = any(o.startswith("data=") for o in overrides)
    config = compose(overrides) if is_other else _config(given.run, overrides)
    log = train.read(config.data)
    rows = profiles.everyone(log, moments[-1] if moments else None)
    with running_on(given.device or config.device):
        model = checkpoint.load(given.run).model
        vectors = profiles.profiles(model, log, rows, progress=console.is_terminal)
    table = rows.with_columns(pl.Series(profiles.VECTOR, vectors.numpy()))
    name = "_".join([log.name, *moments[-1:]])
    output = given.output or given.run / "profiles" / f"{name}.parquet"
    write_parquet(output, table)
    when = table[AS_OF][0]
    console.print(f"{output}: {len(table):,} users of {log.name} as of {when}", soft_wrap=True)


def compare(given: Namespace) -> None:
    """Print the paired differences of two runs, metric by metric."""
    if (given.first / "tables").is_dir() and (given.second / "tables").is_dir():
        table = compare_runs(given.first, given.second)
        console.print(tables.frame(table, title=f"{given.second} - {given.first} (folds)"))
        return
    first, second = (_per_user(run, given.part) for run in (given.first, given.second))
    table = compare_frames(first, second)
    console.print(tables.frame(table, title=f"{given.second} - {given.first} ({given.part})"))


def data(given: Namespace) -> None:
    """Print what a log is, or what is odd about it."""
    config = compose([f"data={given.name}", *given.overrides])
    log = train.read(config.data)
    found = describe(log) if given.what == "describe" else audit(log)
    console.print(tables.frame(found, title=log.name))


def _of_lists(run: Path) -> None:
    """Refuse a run whose model makes no lists."""
    if (run / "tables").is_dir():
        raise RunError(
            f"{run} answers questions and recommends nothing; its figures are in metrics.json, and "
            "its predictions in tables/"
        )


def _config(run: Path, overrides: list[str]) -> DictConfig:
    path = run / "config.yaml"
    if not path.is_file():
        raise RunError(f"{run} is no run's folder: it has no config.yaml")
    try:
        config = OmegaConf.load(path)
        OmegaConf.update(config, "device", "auto")  # it may have been trained elsewhere
        OmegaConf.set_struct(config, True)
        assert isinstance(config, DictConfig)
        merge(config, overrides)
        called = [OmegaConf.to_container(config[name]) for name in ("data", "task", "retrieval")]
    except OmegaConfBaseException as error:
        raise one_line(error) from error
    checkpoint.check_targets(called, SAFE, (type, FunctionType))
    return config


def _per_user(run: Path, part: str) -> pl.DataFrame:
    _of_lists(run)
    path = run / "per_user.parquet"
    if not path.is_file():
        raise RunError(f"{run} is no finished run's folder: it has no per_user.parquet")
    frame = pl.read_parquet(path, glob=False)
    return frame.filter(pl.col("part") == part).drop("part")
