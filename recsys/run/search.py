"""Settings by trials on the validation users: `recsys search`, by Optuna.

A log is read and divided once, and every trial of every model fits on the same split. What is
tried is `conf/search/MODEL.yaml` and what the command adds; the first trial is the options as they
are. Each trial is judged by `trainer.monitor` of the validation users: in training by its best
epoch, and one whose epochs are below the median of those before it is ended. The test users are
asked at the end, once, for the best trial's setting alone.

The budget, trials or their seconds, is that of each model. A search that was killed goes on with
the trials that have ended; one that is started again with a larger budget adds trials, and asks the
test users again where another setting is then the best.

A search's folder holds

    config.yaml, log.json        the composed config without the budget, and of which log it is
    study.db                     Optuna's SQLite: every trial, while the search goes on
    trials.parquet               a row per trial: its state, figure, seconds, and options
    best.yaml                    overrides for `recsys train`, the chosen options among them
    best/                        the run of the chosen setting, as `recsys train` leaves it
    search.json                  the figures and options of the defaults and the best, importances
    metrics.json, intervals.json of the run in `best/`
    report.html

and one of several models a folder of this kind for each, `compared.parquet` with their paired
differences on the test users, and a page of all.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import polars as pl
import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning import seed_everything
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from recsys.errors import ConfigError
from recsys.evaluation import statistics
from recsys.evaluation.figures import read_figures, write_figures
from recsys.files import write_parquet, write_text
from recsys.ranges import above, at_least
from recsys.reading import read_json, read_table
from recsys.report import search_page, search_tables, tables
from recsys.report.screen import console, literal, say, show
from recsys.run.config import Sizes, completed, plain, sized
from recsys.run.folder import about, at_work, claim, note_end
from recsys.run.options import as_text, check_options
from recsys.run.ranking import KINDS as OF_A_RANKING
from recsys.run.ranking import Task, evaluate_part, finished, prepare
from recsys.run.spaces import Options, Space, spaces_of, with_options
from recsys.run.study import Objective, Pruned, Study, Trial, Watch, best_of
from recsys.run.task_kinds import LISTS, SEARCH, check_models, kind_of
from recsys.scoring import saved_model, trust
from recsys.training.callbacks import check_monitor, monitored
from recsys.training.loop import fit

logger = logging.getLogger(__name__)
TRIALS = 40
"""Of each model, where nothing else is given."""
BUDGET = {"n_trials": int | None, "seconds": float | None, "models": Sequence[str] | None}
KINDS = (
    OF_A_RANKING | BUDGET | {"search.prune_after": int | None, "search.space": Mapping[str, Any]}
)


@dataclass(frozen=True)
class Entrant:
    """A model to search for.

    Attributes:
        name: of the model or the experiment.
        config: composed.
        overrides: what `recsys train` takes for the same config.
    """

    name: str
    config: DictConfig
    overrides: Sequence[str]


@dataclass(frozen=True)
class Budget:
    """How much is tried of each model.

    Attributes:
        n_trials: so many; None is no bound.
        seconds: of trials, after which none begins; None is no bound.

    Raises:
        ConfigError: less than one trial, or no time.
    """

    n_trials: int | None
    seconds: float | None

    def __post_init__(self) -> None:
        at_least(1, n_trials=self.n_trials)
        above(0, seconds=self.seconds)

    @classmethod
    def of(cls, config: DictConfig) -> Budget:
        """A config's; forty trials where it names none."""
        n_trials = config.n_trials
        if n_trials is None and config.seconds is None:
            n_trials = TRIALS
        return cls(n_trials, config.seconds)

    def share(self, trials: Sequence[Trial]) -> float:
        """What trials have used up of it, from 1 on all."""
        if not trials:
            return 0.0
        of_trials = len(trials) / self.n_trials if self.n_trials else 0.0
        of_time = _seconds(trials) / self.seconds if self.seconds else 0.0
        return max(of_trials, of_time)

    def left(self, trials: Sequence[Trial]) -> float | None:
        """Seconds that a trial may take; the first one takes what it needs."""
        if self.seconds is None or not trials:
            return None
        return self.seconds - _seconds(trials)


def run(config: DictConfig, folder: Path, entrants: Sequence[Entrant]) -> dict[str, Any]:
    """Search the settings of one or several models, and write what was reached to `folder`.

    Args:
        config: of the command.
        folder: of the search.
        entrants: the models; several have folders of their own in it.

    Returns:
        What `search.json` holds, by model.

    Raises:
        ConfigError: an option that is not what is expected, models of several logs or tasks, …
        RunError: another process is at work in the folder.
    """
    for entrant in entrants:
        _check_kind(entrant.config)
    with at_work(config, folder, SEARCH, KINDS):
        budget = Budget.of(config)
        at_least(1, prune_after=config.search.prune_after)
        spaces = [_checked(entrant, entrants[0]) for entrant in entrants]
        task = prepare(entrants[0].config)
        say(tables.describe(task.split, task.protocol))
        if len(entrants) == 1 and config.models is None:
            _search(entrants[0], spaces[0], task, budget, folder)
            places = {entrants[0].name: folder}
        else:
            # Who is compared with whom, and by which seed.
            claim(folder, _without_budget(config, models=config.models), about(task.split.log))
            places = {entrant.name: folder / _as_path(entrant.name) for entrant in entrants}
            for entrant, of_entrant in zip(entrants, spaces, strict=True):
                _search(entrant, of_entrant, task, budget, places[entrant.name])
            _compare(places, task, folder)
        _show(places, task, folder)
        say(f"search folder: {folder}")
        return {name: read_json(place / "search.json") for name, place in places.items()}


