"""What may be tried of options: a range of numbers, on a line or by their logarithm, or a choice.

In a config it is a list in the place that the option has, below `search.space`:

    model:
      num_neighbors: [50, 1000, log]    # integers, for both ends are, and so is the default
      decay: [0.3, 1.0]
      with_targets: [true, false, choice]
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf, open_dict

from recsys.errors import ConfigError
from recsys.report.page import name_of
from recsys.run.config import as_values, plain
from recsys.run.options import as_text, check_options

SEARCHED = ("model", "trainer")
"""Sections of a config whose options may be tried; the others say what is asked."""
THE_SAME = ("trainer.monitor", "trainer.seed", "trainer.device")
FORMS = "[LOW,HIGH], [LOW,HIGH,log] or [VALUE,VALUE,choice]"

Options = dict[str, Any]
"""Values of options by their names with dots, `model.encoder.dropout`."""


@dataclass(frozen=True)
class Space:
    """What may be tried of one option.

    Attributes:
        kind: of the values.
        values: both ends of a range, or all choices.
        default: what the option is without a search.
        log: whether a range is divided by the logarithm.
    """

    kind: Literal["float", "int", "choice"]
    values: tuple[Any, ...]
    default: Any
    log: bool = False

    def nearest(self) -> Any:
        """The value nearest to the default, None where there is none, such as to null."""
        if self.kind == "choice":
            return self.default
        if isinstance(self.default, bool) or not isinstance(self.default, int | float):
            return None
        low, high = self.values
        return min(max(self.default, low), high)

    def rounded(self, value: Any) -> Any:
        """A value of it that people can read: a float of four digits."""
        if self.kind != "float":
            return value
        low, high = self.values
        return min(max(float(f"{value:.4g}"), low), high)

    def words(self) -> str:
        """As a config has it."""
        last = ["choice"] if self.kind == "choice" else ["log"] if self.log else []
        values = (f"{value:g}" if self.kind == "float" else value for value in self.values)
        return as_text([*values, *last])


def spaces_of(config: DictConfig, kinds: Mapping[str, Any]) -> dict[str, Space]:
    """The spaces of a config's `search.space` by the names of the options, with dots.

    Args:
        config: composed.
        kinds: what its options are, as `check_options` takes them.

    Raises:
        ConfigError: there is none, an option that does not exist or is the same in every trial, or
            what no such option may be.
    """
    values = as_values(config)
    options = _leaves({name: values[name] for name in SEARCHED})
    known = {name: value for name, value in options if "._" not in name}
    tree = plain(config.search.space)
    spaces = {
        name: _space(name, value, known) for name, value in _leaves(tree) if value is not None
    }
    if not spaces:
        raise ConfigError(
            f"search.space is empty: {name_of(values['model'])} has none of its own; name what to "
            f"try, search.space.model.OPTION=[LOW,HIGH]"
        )
    for place in range(max(len(space.values) for space in spaces.values())):
        tried = {n: of.values[place] for n, of in spaces.items() if place < len(of.values)}
        try:
            check_options(as_values(with_options(config, tried)), kinds)
        except ConfigError as error:
            raise ConfigError(f"search.space: {error}") from error
    return spaces


def with_options(config: DictConfig, options: Mapping[str, Any]) -> DictConfig:
    """A copy of a config with other values of some options."""
    config = copy.deepcopy(config)
    with open_dict(config):
        for name, value in options.items():
            OmegaConf.update(config, name, value, merge=False)
    return config


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What is no section of options, by its name with dots."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _space(name: str, value: Any, known: Mapping[str, Any]) -> Space:
    place = f"search.space.{name}"
    if name.partition(".")[0] not in SEARCHED or name in THE_SAME:
        raise ConfigError(
            f"{place}: {name} is the same in every trial; name options of {' or '.join(SEARCHED)}"
        )
    if name not in known:
        close = get_close_matches(name, known, n=3, cutoff=0.5) or list(known)
        raise ConfigError(f"{place}: there is no option {name}; there is {', '.join(close)}")
    if not isinstance(value, list) or len(value) < 2:
        raise ConfigError(f"{place}={as_text(value)}: expected {FORMS}")
    if value[-1] == "choice":
        return _choice(place, value, known[name])
    return _range(place, value, known[name])


def _choice(place: str, value: list[Any], default: Any) -> Space:
    """One of several values, the default among them."""
    *choices, _ = value
    if not all(isinstance(one, str | int | float | bool | None) for one in choices):
        raise ConfigError(f"{place}={as_text(value)}: expected numbers, texts, true, false or null")
    texts = [as_text(one) for one in choices]
    if len({*texts}) < len(texts):
        raise ConfigError(f"{place}={as_text(value)} names a value twice; name each once")
    if as_text(default) not in texts:
        choices.append(default)
    return Space("choice", tuple(choices), default)


def _range(place: str, value: list[Any], default: Any) -> Space:
    """Integers where both ends and the default are, floats elsewhere."""
    log, ends = value[-1] == "log", value[: 2 if value[-1] == "log" else None]
    if len(value) != 2 + log or not all(type(end) in (int, float) for end in ends):
        raise ConfigError(f"{place}={as_text(value)}: expected {FORMS}")
    low, high = ends
    if not low < high or (log and low <= 0):
        expected = "a first number below the second" + (", both above 0" if log else "")
        raise ConfigError(f"{place}={as_text(value)}: expected {expected}")
    if all(type(number) is int for number in ends) and type(default) is not float:
        return Space("int", (low, high), default, log)
    return Space("float", (float(low), float(high)), default, log)
