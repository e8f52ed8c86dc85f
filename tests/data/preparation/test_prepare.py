"""Logs in partitions: the rows of the log that is read whole, and nothing half-made."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.preparation import manifest
from recsys.data.preparation.events import large_table
from recsys.data.preparation.prepare import Filters, prepare
from recsys.data.sources.prepared import prepared
from recsys.data.sources.table import table
from recsys.errors import ConfigError, DataError, RecsysError, RunError
from recsys.log.event_log import EventLog
from recsys.log.filters import filtered

Run = Callable[..., tuple[int, str, str]]


def events(num_rows: int, seed: int = 0, *, text: bool = False, **columns: Any) -> pl.DataFrame:
    """Random rows with equal times; users and items of very different activity."""
    random = np.random.default_rng(seed)
    user, item = (random.zipf(1.5, num_rows) % most for most in (40, 15))
    frame = pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "timestamp": random.integers(0, 20, num_rows),
            "basket_id": random.integers(0, 3, num_rows),
            "note": pl.int_range(num_rows, eager=True),
        }
    ).with_columns(**columns)
    return frame.with_columns(pl.col("user_id").cast(pl.String) + "é") if text else frame


def written(frame: pl.DataFrame, folder: Path, num_files: int = 1) -> str:
    """The pattern of the files that hold a frame."""
    size = -(-len(frame) // num_files)
    (folder / "log").mkdir(parents=True, exist_ok=True)
    for number, piece in enumerate(frame.iter_slices(max(1, size))):
        piece.write_parquet(folder / "log" / f"{number:03}.parquet")
    frame.write_parquet(folder / "log.parquet")
    return f"{folder}/log/*.parquet"


def same(first: EventLog, second: EventLog) -> bool:
    facts = [(log.name, log.out_of_order, log.item_columns) for log in (first, second)]
    return first.fingerprint == second.fingerprint and facts[0] == facts[1]


def log_or_error(make: Callable[[], EventLog]) -> EventLog | str:
    try:
        return make()
    except DataError as error:
        return str(error)


@settings(max_examples=12)
@given(
    st.integers(30, 200),
    st.integers(0, 10**6),
    st.booleans(),
    st.integers(1, 5),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 4),
    st.integers(0, 6),
    st.sampled_from([None, 5, 15]),
)
def test_partitions_hold_the_rows_of_the_whole(
    num_rows: int,
    seed: int,
    text: bool,
    num_files: int,
    num_partitions: int,
    first_only: bool,
    of_user: int,
    of_item: int,
    until: int | None,
) -> None:
    with TemporaryDirectory() as folder:
        path = written(events(num_rows, seed, text=text), Path(folder), num_files)
        filters = Filters(first_only, of_user, of_item, until)
        large = large_table(path)
        whole = log_or_error(
            lambda: filtered(table(f"{folder}/log.parquet"), **vars(filters)),
        )

        def in_partitions() -> EventLog:
            prepare(large, Path(folder, "out"), filters=filters, num_partitions=num_partitions)
            return prepared(f"{folder}/out")

        parts = log_or_error(in_partitions)
        if isinstance(whole, str) or isinstance(parts, str):
            assert whole == parts
        else:
            assert same(whole, parts)


def test_a_basket_that_began_with_an_event_that_is_cut(tmp_path: Path) -> None:
    """Of two baskets of a moment the one that began earlier is first, even if that is cut off."""
    rows = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2],
            "item_id": [9, 7, 8, 7, 8],
            "timestamp": [0, 5, 5, 0, 1],
            "basket_id": [1, 2, 1, 3, 3],
        }
    )
    path = written(rows, tmp_path)
    whole = filtered(table(f"{tmp_path}/log.parquet"), min_item_events=2)
    assert whole.events["item_id"].to_list() == [8, 7, 7, 8]
    prepare(large_table(path), tmp_path / "out", filters=Filters(False, 0, 2, None))
    assert same(prepared(str(tmp_path / "out")), whole)


def test_many_pieces_of_a_partition_stay_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.data.preparation.partitions.ROWS_AT_ONCE", 8)
    path = written(events(3_000, timestamp=pl.lit(3)), tmp_path, 3)
    prepare(large_table(path), tmp_path / "out", num_partitions=3)
    assert same(prepared(str(tmp_path / "out")), table(f"{tmp_path}/log.parquet"))


def test_attributes_and_renamed_columns(tmp_path: Path) -> None:
    frame = events(200, price=pl.col("item_id") * 1.5, noise=pl.col("note") % 7)
    path = written(frame.rename({"user_id": "who"}), tmp_path, 3)
    columns = {"user_id": "who", "basket_id": None}
    whole = table(f"{tmp_path}/log.parquet", columns=columns)
    assert whole.item_columns == ("price",)
    prepare(large_table(path, columns=columns), tmp_path / "out", num_partitions=3)
    assert same(prepared(str(tmp_path / "out")), whole)


def test_tables_of_items_and_users(tmp_path: Path) -> None:
    path = written(events(200), tmp_path, 2)
    items, users = tmp_path / "items.csv", tmp_path / "users.parquet"
    pl.DataFrame({"item_id": ["1", "2", "x"], "title": ["One", "Two", "Ex"]}).write_csv(items)
    pl.DataFrame({"user_id": [1, 2, 999], "age": [3, 4, 5]}).write_parquet(users)
    options = {"items_path": str(items), "users_path": str(users)}
    for filters in (Filters(), Filters(min_item_events=3)):
        whole = filtered(table(f"{tmp_path}/log.parquet", **options), **vars(filters))
        prepare(large_table(path, **options), tmp_path / "out", filters=filters, num_partitions=4)
        assert same(prepared(str(tmp_path / "out")), whole)


TIMES: dict[str, tuple[pl.Expr, str | None]] = {
    "seconds": (pl.col("note") + 1_600_000_000, "s"),
    "nanoseconds": ((pl.col("note") + 1_600_000_000) * 10**9, "ns"),
    "float": ((pl.col("note") + 1_600_000_000) * 1.0, "s"),
    "order": (pl.col("note") + 1_600_000_000, "order"),
    "dates": (pl.date(2024, 1, 1) + pl.duration(days=pl.col("note") % 9), None),
    "zone": (pl.datetime(2024, 1, 1, time_zone="Asia/Seoul", time_unit="ms"), None),
}


@pytest.mark.parametrize(("times", "unit"), TIMES.values(), ids=list(TIMES))
def test_times(tmp_path: Path, times: pl.Expr, unit: str | None) -> None:
    path = written(events(60, timestamp=times), tmp_path)
    prepare(large_table(path, time_unit=unit), tmp_path / "out", num_partitions=2)
    assert same(prepared(str(tmp_path / "out")), table(f"{tmp_path}/log.parquet", time_unit=unit))


def test_some_partitions_are_a_sample_of_users(tmp_path: Path) -> None:
    path = written(events(200), tmp_path)
    prepare(large_table(path), tmp_path / "out", num_partitions=4)
    whole = prepared(str(tmp_path / "out"))
    first, rest = (prepared(str(tmp_path / "out"), partitions=part) for part in ([1], [3, 0, 2]))
    assert 0 < first.num_events < whole.num_events
    users = pl.concat([first.users, rest.users])["user_id"]
    assert users.sort().to_list() == whole.users["user_id"].to_list()
    theirs = whole.events["user_id"].is_in(first.users["user_id"].implode())
    expected = whole.with_events(whole.events.filter(theirs))
    assert first.fingerprint == expected.fingerprint


def test_the_same_bytes_with_one_thread_and_with_four(tmp_path: Path) -> None:
    path = written(events(5_000), tmp_path, 3)
    code = (
        "import sys; from pathlib import Path\n"
        "from recsys.data.preparation.events import large_table\n"
        "from recsys.data.preparation.prepare import Filters, prepare\n"
        "prepare(large_table(sys.argv[1]), Path(sys.argv[2]), num_partitions=3,"
        " filters=Filters(min_user_events=2))\n"
    )
    for threads in ("1", "4"):
        environment = os.environ | {"POLARS_MAX_THREADS": threads}
        words = [sys.executable, "-c", code, path, str(tmp_path / threads)]
        subprocess.run(words, env=environment, check=True)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_ray_writes_the_same_bytes(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    path = written(events(2_000), tmp_path, 5)
    filters = Filters(min_user_events=3, min_item_events=5)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for engine in ("polars", "ray"):
            out = tmp_path / engine
            prepare(large_table(path), out, filters=filters, num_partitions=4, engine=engine)
        bad = pl.concat([events(2_000), events(1, item_id=None)], how="vertical_relaxed")
        large = large_table(written(bad, tmp_path / "bad", 2))
        with pytest.raises(DataError, match="1 null, the first in row 2001; leave such rows out"):
            prepare(large, out, engine="ray")
    finally:
        ray.shutdown()
    assert contents(tmp_path / "polars") == contents(tmp_path / "ray")


def test_ray_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"engine=ray needs Ray; pip install 'recsys\[ray\]'"):
        prepare(large_table(written(events(30), tmp_path)), tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


def test_files_by_an_address(tmp_path: Path) -> None:
    written(events(100), tmp_path, 3)
    large = large_table(f"file://{tmp_path}/log/*.parquet")
    prepare(large, tmp_path / "out", num_partitions=2)
    assert same(prepared(str(tmp_path / "out")), table(f"{tmp_path}/log.parquet"))


KILLED = """
import os, signal, sys
from pathlib import Path
from recsys.data.preparation import partitions, prepare
from recsys.data.preparation.events import large_table

