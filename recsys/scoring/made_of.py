"""The config of a model that was made in Python: its class and the options that it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from recsys.errors import ConfigError
from recsys.scoring.scorer import Scorer
from recsys.scoring.trust import PARTIAL, TARGET, ZOO


def config_of(model: Scorer) -> dict[str, Any]:
    """What `recsys.scoring.trust.build` makes the same model from, without its weights.

    Raises:
        ConfigError: an option is an object that no config can say.

    >>> config_of(ItemKNN(shrink=5.0))
    {'_target_': 'recsys.models.ItemKNN', 'shrink': 5.0}
    """
    kind = type(model)
    args, options = model.made_with if hasattr(model, "made_with") else ((), {})
    bound = signature(kind).bind(*args, **options)
    name = kind.__name__
    values = {option: _value(f"{name}.{option}", v) for option, v in bound.arguments.items()}
    return {TARGET: _target(kind), **values}


def _value(place: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Scorer):
        return config_of(value)
    if isinstance(value, Mapping):
        return {str(name): _value(f"{place}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(f"{place}.{number}", inner) for number, inner in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        options = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return {TARGET: _target(type(value)), **_value(place, options)}
    if isinstance(value, partial) and not value.args:
        return {TARGET: _target(value.func), PARTIAL: True, **_value(place, value.keywords)}
    raise ConfigError(
        f"{place} is a {type(value).__name__}, which no config can say; choose the model by its "
        "name in the zoo"
    )


def _target(made: Any) -> str:
    """The name of a class or function, of ours in its public package, where configs look for it."""
    home, name = made.__module__, made.__qualname__
    packages = [home.rsplit(".", n)[0] for n in range(1, home.count("."))]
    for package in (ZOO, *packages):
        if home.startswith("recsys.") and getattr(import_module(package), name, None) is made:
            return f"{package}.{name}"
    return f"{home}.{name}"
