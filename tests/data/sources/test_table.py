"""A user's own file, in order and in every kind of disorder."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.sources.table import table
from recsys.errors import DataError
from recsys.events import ITEM, QUANTITY, TIME, USER

CSV = """user_id,item_id,timestamp
ann,007,3
bob,007,1
ann,12,2
"""


def written(folder: Path, content: str | bytes, name: str = "log.csv") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_the_same_log_from_every_kind_of_file(tmp_path: Path) -> None:
    frame = pl.DataFrame({USER: [2, 1, 2], ITEM: ["b", "a", "a"], TIME: [3, 1, 2]})
    for ending, write in (
        (".csv", frame.write_csv),
        (".tsv", lambda path: frame.write_csv(path, separator="\t")),
        (".jsonl", frame.write_ndjson),
        (".ndjson", frame.write_ndjson),
        (".PARQUET", frame.write_parquet),
    ):
        write(tmp_path / f"shop{ending}")
        log = table(str(tmp_path / f"shop{ending}"))
        assert log.name == "shop"
        assert log.events.rows() == [(1, "a", 1), (2, "a", 2), (2, "b", 3)]


def test_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    log = table(written(tmp_path, CSV))
    assert log.items[ITEM].to_list() == ["007", "12"]
    numbers = table(written(tmp_path, CSV.replace("007", "7")))
    assert numbers.items[ITEM].to_list() == [7, 12]


def test_columns_are_renamed_and_one_in_the_way_is_left_out(tmp_path: Path) -> None:
    content = "customer,user_id,sku,at,n,shop\nann,1,x,3,2.5,A\nbob,2,x,1,1,B\n"
    columns = {"user_id": "customer", "item_id": "sku", "timestamp": "at", "quantity": "n"}
    log = table(written(tmp_path, content), columns={**columns, "value": None})
    assert log.events.columns == [USER, ITEM, TIME, QUANTITY, "shop"]
    assert log.events.row(0) == ("ann", "x", 3, 2.5, "A")


def test_columns_may_swap_names(tmp_path: Path) -> None:
    swapped = {"user_id": "item_id", "item_id": "user_id"}
    log = table(written(tmp_path, CSV), columns=swapped)
    assert log.users[USER].to_list() == ["007", "12"]


def test_two_names_for_one_column(tmp_path: Path) -> None:
    columns = {"user_id": "invoice", "basket_id": "invoice"}
    log = table(written(tmp_path, CSV.replace("user_id", "invoice")), columns=columns)
    assert log.events.select("basket_id").to_series().to_list() == ["ann", "ann", "bob"]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6)])
def test_time_units(tmp_path: Path, unit: str, factor: int) -> None:
    content = f"user_id,item_id,timestamp\n1,1,{86400 * factor}\n2,1,0\n"
    log = table(written(tmp_path, content), time_unit=unit)
    assert log.events[TIME].to_list() == [datetime(1970, 1, 2), datetime(1970, 1, 1)]


def test_without_a_unit_integers_are_an_order(tmp_path: Path) -> None:
    assert not table(written(tmp_path, CSV)).has_calendar_time


def test_words_of_an_item_come_from_its_first_row(tmp_path: Path) -> None:
    content = "user_id,item_id,timestamp,name\n1,1,5,Tea\n2,1,3,Green tea\n1,2,1,\n"
    log = table(written(tmp_path, content), columns={"title": "name"})
    assert log.items.rows() == [(1, "Tea"), (2, None)]
    assert "title" not in log.events.columns


def test_what_never_varies_within_an_item_is_its_attribute(tmp_path: Path) -> None:
    content = """user_id,item_id,timestamp,category,brand,shop,quantity,note,title
