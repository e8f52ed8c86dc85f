"""Models, commands and comparisons that do not fit a kind of task: one line that says what does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from recsys.cli.names import CONF, names
from recsys.errors import ConfigError, RunError
from recsys.run.alike import check_alike
from recsys.run.task_kinds import (
    ALIGNMENT,
    ALL,
    FORECASTS,
    LABELS,
    LISTS,
    RETURN_TIMES,
    ROLLING,
    SEARCH,
    TRANSFER,
    TaskKind,
    check_command,
    check_models,
    kind_of,
)

Run = Callable[..., tuple[int, str, str]]
COMMANDS = ("evaluate", "recommend", "vectors", "profile", "return-times")
FITS = {FORECASTS: "deepar", RETURN_TIMES: "cox", LABELS: "lightgbm"}
FITS |= dict.fromkeys((TRANSFER, ROLLING, ALIGNMENT, LISTS, SEARCH), "ease")


def of_zoo(name: str) -> Any:
    """What a model's config says beside its choices."""
    return OmegaConf.load(CONF / "model" / f"{name}.yaml")


def config(**models: Any) -> DictConfig:
    return OmegaConf.create({"model": of_zoo("ease"), "baselines": {}, **models})


def folder(path: Path, kind: TaskKind) -> Path:
    """A folder whose config says that it holds a run."""
    path.mkdir()
    (path / "config.yaml").write_text(f"task: {{{kind.section}: {{}}}}\ndata: {{}}\n")
    return path


@pytest.mark.slow
def test_every_model_fits_one_kind_and_is_refused_by_the_others() -> None:
    for name in names("model"):
        refused = {}
        for kind in ALL:
            try:
                check_models(config(model=of_zoo(name)), kind)
            except ConfigError as error:
                refused[kind] = str(error)
        fits = [kind for kind in ALL if kind not in refused]
        own = fits[-1]
        assert fits in ([SEARCH, TRANSFER, ROLLING, ALIGNMENT, LISTS], [own]), name
        for kind, message in refused.items():
            assert message.startswith(f"model={name}: "), message
            assert f"{own.does}, and this task takes what {kind.does}" in message
            assert FITS[kind] in message.partition("choose model=")[2]
            assert message.endswith(f"or a task such as {own.example}")
            assert "\n" not in message


@pytest.mark.parametrize(
    ("models", "kind", "message"),
    [
        ({"baselines": {"x": of_zoo("cox")}}, LISTS, "^baselines.x=cox: Cox predicts return times"),
        ({"model": {"kids": of_zoo("ease")}}, LABELS, "^model.kids=ease: EASE recommends items"),
        (
            {"model": {"_target_": "collections.Counter"}},
            FORECASTS,
            "^model._target_=collections.Counter: Counter is no model, .* choose model=deepar",
        ),
    ],
)
def test_baselines_predictors_of_a_table_and_what_is_no_model(
    models: dict[str, Any], kind: TaskKind, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_models(config(**models), kind)


def test_what_others_tell_is_left_to_them() -> None:
    for model in ({"_target_": "no.such"}, {"_target_": "recsys.models"}, {}, 5):
        check_models(config(model=model), LISTS)


def test_the_kind_of_a_config() -> None:
    assert [kind_of({"task": {kind.section: {}, "split": {}}}) for kind in ALL] == list(ALL)
    assert kind_of({}) is LISTS


def test_a_model_is_refused_before_its_options_and_the_log(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    log = f"data.path={tmp_path / 'empty.csv'}"
    start = ["train", "data=table", log, f"hydra.run.dir={tmp_path / 'run'}"]
    code, _, err = run(*start, "task=return_time", "model=deepar")
    assert (code, err.count("\n")) == (2, 1)
    assert "model=deepar: DeepAR forecasts series, and this task takes what predicts return" in err
    code, _, err = run(*start, "task=next_item", "model=cox")
    assert (code, err.count("\n")) == (2, 1)
    assert "model=cox: Cox predicts return times" in err


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.section)
def test_a_command_refuses_runs_that_it_does_not_read(kind: TaskKind, tmp_path: Path) -> None:
    run = folder(tmp_path / "run", kind)
    for command in COMMANDS:
        if command in kind.commands:
            check_command(run, command)
            continue
        with pytest.raises(RunError) as caught:
            check_command(run, command)
        message = str(caught.value)
        assert message.startswith(f"{run} {kind.does}, and recsys {command} is for runs such as ")
        assert message.endswith(kind.remedy.format(run=run))


def test_a_baseline_is_known_by_its_run(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", RETURN_TIMES)
    baseline = run / "baselines" / "cox"
    baseline.mkdir(parents=True)
    with pytest.raises(RunError, match=f"recsys return-times {run} says when"):
        check_command(baseline, "recommend")
    check_command(tmp_path / "nothing", "recommend")


def test_the_vectors_of_a_run_of_labels_are_those_of_its_pre_training(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", LABELS)
    (run / "pretraining" / "model").mkdir(parents=True)
    with pytest.raises(RunError, match=f"recsys profile {run}/pretraining writes"):
        check_command(run, "profile")


def test_commands_ask_what_a_run_is_first(run: Run, tmp_path: Path) -> None:
    back = folder(tmp_path / "back", RETURN_TIMES)
    more: dict[str, list[object]] = {"recommend": ["--users", "1"], "vectors": [tmp_path / "v"]}
    for command in COMMANDS[:-1]:
        code, _, err = run(command, back, *more.get(command, []))
        assert (code, err.count("\n")) == (2, 1)
        assert f"recsys return-times {back} says when users will be back" in err
    code, _, err = run("return-times", folder(tmp_path / "lists", LISTS))
    assert (code, "recsys recommend" in err) == (2, True)


def test_runs_of_two_kinds_are_not_compared_by_their_options(tmp_path: Path) -> None:
    runs = {kind: folder(tmp_path / kind.section, kind) for kind in ALL}
    for first in ALL:
        for second in ALL:
            if first is second:
                check_alike(runs[first], runs[second])
                continue
            with pytest.raises(RunError) as caught:
                check_alike(runs[first], runs[second])
            assert str(caught.value).startswith(f"{runs[first]} {first.does} and {runs[second]} ")
