"""What a run measures besides: figures beyond accuracy, and by what is known of users."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Trains on 40 users of two kinds and 30 items of three categories."""
    generator = np.random.default_rng(0)
    rows = [
        (user, int(item), day)
        for user in range(40)
        for day, item in enumerate((user + generator.integers(6, size=8)) % 30)
    ]
    schema = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, schema=schema, orient="row").write_csv(tmp_path / "events.csv")
    items = {"item_id": range(30), "category": ["a", "b", "c"] * 10}
    pl.DataFrame(items).write_csv(tmp_path / "items.csv")
    users = {"user_id": range(40), "kind": ["new", "old"] * 20, "name": range(40)}
    pl.DataFrame(users).write_csv(tmp_path / "users.csv")
    paths = {"": "events", "items_": "items", "users_": "users"}
    files = [f"data.{name}path={tmp_path / file}.csv" for name, file in paths.items()]
    folder = f"hydra.run.dir={tmp_path / 'run'}"
    return ["train", "data=table", *files, "task=next_item", "model=item_knn", folder]


def test_a_run_and_its_evaluation_measure_what_is_wanted(
    run: Run, command: list[str], tmp_path: Path
) -> None:
    wanted = "report.beyond=[category]", "report.slices=[kind]"
    code, out, err = run(*command, *wanted)
    assert code == 0, err
    assert "miscalibration/category@10" in out
    assert "largest gap" in out
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < figures["test"]["diversity/category@20"] < 1
    intervals = json.loads((tmp_path / "run" / "intervals.json").read_text())
    low, high = intervals["validation"]["popularity_lift@10"]
    assert low < figures["validation"]["popularity_lift@10"] < high
    by_kind = json.loads((tmp_path / "run" / "slices.json").read_text())["kind"]
    assert [row["users"] for row in by_kind["values"]] == [20] * 8
    mean = sum(row["mean"] for row in by_kind["values"] if row["metric"] == "ndcg@10") / 2
    assert mean == pytest.approx(figures["test"]["ndcg@10"])
    again = tmp_path / "again"
    code, _, err = run("evaluate", tmp_path / "run", "--output", again, "task.ks=[10]")
    assert code == 0, err
    assert json.loads((again / "slices.json").read_text())["kind"] == by_kind
    code, _, err = run("compare", tmp_path / "run", again, "--all")
    assert code == 0, err


def test_a_run_from_before_may_be_evaluated_so(
    run: Run, command: list[str], tmp_path: Path
) -> None:
    assert run(*command)[0] == 0
    assert "serendipity@10" not in (tmp_path / "run" / "metrics.json").read_text()
    config = tmp_path / "run" / "config.yaml"
    lines = config.read_text().splitlines()
    config.write_text(
        "\n".join(
            line for line in lines if line[:7] not in ("report:", "  beyon", "  slice", "  map_b")
        )
    )
    code, out, err = run("evaluate", tmp_path / "run", "report.beyond=[]", "report.slices=[kind]")
    assert code == 0, err
    assert "popularity_lift@10" in out
    assert "by kind of the users" in out


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("report.beyond=[brand]", "items have no column brand; there is item_id, category"),
        ("report.beyond=category", "report.beyond=category: expected"),
        ("report.slices=[gender]", "users have no column gender; there is kind, name"),
        ("report.slices=[name]", "name of the users has 40 values, and at most 30 are compared"),
    ],
)
def test_what_is_not_known_is_refused_before_training(
    run: Run, command: list[str], tmp_path: Path, option: str, words: str
) -> None:
    code, _, err = run(*command, option)
    assert code != 0
    assert words in err
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_seconds_are_those_of_the_new_epochs(run: Run, command: list[str], tmp_path: Path) -> None:
    trained = [*command, "model=bpr_mf", "trainer.patience=9"]
    path = tmp_path / "run" / "timing.json"

    def fit(epochs: int) -> dict[str, object]:
        code, _, err = run(*trained, f"trainer.max_epochs={epochs}")
        assert code == 0, err
        return dict(json.loads(path.read_text())["fit"])

    first = fit(2)
    assert first["epochs"] == [1, 2]
    assert fit(2) == first
    assert fit(3)["epochs"] == [3, 3]
