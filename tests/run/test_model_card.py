"""What the card of a run says, against its folder."""

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import recsys
from recsys.cli.compose import compose
from recsys.run import ranking
from recsys.run.model_card import FILE, cell

OPTIONS = (
    "data=table",
    "model=item_knn",
    "model.decay=0.5",
    "task.ks=[5,3]",
    "task.filters.min_item_events=2",
    "baselines=[popularity]",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("a shop | of ours")
    start = datetime(2024, 2, 28)
    rows = [
        (f"u{user}", (user + step * step) % 9, start + timedelta(days=step))
        for user in range(12)
        for step in range(6)
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame.write_csv(place / "log.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking.ranking_page, "write", lambda _: None)
        ranking.run(compose([*OPTIONS, f'data.path="{place / "log.csv"}"']), place / "run")
    return place / "run"


@pytest.fixture(scope="module")
def card(run: Path) -> str:
    return (run / FILE).read_text("utf-8")


def rows(card: str, section: str) -> dict[str, list[str]]:
    """The table of a section by its first column."""
    _, _, text = card.partition(section)
    lines = re.findall(r"^\| (.*) \|$", text.partition("\n## ")[0], re.MULTILINE)
    return {first: rest for first, *rest in (line.split(" | ") for line in lines)}


def test_what_it_was_made_of(card: str) -> None:
    about = rows(card, "# ItemKNN on")
    assert about["model"] == ["`recsys.models.ItemKNN`"]
    assert about["log"][0].endswith("from 2024-02-28 to 2024-03-04")
    assert about["events, users, items"] == ["72, 12, 9"]
    assert about["split"] == ["`leave_last_out`"]
    assert about["filters"] == ["min\\_item\\_events=2"]
    assert about["lists"] == ["of 5, 3; with what a user has had"]
    settings = rows(card, "## Settings")
    assert settings == {
        "option": ["value", "default"],
        "---": ["---", "---"],
        "model.decay": ["0.5", "1.0"],
    }


def test_what_it_reached(run: Path, card: str) -> None:
    reached = rows(card, "## What it reached")
    assert reached[""] == ["recall@5", "ndcg@5", "phr@5", "mrr@5"]
    for name, place in (("ItemKNN", run), ("popularity", run / "baselines/popularity")):
        means, intervals = (
            json.loads((place / f"{what}.json").read_text())["test"]["recall@5"]
            for what in ("metrics", "intervals")
        )
        shown = re.findall(r"[\d.]+", reached[name][0])
        assert [float(one) for one in shown] == pytest.approx([means, *intervals], abs=6e-5)
    assert "Means over 12 test users" in card
    assert "training may hold" in card
    assert "Other models" not in card  # popularity stands beside it


def test_its_python_runs(card: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(compile(code.replace("k=10", "k=5"), FILE, "exec"), {})
    assert "item_id" in capsys.readouterr().out
    assert f"recsys {recsys.__version__}" in card


def test_a_cell_holds_anything() -> None:
    assert cell("a|b\n`c` <i>") == "a\\|b \\`c\\` \\<i>"
