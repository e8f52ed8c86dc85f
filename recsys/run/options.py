"""Options of a composed config against the signatures that they are for.

A name that nothing takes, a value of another type or one that is not set is one line, before a log
is read or a model trained. What is expected is written down once: in the annotations of the
functions and classes that `_target_` names.
"""

from __future__ import annotations

import inspect
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import date, datetime
from inspect import Parameter
from pathlib import Path
from pkgutil import resolve_name
from types import FunctionType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from recsys.errors import ConfigError
from recsys.run.targets import examples, hints_of, may_make

MISSING = "???"
LARGEST_SEED = 2**32 - 1
ONE = {int: "an integer", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
ANY_NUMBER = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
MANY = {int: "integers", float: "numbers", str: "texts"}


def check_options(
    config: Mapping[str, Any], kinds: Mapping[str, Any], extras: Mapping[str, Any] | None = None
) -> None:
    """Check every option.

    Args:
        config: of dicts, lists and values, interpolations resolved.
        kinds: of the options that belong to no `_target_`, by their names with dots: a type, or a
            function or dataclass for a section with its options.
        extras: of options that every `_target_` may have besides its own, in the same form.

    Raises:
        ConfigError: an option that nothing takes, that is not set, or of another type.
    """
    for name, kind in kinds.items():
        _check_option(name, _at(config, name), kind)
    _check_targets("", config, extras or {})


def unset(config: Any, place: str = "") -> Iterator[str]:
    """The names of the options that have no value yet, `???`."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from unset(value, f"{place}.{name}" if place else str(name))
    elif config == MISSING:
        yield place


def argument(name: str, value: str) -> str:
    """`NAME=VALUE` for a value that is text, whatever is in it, as a shell and Hydra read it."""
    value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation
    value = re.sub(r'(\\*)"', r'\1\1\\"', value)
    value = re.sub(r"(\\+)\Z", r"\1\1", value)
    return shlex.quote(f'{name}="{value}"')


def _at(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config.get(part, MISSING) if isinstance(config, Mapping) else MISSING
    return config


def _check_targets(place: str, value: Any, extras: Mapping[str, Any]) -> None:
    """Check what every `_target_` is called with, and then those inside of it."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            function = _callable(place, value["_target_"])
            _check_arguments(place, value, function, extras, partial=bool(value.get("_partial_")))
        for name, inner in value.items():
            _check_targets(f"{place}.{name}" if place else str(name), inner, extras)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_targets(f"{place}.{number}", inner, extras)


def _callable(place: str, target: Any) -> Callable[..., Any]:
    name = f"{place}._target_={as_text(target)}"
    try:
        function = resolve_name(str(target))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{name} cannot be found ({error})") from error
    if not callable(function):
        raise ConfigError(f"{name} is no class or function; name one")
    return function


def _check_arguments(
    place: str,
    options: Mapping[str, Any],
    function: Callable[..., Any],
    extras: Mapping[str, Any],
    *,
    partial: bool,
) -> None:
    """Check the options of one call; what a partial one takes by position comes later."""
    parameters = _parameters(function)
    hints = hints_of(function)
    later = (Parameter.POSITIONAL_OR_KEYWORD,) if partial else ()
    required = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (*ANY_NUMBER, *later)
    ]
    kinds = {p.name: hints.get(p.name, Any) for p in parameters if p.kind not in ANY_NUMBER}
    arguments = {name: value for name, value in options.items() if not str(name).startswith("_")}
    for name, value in arguments.items():
        if name in kinds:
            _check_value(f"{place}.{name}", value, kinds[name])
        elif name in extras:
            _check_option(f"{place}.{name}", value, extras[name])
        elif not any(p.kind is p.VAR_KEYWORD for p in parameters):
            there = f"it has {', '.join(kinds)}" if kinds else "it has none"
            raise ConfigError(f"{place}.{name}: {function.__name__} has no such option; {there}")
    for name in required:
        _check_value(f"{place}.{name}", arguments.get(name, MISSING), Any)


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # of some built-in functions nobody knows
        return [Parameter("options", Parameter.VAR_KEYWORD)]


