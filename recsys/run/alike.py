"""Whether two runs have the same task and the same log, so that their figures can be compared.

Models, their training and how they are searched may differ; the log, the split and what stays among
the candidates may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.errors import RunError
from recsys.reading import read_config, read_json, reading
from recsys.renamed import renamed_tables
from recsys.run.config import flat
from recsys.run.folder import OVERVIEW
from recsys.run.task_kinds import folder_with_config, kind_of_run

UNLIKE = "unlike_training"
"""A key of the `log.json` of `recsys evaluate`: how its log or split differs from training's."""
NOT_OF_THE_TASK = ("ks", "features")
"""Of the section `task`: lists are compared at the lengths that both have, features are models'."""


def check_alike(first: Path, second: Path) -> None:
    """Refuse to compare runs that were not evaluated alike.

    Args:
        first, second: folders of runs, of their baselines or members, or of `recsys evaluate`.

    Raises:
        RunError: their tasks are of different kinds, an option of them differs, or their logs do;
            or one does not say.
    """
    _check_kinds(first, second)
    (options, log), (others, other_log) = (_options_and_log(run) for run in (first, second))
    if log and other_log:  # then it does not matter where a log was read from
        options, others = options | {"log": log}, others | {"log": other_log}
        del options["data"], others["data"]
    one, other = dict(flat(options)), dict(flat(others))
    # The task before the log: filters change both.
    for name in sorted(one.keys() | other.keys(), key=lambda name: (name[:4] == "log.", name)):
        if one.get(name) != other.get(name) and not _is_of_one_alone(name, one, other):
            values = (str(options.get(name))[:200] for options in (one, other))
            raise RunError(
                f"{name} is {next(values)} in {first} and {next(values)} in {second}; compare "
                "runs of the same task on the same log"
            )


def _check_kinds(first: Path, second: Path) -> None:
    one, other = kind_of_run(first), kind_of_run(second)
    if one and other and one is not other:
        raise RunError(
            f"{first} {one.does} and {second} {other.does}; compare runs of the same task on the "
            "same log"
        )


def unlike_training(run: Path, task: Mapping[str, Any], log: Mapping[str, Any]) -> str | None:
    """How a log and its split differ from those that a run's model was trained on, in words.

    Args:
        run: the folder of a run.
        task: the section `task` of the config by which the log is divided.
        log: as `recsys.run.folder.about` says it.

    Returns:
        The first option or figure that differs; None where they are the same, or where the run
        does not say which log it was trained on.

    Raises:
        RunError: as `check_alike`.
    """
    options, training_log = _options_and_log(run)
    once, now = (
        dict(flat({f"task.{name}": section[name] for name in ("split", "filters")}))
        for section in (options["task"], task)
    )
    once |= {f"log.{name}": value for name, value in training_log.items()}
    now |= {f"log.{name}": log[name] for name in training_log if name in log}
    for name, value in now.items():
        if once.get(name) != value:
            letters = 12 if name == "log.sha256" else 60
            was, now_is = (str(figure)[:letters] for figure in (once.get(name), value))
            return f"{name} was {was} in training, and is {now_is}"
    return None


def _options_and_log(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's options of task and data, and its log; a baseline and a member have their run's."""
    if (place := folder_with_config(run)) is None:
        raise RunError(f"{run} is no run's folder: it has no config.yaml")
    log = renamed_tables(read_json(place / "log.json")) if (place / "log.json").exists() else {}
    config = read_config(place)
    with reading(place / "config.yaml"):
        task = {k: v for k, v in config["task"].items() if k not in NOT_OF_THE_TASK}
        options = {"task": task, "data": config["data"]}
        return options, {k: v for k, v in log.items() if k not in ("name", UNLIKE, OVERVIEW)}


def _is_of_one_alone(name: str, *runs: Mapping[str, Any]) -> bool:
    """Whether it belongs to a label table that one of the runs has not."""
    for opening in ("task.labels.", "log.labels/"):
        if name.startswith(opening):
            table = opening + name.removeprefix(opening).partition(".")[0]
            return any(not any(n == table or n.startswith(f"{table}.") for n in r) for r in runs)
    return False
