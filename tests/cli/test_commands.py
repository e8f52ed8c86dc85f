"""A run's folder may come from a stranger, and its log may have changed since."""

import json
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from omegaconf import OmegaConf

from recsys.cli import commands
from recsys.cli.compose import compose
from recsys.errors import ConfigError, RecsysError, RunError
from recsys.run import ranking

CONFIG = {
    "data": {"_target_": "recsys.data.sources.table.table", "path": "log.csv"},
    "task": {
        "split": {"_target_": "recsys.tasks.last_basket", "_partial_": True},
        "filters": {},
        "ks": [5],
        "mask_history": False,
    },
    "retrieval": {"index": {"_target_": "recsys.retrieval.ExactIndex", "_partial_": True}},
}


def evaluate(folder: Path, config: object) -> None:
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    given = Namespace(run=folder, overrides=[], output=None, device=None, trusted=[])
    commands.evaluate(given)


def test_functions_and_classes_of_logs_splits_and_indices_may_be_called(tmp_path: Path) -> None:
    # The config passes; what is missing is the model.
    with pytest.raises(RunError, match="there is no model/"):
        evaluate(tmp_path, CONFIG)


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "recsys.tasks.splits.torch.os.mkdir",
        "recsys.data.sources.table.Path.mkdir",
        "recsys.scoring.saved_model.save",
        "recsys.splitsandmore.run",
    ],
)
@pytest.mark.parametrize("part", ["data", "task", "retrieval"])
def test_nothing_else_may_be_called(part: str, target: str, tmp_path: Path) -> None:
    marker = tmp_path / "called"
    bad = {"_target_": target, "path": str(marker)}
    given = bad if part == "data" else {"split": bad, "index": bad}
    with pytest.raises(ConfigError, match=f"_target_: {target} is nothing that a folder's"):
        evaluate(tmp_path, {**CONFIG, part: given})
    assert not marker.exists()


def test_an_interpolation_is_refused(tmp_path: Path) -> None:
    hidden = {**CONFIG["data"], "path": "${oc.create:{_target_: os.getcwd}}"}
    with pytest.raises(RunError, match="is an interpolation"):
        evaluate(tmp_path, {**CONFIG, "data": hidden})


CANARY = """
called = []

def call(*arguments, **options):
    called.append((arguments, options))
"""


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of `canary.call`, which nobody may name."""
    (tmp_path / "canary.py").write_text(CANARY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    import canary

    return canary.called


@pytest.fixture(scope="module")
def purchases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of twelve users and items, and the folder of a run of it beside it."""
    place = tmp_path_factory.mktemp("purchases")
    events().write_csv(place / "log.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ranking.ranking_page, "write", lambda _: None
        )  # a page of plots takes a second
        trained(place / "run", place / "log.csv")
        trained(place / "again", place / "log.csv", "model.popularity_weight=0.3")
        trained(place / "masked", place / "log.csv", "task.mask_history=true")
    return place


