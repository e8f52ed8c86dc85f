"""A composed config: its copies that say more, its values, and what it says in words."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict

from recsys.errors import ConfigError
from recsys.run.options import unset

if TYPE_CHECKING:  # torch comes with it
    from recsys.tasks.splits import Split


@dataclass(frozen=True)
class Sizes:
    """What a log tells of its size; `conf/train.yaml` has the same names, and models refer to them.

    Attributes:
        num_items, num_users: of the split.
        num_classes: how many values each column of the items takes.
    """

    num_items: int
    num_users: int
    num_classes: Mapping[str, int]

    @classmethod
    def of(cls, split: Split) -> Sizes:
        """Those of a split."""
        return cls(split.num_items, len(split.users), split.num_classes)


def plain(config: DictConfig) -> dict[str, Any]:
    """A config as plain dicts and lists, interpolations resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def as_values(config: DictConfig, *sections: str) -> dict[str, Any]:
    """A config, or sections of it, as dicts, lists and values.

    What a run finds out has stand-ins.

    Raises:
        ConfigError: an option that has no default is not set.
    """
    config = OmegaConf.masked_copy(config, list(sections or map(str, config)))
    config = sized(completed(config, folder="."), Sizes(1, 1, {}))
    # Before what refers to them is resolved.
    if missing := sorted(unset(OmegaConf.to_container(config, resolve=False))):
        raise ConfigError(f"{missing[0]} is not set; give it as {missing[0]}=VALUE")
    return plain(config)


def completed(config: DictConfig, **values: Any) -> DictConfig:
    """A copy of a config that says something more, or says it otherwise."""
    config = copy.deepcopy(config)
    with open_dict(config):
        config.update(values)
    return config


def sized(config: DictConfig, sizes: Sizes) -> DictConfig:
    """A copy of a config with the sizes of its log: what a run writes to its folder."""
    return completed(config, **vars(sizes))


def config_words(config: DictConfig) -> set[str]:
    """Every word that a config says of models, task, report and domains."""
    parts = ("model", "baselines", "task", "report", "transfer")
    return set(_strings([plain(config[part]) for part in parts if part in config]))


def _strings(config: Any) -> Iterator[str]:
    values = config.values() if isinstance(config, dict) else config
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, (dict, list)):
            yield from _strings(value)


def of_task_alone(config: DictConfig, names: Collection[str]) -> DictConfig:
    """A copy without sizes, and of the section `task` with these options alone.

    A log's config brings what predicts what comes next, too.
    """
    config = completed(config, num_items=None, num_users=None)
    with open_dict(config):
        for name in list(config.task):
            if name not in names:
                config.task.pop(name)
    return config


def flat(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Options by their whole name, `task.split.test_start`."""
    if not isinstance(config, dict):
        yield name, config
        return
    for key, value in config.items():
        yield from flat(value, f"{name}.{key}".lstrip("."))
