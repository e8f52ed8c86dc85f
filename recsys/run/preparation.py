"""A prepared log, from a composed config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from recsys.data.preparation.engines import EngineName
from recsys.data.preparation.events import large_table
from recsys.data.preparation.manifest import Manifest
from recsys.data.preparation.prepare import Filters, prepare
from recsys.data.sources.table import table
from recsys.errors import ConfigError
from recsys.log.event_log import EventLog
from recsys.log.filters import filtered
from recsys.ranges import at_least
from recsys.run.config import as_values
from recsys.run.options import check_options
from recsys.scoring.trust import TARGET

TABLE = "recsys.data.sources.table.table"
OF_PARQUET = tuple(signature(large_table).parameters)
DESCRIPTIVE = ("origin",)
"""Options of a table that do not change what is read."""


@dataclass(frozen=True)
class Preparation:
    """How a log is prepared.

    Attributes:
        out: the folder.
        partitions: how many; None is one for 2 million rows, at most 256.
        engine: `polars`, this process; `ray`, its workers.

    Raises:
        ConfigError: no number of partitions.
    """

    out: str
    partitions: int | None = None
    engine: EngineName = "polars"

    def __post_init__(self) -> None:
        at_least(1, partitions=self.partitions)


def prepared_log(config: DictConfig, preparation: Preparation) -> Manifest:
    """Prepare the log of the section `data` of a config, cut as `task.filters` say.

    Raises:
        ConfigError: another log than a user's own table, or an option that is not what is expected.
        DataError, RunError: as `prepare`.
    """
    values = as_values(config, "data", "task")
    filters = values["task"].get("filters", {})
    options = {"data": values["data"], "task": {"filters": filters}}
    check_options(options, {"data": EventLog, "task.filters": filtered})
    source = values["data"].pop(TARGET)
    if source != TABLE:
        raise ConfigError(f"{source} is read as it is; recsys data prepare takes data=table")
    return prepare(
        large_table(**_of_parquet(values["data"])),
        Path(preparation.out).expanduser().absolute(),
        filters=Filters(**filters),
        num_partitions=preparation.partitions,
        engine=preparation.engine,
    )


def _of_parquet(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a log that is prepared; the others have to be left at what they are.

    Raises:
        ConfigError: one is set that only `table` reads.
    """
    defaults = {name: p.default for name, p in signature(table).parameters.items()}
    for name in (n for n in options if n not in (*OF_PARQUET, *DESCRIPTIVE)):
        if _is_set(options[name]) and options[name] != defaults.get(name):
            raise ConfigError(
                f"data.{name} is not for logs that are prepared; write Parquet files of the events "
                f"that it leaves, and prepare those (there are: {', '.join(OF_PARQUET)})"
            )
    return {name: value for name, value in options.items() if name in OF_PARQUET}


def _is_set(value: Any) -> bool:
    """Whether an option, or one inside of it, has a value."""
    if isinstance(value, Mapping):
        return any(map(_is_set, value.values()))
    return value not in (None, [])
