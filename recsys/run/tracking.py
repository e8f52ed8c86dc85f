"""Loggers of Lightning's that a run writes to besides its folder, and what they need."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from recsys import ranks
from recsys.errors import ConfigError
from recsys.run.config import flat, plain
from recsys.scoring import trust

PACKAGES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
"""By the class of a logger the package that it needs, which is the name of the extra, too."""
QUIET = {
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Set before those packages are imported, unless a user has set them: they report on their use."""


def check_loggers(config: DictConfig) -> None:
    """Refuse loggers whose package is not installed, before anything is read or trained.

    Raises:
        ConfigError: it names the extra.
    """
    for name, package in _packages(config):
        if find_spec(package) is None:
            raise ConfigError(
                f"logger.loggers: {name} needs the package {package}; pip install "
                f"'recsys[{package}]', or take logger=csv"
            )


def _packages(config: DictConfig) -> Iterator[tuple[str, str]]:
    for logger in plain(config.logger)["loggers"] if "logger" in config else ():
        name = str(logger[trust.TARGET]).rpartition(".")[2]
        if name in PACKAGES:
            yield name, PACKAGES[name]


def loggers(config: DictConfig, folder: Path) -> list[Logger]:
    """Lightning's loggers, writing to a folder; other programs are told the config, too."""
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    # MLflow takes no @: Lightning leaves it out of each name, and says so of each.
    warnings.filterwarnings("ignore", "MLFlow only allows", RuntimeWarning)
    made = []
    for options in plain(config.logger)["loggers"]:
        logger: Logger = trust.build(options)(save_dir=folder)
        if type(logger).__name__ in PACKAGES and ranks.is_first():
            logger.log_hyperparams(_named(config))
        made.append(logger)
    return made


def _named(config: DictConfig) -> dict[str, Any]:
    """Options by their whole names, but those of loggers."""
    options = {name: value for name, value in plain(config).items() if name != "logger"}
    return {name: value for name, value in flat(options) if value is not None}
