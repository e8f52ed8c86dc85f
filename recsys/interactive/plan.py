"""What is to be fitted, and how: the config of `recsys train`, with values of Python in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from omegaconf import DictConfig

from recsys.cli.compose import compose, with_values
from recsys.errors import ConfigError
from recsys.log.event_log import EventLog
from recsys.log.filters import filtered
from recsys.log.frames import AnyFrame
from recsys.report.screen import console
from recsys.run.config import Sizes, as_values, plain, sized
from recsys.run.options import check_options
from recsys.run.ranking import KINDS, OF_A_REPORT, OF_A_TASK, Task, protocol_of, task_of
from recsys.run.task_kinds import LISTS, check_models, kind_of
from recsys.scoring import trust
from recsys.scoring.made_of import config_of
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split
from recsys.training.options import TrainingOptions

Data: TypeAlias = AnyFrame | EventLog | Split
"""Events as a frame or a log, which are split as the task says; or a split."""


@dataclass(frozen=True)
class Settings:
    """How models are fitted and evaluated, as `recsys.fit` takes it."""

    task: str = "next_item"
    ks: int | Sequence[int] | None = None
    mask_history: bool | None = None
    trainer: Mapping[str, Any] | None = None
    seed: int = 0
    device: str = "auto"
    overrides: Sequence[str] = ()
    progress: bool | None = None

    @property
    def shows_progress(self) -> bool:
        """Whether there are bars: where nothing is said, in a terminal and in a notebook."""
        if self.progress is None:
            return console.is_terminal or console.is_jupyter
        return self.progress

    def config(self, model: str, options: Mapping[str, Any]) -> DictConfig:
        """The config of a run of a model of the zoo.

        Raises:
            ConfigError: an option that there is not, or a model or task that ranks no items.
        """
        config = compose(["data=table", f"task={self.task}", f"model={model}", *self.overrides])
        if kind_of(config) is not LISTS:
            raise ConfigError(
                f"task={self.task} {kind_of(config).does}; recsys train does that, and recsys.fit "
                f"takes tasks such as {LISTS.example}"
            )
        check_models(config, LISTS)
        if self.ks is not None:
            ks = [self.ks] if isinstance(self.ks, int) else list(self.ks)
            if not ks:
                raise ConfigError("ks=[]: expected distinct lengths from 1, as [10,20]")
            with_values(config, "task", {"ks": ks})
        if self.mask_history is not None:
            with_values(config, "task", {"mask_history": self.mask_history})
        with_values(config, "model", options)
        with_values(config, "trainer", {"monitor": _monitor(config), **(self.trainer or {})})
        config.seed, config.device = self.seed, self.device
        return config


def _monitor(config: DictConfig) -> str:
    """The trainer's, at the first length that there is if its own is none of them."""
    metric, at, k = str(config.trainer.monitor).partition("@")
    measured = [str(length) for length in config.task.ks]
    return f"{metric}@{measured[0]}" if at and k not in measured else f"{metric}{at}{k}"


@dataclass(frozen=True, eq=False)
class Plan:
    """A model that is to be fitted.

    Attributes:
        name: what tables call it.
        config: composed, without the sizes of a log.
        model: the object to fit; None: what the config makes.
        shows_progress: whether there are bars.
    """

    name: str
    config: DictConfig
    model: Scorer | None
    shows_progress: bool

    @classmethod
    def of(cls, model: str | Scorer, settings: Settings, options: Mapping[str, Any]) -> Plan:
        """By the name of a model in the zoo and its options, or of an object.

        Raises:
            ConfigError: there is no such model or option, or options beside an object.
        """
        if isinstance(model, Scorer):
            if options:
                raise ConfigError(
                    f"{next(iter(options))}: {type(model).__name__} is made already; give its "
                    "options to itself"
                )
            config = settings.config("popularity", {})
            return cls(type(model).__name__, config, model, settings.shows_progress)
        if not isinstance(model, str):
            raise ConfigError(
                f"model={model!r}: give a name in the zoo (`recsys models` lists them), or a "
                "model that ranks items, as recsys.models.EASE()"
            )
        return cls(model, settings.config(model, options), None, settings.shows_progress)

    def task(self, data: Data) -> Task:
        """The data split as the config's task says, and how models are evaluated on it."""
        config = self.config
        kinds = {n: kind for n, kind in (OF_A_TASK | OF_A_REPORT).items() if n != "data"}
        check_options(as_values(config, "task", "retrieval", "report"), kinds)
        split = data if isinstance(data, Split) else _split(data, config)
        task = task_of(split, protocol_of(plain(config.task)), plain(config.retrieval))
        return task.with_report(plain(config.report))

    def model_config(self, split: Split) -> dict[str, Any]:
        """From which the model is built, for a split; of an object by the options that it has.

        Raises:
            ConfigError: an option of another type, or an object with what no config can say.
        """
        if self.model is not None:
            return config_of(self.model)
        whole = sized(self.config, Sizes.of(split))
        values = as_values(whole, "model", "seed")  # which a model's own may be
        check_options({"model": values["model"]}, {"model": KINDS["model"]})
        return plain(whole.model)

    def training(self, split: Split) -> TrainingOptions:
        """How it is trained."""
        whole = sized(self.config, Sizes.of(split))
        kinds = {name: KINDS[name] for name in ("trainer", "seed", "device")}
        check_options(as_values(whole, "trainer", "seed", "device"), kinds)
        options: TrainingOptions = trust.build(plain(whole.trainer))
        return options


def _split(data: AnyFrame | EventLog, config: DictConfig) -> Split:
    log = data if isinstance(data, EventLog) else EventLog.from_frames(data)
    split: Split = trust.build(plain(config.task.split))(
        filtered(log, **plain(config.task.filters))
    )
    return split
