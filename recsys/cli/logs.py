"""The commands about logs alone: torch, which takes seconds to import, is not needed."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict, fields

from omegaconf import OmegaConf

from recsys.cli.compose import compose, merge, values
from recsys.data.description import audit, describe
from recsys.errors import ConfigError
from recsys.report.screen import say, show, table_of
from recsys.run.log import read
from recsys.run.options import check_options
from recsys.run.preparation import Preparation, prepared_log


def data(given: Namespace) -> None:
    """Print what a log is, or what is odd about it."""
    config = compose([f"data={given.name}", *given.overrides])
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
