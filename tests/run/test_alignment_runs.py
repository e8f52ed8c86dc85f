"""Alignment from the command line: a run goes on with labels, and every mistake is a line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import recsys
from recsys.cli.compose import compose
from recsys.run import ranking
from recsys.scoring import saved_model

Run = Callable[..., tuple[int, str, str]]
PHASES = ["task.feedback.validation='2026-03-17'", "task.feedback.test='2026-03-22'"]
TASK = [
    "task=next_basket_time",
    "task.split.validation_start='2026-03-12'",
    "task.split.test_start='2026-03-20'",
]
SMALL = [
    "model=sasrec",
    "model.embedding_dim=8",
    "model.encoder.num_layers=1",
    "model.encoder.max_length=10",
    "trainer.max_epochs=2",
    "trainer.evaluate_every=2",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Visits of users to items of all kinds, and labels: items are liked by users of their kind."""
    generator = np.random.default_rng(0)
    visits = [
        (user, f"item{generator.integers(20)}", f"2026-03-{day:02}T{user % 9 + 9:02}:00")
        for user in range(40)
        for day in range(1, 29)
        if generator.random() < 0.5
    ]
    labels = [
        (user, f"item{item}", f"2026-03-{day:02}T08:00", int(item % 2 == 0))
        for user in range(40)
        for day in range(8, 28, 2)
        for item in generator.choice(20, 4, replace=False)
    ]
    place = tmp_path_factory.mktemp("log")
    columns = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(visits, schema=columns, orient="row").write_csv(place / "visits.csv")
    columns = ["user_id", "item_id", "as_of", "label"]
    pl.DataFrame(labels, schema=columns, orient="row").write_csv(place / "labels.csv")
    return place


def data(folder: Path) -> list[str]:
    return ["train", "data=table", f"data.path={folder / 'visits.csv'}"]


@pytest.fixture(scope="module")
def start(folder: Path) -> Path:
    """A finished run of a small SASRec that knows the log before the 12th."""
    place = folder / "start"
    place.mkdir()
    ranking.run(compose([*data(folder)[1:], *TASK, *SMALL, "task.ks=[5,10]"]), place)
    return place


def align(folder: Path, start: Path, place: Path, *more: str) -> list[str]:
    return [
        *data(folder),
        "task=align",
        f"start={start}",
        "feedback=labels",
        f"task.feedback.path={folder / 'labels.csv'}",
        *PHASES,
        "task.learning_rate=0.01",
        "trainer.max_epochs=2",
        *more,
        f"hydra.run.dir={place}",
    ]


def test_a_run_goes_on_with_labels(folder: Path, start: Path, tmp_path: Path, run: Run) -> None:
    place = tmp_path / "aligned"
    code, out, error = run(*align(folder, start, place, "trainer.max_epochs=3"))
    assert code == 0, error
    assert "train: " in out
    assert "% up" in out
    after, before = (
        json.loads((path / "metrics.json").read_text())
        for path in (place, place / "baselines/before")
    )
    assert after["test"]["within_auroc"] > before["test"]["within_auroc"] + 0.1
    assert {"auroc", "recall@10"} <= set(after["validation"])
    epochs = pl.read_csv(place / "train.csv")
    assert {"train/log_ratio", "train/log_ratio_up", "train/shift"} <= set(epochs.columns)
    assert epochs["train/shift"].abs().max() > 0  # type: ignore[operator]

    labels = pl.read_parquet(place / "feedback.parquet")
    untouched, aligned = (saved_model.load(path, device="cpu").model for path in (start, place))
    assert any(
        not torch.equal(one, other)
        for one, other in zip(untouched.parameters(), aligned.parameters(), strict=True)
    )
    gained = pl.col("log_probability") - pl.col("reference")
    means = labels.group_by("label").agg(gained.mean().alias("gain"))
    gains = dict(means.iter_rows())
    assert gains[1] > gains[0]

    code, _, error = run("evaluate", str(place), "--output", str(tmp_path / "again"))
    assert code == 0, error
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())["test"]
    assert again["recall@10"] == pytest.approx(after["test"]["recall@10"])
    assert len(recsys.load(place).recommend([3], k=2)) == 2

    # A run that is started again keeps its reference and ends with the same numbers.
    shutil.rmtree(place / "model")
    weights = place / "checkpoints" / "last.ckpt"
    held = torch.load(weights, weights_only=True)["state_dict"]
    assert held["objective.count"] == 3 * labels.filter(phase=0).height
    code, _, error = run(*align(folder, start, place, "trainer.max_epochs=3"))
    assert code == 0, error
    assert json.loads((place / "metrics.json").read_text()) == after


def test_a_model_that_runs_away_is_warned_about(
    folder: Path, start: Path, tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    more = ["task.loss.balanced=false", "task.drift=0.001"]
    code, _, error = run(*align(folder, start, tmp_path / "run", *more))
    assert code == 0, error
    (line,) = [r.message for r in caplog.records if "runs away" in r.message]
    assert "epoch 0: the mean log-ratio is" in line
    assert "task.loss.balanced=true" in line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["model=ease"], "model: start=.* is a run of SASRec, not of EASE; leave model out"),
        (
            ["loss=sft", "task.loss._target_=recsys.models.EASE"],
            "EASE: expected options with a _target_ that makes a PreferenceLoss",
        ),
        (["task.feedback.validation='2026-03-09'"], "has learnt from events up to 2026-03-11"),
        (["task.feedback.test='2026-04-09'"], "no label is of test; move validation or test"),
        (["start=/no/run"], "/no/run .*no.*config.yaml"),
        (["loss=hinge"], "loss=hinge does not exist"),
        (["task.learning_rate=-1.0"], "learning_rate=-1.0"),
        (["task.anchor=-0.1"], "anchor=-0.1: expected"),
        (["task.drift=0.0"], "drift=0.0: expected above 0"),
        (["trainer.monitor=auc"], "monitor=auc is not measured; choose among"),
    ],
)
def test_mistakes_are_a_line(
    folder: Path, start: Path, tmp_path: Path, run: Run, more: list[str], words: str
) -> None:
    code, _, error = run(*align(folder, start, tmp_path / "run", *more))
    assert code != 0
    assert len(error.strip().splitlines()) == 1
    assert re.search(words, error), error


def test_another_log_than_the_starts(folder: Path, start: Path, tmp_path: Path, run: Run) -> None:
    other = tmp_path / "other.csv"
    shutil.copy(folder / "visits.csv", other)
    code, _, error = run(*align(folder, start, tmp_path / "run", f"data.path={other}"))
    assert code != 0
    assert "which start=" in error
