"""A run that is calibrated: its files, its page, and what is asked of it then."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import recsys
from recsys.errors import ConfigError
from recsys.evaluation.ranking import Protocol
from recsys.models import EASE
from recsys.run.calibrating import calibration_of, completion_figures
from recsys.scoring import Calibrated
from recsys.scoring.completion import half_known
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """A run of baskets with a baseline."""
    path = tmp_path / "baskets.csv"
    checkerboard().events.with_columns(pl.col("timestamp").dt.date()).write_csv(path)
    options = ["task=next_basket", "task.ks=[5]", "model=ease", "baselines=[popularity]"]
    made = tmp_path / "run"
    code, _, err = run(
        "train", "data=table", f"data.path={path}", *options, f"hydra.run.dir={made}"
    )
    assert code == 0, err
    return made


def test_a_run_and_its_baselines_are_calibrated(run: Run, folder: Path, tmp_path: Path) -> None:
    ask = ["recommend", folder, "--users", 7, "-k", 3]
    code, _, err = run(*ask, "--probability")
    assert code == 2
    assert "EASE is not calibrated" in err
    assert "<h2>Probabilities</h2>" not in (folder / "report.html").read_text()
    code, out, err = run("calibrate", folder)
    assert code == 0, err
    assert "size_error of guesses" in out
    figures = json.loads((folder / "calibration.json").read_text())
    ease, popularity = (figures["models"][name] for name in ("EASE", "popularity"))
    assert ease["means"]["log_loss"] < popularity["means"]["log_loss"]
    assert set(ease["completion"]["with"]) == {"recall@5", "ndcg@5"}
    page = (folder / "report.html").read_text()
    for words in ("<h2>Probabilities</h2>", "came true, %", "Completing a basket"):
        assert words in page
    assert recsys.load(folder / "baselines" / "popularity").next_basket(7).height
    path = tmp_path / "lists.csv"
    code, _, err = run(*ask, "--probability", "--output", path)
    assert code == 0, err
    lists = pl.read_csv(path)
    code, _, err = run("score", folder, path, "--probability", "--output", path)
    assert code == 0, err
    assert pl.read_csv(path)["probability"].to_list() == pytest.approx(
        lists["probability"].to_list()
    )
    code, _, err = run(*ask, "--basket", lists["item_id"][0], "--output", path)
    assert code == 0, err
    assert lists["item_id"][0] not in pl.read_csv(path)["item_id"]
    code, _, err = run(*ask, "--basket", 400)
    assert code == 2
    assert "item_id '400' is not among the 40" in err
    every = ["recommend", folder, "--all-users", "--output", tmp_path / "all.parquet"]
    code, _, err = run(*every, "--probability")
    assert code == 2
    assert "--basket and --probability are for --users and --history" in err


def test_nothing_is_written_where_links_lead(run: Run, folder: Path, tmp_path: Path) -> None:
    place = folder / "baselines" / "popularity"
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    code, _, err = run("calibrate", folder)
    assert code == 2
    assert f"baselines/popularity/model leads out of {folder}" in err
    assert not (tmp_path / "elsewhere" / "model" / "calibration.json").exists()


def test_what_is_refitted_keeps_its_calibration(run: Run, folder: Path) -> None:
    assert run("calibrate", folder)[0] == 0
    code, _, err = run("refit", folder)
    assert code == 0, err
    there, refitted = (
        recsys.load(place, device="cpu").calibration for place in (folder, folder / "refit")
    )
    assert there is not None
    assert refitted is not None
    assert refitted.as_dict() == there.as_dict()


def test_a_model_that_was_fitted_from_python(tmp_path: Path) -> None:
    model = recsys.fit(checkerboard(), "ease", task="next_basket", ks=[5]).calibrate()
    lists = model.recommend(7, k=2, basket=[9])
    model.save(tmp_path / "saved")
    assert recsys.load(tmp_path / "saved", device="cpu").recommend(7, k=2, basket=[9]).equals(lists)
    deployed = model.refit()
    assert deployed.recommend(7, k=1, probability=True)["probability"][0] > 0.05
    with pytest.raises(ConfigError, match="has no validation users"):
        deployed.calibrate()


@pytest.mark.parametrize("last_size", [1, 2])
def test_a_log_without_pairs_has_a_page(run: Run, tmp_path: Path, last_size: int) -> None:
    """Nobody's half is known: of test users alone, or of validation users alone."""
    events = [
        (user, (user + item) % 9, f"2024-01-{day:02}")
        for user in range(12)
        for day, size in ((1, 2), (2, 2), (3, 3 - last_size), (4, last_size))
        for item in range(size)
    ]
    path = tmp_path / "baskets.csv"
    names = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(events, schema=names, orient="row").write_csv(path)
    options = [
        "task=next_basket",
        "task.ks=[5]",
        "model=popularity",
        "data.columns.basket_id=timestamp",
    ]
    made = tmp_path / "run"
    code, _, err = run(
        "train", "data=table", f"data.path={path}", *options, f"hydra.run.dir={made}"
    )
    assert code == 0, err
    code, _, err = run("calibrate", made)
    assert code == 0, err
    page = (made / "report.html").read_text()
    assert "<h2>Probabilities</h2>" in page
    assert "Completing a basket" not in page


def test_a_half_is_completed_as_the_run_makes_its_lists() -> None:
    """Where the history is left out of lists, it is left out of these, too."""
    split = last_basket(checkerboard())
    model = EASE().fit(split)
    half = half_known(split.test)
    fitted = replace(calibration_of(model, split, mask_history=True), basket_weight=0.0)
    kept, masked = (
        completion_figures(Calibrated(model, fitted), split, half, Protocol((5,), mask_history=m))
        for m in (False, True)
    )
    assert kept["with"] == kept["without"]
    assert kept["with"] != masked["with"]
