"""Runs of task=sales_forecast on a table of one's own: folder, resume, comparison, errors."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import ConfigError
from recsys.run.forecasting import trials_of

Run = Callable[..., tuple[int, str, str]]
OPTIONS = (
    "data=table",
    "task=sales_forecast",
    "data.columns.quantity=units",
    "task.series.by=shop",
    "task.origins.horizon=7",
    "task.origins.context=28",
    "task.origins.validation=2",
    "task.origins.test=2",
)
SHORT = (
    "baselines.mlp_lags.num_members=1",
    "baselines.mlp_lags.num_windows=64",
    "baselines.mlp_lags.steps.max_epochs=1",
)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shops, more is sold at weekends."""
    generator = np.random.default_rng(0)
    day = np.repeat(np.arange(84), 4)
    number = np.arange(len(day))
    path = tmp_path_factory.mktemp("sales") / "events.csv"
    pl.DataFrame(
        {
            "user_id": number % 9,
            "item_id": number % 5,
            "shop": [("north", "south")[n % 2] for n in number],
            "units": generator.poisson(np.where(day % 7 > 4, 9, 4)) + 1,
        }
    ).with_columns(timestamp=pl.date(2024, 1, 1) + pl.duration(days=pl.Series(day))).write_csv(path)
    return path


