"""Overrides as people type them: read, put right, or refused in one line with what to write."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from recsys.cli import main
from recsys.cli.compose import compose, expanded, merge
from recsys.errors import ConfigError, RecsysError
from recsys.run import ranking

Run = Callable[..., tuple[int, str, str]]
TABLE = ("data=table", "data.path=log.csv")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Calls the command line in a folder of its own: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").touch()

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["recsys"])
        code = main.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


PATHS = [
    "é.csv",
    "a=b.csv",
    "a(1).csv",
    "[a].csv",
    "{a}.csv",
    "my 'own'.csv",
    "a:,b.csv",
    'a"b.csv',
]
PATHS += ["a#b.csv", "a;b", "a&b.csv", "a!b.csv", "$(a).csv", "a=[1].csv", "日本.csv", "(a"]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_cannot_be_read_is_given_back_quoted(path: str, run: Run) -> None:
    code, _, err = run("train", "data=table", f"data.path={path}")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"recsys: data.path={path} ")
    quoted = shlex.split(err[err.index("quote it: ") + 10 :] if "quote it" in err else err)[-1]
    assert compose(["data=table", quoted]).data.path == path


@pytest.mark.parametrize("path", ["a,b.csv", "a, b.csv"])
def test_commas_are_several_values_a_list_or_text(path: str) -> None:
    with pytest.raises(ConfigError, match=r"several values.*--multirun.*'data.path=\[a,") as caught:
        compose(["data=table", f"data.path={path}"])
    quoted = shlex.split(str(caught.value).partition("text with commas ")[2])
    assert compose(["data=table", *quoted]).data.path == path


def test_the_home_folder_is_put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("data.path=~/log.csv") == "data.path=/home/me/log.csv"
    assert expanded('data.path="~/é.csv"') == 'data.path="/home/me/é.csv"'
    assert expanded("hydra.run.dir='~/a b'") == "hydra.run.dir='/home/me/a b'"
    assert expanded("data.path=~") == "data.path=/home/me"
    assert expanded("data.path=~nobody-of-that-name/x") == "data.path=~nobody-of-that-name/x"
    for same in ("~model", "data.path=a~b", "data.path=a/~/b", "data.path", "=", ""):
        assert expanded(same) == same
    assert compose(["data=table", "data.path=~/log.csv"]).data.path == "/home/me/log.csv"


NONSENSE = {
    "complete_journey": "complete_journey is no OPTION=VALUE; did you mean data=complete_journey?",
    "ease": "ease is no OPTION=VALUE; did you mean model=ease?",
    "nothing": "nothing is no OPTION=VALUE",
    "=3": "=3 is no name",
    "é=3": "é=3 cannot be read as OPTION=VALUE; é is no option's name",
    "a b=3": "a b=3 cannot be read as OPTION=VALUE; a b is no option's name",
    "task.ks=[10": "task.ks=[10 cannot be read; if the value is text, quote it: 'task.ks=\"[10\"'",
    "model=": "model= does not exist; there is blend, bpr_mf",
    "model=null": "model=null is no name; there is blend, bpr_mf",
    "model=3": "model=3 is no name; there is blend",
    "task=true": "task=true is no name; there is align",
    "hydra=3": "hydra=3 is no name",
    "model={a: 1}": "model={a: 1} is no name; there is blend",
    "model=ease,ials": "model=ease,ials is several; for a run with each of them add --multirun",
    "model=popularty": "model=popularty does not exist; did you mean popularity",
    "experiment=": "experiment= does not exist; `recsys` lists them",
    "hydra/launcher=joblib": "hydra/launcher=joblib does not exist; there is basic",
    "+data=dc": "+data: there is one already; write data=",
    "+seed=3": "+seed: it is there already; write seed=",
    "+data@x=dc": "is no choice of this run's",
    "text@model.text=tfidf": "text@model.text is no choice of this run's; add it with a plus",
    "mask_history=true": "there is no option mask_history; did you mean task.mask_history",
    "model.decya=1": "there is no option model.decya; did you mean model.decay",
    "x.y=1": "there is no option x.y; `recsys train … --cfg job` shows them all",
    "baselines.ease={a: 1}": "baselines.ease has entries by name; a new one takes a plus",
    "task.filters={x: 1}": "task.filters has entries by name; a new one takes a plus",
    "task.ks={a: 1}": "task.ks: expected a list, task.ks=[…]",
}


@pytest.mark.parametrize("override", NONSENSE)
def test_nonsense_is_one_line(override: str) -> None:
    with pytest.raises(RecsysError, match=re.escape(NONSENSE[override])) as caught:
        compose([*TABLE, override])
    assert "\n" not in str(caught.value)


FLAGS = {
    "--foo": "unrecognized arguments: --foo; see recsys train --help",
    "--cfg": "expected one argument",
    "--cfg=nothing": "invalid choice: 'nothing'",
    "--resolve": "--resolve goes with --cfg",
    "--config-dir=nowhere": "nowhere' not found",
    "--experimental-rerun=x.pickle": "unrecognized arguments",
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_that_is_none_is_one_line(flag: str, run: Run) -> None:
    code, out, err = run("train", *TABLE, flag)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert FLAGS[flag] in err


def test_flags_may_stand_among_the_overrides(run: Run) -> None:
    code, out, _ = run("train", "seed=7", "--cfg", "job", "data=ml100k", "--package", "data")
    assert code == 0
    assert out == "# @package data\n_target_: recsys.data.sources.movielens.ml100k\n"


def test_help_teaches_what_there_is(run: Run) -> None:
    for command in ("train", "search", "transfer"):
        code, out, _ = run(command, "data=dc", "--help")
        assert code == 0
        assert out.startswith(f"recsys {command} data=NAME model=NAME")
        for word in ("next_basket_time", "item_knn", "baselines=[NAME,NAME]", "--multirun"):
            assert word in out
        assert max(map(len, out.splitlines())) <= 100


def test_baselines_are_named_in_a_list(run: Run) -> None:
    config = compose(["baselines=[popularity,item_knn]", "data=dc"])
    assert list(config.baselines) == ["popularity", "item_knn"]
    assert config.baselines.item_knn == compose(["model=item_knn"]).model
    assert list(compose(["baselines=ease"]).baselines) == ["ease"]
    for given, said in {
        "[ease,ease]": "baselines names ease twice; name each once",
        "[1,null]": "baselines: 1 is no name; there is ",
        "[{ease: 3}]": "baselines: {'ease': 3} is no name; there is ",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(said)):
            compose([f"baselines={given}"])
    with pytest.raises(ConfigError, match="model=item_kn does not exist; did you mean item_knn"):
        compose(["baselines=[item_kn]"])


def test_options_of_a_config_that_is_there() -> None:
    config = OmegaConf.create(
        {"data": {"path": "a.csv", "columns": {"user_id": "u", "item_id": "i"}}, "ks": [10]}
    )
    merge(config, ["data.path='b=1.csv'", "ks=[5,50]", "data.columns={user_id: who}"])
    columns = {"user_id": "who", "item_id": "i"}
    assert config == {"data": {"path": "b=1.csv", "columns": columns}, "ks": [5, 50]}
    for override, said in {
        "data.pth=x": "there is no option data.pth; did you mean data.path",
        "data=x": "data=x: data has options of its own: path, columns",
        "data.path": "data.path is no OPTION=VALUE",
        "data.path=a=b": "quote it: 'data.path=\"a=b\"'",
        "+new=1": "+new=1 is no OPTION=VALUE with one value",
        "~ks": "~ks is no OPTION=VALUE with one value",
        "ks=1,2": "ks=1,2 is no OPTION=VALUE with one value",
        "=5": "=5 is no OPTION=VALUE with one value",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(said)):
            merge(config, [override])


def test_a_part_of_the_config_that_is_left_out_is_named(run: Run) -> None:
    for part, name in {
        "~model": "model",
        "~task": "task.split",
        "~task.ks": "task.ks",
        "~trainer": "trainer",
        "~logger": "logger.loggers",
        "~baselines": "baselines",
    }.items():
        code, _, err = run("train", *TABLE, part, "hydra.run.dir=run")
        assert (code, err) == (2, f"recsys: {name} is not set; give it as {name}=VALUE\n")
        assert not Path("run").exists()


def test_a_path_that_is_not_set_or_another_option_s(run: Run) -> None:
    code, _, err = run("train", "data=table")
    assert (code, err) == (2, "recsys: data.path is not set; give it as data.path=VALUE\n")
    code, _, err = run("train", "data=table", "data.path=${seed}", "model=cox")
    assert (code, "model=cox: Cox predicts return times" in err) == (2, True)


def test_features_of_a_task_that_has_none(run: Run) -> None:
    code, _, err = run("train", *TABLE, "model=lightgbm", "hydra.run.dir=run")
    assert (code, err.count("\n")) == (2, 1)
    assert "model=lightgbm: LightGBM predicts labels, and this task takes what recommends" in err


def test_a_sweep_ends_at_ctrl_c(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def stopped(*_: object) -> None:
        started.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(ranking, "run", stopped)
    code, _, err = run("train", "--multirun", *TABLE, "seed=1,2", "hydra.sweep.dir='a b'")
    assert (code, started) == (130, [1])
    assert err == "recsys: stopped; the same command with 'hydra.sweep.dir=\"a b\"' goes on\n"


def test_more_memory_than_there_is_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "run", lambda *_: torch.empty(10**15))
    code, _, err = run("train", *TABLE)
    assert (code, err.count("\n")) == (2, 1)
    assert (
        "out of memory: 4000000000000000 bytes more than there is; lower trainer.batch_size" in err
    )
    monkeypatch.setattr(ranking, "run", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        run("train", *TABLE)


def test_a_bug_in_a_sweep_keeps_its_traceback_and_the_others_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def buggy(config: object, _: Path) -> None:
        seeds.append(config.seed)  # type: ignore[attr-defined]
        if config.seed == 2:  # type: ignore[attr-defined]
            raise KeyError("ours")
        if config.seed == 3:  # type: ignore[attr-defined]
            raise PermissionError(13, "Permission denied", "/data")

    monkeypatch.setattr(ranking, "run", buggy)
    nested = "+baselines.x={_target_: recsys.models.BPRMF, num_items: '${num_items}'}"
    code, _, err = run("train", "--multirun", *TABLE, nested, "seed=1,2,3,4")
    assert (code, seeds) == (2, [1, 2, 3, 4])
    assert "Traceback" in err
    assert err.endswith(
        "recsys: 2 of 4 runs failed\n"
        "  run 1 (seed=2): KeyError: 'ours'\n"
        "  run 2 (seed=3): /data: Permission denied\n"
    )
    monkeypatch.setattr(ranking, "run", lambda config, _: {}[0])
    with pytest.raises(KeyError):
        run("train", *TABLE)
