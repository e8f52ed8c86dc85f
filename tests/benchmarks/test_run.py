"""Records that are brought up seed by seed, of a model on a small table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from benchmarks import record
from benchmarks import run as benchmarks
from benchmarks.record import ROOT
from benchmarks.run import RESULTS, overrides
from recsys.cli.compose import compose
from recsys.cli.names import names
from recsys.errors import RunError
from recsys.files import locked
from recsys.run import ranking

NAME = "anything/shop"


class Bench:
    """Experiments of one table in a folder; a run's numbers differ by its seed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran: list[int] = []
        self.options = ["model.decay=0.5"]

    def write_log(self, shift: int = 0) -> None:
        rows = [
            {"user_id": f"u{user}", "item_id": (user * step + shift) % 15, "timestamp": step}
            for user in range(12)
            for step in range(1, 6)
        ]
        pl.DataFrame(rows).write_csv(self.folder / "shop.csv")

    def overrides(self, experiment: str, seed: int) -> list[str]:
        log = ["data=table", f"data.path={self.folder / 'shop.csv'}", "task=next_item"]
        return [*log, "model=decayed_personal", *self.options, "task.ks=[10]", f"seed={seed}"]

    def run(self, experiment: str, seed: int, folder: Path) -> benchmarks.Run:
        self.ran.append(seed)
        ranking.run(compose(self.overrides(experiment, seed)), folder)
        users = pl.read_parquet(folder / "per_user.parquet")
        users.with_columns(pl.col("recall@10") + seed).write_parquet(folder / "per_user.parquet")
        metrics = {part: {"recall@10": float(seed)} for part in ("validation", "test")}
        return {
            "seed": seed,
            "metrics": metrics,
            "config": (folder / "config.yaml").read_text(),
            "log": json.loads((folder / "log.json").read_text())["sha256"],
        }

    def measure(self, *seeds: int, fresh: bool = False) -> list[int]:
        """The seeds that were run for it."""
        self.ran.clear()
        benchmarks.measure(NAME, list(seeds), fresh=fresh)
        return self.ran

    @property
    def record(self) -> dict:
        return json.loads((self.folder / f"{NAME}.json").read_text())

    @property
    def users(self) -> Path:
        return self.folder / f"{NAME}.parquet"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    bench.write_log()
    monkeypatch.setattr(
        ranking.ranking_page, "write", lambda _: None
    )  # a page of plots takes a second
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    monkeypatch.setattr(benchmarks, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(benchmarks, "run", bench.run)
    monkeypatch.setattr(benchmarks, "overrides", bench.overrides)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "run.py")])
    return bench


def test_seeds_held_are_kept(bench: Bench) -> None:
    assert bench.measure(4, 1) == [4, 1]
    assert bench.measure(0, 1, 4) == [0]
    assert bench.measure(1) == []
    assert bench.record["seeds"] == [0, 1, 4]
    assert bench.record["test"]["recall@10"]["mean"] == pytest.approx(5 / 3)
    assert bench.measure(1, fresh=True) == [1]
    assert bench.record["seeds"] == benchmarks.seeds_of(bench.users) == [1]


def test_users_have_the_mean_over_seeds(bench: Bench) -> None:
    bench.measure(0)
    alone = pl.read_parquet(bench.users)
    bench.measure(0, 3)
    bench.measure(7)
    together = pl.read_parquet(bench.users)
    assert together["user_id"].to_list() == alone["user_id"].to_list()
    assert (together["recall@10"] - alone["recall@10"]).to_list() == pytest.approx([10 / 3] * 12)
    assert together["ndcg@10"].to_list() == pytest.approx(alone["ndcg@10"].to_list())
    assert sorted(benchmarks.seeds_of(bench.users)) == [0, 3, 7]


def test_a_kept_run_is_run_again_and_its_folder_stays(bench: Bench) -> None:
    bench.measure(0)
    folder = bench.folder / "runs" / NAME
    assert not folder.exists()
    benchmarks.measure(NAME, [0], keep=True)
    assert bench.ran == [0, 0]
    assert bench.record["seeds"] == benchmarks.seeds_of(bench.users) == [0]
    assert (folder / "model").is_dir()
    with pytest.raises(RunError, match="is there already"):
        benchmarks.measure(NAME, [0], keep=True)


def test_the_folder_of_several_seeds_cannot_be_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, NAME, "--keep", "--seeds", "0", "1"])
    with pytest.raises(SystemExit):
        benchmarks.main()
    assert "give one seed" in capsys.readouterr().err
    assert bench.ran == []