def _check_option(place: str, value: Any, kind: Any) -> None:
    """Check an option that may be a section without a `_target_`."""
    is_section = isinstance(value, Mapping) and "_target_" not in value
    if is_section and (isinstance(kind, FunctionType) or is_dataclass(kind)):
        _check_arguments(place, value, kind, {}, partial=True)  # type: ignore[arg-type]
    else:
        _check_value(place, value, kind)


def _check_value(place: str, value: Any, kind: Any) -> None:
    if value == MISSING:
        raise ConfigError(f"{place} is not set; give it as {place}=VALUE")
    for entries in _mappings(kind) if isinstance(value, Mapping) else ():
        for name, inner in value.items():
            _check_value(f"{place}.{name}", inner, entries)
    text = as_text(value)
    if not _fits(value, kind):
        fits_as_text = value is not None and _fits(text, kind)
        quoted = f"; quote it: {argument(place, text)}" if fits_as_text else ""
        if isinstance(value, Mapping) and "_target_" in value:  # the rest may be long
            place, text = f"{place}._target_", as_text(value["_target_"])
        raise ConfigError(f"{place}={text}: expected {_expected(kind)}{quoted}")
    if kind is int and place.endswith("seed") and not 0 <= value <= LARGEST_SEED:
        raise ConfigError(f"{place}={text}: expected an integer from 0 to {LARGEST_SEED}")


def _mappings(kind: Any) -> list[Any]:
    """The type of the entries that a type's mappings have, where it has any."""
    if get_origin(kind) in (Union, UnionType):
        return [inner for one in get_args(kind) for inner in _mappings(one)]
    return [get_args(kind)[1]] if _is(kind, Mapping) else []


def _is(kind: Any, base: type) -> bool:
    """Whether a type is an annotated collection such as `Mapping[str, int]`."""
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, base)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of a config is of an annotated type, as far as a config can say."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if _is(kind, Mapping):
        return isinstance(value, Mapping) and all(_fits(v, inner[1]) for v in value.values())
    if _is(kind, Sequence):
        return isinstance(value, list) and all(_fits(v, inner[0]) for v in value)
    if kind in (str, Path, date, datetime):
        return isinstance(value, str)
    if kind is float:
        return _fits(value, int) or (isinstance(value, float) and math.isfinite(value))
    if kind in ONE:
        return type(value) is kind
    return isinstance(value, Mapping) and "_target_" in value and may_make(value, kind)


def _expected(kind: Any) -> str:
    """A type in the words of the command line."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_expected(one) for one in inner))
    if origin is Literal:
        return " or ".join(map(str, inner))
    if isinstance(kind, FunctionType) or _is(kind, Mapping):
        return "options by name, {NAME: VALUE, …}"
    if _is(kind, Sequence):
        words = MANY.get(inner[0]) or _expected(inner[0])
        return f"a list, [VALUE,…], of {words}" if " " in words else f"a list of {words}, [VALUE,…]"
    if kind in (Path, date, datetime):
        return ONE[str]
    if kind is Any:
        return "values"
    return ONE.get(kind) or _expected_target(kind)


def _expected_target(kind: Any) -> str:
    """What makes a type, in the words of the command line."""
    later = get_origin(kind) is Callable
    made = get_args(kind)[-1] if later else kind
    words = "options with _partial_: true and a _target_" if later else "options with a _target_"
    if isinstance(made, type) and made not in (object, Any):
        words += f" that makes {'an' if made.__name__[0] in 'AEIOU' else 'a'} {made.__name__}"
    names = examples(kind)
    return f"{words}, such as {', '.join(names)}" if names else words


def as_text(value: Any) -> str:
    """A value as it is given at the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(as_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{as_text(inner)}' for name, inner in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
