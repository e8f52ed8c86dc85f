"""The command line as a user meets it: whole runs on a small log, and every mistake in one line."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recsys
from recsys.cli import main
from recsys.cli.compose import compose
from recsys.cli.names import names
from recsys.errors import ConfigError, UnknownIdError
from recsys.files import held
from recsys.run.config import config_words
from recsys.run.options import argument
from recsys.testing.second_device import second_device

Run = Callable[..., tuple[int, str, str]]


def purchases(num_users: int = 40, num_items: int = 30) -> pl.DataFrame:
    """A seeded log in which users come back to their items."""
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user:02}", f"item{(user + item) % num_items:02}", f"2026-03-{day + 1:02}", 1)
        for user in range(num_users)
        for day, item in enumerate(generator.integers(6, size=8))
    ]
    schema = ["user_id", "item_id", "timestamp", "quantity"]
    return pl.DataFrame(rows, schema=schema, orient="row")


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "purchases.csv"
    purchases().write_csv(path)
    return path


def table(path: Path, *more: str) -> list[str]:
    return ["train", "data=table", f"data.path={path}", "model=popularity", *more]


@pytest.fixture
def trained(run: Run, csv: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    code, _, err = run(*table(csv, f"hydra.run.dir={folder}"))
    assert code == 0, err
    return folder


def test_alone_it_says_what_there_is(run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    for word in ("train", "compare", "complete_journey", "tifuknn", "experiments"):
        assert word in out


def test_lists_have_a_line_for_every_config(run: Run) -> None:
    for command, group in ((["models"], "model"), (["data", "list"], "data")):
        _, out, _ = run(*command)
        listed = [line.split()[0] for line in out.strip().splitlines()]
        assert listed == names(group)
        assert all(len(line.split()) > 1 for line in out.strip().splitlines())


def test_a_run_leaves_its_folder(trained: Path) -> None:
    expected = {"config.yaml", "metrics.json", "intervals.json", "per_user.parquet", "model"}
    expected |= {"recommendations.parquet", "report.html", "log.json", "timing.json"}
    expected |= {"MODEL.md"}
    assert {path.name for path in trained.iterdir()} == expected
    seconds = json.loads((trained / "timing.json").read_text())
    assert seconds["evaluate"]["users"] == 80
    assert min(seconds[what]["seconds"] for what in ("fit", "evaluate")) > 0
    metrics = json.loads((trained / "metrics.json").read_text())
    per_user = pl.read_parquet(trained / "per_user.parquet")
    test = per_user.filter(pl.col("part") == "test")
    assert metrics["test"]["recall@10"] == pytest.approx(test["recall@10"].mean())
    low, high = json.loads((trained / "intervals.json").read_text())["test"]["recall@10"]
    assert low <= metrics["test"]["recall@10"] <= high
    lists = pl.read_parquet(trained / "recommendations.parquet")
    assert lists.group_by("user_id").len()["len"].unique().to_list() == [20]


def test_the_same_command_goes_on_and_another_config_is_refused(
    run: Run, trained: Path, csv: Path
) -> None:
    before = (trained / "metrics.json").read_text()
    code, _, _ = run(*table(csv, f"hydra.run.dir={trained}"))
    assert code == 0
    assert (trained / "metrics.json").read_text() == before
    code, _, err = run(*table(csv, f"hydra.run.dir={trained}", "seed=1"))
    assert code == 2
    assert err.count("\n") == 1
    assert (
        "another config: trainer.seed was 0, and is 1 now; seed was 0, and is 1 now; choose" in err
    )
    foreign = csv.parent / "foreign"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("mine: true")
    assert run(*table(csv, f"hydra.run.dir={foreign}"))[0] == 2
    assert (foreign / "config.yaml").read_text() == "mine: true"


def test_a_run_goes_on_with_more_epochs_and_says_each_where_there_is_no_terminal(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    small = ["model.embedding_dim=8", "model.encoder.num_layers=1", "trainer.patience=9"]
    options = [*small, "model=sasrec", "device=cpu", f"hydra.run.dir={tmp_path / 'run'}"]
    code, out, err = run(*table(csv, *options, "trainer.max_epochs=2"))
    assert code == 0, err
    assert [line for line in out.splitlines() if line.startswith("epoch 1: validation ndcg@10 .")]
    code, out, err = run(*table(csv, *options, "trainer.max_epochs=4"))
    assert code == 0, err
    assert [line[:8] for line in out.splitlines() if "validation ndcg@10" in line] == [
        "epoch 2:",
        "epoch 3:",
    ]
    assert pl.read_csv(tmp_path / "run" / "train.csv")["epoch"].to_list() == [0, 1, 2, 3]
    code, _, err = run(*table(csv, *options, "trainer.max_epochs=3"))
    assert (code, "trainer.max_epochs was 4, and is 3 now" in err) == (2, True)


def test_runs_lists_what_a_sweep_reached(run: Run, csv: Path, tmp_path: Path) -> None:
    place = f"hydra.sweep.dir={tmp_path / 'runs'}"
    options = ["model=item_knn", "model.num_neighbors=2,20,x", "-m", place]
    code, out, err = run(*table(csv, *options))
    assert (code, "1 of 3 runs failed" in err) == (2, True)
    summary = out[out.index("the sweep, test") :]
    assert "model.num_neighbors=2 " in summary
    assert "model.num_neighbors=x" not in summary
    written = tmp_path / "runs.csv"
    code, out, err = run("runs", tmp_path / "runs", "--by", "ndcg@10")
    assert (code, out.count("ItemKNN")) == (0, 2)
    code, out, err = run("runs", tmp_path / "runs", "--output", written)
    assert code == 0, err
    reached = pl.read_csv(written)["ndcg@10"].to_list()
    figures = [json.loads((tmp_path / "runs" / n / "metrics.json").read_text()) for n in "01"]
    assert reached == [pytest.approx(of["test"]["ndcg@10"]) for of in figures]
    code, _, err = run("runs", tmp_path / "runs", "--model", "EASE")
    assert (code, "holds no such run" in err) == (2, True)


def test_a_port_that_is_taken_is_a_line(run: Run, trained: Path) -> None:
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = run("serve", trained, "--port", port)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"--port {port}: " in err
    assert "choose another port" in err


def test_doctor_says_what_there_is(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == 0
    for word in (recsys.__version__, "torch", "cpu", "RECSYS_DATA", "boosting", "lightgbm"):
        assert word in out


def test_a_log_is_described_and_a_missing_file_told_without_torch(csv: Path) -> None:
    """Torch and Lightning take seconds to import."""
    for arguments, code in (
        (["data", "describe", "table", f"data.path={csv}"], 0),
        (["runs", str(csv.parent)], 2),
        (["train", "data=table", "data.path=none.csv", "model=sasrec"], 2),
        (["train", "data=nothing"], 2),
    ):
        program = (
            "import sys; from recsys.cli.main import main; "
            f"print(main({arguments}), 'torch' in sys.modules)"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert ended.stdout.splitlines()[-1] == f"{code} False", ended.stderr


def test_evaluate_asks_again_with_other_options(run: Run, trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    code, out, err = run("evaluate", trained, "task.mask_history=true", "--output", again)
    assert code == 0, err
    assert "history masked" in out
    old, new = (json.loads((f / "metrics.json").read_text())["test"] for f in (trained, again))
    assert old["recall@10"] != new["recall@10"]


def test_recommend_for_users_and_for_any_history(run: Run, trained: Path, tmp_path: Path) -> None:
    code, out, _ = run("recommend", trained, "--users", "u03", "u01", "-k", 2)
    assert code == 0
    assert out.count("u03") == out.count("u01") == 2
    path = tmp_path / "lists.csv"
    code, _, _ = run(
        "recommend", trained, "--history", "item01,item02", "item03", "-k", 3, "--output", path
    )
    assert code == 0
    assert pl.read_csv(path)["rank"].to_list() == [1, 2, 3]


def test_lists_of_all_users_and_similar_items(run: Run, trained: Path, tmp_path: Path) -> None:
    path, allowed = tmp_path / "lists.parquet", tmp_path / "allowed.csv"
    pl.DataFrame({"item_id": ["item01", "item02", "item03"]}).write_csv(allowed)
    options = ["-k", 4, "--allow", allowed, "--deny", "item02", "gone", "--output", path]
    code, out, err = run("recommend", trained, "--all-users", *options)
    assert code == 0, err
    assert "deny: item_id: 1 of 2 not among the 30 that the model knows, the first 'gone'" in out
    assert "lists of 40 users" in out
    lists = pl.read_parquet(path)
    assert lists["user_id"].n_unique() == 40
    assert set(lists["item_id"]) == {"item01", "item03"}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    code, out, err = run("similar", trained, "--items", "item01", "item02", "-k", 2)
    assert code == 0, err
    assert out.count("item01") >= 2
    assert "similar_id" in out


def test_scores_of_pairs_and_what_brought_them(run: Run, trained: Path, tmp_path: Path) -> None:
    pairs, path = tmp_path / "pairs.csv", tmp_path / "scores.parquet"
    rows = {"user_id": ["u03", "u03", "new"], "item_id": ["item01", "item02", "item01"], "n": 1}
    pl.DataFrame(rows).write_csv(pairs)
    code, out, err = run("score", trained, pairs, "--output", path)
    assert code == 0, err
    assert "pairs: user_id: 1 of 3 not among the 40 that the model knows, the first 'new'" in out
    scored = pl.read_parquet(path)
    assert scored.columns == ["user_id", "item_id", "n", "score"]
    assert scored["score"].is_null().to_list() == [False, False, True]
    for which in (["--pairs", pairs], ["--users", "u03", "--items", "item01", "item02"]):
        code, _, err = run("explain", trained, *which, "--output", path)
        assert code == 0, err
        parts = pl.read_parquet(path)
        assert parts["kind"].unique().to_list() == ["popularity"]
        assert parts["part"].to_list() == scored["score"].drop_nulls().to_list()
    code, out, err = run("explain", trained, "--users", "u03", "-k", 2)
    assert code == 0, err
    assert out.count("popularity") >= 2


def test_a_run_is_refitted_on_the_whole_log(run: Run, csv: Path, tmp_path: Path) -> None:
    for model, options in (
        ("popularity", []),
        ("sasrec", ["model.embedding_dim=4", "trainer.max_epochs=2", "trainer.monitor=ndcg"]),
    ):
        folder = tmp_path / model
        code, _, err = run(*table(csv)[:-1], f"model={model}", *options, f"hydra.run.dir={folder}")
        assert code == 0, err
        code, out, err = run("refit", folder)
        assert code == 0, err
        assert f"{folder / 'refit'}: a model of all 320 events" in out
        lists = recsys.load(folder / "refit").recommend(["u03"], k=3)
        assert len(lists) == 3
        assert run("recommend", folder / "refit", "--users", "u03")[0] == 0
    counts = recsys.load(tmp_path / "popularity/refit").model.popularity
    assert counts is not None
    assert int(counts.sum()) == 320
    code, _, err = run("evaluate", tmp_path / "popularity/refit")
    assert code == 2
    assert f"nobody to evaluate it on: name the run that it was refitted from, {tmp_path}" in err
    (tmp_path / "popularity/refit").rename(tmp_path / "alone")
    assert (
        "a model alone, which recsys recommend, similar" in run("evaluate", tmp_path / "alone")[2]
    )
    assert "it has no config.yaml" in err
    (tmp_path / "sasrec/checkpoints/best.ckpt").unlink()
    code, _, err = run("refit", tmp_path / "sasrec", "--output", tmp_path / "other")
    assert code == 2
    assert "which says for how many epochs to train" in err
    pl.read_csv(csv).head(300).write_csv(csv)
    code, _, err = run("refit", tmp_path / "popularity")
    assert code == 2
    assert "train on the log as it is now, and refit that run" in err


def test_users_that_nobody_knows_are_left_out_with_a_line(run: Run, trained: Path) -> None:
    code, out, _ = run("recommend", trained, "--users", "u03", "nobody", "-k", 2)
    assert code == 0
    assert out.count("u03") == 2
    assert "user_id: 1 of 2 not among the 40 that the model knows, the first 'nobody'" in out


def test_a_model_of_ones_own_package_is_asked_where_it_is_trusted(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mine_alone"
    (tmp_path / "conf/model").mkdir(parents=True)
    package.mkdir()
    (package / "__init__.py").write_text(
        "from recsys.models import Popularity\nclass Mine(Popularity):\n    pass\n"
    )
    (tmp_path / "conf/model/mine.yaml").write_text("_target_: mine_alone.Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "run"
    options = ["model=mine", "--config-dir", tmp_path / "conf", f"hydra.run.dir={folder}"]
    code, _, err = run(*table(csv)[:-1], *options)
    assert code == 0, err
    for command in (["recommend", folder, "--users", "u03"], ["evaluate", folder]):
        code, _, err = run(*command)
        assert code == 2
        assert "if you trust its package, name that: --trusted PACKAGE" in err
        code, _, err = run(*command, "--trusted", "mine_alone")
        assert code == 0, err


def test_from_python_the_same_lists(trained: Path) -> None:
    lists = recsys.load(trained).recommend(["u03"], k=4)
    assert lists["user_id"].to_list() == ["u03"] * 4
    counts = (
        purchases().group_by("item_id").len().sort(["len", "item_id"], descending=[True, False])
    )
    # Popularity is counted in training: all but each user's last two events.
    assert set(lists["item_id"]) <= set(counts["item_id"].head(15))


def test_words_of_ones_own(run: Run, tmp_path: Path) -> None:
    """A table with columns of words; then lists for words, and the vectors."""
    names = [f"lamp {c} 램프 💡" for c in ("red", "blue", "")] + ["", None, "socks " * 3_000]
    words = pl.DataFrame({"item_id": [f"item{i:02}" for i in range(30)], "words": (names * 5)[:30]})
    events = purchases().join(words, on="item_id")
    searched = (["a lamp 💡", None, "", "양말"] * len(events))[: len(events)]
    events.with_columns(search=pl.Series(searched)).write_parquet(tmp_path / "shop.parquet")
    folder = tmp_path / "run"
    small = ["num_layers=1", "embedding_dim=16", "num_heads=2", "ffn_dim=32", "vocab_size=400"]
    code, _, err = run(
        "train",
        "data=table",
        f"data.path={tmp_path / 'shop.parquet'}",
        "data.columns.text=words",
        "model=lmrec",
        *[f"model.decoder.{option}" for option in small],
        "model.template.event_columns=[search]",
        "model.language.row_length=64",
        "trainer.max_epochs=1",
        f"hydra.run.dir={folder}",
    )
    assert code == 0, err
    lists = recsys.load(folder).recommend(texts=[["lamp red", "겨울 🧦"], []], k=4)
    assert lists["history"].to_list() == [0] * 4 + [1] * 4
    assert lists["score"].is_finite().all()
    code, out, err = run("vectors", folder, tmp_path / "vectors")
    assert code == 0, err
    assert "40 vectors" in out
    items, users = (pl.read_parquet(tmp_path / f"vectors/{n}.parquet") for n in ("items", "users"))
    assert users["user_id"].to_list() == sorted(purchases()["user_id"].unique())
    scores = users["vector"].to_numpy() @ items["vector"].to_numpy().T
    first = recsys.load(folder).recommend(["u00"], k=1)["item_id"][0]
    # Several items have the same words: which of them is first, rounding decides.
    said = dict(words.iter_rows())
    best = items["item_id"][int(scores[0].argmax())]
    assert best == first or (said[best] and said[best] == said[first])
    found = scores[0][items["item_id"].index_of(first)]
    assert found == pytest.approx(scores[0].max(), rel=1e-5)


def test_baskets_of_ones_own(run: Run, tmp_path: Path) -> None:
    """What a customer takes on a day is a basket; rows are in disorder and some stand twice."""
    more = purchases().with_columns(pl.col("item_id").reverse())
    rows = pl.concat([purchases(), more, more.head(9)]).sample(fraction=1, shuffle=True, seed=0)
    names = {"user_id": "customer", "item_id": "sku", "timestamp": "day"}
    rows.rename(names).write_csv(tmp_path / "shop.csv")
    columns = [f"data.columns.{o}={t}" for o, t in {**names, "basket_id": "day"}.items()]
    small = ["model.embedding_dim=8", "model.autoencoder.latent_dim=4", "trainer.max_epochs=1"]
    command = ["train", "data=table", f"data.path={tmp_path / 'shop.csv'}", *columns]
    folder = tmp_path / "run"
    arguments = [
        "task=next_basket",
        "task.ks=[10]",
        "model=gloie",
        *small,
        f"hydra.run.dir={folder}",
    ]
    code, _, err = run(*command, *arguments)
    assert code == 0, err
    saved = recsys.load(folder)
    assert saved.histories.num_baskets().tolist() == [8] * 40
    distinct = rows.select(pl.struct("user_id", "item_id", "timestamp").n_unique()).item()
    assert len(saved.histories.items) == distinct < len(rows)
    lists = saved.recommend(histories=[[["item01", "item02"], ["item29"]], []], k=4)
    assert lists["history"].to_list() == [0] * 4 + [1] * 4
    assert set(lists["item_id"]) <= set(rows["item_id"])
    assert lists["score"].is_finite().all()
    with pytest.raises(UnknownIdError, match="item_id 'nothing' is not among the 30"):
        saved.recommend(histories=[[["item01", "nothing"]]], unknown="refuse")


def described(num_items: int = 30, *, first: int = 0, month: int = 3) -> pl.DataFrame:
    """Purchases of items with a category and a brand on every row."""
    number = pl.col("item_id").str.tail(2).cast(pl.Int64)
    return purchases(num_items=num_items).with_columns(
        item_id=pl.format("item{}", number + first),
        timestamp=pl.col("timestamp").str.replace("-03-", f"-{month:02}-"),
        category=pl.concat_str(pl.lit("kind "), number % 3),
        brand=pl.concat_str(pl.lit("brand "), number % 4),
    )


def test_a_run_says_what_it_does_not_read_and_what_ties(run: Run, tmp_path: Path) -> None:
    noted = described().with_columns(
        pl.lit("[blue]").alias("[/red] note"), title=pl.int_range(pl.len()).cast(pl.String)
    )
    pl.concat([noted, noted]).write_csv(tmp_path / "day.csv")
    code, out, err = run(*table(tmp_path / "day.csv", f"hydra.run.dir={tmp_path / 'run'}"))
    assert code == 0, err
    assert "100% of the 40 test users have a target with the timestamp of the event before" in out
    assert "columns that nothing here reads: category, brand, [/red] note, title (varies" in out


def test_the_words_of_a_config() -> None:
    arguments = ["model=shopperbert", "model.attributes=[category]", "task=next_basket"]
    config = compose([*arguments, "num_items=1", "num_users=1", "num_classes={brand: 2}"])
    assert {"category", "mean", "weekday", "recsys.tasks.last_basket"} <= config_words(config)
    assert "brand" not in config_words(config)


def test_label_tables_say_what_they_do_not_read(run: Run, tmp_path: Path) -> None:
    # Of each ten users four stop on the 4th, three on the 5th, and three go on.
    last = (
        pl.col("user_id")
        .str.tail(1)
        .replace_strict(dict(zip("0123456789", "4444555999", strict=True)))
    )
    described().filter(pl.col("timestamp").str.tail(1) <= last).write_csv(tmp_path / "shop.csv")
    moments = ["task.labels.lapse.train=[2026-03-05]", "task.labels.lapse.test=2026-03-06"]
    days = ["task.labels.lapse.active_days=3", "task.labels.lapse.horizon_days=1"]
    command = ["train", "data=table", f"data.path={tmp_path / 'shop.csv'}", "task=lapse"]
    options = ["model=logistic_regression", f"hydra.run.dir={tmp_path / 'run'}"]
    code, out, err = run(*command, *moments, *days, *options)
    assert code == 0, err
    assert "columns that nothing here reads: category, brand\n" in out


@pytest.fixture(scope="module")
def shopper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose model makes profiles, beside its log."""
    place = tmp_path_factory.mktemp("shopper")
    described().write_csv(place / "purchases.csv")
    options = ["model=shopperbert", "model.attributes=[category,brand]", *SMALL_BERT]
    command = table(place / "purchases.csv", *options, f"hydra.run.dir={place / 'run'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recsys"])
        assert main.main(command) == 0
    return place / "run"


