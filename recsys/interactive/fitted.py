"""A model fitted on a frame or a log, and what one does with it.

model = recsys.fit(frame, "sasrec", embedding_dim=32)
model.evaluate()
model.recommend(["ann"], k=5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pytorch_lightning import seed_everything

from recsys.batch.examples import Part
from recsys.devices import running_on
from recsys.errors import ConfigError, RunError
from recsys.evaluation.ranking import Evaluation
from recsys.interactive.plan import Data, Plan, Settings
from recsys.run.calibrating import calibration_of
from recsys.run.ranking import Task, evaluate_part
from recsys.run.refitting import refitted
from recsys.scoring import saved_model
from recsys.scoring.scorer import Scorer
from recsys.scoring.trained_model import SavedModel
from recsys.tasks.splits import whole
from recsys.training import loop


@dataclass(frozen=True, eq=False, repr=False)
class FittedModel(SavedModel):
    """A fitted model, which recommends, is evaluated, and saved.

    Attributes:
        task: the split that it was fitted on, and how it is evaluated.
        plan: what was fitted, and how.
        config: from which the model is built again; None: of its own options.
        epochs: how many the best one came after, of a model with a loss.
    """

    task: Task
    plan: Plan
    config: dict[str, Any] | None
    epochs: int | None

    def evaluate(self, part: Literal["validation", "test"] = "test") -> Evaluation:
        """What it reaches on the validation or the test users of its split.

        Raises:
            ConfigError: there are none: it was refitted on the whole log; or another part.
        """
        if part not in ("validation", "test"):
            raise ConfigError(f"part={part!r}; choose among validation, test")
        return evaluate_part(self.model, self._check_part(part), self.task)

    def _check_part(self, part: Literal["validation", "test"]) -> Part:
        users = self.task.split.test if part == "test" else self.task.split.validation
        if not len(users):
            raise ConfigError(
                f"{self.plan.name} has learnt from the whole log, and has no {part} users; "
                "ask the model that it was refitted from"
            )
        return users

    def calibrate(self) -> Self:
        """The same model, which says how likely items are: by the validation users of its split.

        Raises:
            ConfigError: there are none: it was refitted on the whole log.
            DataError: none of them has a target.

        >>> model = recsys.fit(checkerboard(), "ease", task="next_basket", ks=[10]).calibrate()
        >>> model.recommend(7, k=2, probability=True)["probability"].round(1).to_list()
        [0.2, 0.2]
        """
        self._check_part("validation")
        masked, split = self.task.protocol.mask_history, self.task.split
        return replace(self, calibration=calibration_of(self.model, split, mask_history=masked))

    def refit(self) -> FittedModel:
        """The same model for use, fitted on all events, those that were held out too.

        One that is trained takes as many epochs as its best one came after on the split. One that
        was calibrated keeps its calibration, with nobody left to fit another on.

        Raises:
            ConfigError: it is made of others that are trained.

        >>> model = recsys.fit(checkerboard(), "popularity", ks=[10])
        >>> int(model.model.popularity.sum()), int(model.refit().model.popularity.sum())
        (893, 1013)
        """
        split = whole(self.task.split)
        config = self.plan.model_config(split)
        with running_on(self.plan.config.device):
            model = refitted(
                lambda: saved_model.build(config),
                split,
                self.plan.training(split),
                self.task.protocol,
                lambda: self.epochs or 1,
                progress=self.plan.shows_progress,
            )
        task, table = replace(self.task, split=split), split.item_table
        return replace(self, model=model, task=task, config=config, item_table=table)

    def save(self, folder: str | Path) -> Path:
        """Write the model into a folder, whole or not at all.

        `recsys.load(folder)` reads it, as do `recsys recommend`, `similar` and `vectors`.

        Raises:
            RunError: the folder holds a run.
            ConfigError: the model was made with what no config can say.
        """
        folder = Path(folder)
        if (folder / "config.yaml").exists():
            raise RunError(f"{folder} holds a run, with a model of its own; name another folder")
        place, split = folder / "model", self.task.split
        saved_model.save(
            place,
            self.model,
            split,
            self.config,
            mask_history=self.mask_history,
            calibration=self.calibration,
        )
        return folder


def fit(
    data: Data,
    model: str | Scorer = "sasrec",
    *,
    task: str = "next_item",
    ks: int | Sequence[int] | None = None,
    mask_history: bool | None = None,
    trainer: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    overrides: Sequence[str] = (),
    progress: bool | None = None,
    **options: Any,
) -> FittedModel:
    """Fit a model on events, as `recsys train` does, and keep it in memory.

    Args:
        data: events as a frame of polars, pandas or Arrow with the columns `user_id`, `item_id` and
            `timestamp` (`EventLog.from_frames`), or as a log: they are split as the task says. Or a
            split, such as `recsys.tasks.global_time` makes.
        model: by its name in the zoo (`recsys models`), or an object, as `recsys.models.EASE()`,
            which is fitted itself.
        task: by name: `next_item`, `next_basket`, …
        ks: lengths of the evaluated lists; by default the task's.
        mask_history: whether lists leave out what users have had; by default as in the task.
        trainer: options of training, `{"max_epochs": 20}` (`recsys.training.TrainingOptions`).
        seed: of everything random.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        overrides: anything else, as `recsys train` takes it: `["+text@model.text=tfidf"]`.
        progress: whether to show bars; by default in a terminal and in a notebook.
        options: of the model, by the names in its YAML: `embedding_dim=32`,
            `encoder={"num_layers": 1}`.

    Raises:
        ConfigError: a model, task or option that there is not, or a value that it does not take.
        DataError: the events are no log, or cannot be split.

    >>> log = checkerboard()
    >>> model = recsys.fit(log, "ease", l2=10.0, task="next_basket", ks=[10])
    >>> round(model.evaluate().means["recall@10"], 2)
    0.61
    >>> model.recommend(7, k=2)["item_id"].to_list()
    [15, 33]
    """
    settings = Settings(task, ks, mask_history, trainer, seed, device, overrides, progress)
    plan = Plan.of(model, settings, options)
    return fitted(plan, plan.task(data))


def fitted(plan: Plan, task: Task) -> FittedModel:
    """Fit what is planned on a task."""
    split, training = task.split, plan.training(task.split)
    best: list[tuple[float, int]] = []

    def on_evaluation(epoch: int, value: float) -> None:
        if not best or value > best[-1][0]:
            best.append((value, epoch + 1))

    seed_everything(training.seed, verbose=False)
    config = None if plan.model is not None else plan.model_config(split)
    model = saved_model.build(config) if config is not None else plan.model
    assert model is not None
    with running_on(plan.config.device):
        loop.fit(
            model,
            split,
            training,
            task.protocol,
            progress=plan.shows_progress,
            on_evaluation=on_evaluation,
        )
    return FittedModel(
        model=model,
        item_table=split.item_table,
        users=split.users,
        histories=split.latest,
        mask_history=task.protocol.mask_history,
        task=task,
        plan=plan,
        config=config,
        epochs=best[-1][1] if best else None,
    )
