"""Bounds of numeric options: what constructors call, one line each.

Numbers are given by the names of their options; None, which stands for a default, is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from numbers import Integral, Real
from typing import Any, TypeAlias

from recsys.errors import ConfigError

Number: TypeAlias = int | float


def at_least(low: Number, /, **options: Number | None) -> None:
    """Raises ConfigError where an option is less, infinite or no number."""
    for name, value in _numbers(options):
        _refuse_unless(value >= low, f"at least {low}", name, value)


def above(low: Number, /, **options: Number | None) -> None:
    """Raises ConfigError where an option is not more, infinite or no number."""
    for name, value in _numbers(options):
        _refuse_unless(value > low, f"above {low}", name, value)


def share(**options: Number | None) -> None:
    """Raises ConfigError where an option is not in 0 .. 1."""
    for name, value in _numbers(options):
        _refuse_unless(0 <= value <= 1, "a share, 0 to 1", name, value)


def proper_share(**options: Number) -> None:
    """Raises ConfigError where an option is not in 0 .. 1, or is 1, which would leave nothing."""
    for name, value in _numbers(options):
        _refuse_unless(0 <= value < 1, "from 0 to below 1", name, value)


def decays(**options: Number) -> None:
    """Raises ConfigError where a factor that is taken to the power of an age is not in (0, 1]."""
    for name, value in _numbers(options):
        _refuse_unless(0 < value <= 1, "above 0, to 1", name, value)


def distinct(**options: Iterable[object] | None) -> None:
    """Raises ConfigError where a list names something twice; None is left alone."""
    for name, values in options.items():
        listed = [] if values is None else list(values)
        if twice := [value for place, value in enumerate(listed) if value in listed[:place]]:
            words = ",".join(map(str, listed))
            raise ConfigError(f"{name}=[{words}] names {twice[0]!s} twice; name each once")


def heads(*, num_heads: int, embedding_dim: int) -> None:
    """Raises ConfigError where the heads of an attention do not divide its dimensions."""
    at_least(1, num_heads=num_heads, embedding_dim=embedding_dim)
    if embedding_dim % num_heads:
        raise ConfigError(
            f"num_heads={num_heads} does not divide embedding_dim={embedding_dim}; "
            f"choose another, such as {_nearest_divisor(embedding_dim, num_heads)}"
        )


def _nearest_divisor(number: int, goal: int) -> int:
    divisors = [d for d in range(1, min(number, 2 * goal) + 1) if number % d == 0]
    return min(divisors, key=lambda divisor: abs(divisor - goal))


def integers(**options: Any) -> None:
    """Raises ConfigError where an option is no integer, `k="5"`."""
    for name, value in options.items():
        if value is True or value is False or not isinstance(value, Integral):
            raise ConfigError(f"{name}={value!r}: expected an integer, such as {name}=10")


def _numbers(options: Mapping[str, Any]) -> Iterator[tuple[str, Number]]:
    """The options that are given, all of which are numbers."""
    for name, value in options.items():
        if value is None:
            continue
        is_number = isinstance(value, Real)  # of numpy, too, which are no float by their type
        if not is_number:
            raise ConfigError(f"{name}={value!r}: expected a number")
        yield name, value


def _refuse_unless(fits: bool, expected: str, name: str, value: Number) -> None:
    if not fits or not isfinite(value):
        raise ConfigError(f"{name}={value}: expected {expected}; leave it out for the default")
