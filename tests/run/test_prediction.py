"""Tasks of label tables, from the command line: whole runs on a small log, and every mistake."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.cli.compose import compose
from recsys.cli.names import CONF
from recsys.errors import RunError
from recsys.evaluation.prediction import TableResult, leads
from recsys.log.event_log import EventLog
from recsys.report import prediction_page, tables
from recsys.run import prediction

Run = Callable[..., tuple[int, str, str]]
FEW = ["task.folds={num_folds: 3, repeats: 1}"]
LAPSE = ["task=lapse", "task.labels.lapse.train=['2026-03-10']", *FEW]
LAPSE += ["task.labels.lapse.test='2026-03-20'", "task.labels.lapse.active_days=9"]
LAPSE += ["task.labels.lapse.horizon_days=8"]
FEATURES = "task.features=[{_target_: recsys.tasks.RFM, windows: [3]}]"
TREES = "+baselines.trees={_target_: recsys.models.LightGBM, features: '${task.features}', "
TREES += "num_trees: 5, min_leaf: 2}"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Users who come every day; a fourth stays away from the 8th on, another from the 16th."""
    generator = np.random.default_rng(0)
    end = {0: 8, 2: 16}
    rows = [
        (f"u{user:02}", f"item{generator.integers(9)}", f"2026-03-{day:02}")
        for user in range(40)
        for day in range(1, 31)
        if generator.random() < 0.7 and day < end.get(user % 4, 31)
    ]
    path = tmp_path / "visits.csv"
    columns = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(path)
    return path


def command(csv: Path, folder: Path, *more: str) -> list[str]:
    return [
        "train",
        "data=table",
        f"data.path={csv}",
        *LAPSE,
        FEATURES,
        *more,
        f"hydra.run.dir={folder}",
    ]


