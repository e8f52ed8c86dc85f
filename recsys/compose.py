"""Configs by Hydra: overrides in, a composed config out; misspelt names meet the near ones."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from recsys.cli import names, nearest
from recsys.errors import ConfigError, RecsysError


def train(overrides: Sequence[str]) -> int:
    """`recsys train`: all of Hydra's command line."""
    # Hydra then raises what it would print, and `one_line` says it shorter.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["recsys train", *overrides]
    try:
        _task()
    except (HydraException, OmegaConfBaseException) as error:
        raise one_line(error) from error
    return 0


@hydra.main(version_base="1.3", config_path="pkg://recsys.conf", config_name="train")
def _task(config: DictConfig) -> None:
    from recsys import train as runs  # torch: not for --help and --cfg

    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        runs.run(config, folder)
    except RecsysError as error:
        if not any(folder.iterdir()):
            folder.rmdir()
        # Hydra would add a line of its own to an exception, but lets an exit pass.
        print(f"recsys: {error}", file=sys.stderr)
        sys.exit(2)


def compose(overrides: Sequence[str]) -> DictConfig:
    """The config that `recsys train` would run with these overrides."""
    try:
        with hydra.initialize_config_module("recsys.conf", version_base="1.3"):
            return hydra.compose("train", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise one_line(error) from error


def one_line(error: Exception) -> RecsysError:
    """Hydra's and OmegaConf's mistakes as one line that names the option and what to do."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RecsysError):
            return cause
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, name = cause.missing_cfg_file.rpartition("/")
            group = group.partition("/")[0] if "/" in group else group
            return ConfigError(f"{group}={name} does not exist{nearest(name, names(group))}")
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    if found := re.search(r"Could not override '([^']+)'", text):
        option = found.group(1)
        return ConfigError(f"there is no option {option}{_nearest_option(option)}")
    return ConfigError(text)


def _nearest_option(option: str) -> str:
    group, _, _ = option.rpartition(".")
    return f"; `recsys train … --cfg job` shows those of {group or 'a run'}"
