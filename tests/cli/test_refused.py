"""Commands that are refused leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["data.path=none.csv"], "none.csv"),
        (["data.path=log.csv", "model=item_knn", "model.num_neighbors=many"], "num_neighbors"),
        (["data.path=log.csv", "task.ks=10"], "task.ks=10"),
    ],
)
def test_a_refused_run_leaves_no_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("user_id,item_id,timestamp\na,b,2024-01-01\n")
    Path("kept").mkdir()
    code, _, err = run("train", "data=table", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert words in err
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "log.csv"}


def test_what_stands_beside_a_refused_run_stays(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/notes.txt").write_text("keep")
    assert run("train", "data=table", "data.path=none.csv", "hydra.run.dir=runs/mine")[0] == 2
    assert run("train", "data=table", "data.path=none.csv", "hydra.run.dir=runs/other")[0] == 2
    assert [path.name for path in Path("runs").iterdir()] == ["mine"]
