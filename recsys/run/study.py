"""Trials in a file of SQLite, by Optuna: what is tried next, and what was reached.

A trial's options are a function of the seed and of the trials that ended before it. So a search
that was killed and started again tries what it would have tried: a trial that had not ended counts
for nothing, and comes again. The file holds numbers and JSON; nothing of it is called.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, Literal, get_args

from recsys.errors import ConfigError, RecsysError
from recsys.memory import refused
from recsys.reading import reading
from recsys.run.spaces import Options, Space
from recsys.training.callbacks import epoch_seed

NAME = "search"
State = Literal["complete", "pruned", "failed"]
Watch = Callable[[int, float], None]
"""Is told an epoch and its figure; raises `Pruned` where the trial is to end."""
Objective = Callable[[Options, Watch], float]


class Pruned(Exception):
    """A trial that need not go on."""


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        number: from 0, the defaults.
        state: how it ended; one that was pruned has its best epoch until then as its value.
        value: the figure that it reached, more is better; None where it failed.
        options: what was tried.
        seconds: that it took.
        epochs: evaluations while it was trained; 0 in closed form.
        error: why it failed.
    """

    number: int
    state: State
    value: float | None
    options: Options
    seconds: float
    epochs: int
    error: str | None = None


class Study:
    """The trials of a search.

    Args:
        path: of the file, which is made where there is none.
        spaces: what may be tried, by option.
        seed: of what is tried.
        prune_after: epochs of a trial after which it may be pruned; None: it never is.

    Raises:
        ConfigError: Optuna is not installed.
        RunError: the file is none of a search.
    """

    def __init__(
        self, path: Path, spaces: Mapping[str, Space], *, seed: int, prune_after: int | None = 10
    ) -> None:
        self._optuna = optuna = _optuna()
        self._path, self._spaces, self._seed = path, spaces, seed
        self._prune_after = prune_after
        self._distributions = {name: self._distribution(of) for name, of in spaces.items()}
        with reading(path, remedy="remove it to begin the search again"):
            self._storage = optuna.storages.RDBStorage(
                "sqlite://", {"creator": lambda: sqlite3.connect(path)}
            )
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=NAME,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=5, n_warmup_steps=self._prune_after or 0
                ),
            )
            self._drop_unfinished()
            self.trials = self._ended()

    def _distribution(self, space: Space) -> Any:
        kinds = self._optuna.distributions
        match space.kind:
            case "float":
                return kinds.FloatDistribution(*space.values, log=space.log)
            case "int":
                return kinds.IntDistribution(*space.values, log=space.log)
            case "choice":
                return kinds.CategoricalDistribution(space.values)

    def _drop_unfinished(self) -> None:
        """Trials that a killed search was at."""
        fail = self._optuna.trial.TrialState.FAIL
        for trial in self._study.get_trials(deepcopy=False):
            if not trial.state.is_finished():
                self._study.tell(trial.number, state=fail)

    def _ended(self) -> list[Trial]:
        """What the file says; a trial that did not end by itself has no state here."""
        trials: list[Trial] = []
        for trial in self._study.get_trials(deepcopy=False):
            if (said := trial.user_attrs.get("ended")) is None:
                continue
            ended = Trial(number=len(trials), **said)
            if ended.options.keys() != self._spaces.keys() or ended.state not in get_args(State):
                raise ValueError(f"trial {ended.number} is of other options")
            trials.append(ended)
        return trials

    def run(self, objective: Objective) -> Trial:
        """Run the next trial; the first one has the defaults.

        Args:
            objective: takes options, tells its watch of epochs, and returns what it reached.

        Raises:
            ConfigError: the defaults themselves are refused.
        """
        number = len(self.trials)
        if number == 0:
            ended = self._run_defaults(objective)
        else:
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=epoch_seed(self._seed, number)
            )
            ended = self._run_suggested(number, objective)
        self.trials.append(ended)
        return ended

    def _run_defaults(self, objective: Objective) -> Trial:
        """Optuna is told the nearest value of each range, of which the default may be no part."""
        reports: dict[int, float] = {}
        options = {name: space.default for name, space in self._spaces.items()}
        ended = _ended_trial(0, options, objective, reports, reports.__setitem__)
        nearest = {name: space.nearest() for name, space in self._spaces.items()}
        known = {n: v for n, v in nearest.items() if v is not None or n not in self._ranges()}
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=self._state(ended),
                value=ended.value,
                params=known,
                distributions={name: self._distributions[name] for name in known},
                user_attrs={"ended": _said(ended)},
                intermediate_values=reports,
            )
        )
        return ended

    def _ranges(self) -> set[str]:
        return {name for name, space in self._spaces.items() if space.kind != "choice"}

    def _run_suggested(self, number: int, objective: Objective) -> Trial:
        trial = self._study.ask(self._distributions)
        reports: dict[int, float] = {}

        def watch(epoch: int, value: float) -> None:
            reports[epoch] = value
            trial.report(value, epoch)
            if self._prune_after is not None and trial.should_prune():
                raise Pruned

        options = {name: self._spaces[name].rounded(v) for name, v in trial.params.items()}
        ended = _ended_trial(number, options, objective, reports, watch)
        trial.set_user_attr("ended", _said(ended))
        is_whole = ended.state == "complete"
        self._study.tell(trial, ended.value if is_whole else None, state=self._state(ended))
        return ended

    def _state(self, ended: Trial) -> Any:
        states = self._optuna.trial.TrialState
        return {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[
            ended.state
        ]

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def importances(self) -> dict[str, float]:
        """Of each option, the share of the variance between trials that is its own (fANOVA).

        Nothing where fewer than ten trials were completed, or all reached the same.
        """
        values = {t.value for t in self.trials if t.state == "complete"}
        if len(values) < 10:
            return {}
        evaluator = self._optuna.importance.FanovaImportanceEvaluator(seed=self._seed)
        shares = self._optuna.importance.get_param_importances(
            self._study, evaluator=evaluator, params=list(self._spaces)
        )
        return {name: float(shares.get(name, 0.0)) for name in self._spaces}


def best_of(trials: list[Trial]) -> Trial:
    """The completed trial with the highest value, the first of equals.

    Raises:
        ConfigError: none was completed.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        failed = next((trial.error for trial in trials if trial.error), "none was completed")
        raise ConfigError(f"no trial of {len(trials)} reached anything: {failed}")
    return max(complete, key=lambda trial: trial.value or -math.inf)


def _ended_trial(
    number: int, options: Options, objective: Objective, reports: dict[int, float], watch: Watch
) -> Trial:
    """Run a trial; what a user can cause ends it alone."""
    begun = perf_counter()
    state: State = "complete"
    value: float | None = None
    error = None
    try:
        value = objective(options, watch)
        if not math.isfinite(value):
            value, state, error = None, "failed", "the metric is undefined"
    except Pruned:
        state, value = "pruned", max(reports.values(), default=None)
    except RecsysError as mistake:
        if number == 0 and isinstance(mistake, ConfigError):
            raise
        state, error = "failed", str(mistake)
    except (RuntimeError, MemoryError) as mistake:
        if (wanted := refused(mistake)) is None:
            raise
        state, error = "failed", f"out of memory: {wanted}"
    seconds = round(perf_counter() - begun, 3)
    return Trial(number, state, value, options, seconds, len(reports), error)


def _said(trial: Trial) -> dict[str, Any]:
    return {name: value for name, value in vars(trial).items() if name != "number"}


def _optuna() -> ModuleType:
    """The package, which only a search needs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "optuna is not installed; install it with `pip install recsys[search]`"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
