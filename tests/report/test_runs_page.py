"""A page of several runs side by side."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

Run = Callable[..., tuple[int, str, str]]
EPOCHS = ["trainer.max_epochs=2", "task=next_item"]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    generator = np.random.default_rng(0)
    rows = [
        (user, int(item), day)
        for user in range(40)
        for day, item in enumerate((user + generator.integers(6, size=8)) % 30)
    ]
    schema = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, schema=schema, orient="row").write_csv(tmp_path / "events.csv")
    return ["train", "data=table", f"data.path={tmp_path / 'events.csv'}", *EPOCHS]


def test_runs_stand_side_by_side(run: Run, command: list[str], tmp_path: Path) -> None:
    baseline = "+baselines.top._target_=recsys.models.Popularity"
    folders = {"a": ["model=item_knn", baseline], "b": ["model=bpr_mf"], "c": ["model=bpr_mf"]}
    for name, options in folders.items():
        seed = f"seed={ord(name)}"
        code, _, err = run(*command, *options, seed, f"hydra.run.dir={tmp_path / name}")
        assert code == 0, err
    page = tmp_path / "page.html"
    places = [tmp_path / name for name in ("a", "a/baselines/top", "b", "c")]
    code, out, err = run("compare", *places, "--html", page)
    assert code == 0, err
    assert out.split() == f"{page}: 4 runs, each minus a".split()
    text = page.read_text()
    assert "<h2>Each run minus a</h2>" in text
    differences = text[text.index("Each run minus") : text.index("<h2>Training")]
    for name in ("a/baselines/top", "b", "c"):
        assert f"<td>{name}</td>" in differences
    assert "train/loss by epoch of each run" in text
    assert "<td>seed</td><td>97</td><td>97</td><td>98</td><td>99</td>" in text
    target = (
        "<td>model._target_</td><td>recsys.models.ItemKNN</td><td>recsys.models.Popularity</td>"
    )
    assert target in text
    assert "<script" not in text
    before = page.read_bytes()
    assert run("compare", *places, "--html", page)[0] == 0
    assert page.read_bytes() == before

    code, _, err = run("compare", *places)
    assert code != 0
    assert "two runs are compared in a table; --html FILE.html compares more" in err
    code, _, err = run("compare", places[0], places[0], "--html", page)
    assert "give each run once" in err
    code, _, err = run("compare", *places[:2], "--html", tmp_path / "page.pdf")
    assert "give a .html file" in err