def _as_path(name: str) -> str:
    return name.replace("/", "_")


def _check_kind(config: DictConfig) -> None:
    """Refuse a task that ranks nothing.

    Raises:
        ConfigError: it names those that do.
    """
    without_search = OmegaConf.masked_copy(config, [str(n) for n in config if n != "search"])
    if kind_of(without_search) is not LISTS:
        raise ConfigError(
            "recsys search tries what recommends items; choose task=next_item, next_basket or "
            "another with a split (forecasts have trials of their own, task.trials)"
        )


def _checked(entrant: Entrant, first: Entrant) -> dict[str, Space]:
    """What is tried of a model, after its options have been checked.

    Raises:
        ConfigError: another log, task or metric than the first one's, or a space of what does not
            exist.
    """
    config = entrant.config
    check_models(config, LISTS)
    spaces = spaces_of(config, KINDS)
    for name in ("data", "task", "retrieval", "seed"):
        if config[name] != first.config[name]:
            raise ConfigError(
                f"models={first.name} and {entrant.name} differ in {name}, which has to be the "
                f"same for both; give {name} in the command"
            )
    if config.trainer.monitor != first.config.trainer.monitor:
        raise ConfigError(
            f"models={first.name} and {entrant.name} differ in trainer.monitor; give one"
        )
    return spaces


def _without_budget(config: DictConfig, **values: Any) -> DictConfig:
    """What a search's folder says of it: the budget may grow."""
    return completed(config, **(dict.fromkeys(BUDGET) | values))


def _search(
    entrant: Entrant, spaces: dict[str, Space], task: Task, budget: Budget, folder: Path
) -> None:
    """Try settings of a model until the budget is used up, and run the best."""
    config = sized(entrant.config, Sizes.of(task.split))
    claim(folder, _without_budget(config), about(task.split.log))
    study = Study(
        folder / "study.db", spaces, seed=config.seed, prune_after=config.search.prune_after
    )
    with closing(study):
        _try(entrant.name, study, config, task, budget, folder / "trial")
        importances = study.importances()
    best = best_of(study.trials)
    write_parquet(folder / "trials.parquet", _table(study.trials, spaces))
    overrides = [*entrant.overrides, *(_override(n, v) for n, v in best.options.items())]
    command = f"recsys train {shlex.join(overrides)}"
    comment = f"# {command}\n# validation {config.trainer.monitor} {best.value:.6g}\n"
    write_text(folder / "best.yaml", comment + yaml.safe_dump(overrides, allow_unicode=True))
    _run_best(with_options(config, best.options), task, folder / "best")
    first = study.trials[0]
    summary = {
        "model": entrant.name,
        "monitor": config.trainer.monitor,
        "trials": len(study.trials),
        "states": {s: sum(t.state == s for t in study.trials) for s in ("pruned", "failed")},
        "seconds": round(_seconds(study.trials), 1),
        "defaults": {"value": first.value, "options": first.options},
        "best": {"trial": best.number, "value": best.value, "options": best.options},
        "spaces": {name: space.words() for name, space in spaces.items()},
        "importances": importances,
        "command": command,
    }
    write_text(folder / "search.json", json.dumps(summary, indent=2))
    write_figures(folder, *read_figures(folder / "best"))
    note_end(folder)
    search_page.write(folder)


