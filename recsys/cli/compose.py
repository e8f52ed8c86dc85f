"""Configs by Hydra: overrides in, a composed config out; misspelt names meet the near ones."""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from recsys.cli.names import CONF, Parser, failed, names, nearest, of_the_system
from recsys.errors import ConfigError, RecsysError
from recsys.memory import refused
from recsys.run.options import argument, as_text

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name[0] != "_")
OF_A_SEARCH = r"[+~]*(n_trials|seconds|models|search)\b|hydra\."
"""Overrides that a search takes and a run does not."""
MISTAKES = (RecsysError, HydraException, OmegaConfBaseException, OSError)
"""What a user can cause and mend."""


def train(arguments: Sequence[str], command: str = "train") -> int:
    """`recsys train`: one run, or with `--multirun` one for each combination of values.

    A run of a sweep that fails is reported, and the others go on, also where a launcher gives them
    processes of their own.

    Args:
        arguments: of the command.
        command: `train`, or another that runs a composed config, which has its name.
    """
    # Hydra then raises what it would print, and `one_line` says it shorter.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    overrides = _arguments_for_hydra(arguments, command)
    swept = _swept(overrides)
    mistakes: dict[str, RecsysError] = {}
    done: dict[str, Path] = {}
    process = os.getpid()

    @hydra.main(version_base="1.3", config_path="pkg://recsys.conf", config_name=command)
    def task(config: DictConfig) -> None:
        name = _name_in_sweep(swept) if _is_sweep() else ""
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            _run(config, folder)
            done[name] = folder
        except MISTAKES as error:
            mistakes[name] = one_line(error)
            if _is_sweep():
                failed(f"{name}: {mistakes[name]}")
        except Exception as error:
            if not _is_sweep():
                raise
            traceback.print_exc()
            reason = str(error).partition("\n")[0]
            mistakes[name] = RecsysError(f"{type(error).__name__}: {reason}")
        finally:
            if name not in done:
                _remove_empty(folder)
        if name in mistakes and os.getpid() != process:  # which sees nothing of what is noted here
            raise RecsysError(f"{name} failed, and the others went on: {mistakes[name]}")

    try:
        task()
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise one_line(error, overrides, command) from error
    if "" in mistakes:
        raise mistakes[""]
    if "" not in done:
        _show_sweep(done)
    if mistakes:
        lines = [f"{len(mistakes)} of {len(mistakes) + len(done)} runs failed"]
        return failed("\n  ".join([*lines, *(f"{n}: {error}" for n, error in mistakes.items())]))
    return 0


def _remove_empty(folder: Path) -> None:
    """Remove a run's folder that holds nothing, and those above it, below where the command runs.

    Hydra makes them before the run is looked at.
    """
    here = Path.cwd()
    for place in (folder, *(parent for parent in folder.parents if here in parent.parents)):
        try:
            place.rmdir()
        except OSError:  # it holds something, or is gone
            if place.exists():
                break


def _show_sweep(done: Mapping[str, Path]) -> None:
    """What the runs of a sweep reached, side by side."""
    import polars as pl

    from recsys.report.screen import show, table_of
    from recsys.run.overview import ABOUT, overview, shown

    runs = {name: folder for name, folder in done.items() if (folder / "metrics.json").is_file()}
    if runs:
        table = shown(overview(list(runs.values())))
        figures = [name for name in table.columns if name not in ABOUT]
        names = [name.partition("(")[2].removesuffix(")") or name for name in runs]
        summary = table.select(pl.Series("run", names), *figures)
        show(table_of(summary, title="the sweep, test"))


