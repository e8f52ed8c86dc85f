"""Moments that a task asks for and a config leaves open: an error proposes some of the log's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta

from omegaconf import DictConfig, OmegaConf

from recsys.errors import ConfigError
from recsys.log.event_log import TIME, EventLog
from recsys.log.time import at_shares
from recsys.run.log import read
from recsys.run.options import unset

STARTS = {"task.split.validation_start": 0.8, "task.split.test_start": 0.9}
"""Of a split, and after which share of a log's time they are proposed."""
OF_LABELS = re.compile(r"(task\.labels\.\w+)\.(train|test)")
DAYS = 28
"""After a moment of labels, where a table does not say."""


def check_moments(config: DictConfig) -> None:
    """Refuse a config whose task is asked as of moments that are not set.

    Raises:
        ConfigError: it names such an option, and moments that the log has room for.
    """
    names = list(unset(OmegaConf.to_container(config, resolve=False)))
    wanted = sorted(name for name in names if name in STARTS or OF_LABELS.fullmatch(name))
    if not wanted or any(name.startswith("data.") for name in names):
        return
    log = read(config.data)
    if words := " ".join(_proposed(config, log, wanted)):
        raise ConfigError(f"{wanted[0]} is not set; {log.name} has room for {words}")


def _proposed(config: DictConfig, log: EventLog, wanted: list[str]) -> Iterator[str]:
    """Options with moments, in the order of time."""
    if wanted[0] in STARTS:
        for name, at in zip(STARTS, at_shares(log, [*STARTS.values()]), strict=True):
            yield f"{name}={at}"
        return
    first, last = log.events[TIME].min(), log.events[TIME].max()
    for table in dict.fromkeys(match[1] for match in map(OF_LABELS.fullmatch, wanted) if match):
        days = OmegaConf.select(config, f"{table}.horizon_days", default=DAYS)
        if not isinstance(first, date) or not isinstance(last, date) or not isinstance(days, int):
            continue
        before = [last - timedelta(days=days * periods) for periods in (3, 2, 1)]
        *train, test = [f"{at:%Y-%m-%d}" for at in before if at > first] or [""]
        if train:
            yield f"{table}.train=[{','.join(train)}] {table}.test={test}"