@pytest.fixture(scope="module")
def finished(events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from recsys.cli import main

    folder = tmp_path_factory.mktemp("runs") / "linear"
    asked = [*OPTIONS, *SHORT, "model=linear_lags", "task.trials=3", f"data.path={events}"]
    assert main.main(["train", *asked, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_a_runs_folder(finished: Path) -> None:
    figures = json.loads((finished / "metrics.json").read_text())
    assert set(figures) == {"validation", "test"}
    assert 0 < figures["test"]["wape"] < 0.5
    low, high = json.loads((finished / "intervals.json").read_text())["test"]["wape"]
    assert low <= figures["test"]["wape"] <= high
    per_series = pl.read_parquet(finished / "per_series.parquet", glob=False)
    assert per_series.shape[0] == 2 * 2 * 2
    assert per_series["series"].unique().sort().to_list() == ["north", "south"]
    forecasts = pl.read_parquet(finished / "forecasts.parquet", glob=False)
    assert forecasts.filter(part="test")["day"].n_unique() == 14
    assert sorted(path.name for path in (finished / "baselines").iterdir()) == [
        "mlp_lags",
        "seasonal_naive",
        "weekday_mean",
    ]
    page = (finished / "report.html").read_text()
    assert "forecasts of north" in page
    assert "LinearLags minus each of the others" in page


def test_what_is_printed_fits_eighty_columns(events: Path, finished: Path, run: Run) -> None:
    asked = [*OPTIONS, *SHORT, "model=linear_lags", "task.trials=3", f"data.path={events}"]
    code, out, error = run("train", *asked, f"hydra.run.dir={finished}")
    assert code == 0, error
    table = out[out.index("test, means over") :]
    assert "…" not in table
    for metric in ("nrmse", "coverage_50", "coverage_90", "LinearLags", "weekday_mean"):
        assert metric in table


def test_every_model_has_the_same_number_of_trials(finished: Path) -> None:
    told = json.loads((finished / "spread.json").read_text())
    assert told["trials"] == 3
    assert len(list((finished / "baselines/weekday_mean/trials").iterdir())) == 3
    best = min(
        range(3),
        key=lambda n: _wql(finished / "trials" / str(n) / "rows.parquet"),
    )
    assert told["trial"] == best


def _wql(path: Path) -> float:
    rows = pl.read_parquet(path, glob=False)
    each = rows.group_by("origin").agg(
        pl.col("sum/quantile_loss").sum() / pl.col("sum/total").sum()
    )
    return float(each["sum/quantile_loss"].mean())  # type: ignore[arg-type]


def test_a_stopped_run_goes_on_and_ends_alike(finished: Path, events: Path, run: Run) -> None:
    def page() -> str:
        text = (finished / "report.html").read_text()
        return re.sub("<dt>duration</dt><dd>[^<]*", "", text)

    before, figures = page(), (finished / "metrics.json").read_bytes()
    (finished / "metrics.json").unlink()
    (finished / "trials/1/rows.parquet").unlink()
    asked = [*OPTIONS, *SHORT, "model=linear_lags", "task.trials=3", f"data.path={events}"]
    code, out, _ = run("train", *asked, f"hydra.run.dir={finished}")
    assert code == 0
    assert "LinearLags" in out
    assert (finished / "metrics.json").read_bytes() == figures
    assert page() == before


def test_runs_are_compared_series_by_series(finished: Path, run: Run) -> None:
    code, out, _ = run("compare", finished / "baselines/seasonal_naive", finished)
    assert code == 0
    assert "rmse" in out
    code, _, err = run("recommend", finished, "--users", "1")
    assert code == 2
    assert "forecasts series, and recsys recommend is for runs" in err


def test_nothing_of_a_run_changes_when_the_log_ends_at_the_origin(
    finished: Path, events: Path, tmp_path: Path, run: Run
) -> None:
    """The forecasts of the test's first origin, of a log without what came after it."""
    frame = pl.read_csv(events, try_parse_dates=True, glob=False)
    first = pl.read_parquet(finished / "forecasts.parquet", glob=False).filter(part="test")
    origin = first["origin"].min()
    cut = tmp_path / "cut.csv"
    later = pl.col("timestamp") >= origin
    frame.with_columns(units=pl.when(later).then(1).otherwise("units")).write_csv(cut)
    folder = tmp_path / "cut"
    asked = [*OPTIONS, *SHORT, "model=linear_lags", "task.trials=3", f"data.path={cut}"]
    assert run("train", *asked, f"hydra.run.dir={folder}")[0] == 0
    second = pl.read_parquet(folder / "forecasts.parquet", glob=False).filter(part="test")
    pair = [f.filter(origin=origin).drop("came") for f in (first, second)]
    assert pair[0].equals(pair[1])


def test_a_plan_of_ones_own(events: Path, tmp_path: Path, run: Run) -> None:
    """What sold on each day, as the plan: a forecast that reads it misses by little."""
    frame = pl.read_csv(events, try_parse_dates=True, glob=False)
    sold = frame.group_by("shop", day="timestamp").agg(off=pl.col("units").sum() / 10)
    sold.write_csv(tmp_path / "plan.csv")
    plan = ["plan@task.series.plan=table", f"task.series.plan.path={tmp_path / 'plan.csv'}"]
    model = ["model=linear_lags", "model.read_known=true", "task.series.calendar=[]"]
    asked = [*OPTIONS, *SHORT, *plan, *model, f"data.path={events}"]
    code, _, error = run("train", *asked, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, error
    figures = json.loads((tmp_path / "run/metrics.json").read_text())
    assert figures["test"]["wape"] < 0.1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("task.series.plan=plan.csv", "task.series.plan=plan.csv"),
        ("task.series.by=colour", "task.series.by=colour: events has no such column"),
        ("task.origins.horizon=90", "need 118 before the first"),
        ("task.series.end=2030-01-01", "task.series.end=2030-01-01 lies outside of events"),
        ("task.series.start=2001-01-01", "task.series.start=2001-01-01 lies outside of events"),
        ("task.series.calendar=[moon]", "expected a list, [VALUE,…], of weekday or month_day or"),
        ("task.origins.test=[2024-03-01,2024-03-01]", "names 2024-03-01 twice; name each once"),
        ("task.origins={_target_: os.system}", "expected options with a _target_ that makes an Or"),
        (
            "task.series._target_=os.system",
            "task.series._target_=os.system: expected options w",
        ),
        ("task.trials=0", "task.trials=0: expected 1 or more"),
        ("task.monitor=coverage_50", "task.monitor=coverage_50 is no error"),
        ("task.refit=never", "task.refit=never: expected origin or phase"),
        (
            "model=popularity",
            "model=popularity: Popularity recommends items, and this task takes",
        ),
        ("data.time_unit=order", "knows no time but an order"),
    ],
)
def test_errors_are_one_line(
    option: str, message: str, events: Path, tmp_path: Path, run: Run
) -> None:
    path = events
    if option.startswith("data.time_unit"):
        path = tmp_path / "order.csv"
        frame = pl.read_csv(events, glob=False).with_row_index("n").drop("timestamp")
        frame.rename({"n": "timestamp"}).write_csv(path)
    model = [] if option.startswith("model=") else ["model=seasonal_naive"]
    asked = [*OPTIONS, *SHORT, *model, option, f"data.path={path}"]
    code, _, err = run("train", *asked, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_trials_begin_with_the_options_themselves() -> None:
    options = {"a": 1, "steps": {"b": 2}, "search": {"a": [1, 3], "steps.b": [2, 4]}}
    tried = trials_of(options, 9, 0)
    assert tried[0] == {"a": 1, "steps": {"b": 2}}
    assert sorted((t["a"], t["steps"]["b"]) for t in tried) == [(1, 2), (1, 4), (3, 2), (3, 4)]
    assert trials_of(options, 2, 0) == tried[:2]
    members = {"m": {"seed": 0, "search": {"a": [1]}}}
    assert trials_of({"members": members}, 2, 0) == [{"members": {"m": {"seed": 0}}}]
    with pytest.raises(ConfigError, match=r"search\.c: the model has no such option"):
        trials_of({"a": 1, "search": {"c": [1]}}, 2, 0)
    with pytest.raises(ConfigError, match="1,000,000 combinations"):
        trials_of({"a": 1, "search": {n: list(range(100)) for n in "abc"}}, 2, 0)