def events(num_users: int = 12) -> pl.DataFrame:
    """Users who come back to an item or two, not all of them to the last one."""
    steps = (0, 1, 0, 5, 1, 0), (0, 1, 2, 0, 3, 2), (0, 4, 8, 1, 1, 6)
    rows = [
        (f"u{user:02}", (user + step) % 12, time)
        for user in range(num_users)
        for time, step in enumerate(steps[user % 3])
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def trained(folder: Path, log: Path, *options: str) -> None:
    start = ["data=table", f"data.path={log}", "task.ks=[5]", "model=decayed_personal"]
    ranking.run(compose([*start, *options]), folder)


def evaluate_run(folder: Path, *overrides: str, output: Path | None = None) -> None:
    given = Namespace(run=folder, overrides=list(overrides), output=output, device=None)
    given.trusted = []
    commands.evaluate(given)


def test_what_was_checked_is_what_is_built(
    purchases: Path, tmp_path: Path, canary: list[Any]
) -> None:
    """A section that stands for one thing before the log's sizes are known, and another after."""
    folder = Path(shutil.copytree(purchases / "run", tmp_path / "run"))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["num_items"] == 12
    config["num_items"] = 0
    config["indices"] = {"0": None, "12": {"_target_": "canary.call"}}
    config["retrieval"] = {"index": '${oc.select:"indices.${num_items}"}'}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(RunError, match=r"indices\.\$\{num_items\}.* is an interpolation"):
        evaluate_run(folder)
    words = """retrieval.index='${oc.select:"indices.${num_items}"}'"""
    # As the folder's own words, then as the user's: what they stand for is looked at, once.
    config["retrieval"] = {"index": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"canary\.call is nothing that a folder's config may"):
        evaluate_run(folder, "num_items=12", words)
    evaluate_run(folder, words)
    assert not canary


def test_a_user_may_refer_to_values(purchases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_run(purchases / "run", "task.ks=[3,${seed}]", "seed=7")
    assert "recall@3" in capsys.readouterr().out


def test_an_override_that_cannot_be_read(purchases: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.ks=\[3 cannot be read"):
        evaluate_run(purchases / "run", "task.ks=[3")


METRICS = ("recall@5", "ndcg@5", "phr@5", "mrr@5", "repeat/recall@5")


def figures(folder: Path, part: str = "test") -> pl.DataFrame:
    frame = pl.read_parquet(folder / "per_user.parquet").filter(part=part)
    return frame.select("user_id", "history_length", *METRICS).sort("user_id")


def test_another_catalogue_is_refused_by_its_first_item(purchases: Path, tmp_path: Path) -> None:
    strange = events().with_columns(item_id=pl.col("item_id").replace(4, 99))
    fewer = events().filter(pl.col("item_id") != 4)
    text = events().with_columns(item_id=pl.format("item {}", "item_id"))
    cases = [
        (strange, "the log holds item 99, which the model does not know"),
        (fewer, "the model knows item 4, which the log does not hold"),
        (text, "the items of the log are String, as 'item 0', and the model's Int64, as 0"),
    ]
    for frame, words in cases:
        frame.write_csv(tmp_path / "log.csv")
        with pytest.raises(ConfigError, match=words):
            evaluate_run(purchases / "run", f"data.path={tmp_path / 'log.csv'}")


LEARNT = "the model may have learnt from what it is evaluated on here"


def test_what_is_not_as_in_training_is_said(
    purchases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = purchases / "run"
    evaluate_run(run, "task.ks=[3]", "task.mask_history=true")
    assert "learnt" not in capsys.readouterr().out
    events(13).write_csv(tmp_path / "log.csv")
    evaluate_run(run, f"data.path={tmp_path / 'log.csv'}")
    more = f"log.events was 72 in training, and is 78: {LEARNT}"
    assert more in capsys.readouterr().out
    events().with_columns(item_id=11 - pl.col("item_id")).write_csv(tmp_path / "log.csv")
    evaluate_run(run, f"data.path={tmp_path / 'log.csv'}", output=tmp_path / "out")
    digest = rf"log\.sha256 was \w{{12}} in training, and is \w{{12}}: {LEARNT}"
    assert re.search(digest, capsys.readouterr().out)
    # A comparison says it of what was written there, too.
    compared(tmp_path / "out", tmp_path / "out")
    assert re.search(rf"out: {digest}", capsys.readouterr().out.replace("\n", ""))
    evaluate_run(run, "task.filters.min_user_events=2")
    filters = f"task.filters.min_user_events was 0 in training, and is 2: {LEARNT}"
    assert filters in capsys.readouterr().out
    evaluate_run(run, "task.split._target_=recsys.tasks.last_basket")
    split = "task.split._target_ was recsys.tasks.leave_last_out in training, and is recsys.tasks.l"
    assert split in capsys.readouterr().out


@pytest.mark.parametrize("model", ["decayed_personal", "up_cf", "bpr_mf"])
def test_users_are_known_by_their_ids(
    model: str, purchases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have the same figures when one is renamed, or some come or go."""
    monkeypatch.setattr(ranking.ranking_page, "write", lambda _: None)
    small = ["trainer.max_epochs=2", "trainer.monitor=ndcg@5"] if model == "bpr_mf" else []
    trained(tmp_path / "run", purchases / "log.csv", f"model={model}", *small)
    own = figures(tmp_path / "run")
    assert 0 < own["recall@5"].mean() < 1
    renamed = events().with_columns(user_id=pl.col("user_id").replace("u07", "a stranger"))
    added = pl.concat([events(), events(5).with_columns(user_id=pl.format("a{}", "user_id"))])
    fewer = events().filter(~pl.col("user_id").is_in(["u00", "u03"]))
    for frame, others in ((renamed, {"u07"}), (added, set()), (fewer, {"u00", "u03"})):
        frame.write_csv(tmp_path / "other.csv")
        evaluate_run(
            tmp_path / "run", f"data.path={tmp_path / 'other.csv'}", output=tmp_path / "out"
        )
        known = ~pl.col("user_id").is_in(list(others))
        found = figures(tmp_path / "out").filter(pl.col("user_id").is_in(own["user_id"].implode()))
        assert found.equals(own.filter(known))
        lists = [pl.read_parquet(tmp_path / f / "recommendations.parquet") for f in ("run", "out")]
        before, after = (frame.filter(known & (pl.col("user_id") == "u05")) for frame in lists)
        assert before.drop("score").equals(after.drop("score"))


def test_a_changed_log_under_the_same_name_is_refused(
    purchases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking.ranking_page, "write", lambda _: None)
    log = tmp_path / "log.csv"
    events().write_csv(log)
    trained(tmp_path / "run", log)
    trained(tmp_path / "run", log)  # the same goes on
    before = (tmp_path / "run/metrics.json").read_text()
    events(13).write_csv(log)
    with pytest.raises(ConfigError, match=r"run of another log: events was 72, and is 78 now"):
        trained(tmp_path / "run", log)
    events().with_columns(item_id=11 - pl.col("item_id")).write_csv(log)
    with pytest.raises(ConfigError, match=r"another log: sha256 was \w{12}, and is \w{12} now"):
        trained(tmp_path / "run", log)
    (tmp_path / "run/log.json").unlink()
    with pytest.raises(ConfigError, match="does not say which log its run is of; choose another"):
        trained(tmp_path / "run", log)
    assert (tmp_path / "run/metrics.json").read_text() == before
    trained(tmp_path / "new", log)  # and in a folder of its own it is a run


def test_the_same_events_in_another_file_are_the_same_log(purchases: Path, tmp_path: Path) -> None:
    told = json.loads((purchases / "run/log.json").read_text())
    assert {k: told[k] for k in ("name", "events", "items", "users")} == {
        "name": "log",
        "events": 72,
        "items": 12,
        "users": 12,
    }
    events().write_parquet(tmp_path / "other.parquet")
    where = f"data.path={tmp_path / 'other.parquet'}"
    evaluate_run(purchases / "run", where, output=tmp_path / "out")
    again = json.loads((tmp_path / "out/log.json").read_text())
    assert again["sha256"] == told["sha256"]
    assert figures(tmp_path / "out").equals(figures(purchases / "run"))


def test_a_folder_from_before_logs_had_fingerprints(purchases: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(purchases / "run", tmp_path / "run"))
    (folder / "log.json").unlink()
    (folder / "model/manifest.json").unlink()
    evaluate_run(folder, output=tmp_path / "out")
    assert figures(tmp_path / "out").equals(figures(purchases / "run"))
    compared(folder, purchases / "again")


def compared(first: Path, second: Path, part: str = "test") -> None:
    commands.compare(
        Namespace(first=first, second=second, more=[], part=part, all=False, html=None)
    )


def test_runs_that_were_asked_the_same_are_compared(
    purchases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_run(
        purchases / "run", "task.mask_history=true", "task.ks=[2,5]", output=tmp_path / "masked"
    )
    capsys.readouterr()
    for first, second in (("run", "again"), ("again", "run")):
        compared(purchases / first, purchases / second, "validation")
    compared(purchases / "masked", tmp_path / "masked")
    shown = re.findall(r"^recall@5 ", capsys.readouterr().out, re.MULTILINE)
    assert len(shown) == 3


def test_others_are_refused_by_the_option_that_differs(purchases: Path, tmp_path: Path) -> None:
    run = purchases / "run"
    events(13).write_csv(tmp_path / "more.csv")
    others = {
        r"task\.mask_history is False in .* and True in": ["task.mask_history=true"],
        r"task\.split\._target_ is recsys.tasks.leave_last_out in .* and recsys.tasks.last": [
            "task.split._target_=recsys.tasks.last_basket"
        ],
        r"task\.filters\.min_user_events is 0 in .* and 2 in": ["task.filters.min_user_events=2"],
        r"task\.filters\.first_only is False in .* and True in": [
            "task.filters={first_only: true, min_user_events: 0, min_item_events: 0}",
            "task.ks=[3]",
        ],
        r"log\.events is 72 in .* and 78 in": [f"data.path={tmp_path / 'more.csv'}"],
    }
    for words, overrides in others.items():
        evaluate_run(run, *overrides, output=tmp_path / "out")
        with pytest.raises(RunError, match=f"{words}.*; compare runs of the same task"):
            compared(run, tmp_path / "out")
        (tmp_path / "out/log.json").unlink()
    # Without a fingerprint the options of the data have to be the same.
    with pytest.raises(RunError, match=r"data\.path is .*log\.csv in .* and .*more\.csv in"):
        compared(run, tmp_path / "out")
    (tmp_path / "out/config.yaml").unlink()
    with pytest.raises(RunError, match=r"out is no run's folder: it has no config\.yaml"):
        compared(run, tmp_path / "out")


def test_a_part_that_asks_nobody(purchases: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(purchases / "run", tmp_path / "run"))
    frame = pl.read_parquet(folder / "per_user.parquet")
    frame.filter(part="test").write_parquet(folder / "per_user.parquet")
    with pytest.raises(RunError, match="run has no users of the part validation"):
        compared(folder, purchases / "run", "validation")


def test_a_baseline_and_a_member_were_asked_as_their_run(
    purchases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking.ranking_page, "write", lambda _: None)
    options = ["model=hybrid", "+model@model.members.a=popularity", "+model.weights.a=1.0"]
    options += ["+model@baselines.top=personal_top"]
    trained(tmp_path / "run", purchases / "log.csv", *options)
    compared(tmp_path / "run/baselines/top", tmp_path / "run/members/a")
    compared(tmp_path / "run/baselines/top", purchases / "run")
    with pytest.raises(RunError, match=r"task\.mask_history is True in"):
        compared(purchases / "masked", tmp_path / "run/members/a")


def test_label_tables_are_compared_by_their_tables(tmp_path: Path) -> None:
    config = {"task": {"labels": {"a": {"days": 3}, "b": {}}, "folds": {"seed": 0}}, "data": {}}
    log = {"sha256": "s", "labels/a": "1", "labels/b": "2"}

    def written(name: str, config: dict[str, Any], log: dict[str, Any]) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config))
        (tmp_path / name / "log.json").write_text(json.dumps(log))
        return tmp_path / name

    one = written("one", config, log)
    fewer = {**config["task"], "labels": {"a": {"days": 3}}, "features": ["others"]}
    same = written("same", {**config, "task": fewer}, {"sha256": "s", "labels/a": "1"})
    commands.check_alike(one, same)
    other = written("other", config, {**log, "labels/a": "3"})
    with pytest.raises(RunError, match=r"log\.labels/a is 1 in .* and 3 in"):
        commands.check_alike(one, other)
    folds = {**config["task"], "folds": {"seed": 1}}
    with pytest.raises(RunError, match=r"task\.folds\.seed is 0 in .* and 1 in"):
        commands.check_alike(one, written("folds", {**config, "task": folds}, log))
    days = {**config["task"], "labels": {"a": {"days": 4}}}
    with pytest.raises(RunError, match=r"task\.labels\.a\.days is 3 in .* and 4 in"):
        commands.check_alike(one, written("days", {**config, "task": days}, log))


@pytest.mark.parametrize("part", ["data", "task", "retrieval"])
def test_a_config_with_a_part_missing_is_one_line(part: str, tmp_path: Path) -> None:
    rest = {name: value for name, value in CONFIG.items() if name != part}
    with pytest.raises(RecsysError) as caught:
        evaluate(tmp_path, rest)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [commands.recommend, commands.return_times])
def test_a_file_of_another_kind_is_refused_before_a_run_is_read(
    command: Callable[[Namespace], None], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--output lists\.txt: give a \.csv or \.parquet file"):
        command(Namespace(run=tmp_path / "nowhere", output=Path("lists.txt")))
