"""Return times from the command line: a whole run on a small log, and every mistake in a line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.evaluation.return_times import ReturnTimesResult

Run = Callable[..., tuple[int, str, str]]
WHEN = [
    "task.returns.train=['2026-03-08','2026-03-12']",
    "task.returns.validation='2026-03-17'",
    "task.returns.test='2026-03-22'",
    "task.returns.horizon=9.0",
    "task.horizons=[2,5,30]",
    "task.features=[{_target_: recsys.tasks.Gaps}]",
]


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who come every day, and others every eighth day or so."""
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user:02}", f"item{generator.integers(9)}", f"2026-03-{day:02}T{user % 9 + 9:02}:00")
        for user in range(60)
        for day in range(1, 31)
        if generator.random() < (0.85, 0.12)[user % 2]
    ]
    path = tmp_path_factory.mktemp("log") / "visits.csv"
    columns = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(path)
    return path


def command(csv: Path, folder: Path, *more: str) -> list[str]:
    return [
        "train",
        "data=table",
        f"data.path={csv}",
        "task=return_time",
        "model=cox",
        *WHEN,
        *more,
        f"hydra.run.dir={folder}",
    ]


def test_a_run_is_shown_resumed_compared_and_asked_for_users(
    csv: Path, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "run"
    code, out, error = run(*command(csv, folder))
    assert code == 0, error
    assert " censored, median duration " in out
    means = json.loads((folder / "metrics.json").read_text())
    assert set(means) == {"validation", "test"}
    assert {"log_likelihood", "concordance", "auc@2", "calibration@5"} <= set(means["test"])
    assert "auc@30" not in means["test"]  # nobody is followed so long
    assert means["test"]["concordance"] > 0.55
    low, high = json.loads((folder / "intervals.json").read_text())["test"]["concordance"]
    assert low < means["test"]["concordance"] < high
    page = (folder / "report.html").read_text()
    assert "Calibration" in page
    assert "kaplan_meier" in page
    assert not (folder / "baselines" / "cox").exists()  # it would stand beside itself

    shutil.rmtree(folder / "baselines" / "kaplan_meier")
    (folder / "report.html").unlink()
    before = (folder / "metrics.json").stat().st_mtime_ns
    code, _, error = run(*command(csv, folder))
    assert code == 0, error
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    assert (folder / "report.html").is_file()
    code, _, error = run(*command(csv, folder, "model.l2=2.0"))
    assert (code, "holds a run of another config" in error) == (2, True)

    code, out, error = run("compare", str(folder), str(folder / "baselines" / "kaplan_meier"))
    assert (code, "log_" in out) == (0, True), error

    output = tmp_path / "back.parquet"
    code, out, error = run("return-times", str(folder), "--output", str(output))
    assert code == 0, error
    back = pl.read_parquet(output, glob=False)
    assert back.columns == [
        *("user_id", "as_of", "median_days"),
        *("back_within_2_days", "back_within_5_days"),
    ]
    often = pl.col("user_id").str.slice(1).cast(pl.Int64) % 2 == 0
    assert back.filter(often)["median_days"].mean() < back.filter(~often)["median_days"].mean()
    assert (back["back_within_2_days"] <= back["back_within_5_days"]).all()
    again = tmp_path / "again.csv"
    assert run("return-times", str(folder), "--output", str(again))[0] == 0
    assert len(again.read_text().splitlines()) == 1 + len(back)
    code, _, error = run("return-times", str(folder), "--as-of", "2026-03-10")
    assert (code, "training rows are known at 2026-03-17" in error) == (2, True)
    code, _, error = run("return-times", str(folder), "--as-of", "2027-03-10")
    assert (code, "and the log ends at 2026-03-30" in error) == (2, True)
    code, _, error = run("recommend", str(folder), "--users", "u01")
    assert (code, "recsys return-times" in error) == (2, True)
    assert error.count("\n") == 1


def test_the_same_run_gives_the_same_files(csv: Path, tmp_path: Path, run: Run) -> None:
    network = [
        "model=logistic_hazard",
        "model.steps.max_epochs=2",
        "~baselines.cox",
        "~baselines.kaplan_meier",
    ]
    for name in "ab":
        code, _, error = run(*command(csv, tmp_path / name, *network))
        assert code == 0, error
    for name in ("metrics.json", "intervals.json", "predictions.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    result = ReturnTimesResult.read(tmp_path / "a")
    assert result.predictions.filter(part="test")["survival@2"].is_between(0, 1).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["task.returns.test=null"],
            "test names no moment; visits has room for task.returns.tr",
        ),
        (["task.returns.train=null"], "train names no moment"),
        (["task.returns.horizon=400.0"], "horizon=400, and visits lasts 29"),
        (
            ["task.returns.horizon=0.001"],
            "within task.returns.horizon=0.001 days; raise it",
        ),
        (["task.returns.unit=steps"], "unit=steps, and visits knows calendar time"),
        (
            ["task.features=[{_target_: recsys.tasks.Counts, column: shop}]"],
            "visits has no column shop; there is user_id, item_id, timestamp",
        ),
        (
            ["model=popularity"],
            "this task takes what predicts return times",
        ),
        (["task.features=[RFM]"], "task.features=[RFM]: expected a list, [VALUE,…], of options"),
        (["task.features=[{_target_: os.system}]"], "that makes a Feature, such as recsys.tasks.C"),
        (
            ["task.features={_target_: recsys.tasks.RFM}"],
            "task.features: expected a list",
        ),
        (["task.horizons=[0]"], "task.horizons=0"),
        (["task.horizons=[7,2,7.0]"], "task.horizons=[7,2,7]: one comes twice"),
        (["+task.returns.horizons=7"], "task.returns.horizons: return_time has no such option"),
    ],
)
def test_mistakes_are_one_line(
    csv: Path, tmp_path: Path, run: Run, overrides: list[str], message: str
) -> None:
    code, _, error = run(*command(csv, tmp_path / "run", *overrides))
    assert (code, message in error) == (2, True), error
    assert error.count("\n") == 1


