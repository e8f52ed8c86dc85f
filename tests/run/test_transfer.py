"""`recsys transfer` on a log whose answer is known, and its mistakes in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

Run = Callable[..., tuple[int, str, str]]
PATTERNS = ("sssg", "sggss", "ssgs", "nnsn", "snnnn")
"""Of users, the domains of their events: signal, goal and noise."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A user is of one of two colours, which signal and goal show and noise does not.

    Who is asked about the goal never had anything of it, so that the signal alone tells.
    """
    generator = np.random.default_rng(0)
    rows, first = [], {"s": 0, "g": 8, "n": 16}
    for user in range(150):
        for time, domain in enumerate(PATTERNS[user % 5]):
            of_colour = user // 5 % 2 + 2 * generator.integers(4)
            item = generator.integers(8) if domain == "n" else of_colour
            rows.append((user, int(first[domain] + item), time))
    folder = tmp_path_factory.mktemp("log")
    columns = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, columns, orient="row").write_csv(folder / "events.csv")
    domains = ["signal"] * 8 + ["goal"] * 8 + ["noise, or/so"] * 8
    items = pl.DataFrame({"item_id": range(24), "shop": domains})
    items.write_csv(folder / "items.csv")
    return folder / "events.csv", folder / "items.csv"


@pytest.fixture
def command(files: tuple[Path, Path], tmp_path: Path) -> list[str]:
    return [
        "transfer",
        "data=table",
        f"data.path={files[0]}",
        f"data.items_path={files[1]}",
        "data.time_unit=order",
        "transfer.column=shop",
        "task.ks=[3]",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]


def test_what_one_domain_tells_of_another(command: list[str], tmp_path: Path, run: Run) -> None:
    code, out, error = run(*command, "model=item_knn")
    assert code == 0, error
    folder = tmp_path / "run"
    assert "3 domains, 7 trainings; history kept" in out
    assert "goal: 8 items" in out
    assert "30 users, 30 of them new to it" in out
    table = pl.read_parquet(folder / "gains.parquet", glob=False)
    of_all = table.filter(metric="ndcg@3", training="all")
    row = of_all.row(by_predicate=pl.col("domain") == "goal", named=True)
    assert row["users"] == 30
    assert row["difference"] > 0.1
    assert row["p_holm"] < 0.05
    pairs = {
        (asked, beside): difference
        for asked, beside, difference in table.filter(metric="ndcg@3", training="pair")
        .select("domain", "beside", "difference")
        .iter_rows()
    }
    assert len(pairs) == 6
    assert pairs["goal", "signal"] > 0.1 > abs(pairs["goal", "noise, or/so"])
    means = json.loads((folder / "metrics.json").read_text())["test"]
    intervals = json.loads((folder / "intervals.json").read_text())["test"]
    assert set(means) == set(intervals)
    assert means["goal/ndcg@3"] - means["goal/alone/ndcg@3"] == pytest.approx(row["difference"])
    # What is over every item has more to choose from.
    assert means["goal/everything/ndcg@3"] <= means["goal/ndcg@3"]
    assert intervals["goal/ndcg@3"][0] < means["goal/ndcg@3"] < intervals["goal/ndcg@3"][1]
    page = (folder / "report.html").read_text()
    assert "Which domain helps which" in page
    assert "noise, or/so" in page

    finished = sorted((folder / "trainings").glob("*/per_user.parquet"))
    assert [path.parent.name for path in finished] == ["1", "1+2", "1+2+3", "1+3", "2", "2+3", "3"]
    before = [path.stat().st_mtime_ns for path in finished]
    finished[1].unlink()
    (folder / "gains.parquet").unlink()
    assert run(*command, "model=item_knn")[0] == 0
    again = [path.stat().st_mtime_ns for path in finished]
    assert again[1] > before[1]
    assert (again[0], again[2:]) == (before[0], before[2:])
    assert pl.read_parquet(folder / "gains.parquet", glob=False).equals(table)

    code, _, error = run(*command, "model=item_knn", "model.num_neighbors=3")
    assert (code, "holds a run of another config" in error) == (2, True)
    code, _, error = run("recommend", folder, "--users", "1")
    assert (code, "compares domains and keeps no model" in error) == (2, True)


def test_popularity_within_a_domain_gains_nothing(
    command: list[str], tmp_path: Path, run: Run
) -> None:
    code, out, error = run(*command, "model=popularity", "transfer.pairs=false")
    assert code == 0, error
    assert "3 domains, 4 trainings" in out
    assert "a column's domain" not in out
    table = pl.read_parquet(tmp_path / "run" / "gains.parquet", glob=False)
    assert table["training"].unique().to_list() == ["all"]
    assert (table["difference"] == 0).all()
    assert "Which domain helps which" not in (tmp_path / "run" / "report.html").read_text()


def test_a_trained_model_on_two_domains_that_are_named(
    command: list[str], tmp_path: Path, run: Run
) -> None:
    more = [
        "model=sasrec",
        "model.embedding_dim=8",
        "trainer.max_epochs=1",
        "trainer.monitor=mrr@3",
    ]
    code, out, error = run(*command, *more, "transfer.names=[goal,signal]", "device=cpu")
    assert code == 0, error
    table = pl.read_parquet(tmp_path / "run" / "gains.parquet", glob=False)
    # All there are is a pair, too.
    assert table.filter(metric="mrr@3").select("training", "domain", "beside").rows() == [
        ("pair", "goal", "signal"),
        ("pair", "signal", "goal"),
        ("all", "goal", None),
        ("all", "signal", None),
    ]
    assert (tmp_path / "run" / "trainings" / "1+2" / "checkpoints").is_dir()
    assert "noise" not in out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "transfer.column=colour",
            "items have no column 'colour' to divide them by; there is shop",
        ),
        ("transfer.names=[signal,chance]", "no event has shop=chance; there is signal"),
        ("transfer.largest=1", "largest=1"),
        ("transfer.larges=1", "there is no option transfer.larges; did you mean transfer.largest"),
        ("task.ks=[9]", "k=9 exceeds the 8 items of the domain"),
        ("+model@baselines.x=ease", "run recsys transfer for each of them"),
        ("transfer.pairs=3", "transfer.pairs=3: expected true or false"),
    ],
)
def test_a_mistake_is_one_line(override: str, said: str, command: list[str], run: Run) -> None:
    code, _, error = run(*command, override)
    assert (code, error.count("\n")) == (2, 1)
    assert said in error


def test_a_log_without_a_column_of_its_own_asks_for_one(files: tuple[Path, Path], run: Run) -> None:
    code, _, error = run("transfer", "data=table", f"data.path={files[0]}")
    assert (code, error) == (
        2,
        "recsys: transfer.column is not set; give it as transfer.column=VALUE\n",
    )


def test_logs_with_domains_bring_their_column(run: Run) -> None:
    for name, column in {"complete_journey": "department", "amazon_domains": "domain"}.items():
        code, out, _ = run("transfer", f"data={name}", "--cfg", "job")
        assert (code, f"column: {column}\n" in out) == (0, True)
