"""Runs at several moments: windows of a log, what each of them knows, their means."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import ConfigError
from recsys.log.event_log import EventLog
from recsys.run.rolling import Window, windows_of

Run = Callable[..., tuple[int, str, str]]


def visits() -> pl.DataFrame:
    """40 users on most of 40 days; items have a season, and there are new users at the end."""
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user:02}", f"i{day // 20 + generator.integers(8) * generator.integers(2):02}", day)
        for user in range(40)
        for day in range(0 if user < 35 else 36, 40)
        if generator.random() < 0.6
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "day"], orient="row")
    dates = pl.lit(date(2024, 3, 1)) + pl.duration(days=pl.col("day"))
    return frame.select("user_id", "item_id", dates.alias("timestamp"))


@pytest.fixture(scope="module")
def log() -> EventLog:
    return EventLog.from_frames(visits())


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    visits().write_csv(tmp_path / "visits.csv")
    return tmp_path / "visits.csv"


def command(csv: Path, folder: Path, *more: str) -> list[str]:
    chosen = ["model=popularity", "task.ks=[3]", *more]
    return ["train", "data=table", f"data.path={csv}", *chosen, f"hydra.run.dir={folder}"]


def test_windows_end_with_the_log_and_do_not_overlap(log: EventLog) -> None:
    assert windows_of(log, 2, 5) == [
        Window("2024-03-26", "2024-03-31", "2024-04-05"),
        Window("2024-03-31", "2024-04-05", "2024-04-10"),
    ]
    given = windows_of(log, ["2024-03-20", "2024-03-30T12:00"], 5)
    assert given[0] == Window("2024-03-15", "2024-03-20", "2024-03-25")
    assert given[1].test_end == "2024-04-04T12:00:00"
    assert given[1].folder == "2024-03-30T12-00-00"


@pytest.mark.parametrize(
    ("moments", "days", "words"),
    [
        (8, 5, "the windows are 2024-02-25 to 2024-04-10, and events is from 2024-03-01"),
        (["2024-04-06"], 5, "the windows are 2024-04-01 to 2024-04-11"),
        (["2024-03-20", "2024-03-23"], 5, "2024-03-23 is not 5 days after 2024-03-20"),
        ([], 5, "give at least one time"),
        (0, 5, "task.moments=0"),
        (2, 0, "task.days=0"),
        (["soon"], 5, "task.moments='soon'"),
    ],
)
def test_windows_that_a_log_has_no_room_for(
    log: EventLog, moments: int | list[str], days: int, words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        windows_of(log, moments, days)
    assert words in str(error.value).replace(log.name, "events")


def test_each_window_knows_what_a_log_that_ends_with_it_knows(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    """A window's figures are those of a file without the later events."""
    folder = tmp_path / "run"
    rolling = ["task=rolling", "task.moments=2", "task.days=5", "baselines=[item_knn]"]
    code, out, err = run(*command(csv, folder, *rolling))
    assert code == 0, err
    assert "Popularity at 2 moments" in " ".join(out.split())
    table = pl.read_parquet(folder / "windows.parquet")
    assert table["moment"].unique().sort().to_list() == ["2024-03-31", "2024-04-05"]
    dates = pl.read_csv(csv, try_parse_dates=True)
    cut = tmp_path / "cut.csv"
    dates.filter(pl.col("timestamp") < date(2024, 4, 5)).write_csv(cut)
    starts = ["task.split.validation_start=2024-03-26", "task.split.test_start=2024-03-31"]
    alone = tmp_path / "alone"
    code, _, err = run(
        *command(cut, alone, "task=next_basket_time", *starts, "baselines=[item_knn]")
    )
    assert code == 0, err
    for place in ("", "baselines/item_knn"):
        files = (of / place / "metrics.json" for of in (folder / "windows/2024-03-31", alone))
        figures, expected = (json.loads(file.read_text()) for file in files)
        assert figures == expected
    # Their mean, and how the two differ.
    of_model = table.filter(model="Popularity", metric="recall@3")["mean"]
    assert len(of_model) == 2
    assert of_model.min() > 0.1
    assert of_model.n_unique() == 2
    figures = json.loads((folder / "metrics.json").read_text())["test"]
    assert figures["recall@3"] == pytest.approx(of_model.mean())
    low, high = json.loads((folder / "intervals.json").read_text())["test"]["recall@3"]
    half = 12.7062 * of_model.std() / np.sqrt(2)  # Student's t with one degree of freedom
    assert (high - low) / 2 == pytest.approx(half, rel=1e-4)
    page = (folder / "report.html").read_text()
    assert '<a href="windows/2024-03-31/report.html">' in page
    assert "Popularity minus this" in page
    # A finished window is kept.
    metrics, first = (folder / "metrics.json").read_bytes(), folder / "windows/2024-03-31"
    before = (first / "report.html").stat().st_mtime_ns
    (folder / "windows/2024-04-05/report.html").unlink()
    assert run(*command(csv, folder, *rolling))[0] == 0
    assert (first / "report.html").stat().st_mtime_ns == before
    assert (folder / "metrics.json").read_bytes() == metrics
    code, _, err = run("recommend", folder, "--users", "u01")
    assert (code, err.count("\n")) == (2, 1)
    assert f"each window is a run of its own, in {folder}/windows" in err


def test_an_order_is_no_date(run: Run, csv: Path, tmp_path: Path) -> None:
    order = ["task=rolling", "data.time_unit=order"]
    frame = pl.read_csv(csv, try_parse_dates=True)
    frame.with_columns(pl.col("timestamp").to_physical()).write_csv(csv)
    code, _, err = run(*command(csv, tmp_path / "run", *order))
    assert (code, err.count("\n")) == (2, 1)
    assert "task=rolling asks for dates, and the timestamps of visits are an order" in err


def test_nothing_is_left_of_what_comes_later(log: EventLog) -> None:
    from recsys.tasks.splits import global_time

    starts = {"validation_start": "2024-03-26", "test_start": "2024-03-31"}
    split = global_time(log, **starts, test_end="2024-04-05")
    assert split.log.events["timestamp"].max().date() < date(2024, 4, 5)  # type: ignore[union-attr]
    assert split.events["time"].max() < (date(2024, 4, 5) - date(1970, 1, 1)) / timedelta(seconds=1)  # type: ignore[operator]
    assert len(split.users) == 35 < len(log.users)
    with pytest.raises(ConfigError, match="test_end=2024-03-31 must lie after test_start"):
        global_time(log, **starts, test_end="2024-03-31")