def _run(config: DictConfig, folder: Path) -> None:
    from recsys.run.log import check_data

    check_data(config.data)
    # torch: not for --help and --cfg
    from recsys.run import (
        alignment,
        forecasting,
        prediction,
        ranking,
        return_times,
        rolling,
        search,
        transfer,
    )
    from recsys.run.folder import of_all_ranks
    from recsys.run.task_kinds import (
        ALIGNMENT,
        FORECASTS,
        LABELS,
        LISTS,
        RETURN_TIMES,
        ROLLING,
        SEARCH,
        TRANSFER,
        kind_of,
    )

    kinds = {
        ALIGNMENT: alignment,
        FORECASTS: forecasting,
        LABELS: prediction,
        LISTS: ranking,
        RETURN_TIMES: return_times,
        ROLLING: rolling,
        TRANSFER: transfer,
    }
    try:
        with of_all_ranks(config, folder) as folder:
            if (kind := kind_of(config)) is SEARCH:
                search.run(config, folder, [search.Entrant(*of) for of in _entrants(config)])
            else:
                kinds[kind].run(config, folder)
    except KeyboardInterrupt as stopped:
        name, place = "hydra.run.dir", folder
        if _is_sweep():
            name, place = "hydra.sweep.dir", Path(HydraConfig.get().sweep.dir)
        again = argument(name, str(place))
        raise KeyboardInterrupt(f"stopped; the same command with {again} goes on") from stopped
    except (RuntimeError, MemoryError) as error:
        if (wanted := refused(error)) is None:
            raise
        raise RecsysError(
            f"out of memory: {wanted}; lower trainer.batch_size or the sizes of the model"
        ) from error


def _entrants(config: DictConfig) -> Iterator[tuple[str, DictConfig, list[str]]]:
    """The models of a search: names, configs, and what `recsys train` takes for the same."""
    job = HydraConfig.get()
    given = [str(override) for override in job.overrides.task]
    overrides = [o for o in given if not re.match(OF_A_SEARCH, o)]
    if config.models is None:
        choices = job.runtime.choices
        yield str(choices.get("experiment") or choices["model"]), config, overrides
        return
    if isinstance(config.models, str) or not config.models:
        raise ConfigError(f"models={config.models}: expected a list of names, models=[NAME,NAME]")
    if twice := {str(name) for name in config.models if list(config.models).count(name) > 1}:
        raise ConfigError(f"models names {min(twice)} twice; name each once")
    if chosen := next((o for o in overrides if o.startswith(("model=", "experiment="))), None):
        raise ConfigError(f"models={as_text([*config.models])} and {chosen}: give one of them")
    for name in map(str, config.models):
        choice = f"{'experiment' if '/' in name else 'model'}={name}"
        others = [o for o in given if not re.match("models=", o)]
        yield name, compose([choice, *others], "search"), [choice, *overrides]


def _is_sweep() -> bool:
    return HydraConfig.get().mode is RunMode.MULTIRUN


def _swept(overrides: Sequence[str]) -> set[str]:
    """The options that have several values."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {str(o.input_line).partition("=")[0] for o in parsed if o.is_sweep_override()}


def _name_in_sweep(swept: set[str]) -> str:
    """A run's number, and which of the values it has."""
    job = HydraConfig.get()
    options = OmegaConf.to_container(job.overrides.task, resolve=False)
    assert isinstance(options, list)
    chosen = [option for option in options if option.partition("=")[0] in swept]
    return f"run {job.job.num} ({' '.join(chosen)})"


def _arguments_for_hydra(arguments: Sequence[str], command: str) -> list[str]:
    """Set what Hydra reads as the command line; returns the overrides of it."""
    parser = Parser(prog=f"recsys {command}", add_help=False)
    parser.add_argument("overrides", nargs="*", default=[])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-m", "--multirun", action="store_true")
    what.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-p", "--package")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    given = parser.parse_intermixed_args(arguments)
    if given.resolve and not given.cfg:
        parser.error("--resolve goes with --cfg")
    overrides = _checked(given.overrides)
    if command == "search":  # a space is there, or it is new
        overrides = [re.sub(r"^search\.space\.", "++search.space.", o) for o in overrides]
    flags = {name: value for name, value in vars(given).items() if name != "overrides" and value}
    sys.argv = [f"recsys {command}"]
    for name, value in flags.items():
        sys.argv += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
    sys.argv += ["--", *overrides]
    return overrides


def _checked(overrides: Sequence[str]) -> list[str]:
    """Overrides, home folders in place, of which every group has a name.

    `baselines=[popularity,item_knn]` is a choice for each.

    Raises:
        ConfigError: one that cannot be read, or a group with what is no name.
    """
    overrides = [expanded(override) for override in overrides]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise one_line(error) from error
    for override in parsed:
        group, value = override.key_or_group, override.value()
        is_name = override.is_delete() or isinstance(value, str | list | Sweep)
        if group in (*GROUPS, "hydra", "") and not is_name:
            raise ConfigError(f"{override.input_line} is no name{nearest('', names(group))}")
    return [choice for override in parsed for choice in _choices(override)]


