"""The kinds of task: which models each of them takes, and which commands read its runs.

A config is of the first kind whose section it or its `task` has. A model of another kind is refused
before anything else is looked at, since what it lacks or has too much would be blamed instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recsys import conf, ranks
from recsys.errors import ConfigError, RunError
from recsys.reading import read_config
from recsys.scoring.forecaster import Forecaster
from recsys.scoring.kinds import check_by_rank
from recsys.scoring.predictor import Predictor
from recsys.scoring.scorer import Scorer
from recsys.scoring.survival import SurvivalPredictor


@dataclass(frozen=True)
class TaskKind:
    """A kind of task.

    Attributes:
        section: of a config's `task`, or of the config, by which the kind is known.
        model: what its models are.
        does: what they do, in words.
        example: how such a task is chosen.
        remedy: what there is to do with a finished run, `{run}`.
        commands: that read its runs, beside `compare`.
    """

    section: str
    model: type
    does: str
    example: str
    remedy: str
    commands: tuple[str, ...] = ()


FORECASTS = TaskKind(
    "origins",
    Forecaster,
    "forecasts series",
    "task=sales_forecast",
    "its figures are in {run}/metrics.json, and its forecasts in {run}/forecasts.parquet",
)
RETURN_TIMES = TaskKind(
    "returns",
    SurvivalPredictor,
    "predicts return times",
    "task=return_time",
    "recsys return-times {run} says when users will be back",
    ("return-times",),
)
LABELS = TaskKind(
    "labels",
    Predictor,
    "predicts labels",
    "task=lapse",
    "its figures are in {run}/metrics.json, and its predictions in {run}/tables/",
)
LISTS = TaskKind(
    "split",
    Scorer,
    "recommends items",
    "task=next_item",
    "recsys recommend {run} --users ID gives its lists",
    (
        "evaluate",
        "recommend",
        "similar",
        "score",
        "explain",
        "calibrate",
        "refit",
        "vectors",
        "export",
        "profile",
        "retention",
        "synthesise",
    ),
)
ALIGNMENT = TaskKind(
    "feedback",
    Scorer,
    "recommends items as feedback taught it",
    "task=align",
    LISTS.remedy,
    tuple(command for command in LISTS.commands if command not in ("calibrate", "refit")),
)
TRANSFER = TaskKind(
    "transfer",
    Scorer,
    "compares domains and keeps no model",
    "recsys transfer",
    "train the one that you want with recsys train",
)
SEARCH = TaskKind(
    "search",
    Scorer,
    "searches settings",
    "recsys search",
    "the run of the chosen setting is in {run}/best",
)
ROLLING = TaskKind(
    "moments",
    Scorer,
    "evaluates a model at several moments",
    "task=rolling",
    "each window is a run of its own, in {run}/windows",
)
ALL = (SEARCH, TRANSFER, ROLLING, FORECASTS, RETURN_TIMES, LABELS, ALIGNMENT, LISTS)


def kind_of(config: Mapping[str, Any]) -> TaskKind:
    """The kind of a config's task; of lists, where none can be told."""
    return _known(config) or LISTS


def _known(config: Mapping[str, Any]) -> TaskKind | None:
    task = config.get("task")
    sections = {*config, *(task if isinstance(task, Mapping | DictConfig) else ())}
    return next((kind for kind in ALL if kind.section in sections), None)


def kind_of_run(run: Path) -> TaskKind | None:
    """The kind of a run's folder, of one of its baselines or members; None where it cannot be told.

    Raises:
        RunError: its config is damaged.
    """
    folder = folder_with_config(run)
    if folder is None:
        return None
    return _known(read_config(folder))


def folder_with_config(run: Path) -> Path | None:
    """The folder that says what a run is; that of a baseline or a member is its run's."""
    place = run
    while not (place / "config.yaml").is_file() and place.parent.name in ("baselines", "members"):
        place = place.parent.parent
    return place if (place / "config.yaml").is_file() else None


def check_command(run: Path, command: str) -> None:
    """Refuse a run of a kind that a command does not read.

    Raises:
        RunError: it names the command or the files that there are for the run.
    """
    kind = kind_of_run(run)
    if kind is None or command in kind.commands:
        return
    fit = " or ".join(other.example for other in ALL if command in other.commands)
    remedy = kind.remedy.format(run=folder_with_config(run))
    if command == "profile" and (run / "pretraining" / "model").is_dir():
        remedy = f"recsys profile {run / 'pretraining'} writes the vectors that it reads"
    raise RunError(
        f"{run} {kind.does}, and recsys {command} is for runs such as of {fit}; {remedy}"
    )


def check_models(config: DictConfig, kind: TaskKind) -> None:
    """Refuse models and baselines of another kind.

    Args:
        config: composed; what is not set or refers to what is not there is left for later.
        kind: of its task.

    Raises:
        ConfigError: it names the model, what it does, and the models that there are for the task;
            or the model reads all users at once, of which ranks read some each.
    """
    by_rank = ranks.world() > 1 and OmegaConf.select(config, "data.by_rank") is True
    for place, target in _targets(config):
        made = _class_of(target)
        if made is not None and by_rank:
            check_by_rank(made)
        if made is None or issubclass(made, kind.model):
            continue
        other = next((of for of in reversed(ALL) if issubclass(made, of.model)), None)
        does = other.does if other else "is no model"
        elsewhere = f", or a task such as {other.example}" if other else ""
        raise ConfigError(
            f"{_chosen(place, target)}: {made.__name__} {does}, and this task takes what "
            f"{kind.does}; choose {place}={', '.join(_names(kind))}{elsewhere}"
        )


def _targets(config: DictConfig) -> Iterator[tuple[str, str]]:
    """The models of a config by the names of their options, and what they are made from."""
    values = OmegaConf.to_container(OmegaConf.masked_copy(config, ["model", "baselines"]))
    assert isinstance(values, dict)
    baselines = values.get("baselines")
    models = {"model": values.get("model")}
    if isinstance(baselines, dict):
        models |= {f"baselines.{name}": options for name, options in baselines.items()}
    for place, options in models.items():
        if not isinstance(options, dict):
            continue
        if "_target_" in options:
            yield place, str(options["_target_"])
            continue
        for name, inner in options.items():  # a predictor for each table of labels
            if isinstance(inner, dict) and "_target_" in inner:
                yield f"{place}.{name}", str(inner["_target_"])


def _class_of(target: str) -> type | None:
    """The class of a name; None where it is none, of which others tell."""
    try:
        made = resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return None
    return made if isinstance(made, type) else None


def _zoo() -> Iterator[tuple[str, str]]:
    """The names of the zoo's models, and what they are made from."""
    for path in sorted((Path(conf.__path__[0]) / "model").glob("*.yaml")):
        yield path.stem, str(OmegaConf.select(OmegaConf.load(path), "_target_"))


def _names(kind: TaskKind) -> list[str]:
    classes = {name: _class_of(target) for name, target in _zoo()}
    return [name for name, made in classes.items() if made and issubclass(made, kind.model)]


def _chosen(place: str, target: str) -> str:
    """An option of a model as it was chosen: by its name in the zoo, if it has one."""
    name = next((name for name, other in _zoo() if other == target), None)
    return f"{place}={name}" if name else f"{place}._target_={target}"
