"""The log of a run."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from recsys.data.cache import cached
from recsys.errors import DataError
from recsys.log.event_log import EventLog
from recsys.log.filters import filtered
from recsys.run.config import plain
from recsys.run.options import MISSING, check_options
from recsys.scoring import trust
from recsys.timing import timed

logger = logging.getLogger(__name__)
PATTERN = re.compile(r"://|[*?\[]|\$\{")
"""In a path that may stand for several files, for one elsewhere, or for another option."""


def filtered_log(
    data: Mapping[str, Any], filters: Mapping[str, Any], purpose: Literal["data"] | None = None
) -> EventLog:
    """The log of the section `data` of a config, filtered as its `task.filters` say."""
    log = log_of(data, purpose)
    with timed(logger, "filtered %s", log.name):
        return filtered(log, **filters)


def read(data: DictConfig) -> EventLog:
    """The log that a data config names, from the cache where it has been read before."""
    options = plain(data)
    check_options({"data": options}, {"data": EventLog})
    return log_of(options)


def check_data(data: DictConfig) -> None:
    """See that the files that a data config names are there, before seconds of imports.

    Raises:
        DataError: no such file.
    """
    options = OmegaConf.to_container(data, resolve=False)
    assert isinstance(options, dict)
    for name, value in options.items():
        names_one = name == "path" or str(name).endswith("_path")
        if not (names_one and isinstance(value, str)) or value == MISSING or PATTERN.search(value):
            continue
        if not (path := Path(value).expanduser().absolute()).exists():
            raise DataError(f"no file {path}")


def log_of(options: Mapping[str, Any], purpose: Literal["data"] | None = None) -> EventLog:
    """As `read`, from plain options: a user's own, or a folder's by their purpose."""
    source = trust.build({**options, trust.PARTIAL: True}, purpose)
    log = cached(source.func, **source.keywords)
    sizes = (log.num_events, len(log.users), len(log.items))
    logger.info("%s: %s events, %s users, %s items", log.name, *sizes)
    return log