def test_a_run_leaves_its_folder(run: Run, csv: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code, out, err = run(*command(csv, folder, "model=logistic_regression", TREES))
    assert code == 0, err
    assert "lapse: 40 users" in out
    assert "corrected t-test" in out
    files = {"config.yaml", "log.json", "metrics.json", "intervals.json", "tables", "baselines"}
    files |= {"report.html", "timing.json"}
    assert {path.name for path in folder.iterdir()} == files
    for place in (folder, folder / "baselines" / "trees"):
        means = json.loads((place / "metrics.json").read_text())
        intervals = json.loads((place / "intervals.json").read_text())
        assert set(means["test"]) == set(intervals["test"]) == {"lapse/auroc", "lapse/ap"}
        assert set(means) == {"test", "folds"}
        low, high = intervals["test"]["lapse/auroc"]
        assert low <= means["test"]["lapse/auroc"] <= high
        table = place / "tables" / "lapse"
        assert len(pl.read_parquet(table / "folds.parquet")) == 3
        predictions = pl.read_parquet(table / "predictions.parquet")
        assert predictions.group_by("part").len().sort("part")["len"].to_list() == [30, 30]
    text = (folder / "config.yaml").read_text()
    assert "mask_history" not in text
    assert "filters" not in text


def test_the_report_shows_every_model_and_table(run: Run, csv: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(*command(csv, folder, "model=logistic_regression", TREES))[0] == 0
    page = (folder / "report.html").read_text()
    means = json.loads((folder / "baselines/trees/metrics.json").read_text())
    for words in ("LogisticRegression", "trees", "lapse", f"{means['test']['lapse/auroc']:.4f}"):
        assert words in page
    assert "<script" not in page
    test = pl.read_parquet(folder / "tables/lapse/predictions.parquet").filter(part="test")
    (label,) = [name for name in test.columns if name.startswith("label/")]
    assert f"AP {test[label].mean():.4f}, the share of yes" in page
    assert page.count("by chance: ") == 2
    for words in ("ROC of lapse", "precision and recall of lapse", "calibration of lapse"):
        assert page.count(f'aria-label="{words}"') == 1
    weights = pl.read_parquet(folder / "tables/lapse/weights.parquet")
    first = weights.sort(pl.col("weight").abs(), descending=True).row(0, named=True)
    assert f"<td>{first['feature']}</td><td>{first['weight']:+.4f}".replace("-", "−") in page
    assert "The largest weights of trees" not in page


def test_the_report_says_whose_vectors_the_features_are(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    code, _, err = run(*command(csv, folder, "model=logistic_regression", *PRETRAINING))
    assert code == 0, err
    page = (folder / "report.html").read_text()
    assert 'of ShopperBERT, <a href="pretraining/report.html">the report of pretraining</a>' in page
    assert "<td>Profile " in page
    shutil.move(folder, tmp_path / "moved")
    prediction_page.write(tmp_path / "moved")
    assert (tmp_path / "moved/report.html").read_text() == page


def test_a_table_that_is_finished_is_kept(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fits = tmp_path / "run", []
    arguments = command(csv, folder, "model=logistic_regression", TREES)
    cross_validate = prediction.cross_validate

    def counted(*given: object) -> object:
        fits.append(given)
        if len(fits) == 2:
            raise KeyboardInterrupt
        return cross_validate(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(prediction, "cross_validate", counted)
    assert run(*arguments)[0] != 0
    assert not (folder / "metrics.json").exists() or not (folder / "baselines").exists()
    code, _, err = run(*arguments)
    assert code == 0, err
    assert len(fits) == 3  # the first was done, the second stopped, and is the third
    assert (folder / "baselines" / "trees" / "metrics.json").is_file()


def test_a_changed_log_under_the_same_name_is_refused(run: Run, csv: Path, tmp_path: Path) -> None:
    """The same rows, of other histories."""
    folder = tmp_path / "run"
    command_ = command(csv, folder, "model=logistic_regression", *PRETRAINING)
    assert run(*command_)[0] == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    visits = pl.read_csv(csv)
    visits.with_columns(pl.col("item_id").reverse()).write_csv(csv)
    code, _, err = run(*command_)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{folder}/pretraining holds a run of another log: sha256 was" in err
    plain = command(csv, tmp_path / "plain", "model=logistic_regression")
    assert run(*plain)[0] == 0
    visits.filter(pl.col("timestamp") != "2026-03-29").write_csv(csv)
    code, _, err = run(*plain)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{tmp_path / 'plain'} holds a run of another log: events was" in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_other_labels_of_the_same_log_are_another_run(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables may rest on files that are not the log's."""
    arguments = command(csv, tmp_path / "run", "model=logistic_regression")
    assert run(*arguments)[0] == 0
    monkeypatch.setattr("recsys.tasks.labels.LabelTable.fingerprint", "another")
    code, _, err = run(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "run of another log: labels/lapse was" in err


def test_a_folder_of_before_goes_on(run: Run, csv: Path, tmp_path: Path) -> None:
    """As it was written when a label table was called otherwise."""
    folder = tmp_path / "run"
    arguments = command(csv, folder, "model=logistic_regression", TREES)
    assert run(*arguments)[0] == 0
    figures = (folder / "metrics.json").read_bytes()
    for name, today, before in (
        ("config.yaml", "  labels:", "  questions:"),
        ("log.json", '"labels/', '"questions/'),
    ):
        text = (folder / name).read_text()
        assert text.count(today) == 1
        (folder / name).write_text(text.replace(today, before))
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    code, _, err = run("compare", folder, folder / "baselines" / "trees")
    assert code == 0, err
    shutil.rmtree(folder / "baselines")
    code, _, err = run(*arguments)
    assert code == 0, err
    assert (folder / "metrics.json").read_bytes() == figures
    assert "labels/lapse" in (folder / "log.json").read_text()
    code, _, err = run("compare", again, folder)
    assert code == 0, err


@dataclass(frozen=True)
class Tomorrow:
    """Days with a visit in all, after the moment too."""

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        counts = log.events.group_by("user_id").len()
        return rows.join(counts, on="user_id", how="left")["len"].to_numpy()[:, None].astype("f4")


PRETRAINING = [
    "+task@pretraining.task=next_basket_time",
    "pretraining.task.split.validation_start='2026-03-08'",
    "pretraining.task.split.test_start='2026-03-14'",
    "pretraining.task.ks=[3]",
    "+model@pretraining.model=shopperbert",
    "pretraining.model.encoder.embedding_dim=4",
    "+trainer@pretraining.trainer=default",
    "pretraining.trainer.max_epochs=1",
    "pretraining.trainer.monitor=ndcg@3",
    "+baselines.profile={_target_: recsys.models.LogisticRegression, folds: {repeats: 0}, "
    "features: [{_target_: recsys.scoring.Profile, run: '${folder}/pretraining'}]}",
    "+baselines.elsewhere={lapses: {_target_: recsys.models.NewPopularity}}",
    "+baselines.never={_target_: recsys.models.NewPopularity, tables: []}",
]


def test_what_a_model_has_learnt_before_predicts_labels(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    code, _, err = run(*command(csv, folder, "model=lightgbm", *PRETRAINING))
    assert code == 0, err
    before = json.loads((folder / "pretraining" / "metrics.json").read_text())
    assert before["test"]["item_id/nll"] > 0
    profile = folder / "baselines" / "profile"
    # It wanted no folds, and the others named no table that there is.
    assert set(json.loads((profile / "metrics.json").read_text())) == {"test"}
    assert set(json.loads((folder / "metrics.json").read_text())) == {"test", "folds"}
    with pytest.raises(RunError, match="no label table in common"):
        prediction.compare_tables(profile, folder)
    for other in ("elsewhere", "never"):
        assert json.loads((folder / "baselines" / other / "metrics.json").read_text()) == {}
    monkeypatch.setattr("recsys.run.ranking.run", lambda *_: pytest.fail("it was trained again"))
    again = [o for o in PRETRAINING if "embedding_dim" not in o]
    code, _, err = run(*command(csv, folder, "model=lightgbm", *again))
    assert code == 2
    assert "pretraining holds a run of another config" in err
    code, _, err = run(*command(csv, folder, "model=lightgbm", *PRETRAINING))
    assert code == 0, err


def test_a_feature_that_looks_ahead_ends_the_run(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.tasks.features.Tomorrow", Tomorrow, raising=False)
    leaking = "task.features=[{_target_: recsys.tasks.features.Tomorrow}]"
    for model in ("logistic_regression", "lightgbm", "mlp"):
        arguments = command(csv, tmp_path / model, f"model={model}", leaking)
        code, _, err = run(*arguments)
        assert code == 2
        assert err.count("\n") == 1
        assert "Tomorrow() knows what comes after 2026-03-10" in err
        assert not (tmp_path / model).exists()


def test_a_window_that_reaches_into_the_test_ends_the_run(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    more = ["model=lightgbm", "task.labels.lapse.horizon_days=11"]
    code, _, err = run(*command(csv, tmp_path / "run", *more))
    assert code == 2
    assert "are known only at 2026-03-21" in err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ["model=popularity"],
            "this task takes what predicts labels",
        ),
        (["task=coupon", "model=lightgbm"], "labels=table/coupon does not exist"),
        (
            ["model=new_ease", "task=next_item", "task.ks=[5]"],
            "NewEASE predicts labels",
        ),
        (["task=profiling", "model=lightgbm"], "task.labels.profile.classes is not set; give"),
        (
            ["task=next_basket_time", "model=popularity"],
            "visits has room for task.split.validation_start=2026-03-24 task.split.test_start=",
        ),
        (
            ["task=lapse", "model=lightgbm", "task.labels.lapse.horizon_days=3"],
            "visits has room for task.labels.lapse.train=[2026-03-21,2026-03-24] task.labels",
        ),
        (
            [
                "model=mlp",
                "task=new_items",
                "task.labels.new_items.test='2026-03-20'",
                "task.labels.new_items.horizon_days=3",
            ],
            "MLP learns from labels and there are none",
        ),
        (["model=mlp", "task.folds.num_folds=41"], "num_folds=41 does not divide the 40 users"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    run: Run, csv: Path, tmp_path: Path, more: list[str], words: str
) -> None:
    start = ["train", "data=table", f"data.path={csv}", f"hydra.run.dir={tmp_path / 'run'}"]
    options = more if any(m.startswith("task=") for m in more) else [*LAPSE, *more]
    code, _, err = run(*start, *options)
    assert code == 2
    assert err.count("\n") == 1
    assert words in err


def test_what_a_run_of_labels_does_not_do(run: Run, csv: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(*command(csv, folder, "model=logistic_regression"))[0] == 0
    for arguments in (
        ("evaluate", folder),
        ("recommend", folder, "--users", "u01"),
        ("vectors", folder, tmp_path / "vectors"),
    ):
        code, _, err = run(*arguments)
        assert code == 2
        assert err.count("\n") == 1
        assert "predicts labels" in err


def test_compare_two_runs_of_labels(run: Run, csv: Path, tmp_path: Path) -> None:
    for model in ("logistic_regression", "lightgbm"):
        assert run(*command(csv, tmp_path / model, f"model={model}"))[0] == 0
    code, out, err = run("compare", tmp_path / "logistic_regression", tmp_path / "lightgbm")
    assert code == 0, err
    assert "p_h" in out  # the column, however narrow the terminal
    found = prediction.compare_tables(tmp_path / "logistic_regression", tmp_path / "lightgbm")
    assert found["metric"].to_list() == ["lapse/auroc", "lapse/ap"]
    assert (found["p_holm"] >= found["p_value"]).all()
    with pytest.raises(RunError, match="have no label table in common"):
        prediction.compare_tables(tmp_path / "logistic_regression", tmp_path / "nothing")


def test_what_cannot_be_tested_is_shown_as_such(run: Run, csv: Path, tmp_path: Path) -> None:
    """A fold in which all users lapse has no AUROC: no p-value, wherever it stands."""
    folder = tmp_path / "run"
    assert run(*command(csv, folder, "model=logistic_regression", TREES))[0] == 0
    assert "no p-value" not in (folder / "report.html").read_text()
    trees = folder / "baselines" / "trees"
    result = TableResult.read(trees / "tables" / "lapse")
    auroc = result.folds["auroc"].scatter(0, float("nan"))
    broken = replace(result, folds=result.folds.with_columns(auroc))
    broken.write(trees / "tables" / "lapse")
    prediction_page.write(folder)
    assert (folder / "report.html").read_text().count("no p-value") == 1
    assert prediction.compare_tables(trees, folder)["p_holm"].is_null().to_list() == [True, False]
    _, out, _ = run("compare", trees, folder)
    assert "–" in out
    models = {"model": TableResult.read(folder / "tables" / "lapse"), "trees": broken}
    ahead = leads({"lapse": models})
    cells = list(tables.table_results("lapse", models, ahead).columns[3].cells)
    assert cells[0] == ""
    assert str(cells[1]).endswith("no p")


def test_a_metric_that_no_fold_has_is_shown_as_such(run: Run, csv: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(*command(csv, folder, "model=logistic_regression", TREES))[0] == 0
    models = {"model": folder, "trees": folder / "baselines" / "trees"}
    none = float("nan")
    for place in models.values():
        result = TableResult.read(place / "tables" / "lapse")
        broken = replace(
            result,
            means={part: of | {"auroc": none} for part, of in result.means.items()},
            intervals={part: of | {"auroc": [none] * 2} for part, of in result.intervals.items()},
            folds=result.folds.with_columns(auroc=none),
        )
        broken.write(place / "tables" / "lapse")
    prediction_page.write(folder)
    page = (folder / "report.html").read_text()
    assert "nan" not in page.partition("<summary>")[0].lower()
    assert "<td>–" in page
    shown = {name: TableResult.read(p / "tables" / "lapse") for name, p in models.items()}
    table = tables.table_results("lapse", shown, leads({"lapse": shown}))
    assert [str(cell) for cell in table.columns[1].cells] == ["–", "–"]
    assert [str(cell) for cell in table.columns[3].cells] == ["", "–"]
    prediction.write(folder, {"lapse": shown["model"]})
    written = (folder / "metrics.json").read_text()
    assert json.loads(written, parse_constant=pytest.fail)["test"]["lapse/auroc"] is None


@pytest.mark.parametrize("path", sorted((CONF / "labels").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_label_table_composes(path: Path) -> None:
    config = compose([f"data={path.parent.name}", f"task={path.stem}", "model=mlp"])
    assert config.task.labels
    assert config.model.features == config.task.features
    opening, line, *_ = path.read_text().splitlines()
    assert opening == "# @package _global_"
    assert line.startswith("# ")