def test_a_log_without_times_and_a_run_of_another_kind(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "order.csv"
    rows = {"user_id": [1, 1, 2, 2], "item_id": [3, 4, 3, 4], "timestamp": [1, 2, 1, 2]}
    pl.DataFrame(rows).write_csv(path)
    options = ["data.time_unit=order", "task.returns.train=[1]", "task.returns.test=2"]
    code, _, error = run(
        "train", "data=table", f"data.path={path}", "task=return_time", "model=cox", *options,
        f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert (code, "knows no time but an order; choose steps" in error) == (2, True), error
    code, _, error = run("return-times", str(tmp_path))
    assert (code, "is no run's folder" in error) == (2, True)
    (tmp_path / "config.yaml").write_text("task: {labels: {}}\nseed: 0\n")
    code, _, error = run("return-times", str(tmp_path))
    assert (code, "is for runs such as of task=return_time" in error) == (2, True)


def test_a_folder_may_not_call_what_is_not_listed(csv: Path, tmp_path: Path, run: Run) -> None:
    assert run(*command(csv, tmp_path / "run", "baselines={}"))[0] == 0
    path = tmp_path / "run" / "config.yaml"
    config = path.read_text()
    for name in ("recsys.tasks.Gaps", "recsys.tasks.return_time", "recsys.models.Cox"):
        path.write_text(config.replace(name, "antigravity.geohash"))
        code, _, error = run("return-times", str(tmp_path / "run"))
        assert (code, "nothing that a folder's config may call" in error) == (2, True)
        assert "antigravity" not in sys.modules  # not even imported
    path.write_text(config.replace("l2: 100.0", "l2: many"))
    code, _, error = run("return-times", str(tmp_path / "run"))
    assert (code, "model.l2" in error) == (2, True)