def _choices(override: Override) -> list[str]:
    """An override as it is, or one for each baseline that it lists.

    Raises:
        ConfigError: what is no name among them, or one twice.
    """
    value = override.value()
    if override.key_or_group != "baselines" or not isinstance(value, str | list):
        return [str(override.input_line)]
    chosen = [value] if isinstance(value, str) else value
    if other := [name for name in chosen if not isinstance(name, str)]:
        raise ConfigError(f"baselines: {other[0]} is no name{nearest('', names('model'))}")
    if twice := [name for name in chosen if chosen.count(name) > 1]:
        raise ConfigError(f"baselines names {twice[0]} twice; name each once")
    return [f"+model@baselines.{name}={name}" for name in chosen]


def expanded(override: str) -> str:
    """An override whose value is a path below `~` with the home folder in its place."""
    name, equals, value = override.partition("=")
    quote = value[:1] if value[:1] in ("'", '"') else ""
    if not re.match(r"~[^/]*(/|$)", value.removeprefix(quote)):
        return override
    return f"{name}{equals}{quote}{os.path.expanduser(value.removeprefix(quote))}"


def compose(overrides: Sequence[str], command: str = "train") -> DictConfig:
    """The config that `recsys train`, or another command, would run with these overrides."""
    overrides = _checked(overrides)
    try:
        with _initialised():
            return hydra.compose(command, overrides)
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise one_line(error, overrides, command) from error


def _initialised() -> AbstractContextManager[None]:
    """Hydra, which within a command is there already."""
    if GlobalHydra.instance().is_initialized():
        return nullcontext()
    return hydra.initialize_config_module("recsys.conf", version_base="1.3")


def merge(config: DictConfig, overrides: Sequence[str]) -> None:
    """Set options that a config has, each to one value, in the form of `recsys train`'s.

    Raises:
        ConfigError: an option that the config has not, or what is no `OPTION=VALUE`.
    """
    known = [name for name, _ in _entries(OmegaConf.to_container(config))]
    for text in map(expanded, overrides):
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
            name = override.key_or_group
            if (
                not name
                or override.is_add()
                or override.is_delete()
                or override.is_sweep_override()
            ):
                raise ConfigError(f"{text} is no OPTION=VALUE with one value")
            _set(config, known, name, override.value())
        except (HydraException, OmegaConfBaseException) as error:
            raise one_line(error) from error


def values(config: DictConfig) -> dict[str, Any]:
    """A config as dicts, lists and values, interpolations resolved; a mistake is one line."""
    try:
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise one_line(error) from error


def with_values(config: DictConfig, section: str, values: Mapping[str, Any]) -> None:
    """Set options of a section that it has, to values of Python.

    Args:
        config: composed.
        section: `model` or another, or one within it.
        values: by their names; a section of several has a mapping of them.

    Raises:
        ConfigError: an option that the section has not, or a value that no config can hold.
    """
    known = [name for name, _ in _entries(OmegaConf.to_container(config))]
    for name, value in values.items():
        place = f"{section}.{name}"
        held = OmegaConf.select(config, place, throw_on_missing=False)
        if isinstance(held, DictConfig) and held and isinstance(value, Mapping):
            with_values(config, place, value)
            continue
        try:
            _set(config, known, place, value)
        except OmegaConfBaseException as error:
            raise one_line(error) from error


def _set(config: DictConfig, known: Sequence[str], name: str, value: Any) -> None:
    if name not in known:
        raise ConfigError(f"there is no option {name}{_close(name, known)}")
    held = OmegaConf.select(config, name)
    if isinstance(held, DictConfig) and not isinstance(value, Mapping):
        options = ", ".join(map(str, held))
        raise ConfigError(f"{name}={as_text(value)}: {name} has options of its own: {options}")
    OmegaConf.update(config, name, value)


