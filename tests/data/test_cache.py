import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recsys import EventLog
from recsys.data.cache import cache_folder, cached
from recsys.data.sources import files
from recsys.data.sources.table import table
from recsys.errors import DataError

CSV = "user_id,item_id,timestamp,quantity\n2,b,2024-01-02,1\n1,a,2024-01-01,2.5\n2,a,2024-01-01,1\n"
calls: list[str] = []


def counted(path: str, **options: object) -> EventLog:
    calls.append(path)
    return table(path, **options)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    calls.clear()
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(CSV)
    return tmp_path / "cache"


def same(a: EventLog, b: EventLog) -> bool:
    frames = ("events", "items", "users")
    assert all(getattr(a, f).schema == getattr(b, f).schema for f in frames)
    facts = (a.name, a.out_of_order) == (b.name, b.out_of_order)
    return facts and all(getattr(a, f).equals(getattr(b, f)) for f in frames)


def test_a_log_is_read_once(folder: Path) -> None:
    logs = [cached(counted, path="log.csv") for _ in range(3)]
    assert len(calls) == 1
    assert all(same(log, logs[0]) for log in logs)
    assert logs[0].out_of_order == 1
    assert [p.name for p in folder.rglob(".*")] == []


def test_what_a_source_of_the_package_reads_is_found_again() -> None:
    items = pl.DataFrame({"item_id": ["a", "b"], "tags": [["x", "y"], []]})
    items.write_parquet("items.parquet")
    first, again = (cached(table, path="log.csv", items_path="items.parquet") for _ in range(2))
    assert same(first, again)
    assert again.items["tags"].to_list() == [["x", "y"], []]


def test_a_changed_input_is_read_again() -> None:
    cached(counted, path="log.csv")
    Path("log.csv").write_text(CSV.replace("2.5", "3.5"))
    assert cached(counted, path="log.csv").events["quantity"].sum() == 5.5
    assert len(calls) == 2


def test_other_options_are_another_log() -> None:
    cached(counted, path="log.csv")
    renamed = cached(counted, path="log.csv", columns={"value": "quantity"})
    assert "value" in renamed.events.columns
    assert "value" not in cached(counted, path="log.csv").events.columns
    assert len(calls) == 2


def test_a_relative_path_in_another_folder_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(counted, path="log.csv")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    Path("log.csv").write_text(CSV.replace("2.5", "9"))
    assert cached(counted, path="log.csv").events["quantity"].sum() == 11


@pytest.mark.parametrize("name", ["events.parquet", "items.parquet", "entry.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "lose"])
def test_a_damaged_entry_is_made_anew(folder: Path, name: str, damage: str) -> None:
    log = cached(counted, path="log.csv")
    (path,) = folder.glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "lose":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    assert same(cached(counted, path="log.csv"), log)
    assert same(cached(counted, path="log.csv"), log)
    assert len(calls) == 2


def test_an_error_leaves_nothing_behind(folder: Path) -> None:
    Path("log.csv").write_text("user_id\n1\n")
    with pytest.raises(DataError, match="no column 'item_id'"):
        cached(counted, path="log.csv")
    assert not folder.exists()


def test_a_lost_input_is_the_source_s_error() -> None:
    cached(counted, path="log.csv")
    Path("log.csv").unlink()
    with pytest.raises(DataError, match=r"no file .*log\.csv"):
        cached(counted, path="log.csv")


def test_without_a_writable_folder_the_log_is_there_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_text("a file in the way")
    with pytest.warns(UserWarning, match="the log is not cached .*; set RECSYS_CACHE"):
        log = cached(counted, path="log.csv")
    assert log.num_events == 3


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSYS_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "recsys" / "prepared"


def test_an_entry_names_its_inputs(folder: Path) -> None:
    cached(table, path="log.csv")
    (entry,) = folder.glob("table-*/entry.json")
    path = Path("log.csv").absolute()
    assert json.loads(entry.read_text())["inputs"] == {str(path): files.record(path)}


READ_OFTEN = """
from recsys.data.cache import cached
from recsys.data.sources.table import table
for _ in range(10):
    assert cached(table, path="log.csv").num_events == 3
"""


def test_processes_that_write_the_same_entry_do_no_harm(folder: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", READ_OFTEN]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert len(list(folder.glob("*"))) == 1


def test_what_describes_items_is_found_again() -> None:
    Path("log.csv").write_text(CSV.replace("quantity", "brand"))
    first, again = (cached(counted, path="log.csv", item_columns=["brand"]) for _ in range(2))
    assert len(calls) == 1
    assert first.item_columns == again.item_columns == ("brand",)
    assert same(first, again)


@pytest.mark.parametrize("value", ["{}", "[{}]", '{"x": {}}', "[]", "null", "[null]", "1e30"])
def test_whatever_json_holds_is_read_cached_or_not(folder: Path, value: str) -> None:
    rows = [f'{{"user_id": {u}, "item_id": 1, "timestamp": 1, "details": {value}}}' for u in (1, 2)]
    Path("log.jsonl").write_text("\n".join(rows))
    first, again = (cached(counted, path="log.jsonl") for _ in range(2))
    assert len(calls) == 1
    assert same(first, again)


def test_a_log_that_no_file_can_hold_is_there_all_the_same(folder: Path) -> None:
    def odd() -> EventLog:
        log = table("log.csv")
        return replace(log, users=log.users.with_columns(o=pl.Series([object()] * 2)))

    with pytest.warns(UserWarning, match="the log is not cached .*; set RECSYS_CACHE"):
        assert cached(odd).num_events == 3


def test_without_a_home_the_log_is_there_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RECSYS_CACHE", "RECSYS_DATA", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", os.fspath)  # as where no user is known
    with pytest.raises(OSError, match="there is no home folder"):
        cache_folder()
    with pytest.warns(UserWarning, match=r"not cached \(there is no home folder\); set") as warned:
        assert cached(counted, path="log.csv").num_events == 3
    assert len(warned) == 1
    assert not Path("~").exists()