def test_a_record_has_one_process_at_a_time(bench: Bench) -> None:
    bench.measure(0)
    before = bench.record
    message = f"process {os.getpid()} is at work on the record of {NAME}"
    with locked(bench.folder / f"{NAME}.lock", f"the record of {NAME}"):
        with pytest.raises(RunError, match=message):
            bench.measure(1)
        assert bench.ran == []
    assert bench.record == before
    assert bench.measure(1) == [1]
    assert not list(bench.folder.rglob("*.lock"))


def test_another_config_or_log_starts_anew(bench: Bench) -> None:
    bench.measure(0, 1)
    bench.options = ["model.decay=0.6"]
    assert bench.measure(1) == [1]
    assert bench.record["seeds"] == benchmarks.seeds_of(bench.users) == [1]
    bench.write_log(shift=1)
    assert bench.measure(0, 1) == [0, 1]


def test_where_a_run_was_made_does_not_matter(bench: Bench) -> None:
    bench.measure(0)
    bench.options.append("device=cpu")
    assert bench.measure(0) == []


def test_a_run_killed_halfway_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record has been written, the users' means not."""
    bench.measure(0)
    with monkeypatch.context() as patched:
        patched.setattr(benchmarks, "add_users", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            bench.measure(0, 1, 2)
    assert bench.record["seeds"] == [0, 1]
    assert bench.measure(0, 1, 2) == [1, 2]
    assert bench.record["seeds"] == benchmarks.seeds_of(bench.users) == [0, 1, 2]


def test_a_failed_seed_is_recorded_and_run_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.measure(0)
    with monkeypatch.context() as patched:
        patched.setattr(benchmarks, "run", lambda _, seed, __: {"seed": seed, "error": "no"})
        bench.measure(1)
    assert bench.record["runs"][1]["error"] == "no"
    assert bench.record["test"]["recall@10"]["mean"] == 0
    assert bench.measure(0, 1) == [1]


def test_what_a_record_of_labels_reached_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has none of the metrics of lists, and without order in time no validation."""
    metrics = {"test": {"kids/auroc": 0.65432}}
    entry = {"seed": 0, "metrics": metrics, "baselines": {}, "paired": {}}
    monkeypatch.setattr(benchmarks, "run", lambda *_: entry)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "labels"])
    benchmarks.main()
    assert capsys.readouterr().out == "labels {'kids/auroc': 0.6543}\n"


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.stem)
def test_what_a_record_is_of_can_be_run_again(path: Path) -> None:
    experiment, *_ = overrides(json.loads(path.read_text())["experiment"], 3)
    assert experiment.removeprefix("experiment=") in names("experiment")


def test_a_row_of_an_experiment_of_several() -> None:
    for without in ("department", "hour"):
        config = compose(overrides(f"shopperbert/small_without_{without}", 3))
        tasks = config.pretraining.model.pretext.pretext_tasks
        assert len(tasks) == 8
        assert without not in tasks
        assert config.seed == 3


def test_a_record_is_made_of_folders_trained_elsewhere(bench: Bench) -> None:
    folders = [bench.folder / f"seed{seed}" for seed in (1, 0)]
    for folder in folders:
        ranking.run(compose(bench.overrides(NAME, int(folder.name[-1]))), folder)
    runs = benchmarks.take(NAME, folders)
    assert [run["seed"] for run in runs] == [0, 1]
    record = json.loads((benchmarks.RESULTS / f"{NAME}.json").read_text())
    assert record["seeds"] == [0, 1]
    assert record["test"]["recall@10"]["mean"] == runs[0]["metrics"]["test"]["recall@10"]
    assert benchmarks.seeds_of(benchmarks.RESULTS / f"{NAME}.parquet") == [0, 1]
    with pytest.raises(RunError, match="3 folders hold 2 seeds"):
        benchmarks.take(NAME, [*folders, folders[0]])
    bench.options = ["model.decay=0.9"]
    with pytest.raises(RunError, match="is no run of anything/shop as it is now"):
        benchmarks.take(NAME, folders)


def test_a_record_is_no_change_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = ["benchmarks/results/ease/ml100k.json", "benchmarks/speed/results/topk.json"]
    files = [tmp_path / name for name in (*records, "models/ease.py")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("before")
    author = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    *of_results, of_code = files
    for file in of_results:
        file.write_text("after")
    assert not record.stamp()["commit"].endswith("+")
    of_code.write_text("after")
    assert record.stamp()["commit"].endswith("+")