SMALL_BERT = [
    "model.encoder.embedding_dim=8",
    "model.encoder.ffn_dim=8",
    "model.encoder.num_layers=1",
    "trainer.max_epochs=1",
]


def test_profiles_of_all_users(run: Run, shopper: Path, tmp_path: Path) -> None:
    code, out, err = run("profile", shopper)
    assert code == 0, err
    path = shopper / "profiles/purchases.parquet"
    assert f"{path}: 40 users of purchases as of 2026-03-08" in out
    assert (shopper / "report.html").read_text().count("<h2>A map of the users</h2>") == 1
    found = pl.read_parquet(path)
    assert found.columns == ["user_id", "as_of", "vector"]
    assert found["user_id"].to_list() == sorted(purchases()["user_id"].unique())
    assert found["vector"].dtype == pl.Array(pl.Float32, 8)
    assert found["as_of"].unique().item() > datetime(2026, 3, 8)
    earlier = tmp_path / "earlier.parquet"
    assert run("profile", shopper, "as_of=2026-03-05", "--output", earlier)[0] == 0
    vectors = (frame["vector"].to_numpy() for frame in (found, pl.read_parquet(earlier)))
    assert not np.isclose(*vectors).all(1).any()


def test_profiles_of_another_log_with_items_never_seen(
    run: Run, shopper: Path, tmp_path: Path
) -> None:
    later = described(first=50, month=6)
    later.write_csv(tmp_path / "later.csv")
    path = shopper / "profiles/later_2026-06-05.parquet"
    for options in ([], ["data=table"]):
        path.unlink(missing_ok=True)
        arguments = [*options, f"data.path={tmp_path / 'later.csv'}", "as_of=2026-06-05"]
        code, out, err = run("profile", shopper, *arguments)
        assert code == 0, err
        assert "40 users of later as of 2026-06-05 00:00:00" in out
    # What came later changes nothing, and one who had nothing before is not there.
    known = later.filter(pl.col("timestamp") < "2026-06-05", pl.col("user_id") != "u07")
    known.write_csv(tmp_path / "known.csv")
    again = tmp_path / "known.parquet"
    assert run("profile", shopper, f"data.path={tmp_path / 'known.csv'}", "--output", again)[0] == 0
    found = pl.read_parquet(path).filter(pl.col("user_id") != "u07")
    alone = pl.read_parquet(again)
    assert found["user_id"].equals(alone["user_id"])
    np.testing.assert_allclose(found["vector"].to_numpy(), alone["vector"].to_numpy(), atol=1e-6)