def _try(
    name: str, study: Study, config: DictConfig, task: Task, budget: Budget, scratch: Path
) -> None:
    """Run trials until the budget is used up, with a bar where there is a terminal.

    A trial's checkpoints are in `scratch` while it is trained.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        line = bar.add_task(literal(name).plain, total=1.0, words="")
        while (share := budget.share(study.trials)) < 1:
            bar.update(line, completed=share, words=_words(study.trials, config.trainer.monitor))
            seconds = budget.left(study.trials)
            trial = study.run(_objective(study.trials, config, task, seconds, scratch))
            logger.info("%s: %s", name, search_tables.line(trial))


def _words(trials: Sequence[Trial], monitor: str) -> str:
    words = f"trial {len(trials)}"
    with suppress(ConfigError):
        words += f", {monitor} {best_of(list(trials)).value:.4f}"
    return words


def _objective(
    trials: Sequence[Trial], config: DictConfig, task: Task, seconds: float | None, scratch: Path
) -> Objective:
    """What a trial reaches on the validation users.

    Args:
        trials: a setting that they have completed is not fitted again.
        config: of the run.
        task: whose validation users are asked.
        seconds: after which a training is ended.
        scratch: a folder for its checkpoints.
    """
    values = {_key(t.options): t.value for t in trials if t.state == "complete"}
    begun = perf_counter()

    def objective(options: Options, watch: Watch) -> float:
        if (value := values.get(_key(options))) is not None:
            return value
        reports: list[float] = []

        def on_evaluation(epoch: int, value: float) -> None:
            reports.append(value)
            watch(epoch, value)
            if seconds is not None and perf_counter() - begun > seconds:
                raise Pruned

        changed = with_options(config, options)
        check_options(plain(changed), KINDS)
        monitor = changed.trainer.monitor
        # Each model starts from the seed, whatever was fitted before it.
        seed_everything(changed.seed, verbose=False)
        model = saved_model.build(plain(changed.model))
        check_monitor(model, monitor, task.protocol)
        training = trust.build(plain(changed.trainer))
        shutil.rmtree(scratch, ignore_errors=True)  # of a trial that was killed
        try:
            parts = (model, task.split, training, task.protocol)
            fit(*parts, folder=scratch, on_evaluation=on_evaluation)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if reports:
            return max(reports)
        return monitored(
            evaluate_part(model, task.split.validation, task).means, monitor, task.protocol
        )

    return objective


def _key(options: Options) -> str:
    return json.dumps(options, sort_keys=True)


def _seconds(trials: Sequence[Trial]) -> float:
    return sum(trial.seconds for trial in trials)


def _override(name: str, value: Any) -> str:
    """An option as Hydra reads it."""
    return f"{name}={json.dumps(value)}" if isinstance(value, str) else f"{name}={as_text(value)}"


def _table(trials: Sequence[Trial], spaces: Mapping[str, Space]) -> pl.DataFrame:
    """A row per trial; what is a choice is text."""
    dtypes = {"float": pl.Float64, "int": pl.Int64, "choice": pl.String}
    schema = {
        "trial": pl.Int64,
        "state": pl.String,
        "value": pl.Float64,
        "seconds": pl.Float64,
        "epochs": pl.Int64,
        "error": pl.String,
    } | {name: dtypes[space.kind] for name, space in spaces.items()}
    rows = [
        [t.number, t.state, t.value, t.seconds, t.epochs, t.error]
        + [as_text(v) if spaces[n].kind == "choice" else v for n, v in t.options.items()]
        for t in trials
    ]
    return pl.DataFrame(rows, schema, orient="row")


def _run_best(config: DictConfig, task: Task, folder: Path) -> None:
    """The run of the chosen setting; that of another, chosen before, is removed."""
    config = completed(config, baselines={})
    with open_dict(config):
        for name in (*BUDGET, "search"):
            config.pop(name)
    log = about(task.split.log)
    try:
        claim(folder, config, log)
    except ConfigError:
        shutil.rmtree(folder)
        claim(folder, config, log)
    if not (folder / "report.html").is_file():
        finished(task, config, folder)


def _compare(places: Mapping[str, Path], task: Task, folder: Path) -> None:
    """Paired differences on the test users to the model that is the best on the validation's."""
    summaries = {name: read_json(place / "search.json") for name, place in places.items()}
    first = max(summaries, key=lambda name: summaries[name]["best"]["value"])
    metric = search_tables.shown(summaries[first]["monitor"], task.protocol)
    frames = {name: _per_user(place) for name, place in places.items()}
    rows = [
        statistics.compare(frames[first], frames[name], names=[metric]).with_columns(
            model=pl.lit(name), against=pl.lit(first)
        )
        for name in places
        if name != first
    ]
    if rows:
        write_parquet(folder / "compared.parquet", statistics.with_holm(pl.concat(rows)))
    figures = [read_figures(place) for place in places.values()]
    means, intervals = (
        {name: of[n] for name, of in zip(places, figures, strict=True)} for n in range(2)
    )
    write_figures(folder, means, intervals)
    note_end(folder)
    search_page.write_of_several(folder, {name: place.name for name, place in places.items()})


def _per_user(place: Path) -> pl.DataFrame:
    frame = read_table(place / "best" / "per_user.parquet", "part", "user_id")
    return frame.filter(part="test").drop("part")


def _show(places: Mapping[str, Path], task: Task, folder: Path) -> None:
    """The chosen settings, and what they reach."""
    summaries = {name: read_json(place / "search.json") for name, place in places.items()}
    figures = {name: read_figures(place) for name, place in places.items()}
    compared = folder / "compared.parquet"
    leads = read_table(compared) if compared.is_file() else None
    show(search_tables.settings(summaries))
    show(search_tables.reached(summaries, figures, leads, task.split.log.name, task.protocol))
    for summary in summaries.values():
        say(f"to train it again: {summary['command']}")