def one_line(
    error: BaseException, overrides: Sequence[str] = (), command: str = "train"
) -> RecsysError:
    """A user's mistake as one line that names the option and what to do."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RecsysError):
            return cause
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _no_such_choice(cause.missing_cfg_file, cause.options or ())
        if isinstance(cause, OverrideParseException):
            return _unreadable(cause.override)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError):
        return RecsysError(of_the_system(error))
    if isinstance(error, RecursionError):
        return ConfigError("a choice of the overrides brings itself along; leave the last one out")
    if isinstance(error, InterpolationKeyError):
        wanted = re.findall("'([^']+)'", str(error))[0]
        other = "; choose another task" if wanted.startswith("task.") else ""
        return ConfigError(f"{error.full_key} is {wanted}, which this run has not{other}")
    said = str(error)
    if said.startswith("Error merging override"):
        said = f"{said.removeprefix('Error merging override ')}: {error.__cause__}"
    text = " ".join(said.partition("    full_key:")[0].split())
    for pattern, reply in REPLIES.items():
        if match := re.search(pattern, text):
            return ConfigError(reply(Given(overrides, command), *match.groups()))
    return ConfigError(text)


def _no_such_choice(file: str, known: Sequence[str]) -> ConfigError:
    group, _, name = file.rpartition("/") if file.startswith("hydra/") else file.partition("/")
    return ConfigError(f"{group}={name} does not exist{nearest(name, names(group) or known)}")


def _unreadable(override: str) -> ConfigError:
    """What to do about an override that Hydra's grammar does not read."""
    name, equals, value = override.partition("=")
    if not equals:
        groups = [group for group in GROUPS if override in names(group)]
        meant = f"; did you mean {groups[0]}={override}?" if groups else ""
        return ConfigError(f"{override} is no OPTION=VALUE{meant}")
    quoted = argument(name, value)
    try:
        OverridesParser.create().parse_overrides(shlex.split(quoted))
    except HydraException:
        return ConfigError(f"{override} cannot be read as OPTION=VALUE; {name} is no option's name")
    return ConfigError(f"{override} cannot be read; if the value is text, quote it: {quoted}")


class Given(NamedTuple):
    """What was typed: overrides of a command's config."""

    overrides: Sequence[str]
    command: str


def _no_such_option(given: Given, option: str) -> str:
    """The options that a run with the other overrides has, nearest first."""
    if option in GROUPS:
        return f"{option} is chosen by name, {option}=NAME{nearest('', names(option))}"
    if option.partition("@")[0] in GROUPS:
        return f"{option} is no choice of this run's; add it with a plus, +{option}=NAME"
    others = [override for override in given.overrides if not override.startswith(option)]
    try:
        config = OmegaConf.to_container(compose(others, given.command))
    except RecsysError:  # there is more than one mistake: say the first
        config = {}
    known = dict(_entries(config))
    if option in known or known.get(option.rpartition(".")[0]) == {}:
        return f"{option} has entries by name; a new one takes a plus, +{option}=VALUE"
    return f"there is no option {option}{_close(option, list(known))}"


def _close(option: str, known: Sequence[str]) -> str:
    close = nearest(option, known)
    return close if "did you mean" in close else "; `recsys train … --cfg job` shows them all"


def _several_values(_: Given, option: str, value: str) -> str:
    text = argument(option, value)
    if option in GROUPS:
        return f"{option}={value} is several; for a run with each of them add --multirun"
    return (
        f"{option}={value} is several values; for a run with each add --multirun, "
        f"for a list write '{option}=[{value}]', for text with commas {text}"
    )


REPLIES: dict[str, Callable[..., str]] = {
    r"Could not override '([^']+)'": _no_such_option,
    r"Ambiguous value for argument '([^=]+)=(.*?)' 1\.": _several_values,
    r"^([^=]+)=.*: Cannot merge DictConfig with ListConfig": lambda _, option: (
        f"{option}: expected a list, {option}=[…]"
    ),
    r"^(\S+) appears more than once": lambda _, group: (
        f"+{group}: there is one already; write {group}="
    ),
    r"An item is already at '([^']+)'": lambda _, option: (
        f"+{option}: it is there already; write {option}="
    ),
}
"""What is said for Hydra's own words."""


def _entries(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option and section by its name with dots."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{prefix}{key}", value
            yield from _entries(value, f"{prefix}{key}.")
