"""Configs by Hydra: overrides in, a composed config out; misspelt names meet the near ones."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recsys.cli import names, nearest
from recsys.errors import ConfigError, RecsysError


def train(overrides: Sequence[str]) -> int:
    """`recsys train`: all of Hydra's command line."""
    # Hydra then raises what it would print, and `one_line` says it shorter.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Hydra's parser wants its flags before the overrides.
    sys.argv = ["recsys train", *sorted(overrides, key=lambda o: o not in ("-m", "--multirun"))]
    try:
        _task()
    except SystemExit as ended:
        return int(ended.code or 0)
    except (HydraException, OmegaConfBaseException) as error:
        raise one_line(error, overrides) from error
    return 0


@hydra.main(version_base="1.3", config_path="pkg://recsys.conf", config_name="train")
def _task(config: DictConfig) -> None:
    from recsys import suite, train  # torch: not for --help and --cfg

    folder = Path(HydraConfig.get().runtime.output_dir)
    new = not any(folder.iterdir())
    try:
        (suite if "questions" in config.task else train).run(config, folder)
    except (RecsysError, HydraException, OmegaConfBaseException) as error:
        if new and {path.name for path in folder.iterdir()} <= {"config.yaml", "log.json"}:
            shutil.rmtree(folder)
        # Hydra would add a line of its own to an exception, but lets an exit pass.
        print(f"recsys: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def compose(overrides: Sequence[str]) -> DictConfig:
    """The config that `recsys train` would run with these overrides."""
    try:
        with hydra.initialize_config_module("recsys.conf", version_base="1.3"):
            return hydra.compose("train", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise one_line(error, overrides) from error


def one_line(error: Exception, overrides: Sequence[str] = ()) -> RecsysError:
    """Hydra's and OmegaConf's mistakes as one line that names the option and what to do."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RecsysError):
            return cause
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, name = cause.missing_cfg_file.partition("/")
            return ConfigError(f"{group}={name} does not exist{nearest(name, names(group))}")
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    if found := re.search(r"Could not override '([^']+)'", text):
        option = found.group(1)
        return ConfigError(f"there is no option {option}{_nearest_option(option, overrides)}")
    return ConfigError(text)


def _nearest_option(option: str, overrides: Sequence[str]) -> str:
    """The options that a run with the other overrides has, nearest first."""
    others = [override for override in overrides if not override.startswith(option)]
    try:
        known = list(_keys(OmegaConf.to_container(compose(others))))
    except RecsysError:  # there is more than one mistake: say the first
        known = []
    close = nearest(option, known) if known else ""
    return close if "did you mean" in close else "; `recsys train … --cfg job` shows them all"


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")