ann,tea,1,drinks,,north,1,,Tea
bob,tea,2,drinks,Leaf,south,1,,Tea
ann,milk,3,,,north,1,once,
bob,salt,4,spices,,south,1,,Salt
"""
    log = table(written(tmp_path, content))
    assert log.items.columns == [ITEM, "title", "category"]  # no item has two brands or notes
    tea, salt = ("tea", "Tea", "drinks"), ("salt", "Salt", "spices")
    assert log.items.rows() == [("milk", None, None), salt, tea]
    assert {"category", "brand", "shop", "note"} < set(log.events.columns)
    assert "title" not in log.events.columns


def test_attributes_of_items_may_be_named(tmp_path: Path) -> None:
    content = "user_id,item_id,timestamp,shop\n1,1,5,\n2,1,3,north\n1,1,7,south\n"
    path = written(tmp_path, content)  # sold in two shops
    assert table(path).items.columns == [ITEM]
    log = table(path, item_columns=["shop"])
    assert log.items.rows() == [(1, "north")]  # the first in the file that is known
    with pytest.raises(DataError, match=r"item_columns: no 'user_id' among shop"):
        table(path, item_columns=["user_id"])
    with pytest.raises(DataError, match=r"item_columns: no 'brand' among shop"):
        table(path, item_columns=["brand"])


def test_a_table_of_items_says_all_of_them(tmp_path: Path) -> None:
    items = written(tmp_path, "item_id,brand\n007,Leaf\n", "items.csv")
    events = CSV.replace("timestamp", "timestamp,brand").replace("\nann,007,3", "\nann,007,3,Root")
    log = table(written(tmp_path, events.replace("007,1", "007,1,Root")), items_path=items)
    assert log.items.rows() == [("007", "Leaf"), ("12", None)]


def test_tables_of_items_and_users(tmp_path: Path) -> None:
    items = written(tmp_path, "sku,name\n007,Tea\n12,Milk\n", "items.csv")
    users = written(tmp_path, '{"user_id": "ann", "age": 30}\n', "users.jsonl")
    events = written(tmp_path, CSV.replace("item_id", "sku"))
    columns = {"item_id": "sku", "title": "name"}
    log = table(events, columns=columns, items_path=items, users_path=users)
    assert log.items.rows() == [("007", "Tea"), ("12", "Milk")]
    assert log.users.rows() == [("ann", 30), ("bob", None)]


PARQUET = b"PAR1" + bytes(64)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("user_id,item\n1,2\n", "log.csv", "no column 'item_id'; did you mean 'item' or 'user_id'"),
        (
            "user_id;item_id\n1;2\n",
            "log.csv",
            r"set data.columns.user_id=NAME \(there are: user_id;i",
        ),
        (CSV.replace("bob", ""), "log.csv", "user_id: 1 null, the first in row 2"),
        (
            CSV.replace("2\n", "soon\n"),
            "log.csv",
            "timestamp: 1 unreadable, the first 'soon' in row 3",
        ),
        (
            CSV.replace("timestamp", "timestamp,quantity").replace("\nann,007,3", "\nann,007,3,-2"),
            "log.csv",
            "quantity: 3 negative or not a number, the first -2 in row 1",
        ),
        (CSV.replace("bob", "ann"), "log.csv", "user_id: one user only"),
        ("", "log.csv", r"log\.csv cannot be read: empty CSV"),
        ("user_id,item_id,timestamp\n", "log.csv", "no events: the log has no rows"),
        ("user_id,item_id,timestamp\n1,2,3,4\n", "log.csv", "found more fields than defined"),
        (CSV.encode() + b"\xe9,1,1\n", "log.csv", r"log\.csv cannot be read: invalid utf-8"),
        ("", "log.jsonl", r"log\.jsonl cannot be read: "),
        ('{"user_id": 1, "item_', "log.jsonl", r"log\.jsonl cannot be read: "),
        (
            "[1, 2]\n",
            "log.jsonl",
            r"log\.jsonl cannot be read: ",
        ),
        (
            PARQUET,
            "log.parquet",
            r"log\.parquet cannot be read: parquet: File out of specification",
        ),
        ("", "log.parquet", r"log\.parquet cannot be read: parquet: File out of specification"),
        (CSV, "log.xlsx", r"\.xlsx is no kind of table that is read; give \.csv, \.tsv, \.jsonl"),
        (CSV, "log", "a name without an ending is no kind of table"),
    ],
)
def test_a_broken_file_is_one_line(
    tmp_path: Path, content: str | bytes, name: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        table(written(tmp_path, content, name))
    assert "\n" not in str(error.value)


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    frame = pl.DataFrame({USER: range(999), ITEM: range(999), TIME: range(999)})
    frame.write_parquet(tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    with pytest.raises(DataError, match=r"log\.parquet cannot be read: .*must end with PAR1"):
        table(written(tmp_path, whole[: len(whole) // 2], "log.parquet"))


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*nowhere\.csv"):
        table(str(tmp_path / "nowhere.csv"))
    with pytest.raises(DataError, match="is a folder; name a file"):
        table(str(tmp_path))


def test_a_name_that_is_not_there_is_no_excuse_for_another(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'user'; did you mean 'user_id'"):
        table(written(tmp_path, CSV), columns={"user_id": "user"})
    with pytest.raises(DataError, match=r"no column 'invoice'; set data\.columns\.basket_id=NAME"):
        table(written(tmp_path, CSV), columns={"basket_id": "invoice"})


def test_bad_tables_of_items(tmp_path: Path) -> None:
    events = written(tmp_path, CSV)
    twice = written(tmp_path, "item_id,title\n12,Tea\n12,Milk\n", "items.csv")
    with pytest.raises(DataError, match="items: item_id is Int64 but String in the events"):
        table(events, items_path=twice)
    twice = written(tmp_path, "item_id,title\n007,Tea\n007,Milk\n", "items.csv")
    with pytest.raises(DataError, match="items: 1 item_id more than once, the first '007'"):
        table(events, items_path=twice)
    with pytest.raises(DataError, match=r"items: no column item_id \(there are: name\)"):
        table(events, items_path=written(tmp_path, "name\nTea\n", "items.csv"))


@pytest.mark.parametrize(
    ("unit", "time", "message"),
    [("days", "1", "time_unit=days: expected s, ms, us"), ("s", "x", "is for timestamps in num")],
)
def test_bad_time_units(tmp_path: Path, unit: str, time: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(written(tmp_path, f"user_id,item_id,timestamp\n1,1,{time}\n2,1,1\n"), time_unit=unit)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "ndjson", "parquet"])
def test_a_folder_whose_name_is_a_pattern(ending: str, tmp_path: Path) -> None:
    """The file that is named is read, and never one that the name would match as a pattern."""
    for number, name in enumerate(("ks=[3]", "ks=3", "k?", "*")):
        frame = pl.DataFrame(
            {"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [number, number]}
        )
        path = tmp_path / name / f"log.{ending}"
        path.parent.mkdir()
        if ending in ("csv", "tsv"):
            frame.write_csv(path, separator="," if ending == "csv" else "\t")
        else:
            (frame.write_parquet if ending == "parquet" else frame.write_ndjson)(path)
    for number, name in enumerate(("ks=[3]", "ks=3", "k?", "*")):
        log = table(str(tmp_path / name / f"log.{ending}"))
        assert log.events["timestamp"].to_list() == [number, number]
        assert log.events.columns == ["user_id", "item_id", "timestamp"]
