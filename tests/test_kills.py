"""Runs that are killed, at each of their writes and at moments of chance, and started again.

A run started again ends as one that nobody killed: the same files, byte for byte, and none besides.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import re
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import polars as pl
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.fuzz]

BODY = """
import os, signal
from recsys.cli.main import main

moves = 0
move = os.replace

def moved(*paths):
    global moves
    moves += 1
    if moves == {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    move(*paths)

os.replace = moved
raise SystemExit(main({command!r}))
"""
"""A run in a process of its own, killed when its nth file is written and not yet in its place."""


def inline(config: Any) -> str:
    """A config as a value at the command line."""
    if isinstance(config, dict):
        return f"{{{', '.join(f'{name}: {inline(value)}' for name, value in config.items())}}}"
    return f"'{config}'" if isinstance(config, str) else json.dumps(config)


SMALL = ["trainer.max_epochs=3", "trainer.patience=2"]
PRETRAINING = {
    "task": {
        "split": {"_target_": "recsys.tasks.leave_last_out", "_partial_": True},
        "filters": {"first_only": False, "min_user_events": 0, "min_item_events": 0},
        "ks": [3],
        "mask_history": False,
    },
    "model": {
        "_target_": "recsys.models.BPRMF",
        "num_items": "${num_items}",
        "num_users": "${num_users}",
        "embedding_dim": 4,
    },
    "trainer": {
        "_target_": "recsys.training.TrainingOptions",
        "max_epochs": 2,
        "monitor": "ndcg@3",
    },
}
LABELS = [
    "task=lapse",
    "task.labels.lapse.train=['2026-03-16']",
    "task.labels.lapse.test='2026-03-22'",
    "task.labels.lapse.active_days=9",
    "task.labels.lapse.horizon_days=6",
    "task.folds={num_folds: 3, repeats: 1}",
    "task.features=[{_target_: recsys.tasks.RFM, windows: [3]}]",
]
KINDS = {
    "trained": [
        "model=count_vae",
        "model.embedding_dim=8",
        "model.latent_dim=4",
        *SMALL,
        "+baselines.popular={_target_: recsys.models.Popularity}",
    ],
    "made of others": [
        "model=hybrid",
        "+model.members.popular={_target_: recsys.models.Popularity}",
        f"+model.members.bpr={inline(PRETRAINING['model'])}",
        "+model.weights={popular: 1, bpr: 1}",
        *SMALL,
    ],
    "labels": [
        *LABELS,
        "model=logistic_regression",
        "+baselines.tight={_target_: recsys.models.LogisticRegression, l2: 3.0, "
        "features: '${task.features}'}",
        f"+pretraining={inline(PRETRAINING)}",
    ],
}


@dataclass
class Runs:
    """Runs of one command in folders of their own."""

    command: list[str]
    place: Path

    def run(self, name: str, *, seconds: float | None = None, when: int = 0) -> int | None:
        """The exit code of a run that may be killed after so many seconds or at a write."""
        command = [*self.command, f"hydra.run.dir='{self.place / name}'"]
        code = BODY.format(when=when, command=command)
        process = SERVER.Process(target=exec, args=(code, {}))
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        return process.exitcode

    def files(self, name: str) -> dict[str, bytes]:
        """What a folder holds, at any depth; bytes of checkpoints and of timing.json differ."""
        folder = self.place / name
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(folder)): b""
            if differs(path)
            else WHEN.sub(b"", path.read_bytes())
            for path in paths
        }


WHEN = re.compile(rb"<dt>(run|duration)</dt><dd>[^<]*")
"""In the head of a page."""


def differs(path: Path) -> bool:
    """Whether a file says how long things took, and so is never the same twice."""
    return path.suffix == ".ckpt" or path.name == "timing.json"


# Forked from a process that has imported what a run needs and done nothing yet.
SERVER = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    SERVER.set_forkserver_preload(
        ["recsys.cli.compose", "recsys.run.prediction", "recsys.models.factors.count_vae"]
    )


@pytest.fixture(params=KINDS)
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Runs:
    """Of a kind, with one that nobody killed in `whole`."""
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user:02}", f"item{generator.integers(9)}", f"2026-03-{day:02}")
        for user in range(40)
        for day in range(1, 31)
        if generator.random() < 0.7 and (day < 16 or user % 2)
    ]
    columns = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(tmp_path / "visits.csv")
    log = ["train", "data=table", f"data.path='{tmp_path / 'visits.csv'}'", "task.ks=[3]"]
    options = KINDS[request.param]
    monitor = [] if "task=lapse" in options else ["trainer.monitor=ndcg@3"]
    log = log[:3] if "task=lapse" in options else log
    runs = Runs([*log, *monitor, *options], tmp_path)
    assert runs.run("whole") == 0
    return runs


def test_a_run_killed_at_any_of_its_writes(runs: Runs) -> None:
    whole = runs.files("whole")
    for when in range(1, 99):
        if runs.run(f"{when}", when=when) == 0:
            break
        assert any((runs.place / f"{when}").rglob(".*.scratch"))
        assert runs.run(f"{when}") == 0
        assert runs.files(f"{when}") == whole, when
    assert when > 15


def test_a_run_killed_at_moments_of_chance(runs: Runs) -> None:
    whole = runs.files("whole")
    started = monotonic()
    assert runs.run("again") == 0
    seconds = monotonic() - started
    chance = random.Random(0)
    num_left = 0
    for number in range(12):
        for _ in range(chance.choice((1, 1, 2))):
            runs.run(f"{number}", seconds=chance.uniform(0, seconds))
        num_left += any((runs.place / f"{number}").rglob(".*"))
        assert runs.run(f"{number}") == 0
        assert runs.files(f"{number}") == whole, number
    assert num_left  # there was something to clear
