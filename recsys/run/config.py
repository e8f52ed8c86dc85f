"""A composed config as values, and what it says in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf


def plain(config: DictConfig) -> dict[str, Any]:
    """A config as plain dicts and lists, interpolations resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def config_words(config: DictConfig) -> set[str]:
    """Every word that a run's config says of its models, its task and its report."""
    parts = ("model", "baselines", "task", "report")
    return set(_strings([plain(config[part]) for part in parts if part in config]))


def _strings(config: Any) -> Iterator[str]:
    values = config.values() if isinstance(config, dict) else config
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, (dict, list)):
            yield from _strings(value)
