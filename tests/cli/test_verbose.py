"""`-v`: what the package logs, on standard error and nowhere else."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.cli.verbose import verbose

Run = Callable[..., tuple[int, str, str]]
LINE = r"\d\d:\d\d:\d\d recsys(\.\w+)+: .*"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    row = pl.int_range(240, eager=True)
    days = pl.select(pl.date(2024, 1, 1) + pl.duration(days=row // 30)).to_series()
    table = pl.DataFrame({"user_id": row % 30, "item_id": row * 7 % 41, "timestamp": days})
    table.write_csv(path := tmp_path / "purchases.csv")
    return path


def train(csv: Path, folder: Path, *more: str) -> list[str]:
    found = ["train", "data=table", f"data.path={csv}", f"hydra.run.dir={folder}"]
    return [*found, "task.ks=[10]", "model=popularity", *more]


def messages(err: str) -> list[str]:
    """What each line says; every line is one of ours."""
    assert all(re.fullmatch(LINE, line) for line in err.splitlines()), err
    return [line.partition(": ")[2] for line in err.splitlines()]


def test_a_log_is_read_from_its_source_and_then_from_the_cache(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    code, _, err = run("-v", *train(csv, tmp_path / "a"))
    assert code == 0, err
    first = messages(err)
    assert first[0] == f"a run on cpu, in {tmp_path / 'a'}"
    assert re.fullmatch(r"read table from its source in \d+\.\d s", first[1])
    assert "purchases: 240 events, 30 users, 41 items" in first
    assert any(re.fullmatch(r"fitted Popularity in closed form in .* s", said) for said in first)
    assert any("ranked 41 items for 30 users of test in" in said for said in first)
    second = messages(run(*train(csv, tmp_path / "b"), "--verbose")[2])
    assert re.fullmatch(r"read \S+table-\w{16} from the cache in \d+\.\d s", second[1])
    assert second[2:4] == [*first[2:3], second[3]]


def test_without_it_nothing_is_shown_and_with_it_the_output_is_the_same(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    _, quiet, none = run(*train(csv, tmp_path / "run"))
    _, shown, _ = run(*train(csv, tmp_path / "run"), "-v")
    _, again, still_none = run(*train(csv, tmp_path / "run"))
    assert (none, still_none) == ("", "")
    assert quiet == shown == again


def test_training_names_its_device_weights_and_checkpoints(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    options = ["model=sasrec", "model.embedding_dim=8", "model.encoder.num_heads=2", "device=cpu"]
    command = train(csv, folder, *options, "trainer.max_epochs=2")
    said = messages(run(*command, "-v")[2])
    for epoch in (0, 1):
        wrote = rf"epoch {epoch}: wrote {folder}/checkpoints/last\.ckpt in \d+\.\d s"
        assert any(re.fullmatch(wrote, line) for line in said)
    trained = r"trained SASRec: [1-9]\d+ weights, [1-9]\d* rows, on cpu in \d+\.\d s"
    assert any(re.fullmatch(trained, line) for line in said)
    assert f"going on from {folder}/checkpoints/last.ckpt" in messages(run(*command, "-v")[2])


def test_a_table_is_predicted_and_then_read(run: Run, csv: Path, tmp_path: Path) -> None:
    # A third of the users stop on the third day, a third on the fifth.
    user, day = pl.col("user_id"), pl.col("timestamp").str.tail(1).cast(pl.Int64)
    last = pl.when(user % 3 == 0).then(3).when(user % 3 == 1).then(5).otherwise(8)
    pl.read_csv(csv).filter(day <= last).write_csv(csv)
    command = ["train", "data=table", f"data.path={csv}", "task=lapse", "model=logistic_regression"]
    moments = {"train": "[2024-01-04]", "test": "2024-01-06", "active_days": 3, "horizon_days": 1}
    command += [f"task.labels.lapse.{name}={value}" for name, value in moments.items()]
    command += [f"hydra.run.dir={tmp_path / 'run'}", "-v"]
    code, _, err = run(*command)
    assert code == 0, err
    predicted = r"lapse: recsys\.models\.LogisticRegression predicted \d+ rows in \d+\.\d s"
    assert any(re.fullmatch(predicted, said) for said in messages(err))
    assert f"lapse: read what {tmp_path}/run/tables/lapse holds" in messages(run(*command)[2])


def test_a_saved_run_is_read(run: Run, csv: Path, tmp_path: Path) -> None:
    run(*train(csv, tmp_path / "run"))
    code, out, err = run("recommend", tmp_path / "run", "-v", "--users", 3, "-k", 1)
    assert code == 0
    assert "item_id" in out
    assert re.fullmatch(r"read \S+/run/model in \d+\.\d s", messages(err)[0])


@pytest.mark.parametrize("word", ["-v", "--verbose"])
def test_commands_that_do_nothing_take_it_too(run: Run, word: str) -> None:
    for command in ((), ("models",), ("data", "list"), ("--version",)):
        assert run(word, *command) == run(*command, word) == run(*command)


def test_behind_two_dashes_it_is_a_value(run: Run, csv: Path, tmp_path: Path) -> None:
    run(*train(csv, tmp_path / "run"))
    code, _, err = run("recommend", "-k", 1, tmp_path / "run", "--history", 3, "--", "-v")
    assert code == 2
    assert "-v" in err
    assert not re.match(LINE, err)


def test_a_mistake_is_still_one_line_and_the_logger_is_left_as_it_was(run: Run) -> None:
    logger = logging.getLogger("recsys")
    before = (logger.level, list(logger.handlers))
    code, _, err = run("-v", "trian")
    assert (code, err.count("\n")) == (2, 1)
    assert (logger.level, list(logger.handlers)) == before


def test_messages_obey_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with verbose():
        logging.getLogger("recsys.log").info("read %s", "a\x1b[31m\nb")
    assert capsys.readouterr().err.endswith("recsys.log: read a␛[31m b\n")


def test_alone_it_starts_without_what_messages_need() -> None:
    code = (
        "import sys; from recsys.cli.main import main; main([]); "
        "print({'torch', 'hydra', 'polars', 'logging'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