def test_profiles_that_cannot_be_made(
    run: Run, shopper: Path, trained: Path, tmp_path: Path
) -> None:
    plain, ordered = tmp_path / "plain.csv", tmp_path / "ordered.csv"
    purchases().write_csv(plain)
    described().unique("item_id").write_csv(tmp_path / "once.csv")
    described().with_columns(timestamp=pl.int_range(pl.len())).write_csv(ordered)
    cases: list[tuple[list[object], list[str]]] = [
        ([trained], ["Popularity makes no profiles"]),
        ([tmp_path], [f"{tmp_path} is no run's folder"]),
        ([shopper, "as_of=2020-01-01"], ["no event lies before as_of=2020-01-01"]),
        ([shopper, "as_of=soon"], ["as_of='soon'", "ask for a time"]),
        ([shopper, f"data.path={plain}"], ["items have no column category (there are: item_id)"]),
        ([shopper, f"data.path={tmp_path / 'once.csv'}"], ["data.item_columns=[category,brand]"]),
        ([shopper, f"data.path={ordered}"], ["timestamps are an order", "model.calendar=[]"]),
        ([shopper, "data.pth=x"], ["data.pth"]),
    ]
    output = tmp_path / "none.parquet"
    for arguments, words in cases:
        code, out, err = run("profile", *arguments, "--output", output)
        assert (code, out, err.count("\n")) == (2, "", 1), (arguments, err)
        for word in words:
            assert word in err
        assert not output.exists()
    remedy = "data.item_columns=[category,brand]"
    arguments = [f"data.path={tmp_path / 'once.csv'}", remedy, "--output", output]
    assert run("profile", shopper, *arguments)[0] == 0


