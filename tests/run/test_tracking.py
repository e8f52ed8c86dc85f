"""Loggers of other programs: what they need, what they are told, and that nothing leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.run import tracking

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI", *tracking.QUIET):
        monkeypatch.delenv(variable, raising=False)
    rows = [(user, (user + step) % 9, step) for user in range(20) for step in range(5)]
    columns = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv("events.csv")
    small = ["model.embedding_dim=4", "trainer.max_epochs=2", "trainer.monitor=ndcg@3"]
    log = ["data=table", "data.path=events.csv", "data.time_unit=order", "task.ks=[3]"]
    return ["train", *log, "model=bpr_mf", *small, "hydra.run.dir=run", "seed=7"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_not_there_is_said_before_anything_is_done(
    name: str, run: Run, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda package: None)
    code, _, err = run(*command, f"logger={name}")
    assert (code, err.count("\n")) == (2, 1)
    assert f"needs the package {name}; pip install 'recsys[{name}]', or take logger=csv" in err
    assert not Path("run").exists()


@pytest.mark.filterwarnings("ignore")  # of what MLflow itself calls
def test_mlflow_holds_the_curves_and_the_config(run: Run, command: list[str]) -> None:
    mlflow = pytest.importorskip("mlflow")
    code, _, err = run(*command, "logger=mlflow")
    assert code == 0, err
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'recsys'")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.data.params["seed"] == "7"
    assert logged.data.params["model.embedding_dim"] == "4"
    curve = client.get_metric_history(logged.info.run_id, "validation/ndcg3")  # MLflow takes no @
    assert len(curve) == 2
    epochs = pl.read_csv("run/train.csv")["validation/ndcg@3"]
    assert [point.value for point in curve] == pytest.approx(epochs.to_list())


@pytest.mark.filterwarnings("ignore")
def test_wandb_is_offline_unless_asked(run: Run, command: list[str]) -> None:
    pytest.importorskip("wandb")
    code, _, err = run(*command, "logger=wandb")
    assert code == 0, err
    sys.modules["wandb"].teardown()
    (folder,) = Path("run/wandb").glob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    assert b"validation/ndcg@3" in log.read_bytes()
