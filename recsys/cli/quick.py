"""The commands about logs, finished runs and the installation: they start without torch."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict, fields
from pathlib import Path

import polars as pl
from omegaconf import OmegaConf

from recsys.cli.compose import compose, merge, values
from recsys.cli.installation import extras, installation
from recsys.data.description import audit, describe
from recsys.errors import ConfigError, RunError
from recsys.files import write_parquet, write_text
from recsys.report.screen import say, show, table_of
from recsys.run import overview
from recsys.run.log import read
from recsys.run.options import check_options
from recsys.run.preparation import Preparation, prepared_log


def data(given: Namespace) -> None:
    """Print what a log is, or what is odd about it."""
    config = compose([f"data={given.name}", *given.overrides])
    values(config.data)  # what cannot be resolved is told of in one line
    log = read(config.data)
    findings = describe(log) if given.what == "describe" else audit(log)
    show(table_of(findings, title=log.name))


def prepare(given: Namespace) -> None:
    """Write a log of files of any size as partitions of users."""
    own = {f.name for f in fields(Preparation)}
    options = [o for o in given.overrides if o.partition("=")[0] in own]
    overrides = [o for o in given.overrides if o not in options]
    preparation = _preparation(options)
    about = prepared_log(compose(overrides), preparation)
    sizes = f"{about.num_events:,} events, {about.users.rows:,} users, {about.items.rows:,} items"
    say(f"{preparation.out}: {sizes} in {len(about.partitions)} partitions")


def _preparation(overrides: list[str]) -> Preparation:
    if not any(override.startswith("out=") for override in overrides):
        raise ConfigError("recsys data prepare asks where to: out=FOLDER")
    config = OmegaConf.create(asdict(Preparation("")))
    merge(config, overrides)
    call = {"_target_": "recsys.run.preparation.Preparation", **values(config)}
    check_options({"preparation": call}, {})
    return Preparation(**values(config))


def runs(given: Namespace) -> None:
    """Print or write what the runs of a folder reached."""
    check_output(given.output)
    table = overview.overview(overview.runs_below(given.folder), given.part)
    for column, wanted in (("log", given.data), ("model", given.model)):
        if wanted is not None:
            table = table.filter(pl.col(column).str.contains(wanted, literal=True))
    if not len(table):
        raise RunError(f"{given.folder} holds no such run that is finished")
    if given.output is not None:
        write_table(given.output, table)
        say(f"{given.output}: {len(table):,} runs")
        return
    show(table_of(overview.shown(table, given.metrics, given.by), title=f"{given.part}"))


def doctor(given: Namespace) -> None:
    """Print what there is to work with."""
    show(table_of(installation()))
    show(table_of(extras(), title='pip install "recsys[EXTRA]"'))


def check_output(path: Path | None) -> None:
    """Before anything is computed for it."""
    if path is not None and path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--output {path}: give a .csv or .parquet file")


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a table in the form that the ending of its file names."""
    if path.suffix == ".parquet":
        write_parquet(path, table)
    else:
        write_text(path, table.write_csv())