def test_profiles_stay_in_the_run(run: Run, shopper: Path, tmp_path: Path) -> None:
    """A link that came with the folder leads nowhere else."""
    copy = Path(shutil.copytree(shopper, tmp_path / "run"))
    shutil.rmtree(copy / "profiles", ignore_errors=True)
    (tmp_path / "elsewhere").mkdir()
    (copy / "profiles").symlink_to(tmp_path / "elsewhere")
    code, _, err = run("profile", copy)
    assert (code, err.count("\n")) == (2, 1)
    assert f"is a link that leads out of {copy}; give --output" in err
    assert not list((tmp_path / "elsewhere").iterdir())
    (copy / "profiles").unlink()
    assert run("profile", copy)[0] == 0


@pytest.mark.parametrize("model", ["popularity", "count_vae"])
def test_a_folder_whose_name_is_a_pattern(run: Run, csv: Path, tmp_path: Path, model: str) -> None:
    """Of a sweep, as `ks=[3]`: nothing in it is taken for a pattern of other files."""
    small = [f"model={model}", "task.ks=[3]", "trainer.monitor=ndcg@3", "trainer.max_epochs=2"]
    folder = tmp_path / "ks=[3]"
    command = table(csv, *small, f"hydra.run.dir='{folder}'")
    shutil.copytree(csv.parent, tmp_path / "ks=3", ignore=lambda *_: ["ks=3"])
    for _ in range(2):
        code, _, err = run(*command)
        assert code == 0, err
    for arguments in (
        ["evaluate", folder, "--output", tmp_path / "out[*]"],
        ["recommend", folder, "--users", "u01", "--output", tmp_path / "out[*]" / "lists.parquet"],
        ["compare", folder, tmp_path / "out[*]"],
    ):
        code, _, err = run(*arguments)
        assert code == 0, err
    assert "report.html" in {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("title", ["Mug [/blue]", "[blue]Mug", "[deleted]", ":smile: \x1b[2J"])
def test_titles_and_ids_with_brackets(run: Run, tmp_path: Path, title: str) -> None:
    shop = purchases().with_columns(
        title=pl.lit(title), user_id=pl.col("user_id").replace("u00", "[/x]u00")
    )
    path, folder = tmp_path / "shop.csv", tmp_path / "run"
    shop.write_csv(path)
    options = ["data.columns.title=title", f"hydra.run.dir={folder}"]
    code, out, err = run(*table(path, *options))
    assert code == 0, err
    shown = title.replace("\x1b", "␛")
    assert shown in out
    assert "\x1b" not in out
    code, out, err = run("recommend", folder, "--users", "[/x]u00", "u01", "-k", 2)
    assert code == 0, err
    assert out.count(shown) == 4
    assert out.count("[/x]u00") == 2


def test_a_shopper_that_cannot_be_trained(run: Run, tmp_path: Path) -> None:
    path, ordered = tmp_path / "shop.csv", tmp_path / "ordered.csv"
    described().write_csv(path)
    described().with_columns(timestamp=pl.int_range(pl.len())).write_csv(ordered)
    model = ["model=shopperbert", *SMALL_BERT]
    misspelt = table(path, *model, "model.attributes=[catgory]")
    refused(run, tmp_path, *misspelt, words=["no column catgory", "category, brand"])
    undated = table(ordered, *model, "model.attributes=[category]")
    refused(run, tmp_path, *undated, words=["not dates", "set model.calendar=[]"])
    coloured = table(path, *model, "model.attributes=[category]", "report.map_by=age")
    refused(run, tmp_path, *coloured, words=["report.map_by=age", "of users is known nothing"])


def test_a_killed_run_goes_on_to_the_same_numbers(run: Run, csv: Path, tmp_path: Path) -> None:
    command = table(csv, "model=count_vae", "trainer.max_epochs=8", "trainer.patience=8")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(*command, f"hydra.run.dir={whole}")[0] == 0
    assert stopped(command, killed, signal.SIGKILL)[0] == -signal.SIGKILL
    assert len(pl.read_csv(killed / "train.csv")) < 8
    assert not (killed / "metrics.json").exists()
    code, _, err = run(*command, f"hydra.run.dir={killed}")
    assert code == 0, err
    for name in ("metrics.json", "intervals.json", "train.csv"):
        assert (killed / name).read_text() == (whole / name).read_text()


def stopped(command: list[str], folder: Path, how: signal.Signals) -> tuple[int, str]:
    """The exit code of a run that was stopped in its first epochs, and what it said of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "recsys.cli.main", *command, f"hydra.run.dir={folder}"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and so their children, are deaf to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    curve = folder / "train.csv"
    while process.poll() is None and not (curve.exists() and len(pl.read_csv(curve)) >= 3):
        time.sleep(0.005)
    process.send_signal(how)
    _, said = process.communicate()
    return process.returncode, said


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_stopped_run_says_how_to_go_on(csv: Path, tmp_path: Path, how: signal.Signals) -> None:
    command = table(csv, "model=count_vae", "trainer.max_epochs=400", "trainer.patience=400")
    code, said = stopped(command, tmp_path / "run", how)
    assert code == 130
    again = f"recsys: stopped; the same command with 'hydra.run.dir=\"{tmp_path / 'run'}\"' goes on"
    assert said.strip().splitlines()[-1] == again
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_compare_two_runs(run: Run, trained: Path, csv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert run(*table(csv, f"hydra.run.dir={other}"), "model=personal_top")[0] == 0
    code, out, err = run("compare", trained, other)
    assert code == 0, err
    assert "p_holm" in out
    assert "80% power at 5% after Holm's correction over 4;" in out
    lines = [line.split()[0] for line in out.splitlines() if "@" in line]
    assert lines == ["recall@10", "ndcg@10", "phr@10", "mrr@10"]
    _, out, _ = run("compare", trained, other, "--all")
    assert "explore/recall@20" in out


def test_a_sweep_runs_every_value(run: Run, csv: Path, tmp_path: Path) -> None:
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    code, _, err = run(*table(csv, "--multirun", "model.targets_only=true,false", sweep))
    assert code == 0, err
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 2


def test_one_bad_value_does_not_end_a_sweep(run: Run, csv: Path, tmp_path: Path) -> None:
    values = ["model=decayed_personal", "model.decay=0.5,2.0,0.9"]
    command = table(csv, "--multirun", *values, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    code, _, err = run(*command)
    assert code == 2
    reason = (
        "run 1 (model.decay=2.0): decay=2.0: expected above 0, to 1; leave it out for the default\n"
    )
    assert err == f"recsys: {reason}recsys: 1 of 3 runs failed\n  {reason}"
    folders = {path.name for path in (tmp_path / "sweep").iterdir()}
    assert folders == {"0", "2", "multirun.yaml"}
    assert len(list((tmp_path / "sweep").glob("*/report.html"))) == 2


def test_a_process_of_a_launcher_hands_on_how_its_run_failed(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_is_of_the_sweep = count(1)
    monkeypatch.setattr("recsys.cli.compose.os.getpid", lambda: next(first_is_of_the_sweep))
    values = ["model=decayed_personal", "model.decay=0.5,2.0"]
    code, _, err = run(*table(csv, "--multirun", *values, f"hydra.sweep.dir={tmp_path / 'sweep'}"))
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith("recsys: run 1 (model.decay=2.0) failed, and the others went on: decay=")


def test_runs_of_a_sweep_side_by_side(run: Run, csv: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    values = ["model=decayed_personal", "model.decay=0.5,2.0,0.9"]
    code, _, err = run(*table(csv, "--multirun", *values, sweep, *launcher))
    assert (code, "run 1 (model.decay=2.0) failed, and the others went on" in err) == (2, True)
    folders = {path.parent.name for path in (tmp_path / "sweep").glob("*/report.html")}
    assert folders == {"0", "2"}


def test_two_runs_of_one_moment_have_two_folders(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(*table(csv))[0] == 0
    assert len(list(tmp_path.glob("runs/table/popularity/*/report.html"))) == 2


def test_a_folder_that_another_process_works_on_is_left_alone(
    run: Run, trained: Path, csv: Path, shopper: Path
) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    with held(trained):
        for more in ([], ["seed=1"], ["model=personal_top"]):
            code, _, err = run(*table(csv, *more, f"hydra.run.dir={trained}"))
            assert (code, err.count("\n")) == (2, 1)
            assert f"process {os.getpid()} is at work on {trained}; wait until it ends" in err
        # What only reads goes on.
        assert run("recommend", trained, "--users", "u01")[0] == 0
        assert run("compare", trained, trained)[0] == 0
    assert {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["ks=[3] é", "-a*?b::{c}", 'quo"te\\ %s ~'])
def test_a_folder_of_any_name(run: Run, csv: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    log = tmp_path / f"{name}.csv"
    described().write_csv(log)
    command = ["train", "data=table", *shlex.split(argument("data.path", str(log)))]
    small = ["model.embedding_dim=8", "model.latent_dim=4", "trainer.max_epochs=2"]
    where = shlex.split(argument("hydra.run.dir", str(folder)))
    for _ in range(2):  # the second goes on from the first
        code, _, err = run(*command, "model=count_vae", *small, *where)
        assert code == 0, err
    again, lists, profiles = folder / "again", folder / "lists.csv", folder / "p.parquet"
    for arguments in (
        ["evaluate", folder, "task.ks=[5]", "--output", again],
        ["recommend", folder, "--users", "u01", "--output", lists],
        ["vectors", folder, folder / "vectors"],
        ["compare", folder, folder],
    ):
        code, _, err = run(*arguments)
        assert code == 0, (arguments, err)
    assert len(pl.read_csv(lists, glob=False)) == 10
    shopper = [*shlex.split(argument("hydra.run.dir", str(folder / "shopper"))), *SMALL_BERT]
    options = ["model=shopperbert", "model.attributes=[category,brand]", *shopper]
    code, _, err = run(*command, *options)
    assert code == 0, err
    code, _, err = run("profile", folder / "shopper", "--output", profiles)
    assert code == 0, err
    assert len(pl.read_parquet(profiles, glob=False)) == 40


def test_a_folder_that_begins_with_a_dash(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.rename(trained.with_name("-run"))
    monkeypatch.chdir(trained.parent)
    for arguments in (["evaluate", "--", "-run"], ["evaluate", "./-run", "task.ks=[3]"]):
        assert run(*arguments)[0] == 0


def test_a_title_that_the_terminal_has_no_letters_for(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purchases().with_columns(title=pl.format("Thé ✓ {}", "item_id")).write_csv(csv)
    folder, shown = tmp_path / "run", io.BytesIO()
    monkeypatch.setattr(sys, "argv", ["recsys"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main.main(table(csv, f"hydra.run.dir={folder}")) == 0
    monkeypatch.setenv("COLUMNS", "20")
    assert main.main(["recommend", str(folder), "--users", "u01"]) == 0
    assert main.main([]) == 0
    sys.stdout.flush()
    assert b"Th? ?" in shown.getvalue()
    assert "Thé ✓" in (folder / "report.html").read_text("utf-8")


def test_a_disk_that_is_full_or_a_folder_that_cannot_be_made(
    run: Run,
    csv: Path,
    trained: Path,
    tmp_path: Path,
    disk_of: Callable[[int], AbstractContextManager[None]],
) -> None:
    folder = tmp_path / "new"
    (tmp_path / "a file").touch()
    with disk_of(300):
        for arguments, path in (
            (table(csv, f"hydra.run.dir={folder}"), folder / "config.yaml"),
            (["vectors", trained, folder], None),
            (["evaluate", trained, "--output", folder], folder / "config.yaml"),
            (
                ["recommend", trained, "--users", *["u01"] * 9, "--output", f"{folder}.csv"],
                f"{folder}.csv",
            ),
        ):
            code, _, err = run(*arguments)
            assert (code, err.count("\n")) == (2, 1)
            assert path is None or err == f"recsys: {path}: File too large\n"
            assert not list(tmp_path.rglob("*.scratch"))
    for where in (tmp_path / "a file", tmp_path / "a file" / "below", "/proc/nothing"):
        code, _, err = run(*table(csv, f"hydra.run.dir={where}"))
        assert (code, err.count("\n")) == (2, 1)
        assert f"recsys: {where}: " in err


@pytest.mark.slow
def test_who_reads_no_further_than_the_first_line(csv: Path, tmp_path: Path) -> None:
    """`| head -1`, and a standard output that is closed, lose nothing that was computed."""
    command = [sys.executable, "-m", "recsys.cli.main"]
    folder = tmp_path / "run"
    shell = shlex.join([*command, *table(csv, f"hydra.run.dir={folder}")])
    ended = subprocess.run(f"{shell} >&-", shell=True, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    shell = "; ".join(
        f"{shlex.join([*command, *arguments])} | head -1"
        for arguments in (["models"], [], ["evaluate", str(folder)])
    )
    ended = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert len(ended.stdout.splitlines()) == 3


def test_no_home_folder(csv: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    command = [sys.executable, "-m", "recsys.cli.main"]
    for arguments in ([], ["models"], table(csv, "--cfg", "job")):
        ended = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")


AFTER_RUN = {
    "evaluate {run} task.ks=5": "task.ks=5: expected a list of integers",
    "evaluate {run} task.ks=[]": "ks=[]: expected distinct lengths from 1",
    "evaluate {run} task.ks=[1,1]": "ks=[1, 1]: expected distinct lengths from 1",
    "evaluate {run} task.ks=[500]": "k=500 exceeds the 30 items",
    "evaluate {run} task.ks": "task.ks is no OPTION=VALUE",
    "evaluate {run} task=next_item": "task has options of its own: split, filters, ks",
    "evaluate {run} task.mask_history=maybe": "task.mask_history=maybe: expected true or false",
    "evaluate {run} mask_history=true": "did you mean task.mask_history",
    "evaluate {run} retrieval=exact": "retrieval has options of its own: index",
    "evaluate {run} retrieval.index=5": "retrieval.index=5: expected options with _partial_: true",
    "evaluate {run} data.path=5": "data.path=5: expected text; quote it: 'data.path=\"5\"'",
    "evaluate {run} data.path=a=b.csv": "quote it: 'data.path=\"a=b.csv\"'",
    "evaluate {run} task.filters.min_user_events=-1": "min_user_events=-1 is below 0",
    "evaluate {run} {run}": "is no OPTION=VALUE",
    "evaluate {run} --foo": "unrecognized arguments: --foo; see recsys evaluate --help",
    "evaluate {run} --output {csv}": "File exists",
    "evaluate": "the following arguments are required: run; see recsys evaluate --help",
    "recommend {run}": "one of the arguments --users --history --all-users is required",
    "recommend {run} --users": "argument --users: expected at least one argument",
    "recommend {run} --users u01 --history item01": "not allowed with argument --users",
    "recommend {run} --users u01 -k 0": "k=0 is not a length of list",
    "recommend {run} --users u01 -k -3": "k=-3 is not a length of list",
    "recommend {run} --history item01 -k -3": "k=-3 is not a length of list",
    "recommend {run} --users u01 -k many": "argument -k: invalid int value: 'many'",
    "recommend {run} --users u01 --output lists.txt": "--output lists.txt: give a .csv or .parquet",
    "recommend {run} --users u01 --output {run}": "give a .csv or .parquet file",
    "recommend {run} --history item01, --unknown refuse": "item_id '' is not among the 30",
    "recommend {run} --users nobody": "user_id 'nobody' is not among the 40",
    "recommend {run} --all-users": "--all-users writes a file; give --output FILE.parquet",
    "recommend {run} --all-users --output lists.csv": "give --output FILE.parquet",
    "recommend {run} --users u01 --allow {csv} item01": "give ids, or one file",
    "recommend {run} --users u01 --deny nowhere.csv": "nowhere.csv",
    "recommend {run} --users u01 --at-most price": "--at-most price: expected COLUMN=COUNT",
    "recommend {run} --users u01 --at-most price=2": "by=price: items have no columns",
    "recommend {run} --users u01 --at-least own:3": "--at-least own:3: expected COLUMN=VALUE:NUM",
    "recommend {run} --users u01 --boost own=yes:up": "--boost own=yes:up: expected COLUMN=VALUE",
    "similar {run}": "the following arguments are required: --items",
    "similar {run} --items nothing": "item_id 'nothing' is not among the 30",
    "score {run}": "the following arguments are required: pairs",
    "score {run} nowhere.csv": "nowhere.csv",
    "score {run} {csv} --output scores.txt": "--output scores.txt: give a .csv or .parquet",
    "explain {run}": "one of the arguments --users --pairs is required",
    "explain {run} --pairs {csv} --items item01": "--items goes with --users",
    "explain {run} --users u01 --parts 0": "parts=0: expected at least 1",
    "recommend --users u01 {run}": "the following arguments are required: run",
    "vectors {run}": "the following arguments are required: output",
    "profile {run}": "Popularity makes no profiles",
    "profile {run} --output vectors.csv": "--output vectors.csv: give a .parquet file",
    "profile {run} data=nothing": "data=nothing does not exist; there is amazon2023",
    "profile {run} data=table": "data.path is not set; give it as data.path=VALUE",
    "export {run}": "the following arguments are required: output",
    "export {run} model.pt": "model.pt: give a .onnx file",
    "export {run} model.onnx": "Popularity is not written as ONNX; sasrec, unisrec and ease are",
    "compare {run}": "the following arguments are required: second",
    "compare {run} {run} --part train": "invalid choice: 'train'",
    "data": "",
    "data list all": "invalid choice: 'list'",
    "data describe": "the following arguments are required: name",
    "data describe nothing": "there is no log nothing; there is amazon2023",
    "data describe dc path": "path is no OPTION=VALUE",
    "data audit table": "data.path is not set; give it as data.path=VALUE",
    "data audit table data.path={csv} data.columns=5": "data.columns=5: expected options by name",
    "data audit table data.path={csv} data.columns.user_id=5": "quote it: 'data.columns.user_id=",
    "data audit table data.path={csv} +data.x=1": "data.x: table has no such option; it has path",
    "data audit table data.path={csv} data.item_columns=a": "data.item_columns=a: expected a list",
    "models all": "unrecognized arguments: all; see recsys models --help",
    "--all": "there is no command --all; there is train, evaluate",
}


def test_arguments_of_the_impatient(run: Run, trained: Path, csv: Path) -> None:
    for command, said in AFTER_RUN.items():
        code, out, err = run(*(word.format(run=trained, csv=csv) for word in command.split()))
        if not said:
            assert (code, err) == (0, "")
            continue
        assert (code, out, err.count("\n")) == (2, "", 1), (command, err)
        assert said in err, (command, err)


def test_options_may_stand_before_and_after(run: Run, trained: Path, tmp_path: Path) -> None:
    for arguments in (
        ["evaluate", "--output", tmp_path / "a", trained, "task.ks=[3]"],
        ["evaluate", trained, "--output", tmp_path / "a", "task.ks=[3]", "task.mask_history=true"],
    ):
        code, _, err = run(*arguments)
        assert code == 0, err
        assert "recall@3" in json.loads((tmp_path / "a" / "metrics.json").read_text())["test"]


def broken(path: Path, frame: pl.DataFrame) -> Path:
    frame.write_csv(path)
    return path


BAD_TABLES = {
    "a missing column": (lambda f: f.rename({"item_id": "product"}), ["item_id", "product"]),
    "null ids": (
        lambda f: f.with_columns(pl.when(pl.int_range(pl.len()) != 4).then("user_id")),
        ["user_id", "1 null", "row 5"],
    ),
    "letters for a time": (
        lambda f: f.with_columns(timestamp=pl.lit("soon")),
        ["timestamp", "unreadable", "soon"],
    ),
    "negative quantities": (lambda f: f.with_columns(quantity=-1), ["quantity", "negative"]),
    "null baskets": (
        lambda f: f.with_columns(basket_id=pl.when(pl.int_range(pl.len()) != 4).then("timestamp")),
        ["basket_id", "1 null", "row 5"],
    ),
    "no rows": (lambda f: f.clear(), ["no rows"]),
    "one user": (lambda f: f.with_columns(user_id=pl.lit("me")), ["one user"]),
}


@pytest.mark.parametrize("mistake", BAD_TABLES)
def test_a_bad_table_is_one_line(run: Run, tmp_path: Path, mistake: str) -> None:
    change, words = BAD_TABLES[mistake]
    path = broken(tmp_path / "bad.csv", change(purchases()))
    options = ["+data.columns.quantity=quantity"] if mistake == "negative quantities" else []
    refused(run, tmp_path, *table(path, *options), words=words)


def test_an_empty_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.touch()
    refused(run, tmp_path, *table(path), words=["empty"])


def test_a_truncated_parquet_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cut.parquet"
    purchases().write_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(run, tmp_path, *table(path), words=["cut.parquet"])


def test_duplicate_item_keys(run: Run, csv: Path, tmp_path: Path) -> None:
    items = broken(tmp_path / "items.csv", pl.DataFrame({"item_id": ["item01", "item01"]}))
    words = ["items", "more than once", "item01"]
    refused(run, tmp_path, *table(csv, f"data.items_path={items}"), words=words)


def test_k_larger_than_the_catalogue(run: Run, csv: Path, tmp_path: Path) -> None:
    refused(run, tmp_path, *table(csv, "task.ks=[500]"), words=["k=500", "30 items"])


def test_a_model_that_cannot_be_built(run: Run, csv: Path, tmp_path: Path) -> None:
    for options, words in (
        (["model=hybrid"], ["members"]),
        (["model=decayed_personal", "model.decay=2.0"], ["decay=2.0"]),
        (["model=ease", "trainer.max_epochs=0"], ["max_epochs=0"]),
    ):
        refused(run, tmp_path, *table(csv, *options), words=words)


def test_misspelt_names(run: Run, csv: Path, tmp_path: Path) -> None:
    cases = {
        "model=popularty": ["model=popularty", "popularity"],
        "data=bauty": ["data=bauty", "beauty"],
        "experiment=count_vae/cd": ["count_vae/cd", "count_vae/dc"],
        "model.decya=1": ["model.decya", "decay"],
        "tsak=next_item": ["tsak", "task"],
    }
    for option, words in cases.items():
        refused(run, tmp_path, *table(csv), option, words=words)


def test_every_command_asks_where_it_is_told(
    run: Run, trained: Path, shopper: Path, tmp_path: Path
) -> None:
    commands = (
        ("evaluate", trained),
        ("recommend", trained, "--users", "u03"),
        ("vectors", trained, tmp_path / "vectors"),
        ("profile", shopper, "--output", tmp_path / "profiles.parquet"),
    )
    message = "recsys: device=tpu: there is cpu"
    for command in commands:
        code, _, err = run(*command, "--device", "tpu")
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(message)
    assert run("evaluate", trained, "device=tpu")[2].startswith(message)
    folder = tmp_path / "elsewhere"
    code, _, err = run(*table(tmp_path / "purchases.csv", "device=tpu", f"hydra.run.dir={folder}"))
    assert code == 2
    assert err.startswith(message)
    assert not folder.exists()


def test_a_run_is_asked_on_the_second_device_as_on_the_first(run: Run, trained: Path) -> None:
    here = run("evaluate", trained)[1], run("recommend", trained, "--users", "u03")[1]
    with second_device():
        there = run("evaluate", trained)[1], run("recommend", trained, "--users", "u03")[1]
    assert here == there


def test_a_misspelt_command(run: Run) -> None:
    code, _, err = run("trian")
    assert (code, err.count("\n")) == (2, 1)
    assert "train" in err


def test_a_model_without_vectors_or_words(run: Run, trained: Path, tmp_path: Path) -> None:
    code, _, err = run("vectors", trained, tmp_path)
    assert (code, err) == (
        2,
        "recsys: Popularity ranks without vectors; recsys recommend gives its lists\n",
    )
    with pytest.raises(ConfigError, match="Popularity reads no words; give histories of item ids"):
        recsys.load(trained).recommend(texts=[["lamp"]])


@pytest.mark.parametrize("command", ["evaluate", "recommend", "compare"])
def test_a_folder_that_is_no_run(run: Run, tmp_path: Path, command: str) -> None:
    more = {"evaluate": [], "recommend": ["--users", "u1"], "compare": [tmp_path]}[command]
    code, _, err = run(command, tmp_path, *more)
    assert (code, err.count("\n")) == (2, 1)
    assert str(tmp_path) in err


def test_an_unknown_user_item_and_k(run: Run, trained: Path) -> None:
    cases = [
        (["--users", "nobody"], "nobody"),
        (["--history", "nothing"], "nothing"),
        (["--users", "u01", "-k", "99"], "k=99"),
    ]
    for arguments, word in cases:
        code, out, err = run("recommend", trained, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert word in err


def refused(run: Run, tmp_path: Path, *arguments: str, words: list[str]) -> None:
    """One line on standard error with these words, a non-zero exit and no run's folder."""
    folder = tmp_path / "refused"
    code, _, err = run(*arguments, f"hydra.run.dir={folder}")
    assert code == 2
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err
    assert not folder.exists()
