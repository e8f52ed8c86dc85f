"""Several files of one table, folders that say something, addresses, and tables that are joined."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.data.cache import cached
from recsys.data.sources import files
from recsys.data.sources.table import table
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import BASKET, ITEM, TIME, USER

FRAME = pl.DataFrame({USER: [1, 2, 1], ITEM: ["a", "a", "b"], TIME: [1, 2, 3]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Parts as Spark writes them."""
    base = tmp_path / "shop"
    for day, rows in (("2024-01-01", FRAME[:2]), ("2024-01-02", FRAME[2:])):
        (base / f"day={day}" / "hour=7").mkdir(parents=True)
        rows.write_parquet(base / f"day={day}" / "hour=7" / "part-0.parquet")
    (base / "_SUCCESS").touch()
    (base / "day=2024-01-01" / ".part-0.parquet.crc").write_bytes(b"x")
    return base


def test_a_folder_with_columns_in_its_names(folder: Path) -> None:
    log = table(str(folder), columns={"basket_id": "day"})
    assert log.name == "shop"
    assert log.events.rows() == [
        (1, "a", 1, "2024-01-01", 7),
        (1, "b", 3, "2024-01-02", 7),
        (2, "a", 2, "2024-01-01", 7),
    ]


def test_a_pattern(folder: Path) -> None:
    log = table(str(folder / "day=2024-01-*/**/*.parquet"))
    assert log.name == "shop"
    assert log.events["day"].to_list() == ["2024-01-01", "2024-01-02", "2024-01-01"]
    one = table(str(folder / "day=2024-01-01/hour=7/part-0.parquet"))
    assert one.events.columns == [USER, ITEM, TIME]


def test_parts_of_text_and_of_unlike_columns(tmp_path: Path) -> None:
    for number, rows in enumerate((FRAME[:2], FRAME[2:].select(ITEM, USER, TIME))):
        rows.write_csv(tmp_path / f"{number}.csv")
    assert table(str(tmp_path / "*.csv")).events.rows() == FRAME.sort(USER, TIME).rows()
    FRAME.rename({ITEM: "sku"}).write_csv(tmp_path / "2.csv")
    with pytest.raises(DataError, match=r"2\.csv: columns user_id, sku, timestamp; .*0\.csv ha"):
        table(str(tmp_path))
    FRAME.write_parquet(tmp_path / "3.parquet")
    with pytest.raises(DataError, match=r"files of several kinds, \.csv, \.parquet; name one"):
        table(str(tmp_path))


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my shop.csv"
    FRAME.write_csv(path)
    log = table(path.as_uri())
    assert (log.name, log.num_events) == ("my shop", 3)
    monkeypatch.setattr(pl, "read_parquet", lambda path, glob: FRAME)
    far = "s3://bucket/log.parquet"
    with files.recorded() as inputs:
        assert table(far).name == "log"
    assert inputs == {far: ""}
    with pytest.raises(DataError, match=r"a \.jsonl file is not read from an address; fetch it"):
        table("s3://bucket/log.jsonl")


def test_a_log_that_is_far_away_or_grows_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(folder.parent / "cache"))
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(pl, "read_parquet", lambda path, glob: FRAME)
    cached(table, path="s3://bucket/log.parquet")
    assert not (folder.parent / "cache").exists()
    monkeypatch.undo()
    monkeypatch.setenv("RECSYS_CACHE", str(folder.parent / "cache"))
    monkeypatch.chdir(folder.parent)
    for path in ("shop", "shop/*/*/*.parquet"):
        assert cached(table, path=path).num_events == cached(table, path=path).num_events
    FRAME.write_parquet("shop/day=2024-01-02/hour=7/part-1.parquet")
    for path in ("shop", "shop/*/*/*.parquet"):
        assert cached(table, path=path).num_events == 6


def test_three_tables_of_one_log(tmp_path: Path) -> None:
    files_of = {
        "rows": "order,product_id,n\n1,7,2\n1,8,1\n2,7,1\n3,8,4\n",
        "orders": "order_id,user_id,order_number,n\n1,ann,1,x\n2,bob,1,y\n3,ann,2,z\n",
        "products": "product_id,aisle\n7,3\n8,4\n",
        "aisles": "3;Tea\n4;Milk\n",
    }
    paths = {name: tmp_path / f"{name}.csv" for name in files_of}
    for name, content in files_of.items():
        paths[name].write_text(content)
    join: list[dict[str, Any]] = [
        {"path": str(paths["orders"]), "key": {"order": "order_id"}},
        {"path": str(paths["products"]), "key": "product_id"},
        {"path": str(paths["aisles"]), "key": "aisle", "names": ["aisle", "a"], "separator": ";"},
    ]
    columns = {"item_id": "product_id", "timestamp": "order_number", "basket_id": "order"}
    log = table(str(paths["rows"]), columns=columns, join=join)
    assert log.events.columns == [USER, ITEM, TIME, BASKET, "n", "orders_n", "aisle", "a"]
    assert log.events.rows() == [
        ("ann", 7, 1, 1, 2, "x", 3, "Tea"),
        ("ann", 8, 1, 1, 1, "x", 4, "Milk"),
        ("ann", 8, 2, 3, 4, "z", 4, "Milk"),
        ("bob", 7, 1, 2, 1, "y", 3, "Tea"),
    ]
    paths["orders"].write_text(files_of["orders"] + "3,bob,2,z\n")
    with pytest.raises(DataError, match=r"order_id '3' is there more than once; an event has one"):
        table(str(paths["rows"]), columns=columns, join=join)
    with pytest.raises(DataError, match=r"rows\.csv: no column 'order_id' to join on \(there are"):
        table(
            str(paths["rows"]), columns=columns, join={"path": join[0]["path"], "key": "order_id"}
        )
    with pytest.raises(ConfigError, match=r"data\.join: expected \[\{path: FILE, key: COLUMN\}\]"):
        table(str(paths["rows"]), columns=columns, join={"path": join[0]["path"]})
    for option, said in {
        "wrong": "data.join: there is no option wrong; there is path, key, separator",
        "separator": "data.separator=3: expected text",
        "names": "data.names=3: expected a list",
        "nulls": "data.nulls=3: expected a list of words, or usual",
        "header": "data.header=3: expected true or false",
        "key": "data.join: expected [{path: FILE, key: COLUMN}]",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(said)):
            table(str(paths["rows"]), columns=columns, join=join[0] | {option: 3})


def test_joined_files_of_another_kind(tmp_path: Path) -> None:
    FRAME.select(TIME, ITEM).write_csv(tmp_path / "rows.csv")
    FRAME.select(TIME, USER).write_parquet(tmp_path / "users.parquet")
    join = {"path": str(tmp_path / "users.parquet"), "key": TIME}
    log = table(str(tmp_path / "rows.csv"), join=join)
    assert (
        log.events.rows()
        == FRAME.sort(USER, TIME).select(USER, TIME, ITEM).select(USER, ITEM, TIME).rows()
    )


def test_a_published_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*log\.csv; get it from https://shop\.example"):
        table(str(tmp_path / "log.csv"), origin="https://shop.example")
