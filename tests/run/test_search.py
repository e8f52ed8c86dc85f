"""`recsys search` on a small log: what is tried, killed, resumed, chosen and asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from recsys.cli.compose import compose
from recsys.errors import ConfigError, DataError, RunError
from recsys.run import ranking, search
from recsys.run.spaces import Space
from recsys.run.study import Pruned, Study, Watch, best_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users of two colours, who take items of theirs."""
    generator = np.random.default_rng(0)
    rows = [(u, int(2 * generator.integers(8) + u % 2), t) for u in range(40) for t in range(5)]
    path = tmp_path_factory.mktemp("log") / "log.csv"
    pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row").write_csv(path)
    return path


@pytest.fixture
def command(log: Path) -> list[str]:
    metric = ["task.ks=[3]", "trainer.monitor=ndcg@3"]
    return ["search", "data=table", f"data.path={log}", "data.time_unit=order", *metric]


def at(folder: Path) -> str:
    return f"hydra.run.dir={folder}"


def settings(folder: Path) -> list[tuple[Any, ...]]:
    table = pl.read_parquet(folder / "trials.parquet", glob=False)
    return table.drop("seconds", "trial").rows()


def test_without_optuna(command: list[str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, error = run(*command, "model=ease", "n_trials=2")
    assert code == 2
    assert "optuna is not installed; install it with `pip install recsys[search]`" in error
    assert error.count("\n") == 1


class TestWithOptuna:
    """What only Optuna can do."""

    @pytest.fixture(autouse=True)
    def _optuna(self) -> None:
        pytest.importorskip("optuna")

    @pytest.mark.slow
    def test_a_search_that_is_killed_and_goes_on(
        self, command: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        command += ["model=tifuknn", "n_trials=14"]
        code, out, error = run(*command, at(whole))
        assert code == 0, error
        assert "tifuknn: 14 trials in" in out
        assert max(len(line) for line in out.splitlines() if line[0] in "┏┃┡│└") <= 80

        fits = _killed_at(monkeypatch, 13)
        code, _, error = run(*command, at(killed))
        assert (code, len(fits)) == (130, 13)
        assert "goes on" in error
        assert not (killed / "trials.parquet").exists()
        monkeypatch.undo()
        code, _, error = run(*command, at(killed))
        assert code == 0, error
        assert settings(killed) == settings(whole)

        # The first trial is the options as they are.
        summary = json.loads((whole / "search.json").read_text())
        first = summary["defaults"]["options"]
        model = compose(["data=table", "data.path=x", "model=tifuknn"]).model
        assert first == {f"model.{name}": model[name] for name in model if name != "_target_"}
        value, options = summary["best"]["value"], summary["best"]["options"]
        assert value >= summary["defaults"]["value"]
        assert {*summary["importances"]} in (set(), set(options))  # of few results there is none

        # What was chosen is what `recsys train` takes, and what was run.
        overrides = yaml.safe_load((whole / "best.yaml").read_text())
        chosen = compose(overrides).model
        assert {f"model.{n}": chosen[n] for n in chosen if n != "_target_"} == options
        reached = json.loads((whole / "best" / "metrics.json").read_text())
        assert reached["validation"]["ndcg@3"] == pytest.approx(value)
        assert reached == json.loads((whole / "metrics.json").read_text())
        assert "What was chosen" in (whole / "report.html").read_text()

        # A larger budget adds trials, and another one may be the best.
        code, _, error = run(*command[:-1], "n_trials=16", at(whole))
        assert code == 0, error
        assert settings(whole)[:14] == settings(killed)
        assert len(settings(whole)) == 16
        code, _, error = run(*command, "seed=1", at(whole))
        assert (code, "a run of another config" in error) == (2, True)
        (whole / "study.db").write_bytes(b"nonsense" * 999)
        code, _, error = run(*command, at(whole))
        assert (code, error.count("\n")) == (2, 1)
        assert "study.db is damaged" in error

    def test_the_test_users_are_asked_once_at_the_end(
        self, command: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts = []
        evaluate = ranking.evaluate

        def noted(model: Any, part: Any, *args: Any, **options: Any) -> Any:
            parts.append(part.name)
            return evaluate(model, part, *args, **options)

        monkeypatch.setattr(ranking, "evaluate", noted)
        prepared = []
        prepare = search.prepare
        monkeypatch.setattr(search, "prepare", lambda c: prepared.append(c) or prepare(c))
        code, out, error = run(
            *command, "models=[ease,decayed_personal]", "n_trials=3", at(tmp_path / "run")
        )
        assert code == 0, error
        assert parts == 2 * [*["validation"] * 3, "validation", "test"]
        assert len(prepared) == 1
        assert "minus" in out
        compared = pl.read_parquet(tmp_path / "run" / "compared.parquet", glob=False)
        assert compared["metric"].to_list() == ["ndcg@3"]
        assert {*compared["model"], *compared["against"]} == {"ease", "decayed_personal"}
        for name in ("ease", "decayed_personal"):
            assert len(settings(tmp_path / "run" / name)) == 3
        assert "The same budget for each" in (tmp_path / "run" / "report.html").read_text()

    def test_trials_that_fail_and_an_end_by_time(
        self, command: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space = "search.space.model.l2=[-1.0,-0.5]"
        code, _, error = run(*command, "model=ease", space, "n_trials=3", at(tmp_path / "failed"))
        assert code == 0, error
        table = pl.read_parquet(tmp_path / "failed" / "trials.parquet", glob=False)
        assert table["state"].to_list() == ["complete", "failed", "failed"]
        assert "expected above 0" in table["error"][1]
        summary = json.loads((tmp_path / "failed" / "search.json").read_text())
        assert summary["best"]["options"] == {"model.l2": 250.0}

        code, _, error = run(*command, "model=ease", "seconds=0.001", at(tmp_path / "short"))
        assert code == 0, error
        assert len(settings(tmp_path / "short")) == 1

    def test_a_training_by_its_epochs(self, command: list[str], run: Run, tmp_path: Path) -> None:
        sizes = ["model.embedding_dim=8", "model.encoder.num_layers=1", "trainer.max_epochs=2"]
        space = ["search.space.model.embedding_dim=null", "search.space.model.encoder=null"]
        run_of = ["model=sasrec", *sizes, *space, "n_trials=2", at(tmp_path / "run")]
        code, _, error = run(*command, *run_of)
        assert code == 0, error
        table = pl.read_parquet(tmp_path / "run" / "trials.parquet", glob=False)
        assert table["epochs"].to_list() == [2, 2]
        assert not (tmp_path / "run" / "trial").exists()
        summary = json.loads((tmp_path / "run" / "search.json").read_text())
        reached = json.loads((tmp_path / "run" / "best" / "metrics.json").read_text())
        assert reached["validation"]["ndcg@3"] == pytest.approx(summary["best"]["value"])


MISTAKES = {
    ("model=ease", "n_trials=0"): "n_trials=0: expected at least 1",
    ("model=ease", "seconds=x"): "seconds=x: expected a number or null",
    ("model=ease", "trainer.monitor=ndcg@10"): "trainer.monitor=ndcg@10 is not measured",
    ("models=ease",): "models=ease: expected a list of names",
    ("models=[ease,ease]",): "models names ease twice",
    ("models=[ease]", "model=ials"): "models=[ease] and model=ials: give one of them",
    ("models=[ease,foo]",): "model=foo does not exist",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_a_search_that_cannot_be(
    options: tuple[str, ...], command: list[str], run: Run, tmp_path: Path
) -> None:
    if options[-1] == "trainer.monitor=ndcg@10":
        pytest.importorskip("optuna")
    code, _, error = run(*command, *options, at(tmp_path / "run"))
    assert (code, error.count("\n")) == (2, 1)
    assert MISTAKES[options] in error


def test_a_task_that_ranks_nothing(command: list[str], run: Run, tmp_path: Path) -> None:
    options = ["model=logistic_regression", "task=lapse", at(tmp_path / "run")]
    code, _, error = run(*command[:4], *options)
    assert (code, error.count("\n")) == (2, 1)
    assert "recsys search tries what recommends items; choose task=next_item" in error


def _killed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Ends the search in the midst of a fit; the file of trials is then as after a kill."""
    fits: list[int] = []
    fit = search.fit

    def stopped(*args: Any, **options: Any) -> Any:
        fits.append(len(fits))
        if len(fits) == number:
            raise KeyboardInterrupt
        return fit(*args, **options)

    monkeypatch.setattr(search, "fit", stopped)
    return fits


SPACES = {"a": Space("float", (0.0, 1.0), 0.5), "b": Space("int", (1, 9), None)}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    pytest.importorskip("optuna")
    of = Study(tmp_path / "a ?#%b.db", SPACES, seed=0, prune_after=2)
    yield of
    of.close()


def test_epochs_below_the_median_end_a_trial(study: Study) -> None:
    def objective(options: dict[str, Any], watch: Watch) -> float:
        level = 1.0 if len(study.trials) < 6 else 0.1
        for epoch in range(6):
            watch(epoch, level + 0.01 * epoch)
        return level

    for _ in range(8):
        study.run(objective)
    assert [trial.state for trial in study.trials] == ["complete"] * 6 + ["pruned"] * 2
    assert [trial.epochs for trial in study.trials[5:]] == [6, 3, 3]
    assert study.trials[0].options == {"a": 0.5, "b": None}
    assert best_of(study.trials).number == 0
    assert study.importances() == {}


def test_what_ends_a_trial_alone(study: Study) -> None:
    def raises(error: Exception) -> Callable[..., float]:
        def objective(options: dict[str, Any], watch: Watch) -> float:
            raise error

        return objective

    with pytest.raises(ConfigError, match="no such thing"):
        study.run(raises(ConfigError("no such thing")))
    assert study.run(raises(DataError("diverged"))).error == "diverged"
    assert study.run(raises(ConfigError("too much"))).error == "too much"
    assert study.run(raises(MemoryError())).error.startswith("out of memory")  # type: ignore[union-attr]
    assert study.run(raises(Pruned())).state == "pruned"
    assert study.run(lambda options, watch: float("nan")).error == "the metric is undefined"
    with pytest.raises(ZeroDivisionError):
        study.run(raises(ZeroDivisionError()))
    with pytest.raises(ConfigError, match="no trial of 5 reached anything: diverged"):
        best_of(study.trials)


def test_a_file_of_other_options(study: Study, tmp_path: Path) -> None:
    study.run(lambda options, watch: 1.0)
    with pytest.raises(RunError, match="trial 0 is of other options"):
        Study(tmp_path / "a ?#%b.db", {"c": SPACES["a"]}, seed=0)