def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(partitions, sys.argv[3], killed)
filters = prepare.Filters(min_item_events=2)
prepare.prepare(large_table(sys.argv[1]), Path(sys.argv[2]), filters=filters, num_partitions=3)
"""


@pytest.mark.parametrize("step", ["arrange", "cut", "write"])
def test_a_killed_preparation_leaves_nothing_half_made(tmp_path: Path, step: str) -> None:
    path, out = written(events(100), tmp_path), tmp_path / "made" / "out"
    prepare(large_table(path), out, num_partitions=2)
    before = contents(out)
    words = [sys.executable, "-c", KILLED, path, str(out), step]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert contents(out) == before
    assert len(list(out.parent.iterdir())) > 1
    prepare(large_table(path), out, filters=Filters(min_item_events=2), num_partitions=3)
    assert len(list(out.parent.iterdir())) == 1
    assert len(manifest.read(out).partitions) == 3


BAD_ROWS = {
    "null": ({"item_id": None}, "item_id: 1 null, the first in row 31; leave such rows out"),
    "empty": ({"user_id": ""}, "user_id: 1 no id, the first '' in row 31; leave such rows out"),
    "negative": ({"quantity": -2}, "quantity: 1 negative, the first -2 in row 31; leave returns"),
    "no quantity": ({"quantity": None}, "quantity: 1 blank or no number, the first in row 31"),
    "infinite": ({"value": float("inf")}, "value: 1 are infinite, the first inf in row 31"),
    "year": ({"timestamp": 10**13}, "timestamp: 1 outside the years 1900 to 2199, the first '1000"),
}


@pytest.mark.parametrize(("change", "words"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_rows_that_no_log_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("recsys.data.preparation.events.FIRST_ROWS", 10)
    good = events(40, text=True, quantity=pl.lit(1), value=pl.lit(1.0))
    good = good.with_columns(pl.col("timestamp") + 1_600_000_000)
    last = good[30].with_columns(**{k: pl.lit(v, dtype=good.schema[k]) for k, v in change.items()})
    path = written(pl.concat([good[:30], last, good[31:]]), tmp_path, 3)
    with pytest.raises(DataError) as raised:
        prepare(large_table(path, time_unit="s"), tmp_path / "out", num_partitions=3)
    assert words in str(raised.value)
    assert str(raised.value).startswith("log: ")
    assert not (tmp_path / "out").exists()


BAD_TABLES = {
    "float ids": (
        {"user_id": pl.lit(1.0)},
        "user_id: Float64 is no id here; store ids as",
    ),
    "words": ({"timestamp": pl.lit("2024-01-01")}, "timestamp: String is no time here; store date"),
    "quantities": ({"quantity": pl.lit("1")}, "quantity: String is no number here; store it as"),
    "unit": ({"timestamp": pl.lit(1_600_000_000)}, "set data.time_unit=s"),
    "clock": ({"timestamp": pl.time(3)}, "timestamp: Time is no time; give a datetime or an"),
    "nested": ({"item_id": pl.concat_list("item_id")}, r"item_id: List(Int64) is no id"),
    "one user": ({"user_id": pl.lit(7)}, "user_id: one user only; a recommender learns from at"),
}


@pytest.mark.parametrize(("change", "words"), BAD_TABLES.values(), ids=list(BAD_TABLES))
def test_tables_that_are_no_log(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = written(events(40, **change), tmp_path)
    with pytest.raises(DataError) as raised:
        prepare(large_table(path), tmp_path / "out")
    assert words in str(raised.value)


def test_names_of_the_user_in_errors(tmp_path: Path) -> None:
    frame = events(40).rename({"item_id": "sku"})
    with pytest.raises(DataError, match="no column 'item'; did you mean"):
        large_table(written(frame.rename({"sku": "items"}), tmp_path), columns={"item_id": "item"})
    path = written(frame.with_columns(sku=pl.lit(None, dtype=pl.Int64)), tmp_path)
    with pytest.raises(DataError, match=r"^log: data.columns.item_id=sku: 40 null"):
        prepare(large_table(path, columns={"item_id": "sku"}), tmp_path / "out")


def test_no_rows(tmp_path: Path) -> None:
    path = written(events(40).clear(), tmp_path)
    events(40).clear().write_parquet(tmp_path / "log/0.parquet")
    with pytest.raises(DataError, match="log: no events: the log has no rows"):
        prepare(large_table(path), tmp_path / "out")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*/nothing/\*\.parquet"):
        large_table(f"{tmp_path}/nothing/*.parquet")
    with pytest.raises(DataError, match=r"is a folder; name its files, such as .*\*\.parquet"):
        large_table(str(tmp_path))
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n1,2,3\n")
    with pytest.raises(DataError, match=r"log\.csv: logs are prepared from \.parquet; write it"):
        large_table(str(tmp_path / "log.csv"))
    (tmp_path / "bad.parquet").write_text("no Parquet")
    with pytest.raises(DataError, match=r"bad\.parquet cannot be read"):
        large_table(str(tmp_path / "bad.parquet"))


def test_a_folder_that_is_another(tmp_path: Path) -> None:
    path = written(events(40), tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("mine")
    with pytest.raises(RunError, match="thesis is there and no prepared log; name another folder"):
        prepare(large_table(path), tmp_path / "thesis")
    assert (tmp_path / "thesis/chapter.txt").read_text() == "mine"
    prepare(large_table(path), tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(RunError, match="out is there and no prepared log; name another folder"):
        prepare(large_table(path), tmp_path / "out")


def test_a_file_that_is_damaged_in_its_middle(tmp_path: Path) -> None:
    path = written(events(40), tmp_path, 2)
    large = large_table(path)
    second = tmp_path / "log/001.parquet"
    second.write_bytes(b"\0" * 9 + second.read_bytes()[9:])
    second.write_bytes(second.read_bytes()[:200])
    with pytest.raises(DataError, match="log: its files cannot be read: "):
        prepare(large, tmp_path / "out", num_partitions=2)


def test_files_that_change_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = large_table(written(events(40), tmp_path))
    counts = iter([40, 41])
    monkeypatch.setattr(type(large.events), "count", lambda self: next(counts))
    with pytest.raises(DataError, match="its files changed while they were read; try again"):
        prepare(large, tmp_path / "out")


def changed(folder: Path, **facts: Any) -> None:
    path = folder / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def pretended(folder: Path, frame: pl.DataFrame) -> None:
    """Events of somebody else, with a manifest that fits."""
    path = folder / "events/00000.parquet"
    frame.write_parquet(path)
    changed(folder, partitions=[vars(manifest.described(path, rows=len(frame)))])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (lambda f: (f / "prepared.json").unlink(), "holds no prepared log: there is no"),
    "no JSON": (lambda f: cut_short(f / "prepared.json"), "prepared.json is damaged"),
    "schema": (lambda f: changed(f, schema=9), "is of schema 9, and this version reads 1; prepare"),
    "type": (lambda f: changed(f, partitions={}), "is damaged (dict, no list); prepare the log"),
    "none": (lambda f: changed(f, partitions=[]), "is damaged (no partitions)"),
    "counts": (lambda f: changed(f, items={"rows": -1}), "is damaged ("),
    "columns": (lambda f: changed(f, item_columns=[1]), "is damaged (item_columns that are no"),
    "name": (lambda f: changed(f, name=3), "is damaged (name or filters of another type)"),
    "cut": (lambda f: cut_short(f / "items.parquet"), "items.parquet is not the file that was"),
    "missing": (lambda f: (f / "users.parquet").unlink(), "users.parquet is missing, which"),
    "no table": (lambda f: pretended(f, pl.DataFrame({"x": [1]})), "no column user_id, item_id"),
    "nulls": (lambda f: pretended(f, events(9, item_id=None)), "item_id: 9 null, the first in row"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=list(DAMAGES))
def test_a_folder_that_somebody_else_made(
    tmp_path: Path, damage: Callable[[Path], Any], words: str
) -> None:
    prepare(large_table(written(events(40), tmp_path)), tmp_path / "out", num_partitions=1)
    damage(tmp_path / "out")
    with pytest.raises(RecsysError) as raised:
        prepared(str(tmp_path / "out"))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rows_of_somebody_else_in_any_order(tmp_path: Path) -> None:
    out, frame = tmp_path / "out", events(100).drop("basket_id")
    prepare(large_table(written(frame, tmp_path)), out, num_partitions=1)
    whole = prepared(str(out))
    pretended(out, frame)
    assert prepared(str(out)).fingerprint == whole.fingerprint


def test_partitions_that_are_none(tmp_path: Path) -> None:
    prepare(large_table(written(events(40), tmp_path)), tmp_path / "out", num_partitions=2)
    for partitions, words in {
        (2,): r"data\.partitions=2: the log has 0 to 1",
        (): r"data\.partitions=\[\] reads nothing; name one",
        (0, 0): r"data\.partitions=\[0,0\] names 0 twice",
    }.items():
        with pytest.raises(ConfigError, match=words):
            prepared(str(tmp_path / "out"), partitions=partitions)


def test_a_log_that_does_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(large_table(written(events(40), tmp_path)), tmp_path / "out", num_partitions=2)
    monkeypatch.setattr("recsys.memory.available_memory", lambda: 0)
    monkeypatch.setattr("recsys.memory.LITTLE", 0)
    with pytest.raises(DataError, match=r"40 events would take .*; read some partitions, such as"):
        prepared(str(tmp_path / "out"))


TRAIN = ["train", "model=item_knn", "task.ks=[3]", "trainer.monitor=ndcg@3", "device=cpu"]


def test_a_run_on_a_prepared_log_has_the_figures_of_one_on_the_table(
    run: Run, tmp_path: Path
) -> None:
    path = written(events(600), tmp_path, 2)
    core = ["task.filters.min_user_events=4", "task.filters.min_item_events=4"]
    data = ["data=table", f"data.path='{path}'"]
    code, out, err = run("data", "prepare", *data, f"out={tmp_path}/out", "partitions=3", *core)
    assert (code, err) == (0, "")
    events_left = prepared(str(tmp_path / "out")).num_events
    assert out.startswith(f"{tmp_path}/out: {events_left} events, ")
    assert out.endswith(" in 3 partitions\n")
    whole = [*TRAIN, "data=table", f"data.path={tmp_path}/log.parquet", *core]
    parts = [*TRAIN, "data=prepared", f"data.path={tmp_path}/out"]
    cache = Path(os.environ["RECSYS_CACHE"])
    entries = set(cache.glob("prepared-*"))
    for name, words in (("whole", whole), ("parts", parts)):
        code, _, err = run(*words, f"hydra.run.dir={tmp_path}/{name}")
        assert (code, err) == (0, "")
    for file in ("metrics.json", "intervals.json", "log.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()
    assert set(cache.glob("prepared-*")) == entries
    code, _, err = run("evaluate", tmp_path / "parts", "task.ks=[2]")
    assert (code, err) == (0, "")


MISTAKES = {
    "out": (["data=table", "data.path=x"], "recsys data prepare asks where to: out=FOLDER"),
    "path": (["data=table", "out=x"], "data.path is not set; give it as data.path=VALUE"),
    "log": (["data=ml100k", "out=x"], "ml100k is read as it is; recsys data prepare takes data=t"),
    "engine": (["data=table", "data.path=x", "out=x", "engine=spark"], "engine=spark: expected"),
    "count": (["data=table", "data.path=x", "out=x", "partitions=0"], "partitions=0"),
    "option": (["data=table", "data.pth=x", "out=x"], "there is no option data.pth"),
    "rows": (
        ["data=table", "data.path=x", "out=x", "data.missing=drop"],
        "data.missing is not for logs that are prepared; write Parquet files of the events",
    ),
    "dialect": (
        ["data=table", "data.path=x", "out=x", "data.items.separator=tab"],
        "data.items is not for logs that are prepared",
    ),
    "minimum": (
        ["data=table", "data.path=log.parquet", "out=x", "task.filters.min_user_events=-1"],
        "min_user_events=-1 is below 0; 0 keeps every user",
    ),
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.values(), ids=list(MISTAKES))
def test_mistakes_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(events(40), tmp_path)
    code, _, err = run("data", "prepare", *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
