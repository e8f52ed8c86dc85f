"""A user's own file, in order and in every kind of disorder."""

import time
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.sources.table import table
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE

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


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        (["7", "10", "-3", "0", None], pl.Int64),
        (["9223372036854775807", "-9223372036854775808", "5"], pl.Int64),
        (["007", "7", "07"], pl.String),
        (["1e5", "100000", "10e4"], pl.String),
        (["13835058055282163712", "13835058055282163713", "5"], pl.String),
        (["+5", "5", "6"], pl.String),
        (["-0", "0", "1"], pl.String),
        ([" 5", "5", "6"], pl.String),
        (["5.0", "5", "7"], pl.String),
        (["a", "b", None], pl.String),
    ],
)
@pytest.mark.parametrize("column", [USER, ITEM, BASKET, "category"])
def test_a_column_keeps_its_text_unless_it_is_plain_integers(
    tmp_path: Path, text: list, dtype: pl.DataType, column: str
) -> None:
    values = [value for value in text if value is not None or column == "category"]
    frame = {USER: range(len(values)), ITEM: range(len(values)), TIME: range(len(values))}
    pl.DataFrame({**frame, column: values}).write_csv(tmp_path / "log.csv")
    log = table(str(tmp_path / "log.csv"))
    assert log.events[column].dtype == dtype
    assert log.events.sort(TIME)[column].cast(pl.String).to_list() == values


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        (["12.50", "3", "0.25", None], pl.Float64),
        (["0.04513772634894957", "-1.5", "-0.1"], pl.Float64),
        (["12.50", "12.5", "3"], pl.String),
        (["1.0", "1", "3"], pl.String),
        (["007.5", "1.5", "3"], pl.String),
        ([".5", "1.5", "3"], pl.String),
        (["1e-05", "1.5", "3"], pl.String),
        (["nan", "inf", "3.5"], pl.String),
        (["1.5", "13835058055282163712", "3"], pl.String),
        (["0.10000000000000000001", "0.1", "3"], pl.String),
        (["7,50", "1.5", "3"], pl.String),
    ],
)
def test_decimals_are_numbers_where_nothing_is_lost(
    tmp_path: Path, text: list, dtype: pl.DataType
) -> None:
    rows = range(len(text))
    frame = pl.DataFrame({USER: rows, ITEM: rows, TIME: rows, "weight": text})
    frame.write_csv(tmp_path / "log.csv")
    weight = table(str(tmp_path / "log.csv")).events["weight"]
    assert weight.dtype == dtype
    assert weight.to_list() == [
        value if dtype == pl.String or value is None else float(value) for value in text
    ]


def test_a_column_is_read_to_its_end(tmp_path: Path) -> None:
    rows = [f"{n},{n},{n},{n},{n}.5\n" for n in range(3000)] + ["1,x,1,07,soon\n"]
    content = f"user_id,item_id,timestamp,zip,weight\n{''.join(rows)}"
    log = table(written(tmp_path, content))
    assert log.events[ITEM].dtype == log.events["zip"].dtype == pl.String
    assert log.events["weight"].dtype == pl.String


def test_quantities_and_values_are_numbers_however_they_are_written(tmp_path: Path) -> None:
    content = (
        "user_id,item_id,timestamp,quantity,value\n1,1,1,007,1e2\n2,1,2,2,12.50\n1,2,3,3,12.5\n"
    )
    log = table(written(tmp_path, content))
    assert log.events.select(QUANTITY, VALUE).rows() == [(7, 100.0), (3, 12.5), (2, 12.5)]
    with pytest.raises(DataError, match="log: value: 1 are no numbers, the first '7,50' in row 1"):
        table(written(tmp_path, content.replace("1e2", '"7,50"')))


def test_a_quote_in_a_tsv_file_is_a_letter(tmp_path: Path) -> None:
    content = 'user_id\titem_id\ttimestamp\ttitle\n1\t1\t1\t"Open\n1\t2\t2\tb\n1\t3\t3\tshut"\n'
    log = table(written(tmp_path, content + '2\t4\t4\t5" nails\n', "log.tsv"))
    assert log.items.rows() == [(1, '"Open'), (2, "b"), (3, 'shut"'), (4, '5" nails')]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_blank_lines_and_a_byte_order_mark_are_no_rows(
    tmp_path: Path, end: str, separator: str
) -> None:
    lines = [
        "\ufeffuser_id,item_id,timestamp",
        "ann,007,3",
        "",
        "bob,007,1",
        ",,",
        "ann,12,2",
        "",
        "",
    ]
    content = end.join(lines).replace(",", separator)
    name = "log.csv" if separator == "," else "log.tsv"
    log = table(written(tmp_path, content, name))
    assert log.events.rows() == table(written(tmp_path, CSV, "plain.csv")).events.rows()


def test_what_is_quoted_and_empty_is_missing(tmp_path: Path) -> None:
    content = 'user_id,item_id,timestamp,note\n"a","x","1",""\n"b","","2","n"\n'
    with pytest.raises(DataError, match="item_id: 1 null, the first in row 2"):
        table(written(tmp_path, content))
    log = table(written(tmp_path, content.replace('""', '"y"', 2).replace('"y"', '""', 1)))
    assert log.events["note"].to_list() == [None, "n"]


def test_ids_are_of_one_type_in_all_files(tmp_path: Path) -> None:
    events = written(tmp_path, CSV.replace("007", "7").replace("ann", "1").replace("bob", "2"))
    items = written(tmp_path, "item_id,title\n7,Tea\n12,Milk\nPOST,Postage\n", "items.csv")
    users = written(tmp_path, '{"user_id": "2", "age": 30}\n', "users.jsonl")
    log = table(events, items_path=items, users_path=users)
    assert log.items.rows() == [("12", "Milk"), ("7", "Tea"), ("POST", "Postage")]
    assert log.users.rows() == [("1", None), ("2", 30)]
    zeros = written(tmp_path, "item_id,title\n07,Tea\n12,Milk\n", "zeros.csv")
    assert table(events, items_path=zeros).items.rows() == [
        ("07", "Tea"),
        ("12", "Milk"),
        ("7", None),
    ]


def test_words_may_be_lists_and_numbers(tmp_path: Path) -> None:
    lines = ['{"user_id": 1, "item_id": 7, "timestamp": 1, "text": ["a", "cup"], "title": 41}']
    lines += ['{"user_id": 2, "item_id": 7, "timestamp": 2, "text": ["a", "cup"], "title": 41}']
    lines += ['{"user_id": 2, "item_id": 8, "timestamp": 2, "text": [], "title": 42.5}']
    log = table(written(tmp_path, "\n".join(lines), "log.jsonl"))
    assert log.items.rows() == [(7, "41.0", "a cup"), (8, "42.5", "")]
    listed = "\n".join(lines).replace('"text"', '"words"')
    named = table(written(tmp_path, listed, "named.jsonl"), columns={"text": "words"})
    assert named.items["text"].to_list() == ["a cup", ""]


def test_a_column_may_have_two_names_and_be_the_time(tmp_path: Path) -> None:
    log = table(written(tmp_path, CSV), columns={"basket_id": "timestamp"})
    assert log.events[BASKET].to_list() == log.events[TIME].to_list() == [2, 3, 1]


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    twice = CSV.replace("timestamp", "timestamp,item_id").replace("\nann,007,3", "\nann,007,3,9")
    with pytest.raises(DataError, match=r"log\.csv: more than one column 'item_id'; leave one in"):
        table(written(tmp_path, twice))


def test_columns_of_any_name_are_read(tmp_path: Path) -> None:
    names = ["_key", "_row", "row", "as_of", "", "users", "column_3"]
    head, rows = CSV.rstrip("\n").partition("\n")[::2]
    values = ",".join(f"{n}x" for n in range(len(names)))
    content = "\n".join([f"{head},{','.join(names)}", *(f"{row},{values}" for row in rows.split())])
    log = table(written(tmp_path, content))
    for number, name in enumerate(names):
        assert log.events[name].to_list() == [f"{number}x"] * 3
    with pytest.raises(DataError, match=r"the column '\*' has the name of a pattern"):
        table(written(tmp_path, content.replace("_key", "*")))


@pytest.mark.slow
@pytest.mark.parametrize("constant", [False, True])
def test_many_columns_take_time_in_proportion(tmp_path: Path, constant: bool) -> None:
    rows = 60
    values = [n % 10 if constant else n for n in range(rows)]
    frame = {USER: [n % 7 for n in range(rows)], ITEM: [n % 10 for n in range(rows)]}
    frame |= {TIME: list(range(rows))} | {f"c{n}": values for n in range(20_000)}
    pl.DataFrame(frame).write_csv(tmp_path / "log.csv")
    start = time.process_time()
    log = table(str(tmp_path / "log.csv"))
    assert time.process_time() - start < 120  # a quarter of an hour when the schema was asked anew
    assert len(log.item_columns) == (20_000 if constant else 0)


@pytest.mark.parametrize(
    ("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)]
)
def test_time_units(tmp_path: Path, unit: str, factor: int) -> None:
    content = f"user_id,item_id,timestamp\n1,1,{86400 * factor}\n2,1,0\n"
    log = table(written(tmp_path, content), time_unit=unit)
    assert log.events[TIME].to_list() == [datetime(1970, 1, 2), datetime(1970, 1, 1)]


def test_without_a_unit_integers_are_an_order(tmp_path: Path) -> None:
    assert not table(written(tmp_path, CSV)).has_calendar_time


SECONDS = pl.Series(TIME, [978_300_760, 978_301_968, 978_302_109])


@pytest.mark.parametrize("dtype", [pl.Int32, pl.UInt32, pl.Int64, pl.UInt64, pl.Float64, pl.Int128])
@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("ns", 10**9)])
def test_times_are_counted_in_64_bits(
    tmp_path: Path, dtype: pl.DataType, unit: str, factor: int
) -> None:
    if factor > 1 and dtype in (pl.Int32, pl.UInt32):
        pytest.skip("does not hold them")
    frame = pl.DataFrame({USER: [1, 1, 2], ITEM: [1, 3, 2], TIME: (SECONDS * factor).cast(dtype)})
    frame.write_parquet(tmp_path / "log.parquet")
    log = table(str(tmp_path / "log.parquet"), time_unit=unit)
    assert log.events[TIME].to_list() == [
        datetime(2000, 12, 31, 22, 12, 40),
        datetime(2000, 12, 31, 22, 32, 48),
        datetime(2000, 12, 31, 22, 35, 9),
    ]


@pytest.mark.parametrize(("dtype", "digits"), [(pl.Float32, 24), (pl.Float16, 11)])
def test_times_that_floats_no_longer_tell_apart(
    tmp_path: Path, dtype: pl.DataType, digits: int
) -> None:
    times = pl.Series(TIME, [0, 0, 2**digits + 2]).cast(dtype)
    frame = pl.DataFrame({USER: [1, 1, 2], ITEM: [1, 3, 2]})
    frame.with_columns(times).write_parquet(tmp_path / "log.parquet")
    message = rf"such as {2**digits + 2} are beyond 2\*\*{digits}, where {dtype} no longer tells"
    with pytest.raises(DataError, match=message):
        table(str(tmp_path / "log.parquet"), time_unit="s")
    frame.with_columns(times.clip(0, 1000)).write_parquet(tmp_path / "log.parquet")
    assert table(str(tmp_path / "log.parquet"), time_unit="s").events[TIME].dt.year().max() == 1970


def test_numbers_that_are_no_integers_are_named(tmp_path: Path) -> None:
    for number in ("1.5", str(2**64 - 1)):
        content = f"user_id,item_id,timestamp\n1,1,1\n2,1,2\n1,2,{number}\n"
        with pytest.raises(DataError, match=f"1 unreadable, the first '{number}' in row 3; write"):
            table(written(tmp_path, content))


def test_fractions_of_seconds_are_kept(tmp_path: Path) -> None:
    content = "user_id,item_id,timestamp\n1,1,1704537844.311\n2,1,1704537844.3111119\n1,2,-1.5\n"
    log = table(written(tmp_path, content), time_unit="s")
    times = {time.isoformat() for time in log.events[TIME]}
    first, second = "2024-01-06T10:44:04.311000", "2024-01-06T10:44:04.311112"
    assert times == {first, second, "1969-12-31T23:59:58.500000"}


@pytest.mark.parametrize(
    ("factor", "unit", "name"),
    [
        (1, "s", "seconds"),
        (10**3, "ms", "milliseconds"),
        (10**6, "us", "microseconds"),
        (10**9, "ns", "nanoseconds"),
    ],
)
@pytest.mark.parametrize("option", [None, "s", "ms", "us", "ns"])
def test_numbers_that_look_like_times_in_another_unit_are_asked_about(
    tmp_path: Path, factor: int, unit: str, name: str, option: str | None
) -> None:
    frame = pl.DataFrame({USER: [1, 1, 2, 2], ITEM: [1, 2, 3, 3]})
    # One that is missing is no reason to take the others for an order.
    times = pl.Series(TIME, [0, *(SECONDS * factor)])
    frame.with_columns(times).write_csv(tmp_path / "log.csv")
    path = str(tmp_path / "log.csv")
    if option == unit:
        assert table(path, time_unit=option).events[TIME].dt.year().max() == 2000
        return
    words = f"timestamps such as 0 look like {name} since 1970; set data.time_unit={unit}, or"
    with pytest.raises(DataError, match=words):
        table(path, time_unit=option)
    order = table(path, time_unit="order")
    assert order.events[TIME].to_list() == times[[0, 1, 2, 3]].to_list()


def test_dates_in_text_need_no_unit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="time_unit=s is for timestamps in numbers; '2024-01-01'"):
        table(written(tmp_path, CSV.replace("3\n", "2024-01-01\n")), time_unit="s")
    frame = pl.DataFrame({USER: [1, 2], ITEM: [1, 1], TIME: [datetime(2024, 1, 1)] * 2})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="numbers; timestamp is Datetime"):
        table(str(tmp_path / "log.parquet"), time_unit="s")


def test_words_of_an_item_are_its_first_in_time(tmp_path: Path) -> None:
    content = "user_id,item_id,timestamp,name\n1,1,5,Tea\n2,1,3,Green tea\n1,2,1,\n2,1,2,\n"
    log = table(written(tmp_path, content), columns={"title": "name"})
    assert log.items.rows() == [(1, "Green tea"), (2, None)]
    assert log.events["title"].to_list() == [None, "Tea", None, "Green tea"]


def test_words_that_vary_are_of_the_event_unless_they_are_named(tmp_path: Path) -> None:
    content = """user_id,item_id,timestamp,title,text
ann,tea,1,Tea,lovely
bob,tea,2,Tea,too strong
ann,salt,3,Salt,
"""
    path = written(tmp_path, content)
    log = table(path)
    assert log.item_columns == ("title",)
    assert log.items.columns == [ITEM, "title"]
    assert "text" in log.events.columns
    for named in (table(path, columns={"text": "text"}), table(path, item_columns=["text"])):
        assert named.items.rows() == [("salt", "Salt", None), ("tea", "Tea", "lovely")]


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
    assert {"category", "brand", "shop", "note", "title"} < set(log.events.columns)


def test_attributes_of_items_may_be_named(tmp_path: Path) -> None:
    content = "user_id,item_id,timestamp,shop\n1,1,5,\n2,1,7,south\n1,1,6,north\n"
    path = written(tmp_path, content)  # sold in two shops
    assert table(path).items.columns == [ITEM]
    log = table(path, item_columns=["shop"])
    assert log.items.rows() == [(1, "north")]  # the first in time that is known
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
            "one column, 'user_id;item_id', with .;. between its parts; set data.separator=semi",
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
            "quantity: 2 blank or no number, the first in row 2; .* 1 negative, the first -2 in",
        ),
        (CSV.replace("bob", "ann"), "log.csv", "user_id: one user only"),
        ("", "log.csv", r"log\.csv cannot be read: empty CSV"),
        ("user_id,item_id,timestamp\n", "log.csv", "no events: the log has no rows"),
        (
            "user_id,item_id,timestamp\n1,2,3,4\n",
            "log.csv",
            "row 1 has 4 fields, and",
        ),
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
        (CSV, "log.docx", r"\.docx is no kind of table that is read as it is; say what stands"),
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
    with pytest.raises(DataError, match="no table in this folder; there is none in"):
        table(str(tmp_path))


def test_a_name_that_is_not_there_is_no_excuse_for_another(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'user'; did you mean 'user_id'"):
        table(written(tmp_path, CSV), columns={"user_id": "user"})
    with pytest.raises(DataError, match=r"no column 'invoice'; set data\.columns\.basket_id=NAME"):
        table(written(tmp_path, CSV), columns={"basket_id": "invoice"})


def test_bad_tables_of_items(tmp_path: Path) -> None:
    events = written(tmp_path, CSV)
    twice = written(tmp_path, "item_id,title\n007,Tea\n007,Milk\n", "items.csv")
    with pytest.raises(DataError, match="items: 1 item_id more than once, the first '007'"):
        table(events, items_path=twice)
    with pytest.raises(DataError, match=r"items: no column item_id \(there are: name\)"):
        table(events, items_path=written(tmp_path, "name\nTea\n", "items.csv"))


@pytest.mark.parametrize(
    ("unit", "time", "message"),
    [
        ("days", "1", "time_unit=days: expected s, ms, us, ns, order or row"),
        ("s", "x", "time_unit=s is for timestamps in numbers; 'x' in row 1 is none"),
        ("order", "x", "time_unit=order is for timestamps in numbers; 'x' in row 1 is none"),
        ("s", "2024-01-01", "'2024-01-01' in row 1 is none"),
        ("s", "1e99", "1 timestamps outside the years 1900 to 2199, the first 1e[+]99 in row 1"),
        ("s", "inf", "1 timestamps outside the years 1900 to 2199, the first inf in row 1"),
        ("us", "-99999999999999999", "the first -99999999999999999 in row 1"),
    ],
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


def test_errors_call_a_column_by_the_option_that_names_it(tmp_path: Path) -> None:
    content = "customer,sku,at,n,paid\nann,1,2024-01-01,2,1.5\nbob,2,2024-01-02,-1,$2\n"
    columns = {"user_id": "customer", "item_id": "sku", "timestamp": "at"}
    amounts = {"quantity": "n", "value": "paid"}
    with pytest.raises(DataError) as caught:
        table(written(tmp_path, content), columns={**columns, **amounts})
    assert str(caught.value) == (
        "log: data.columns.quantity=n: 1 negative, the first -1 in row 2; leave returns out; "
        "data.columns.value=paid: 1 are no numbers, the first '$2' in row 2; write plain numbers, "
        "such as 2 or 1.50, or leave such rows out; data.negative=drop or subtract says what "
        "returns are"
    )
    with pytest.raises(DataError, match=r"data\.columns\.timestamp=at: 1 unreadable, .* in row 2"):
        table(written(tmp_path, content.replace("2024-01-02", "soon")), columns=columns)
    with pytest.raises(ConfigError, match=r"^data\.item_columns=\[n,n\] names n twice"):
        table(written(tmp_path, content), columns=columns, item_columns=["n", "n"])


def test_a_file_with_other_separators_or_a_longer_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one column, 'user_id;item_id', with ';' between its par"):
        table(written(tmp_path, "user_id;item_id\n1;2\n"))
    with pytest.raises(DataError, match="row 3 has 4 fields, and the header 3; quote fields"):
        table(written(tmp_path, CSV.rstrip() + ",4\n"))


def test_days_as_integers_are_asked_about(tmp_path: Path) -> None:
    path = written(tmp_path, "user_id,item_id,timestamp\n1,7,20240131\n2,8,20240201\n")
    with pytest.raises(DataError, match="timestamps such as 20240131 look like days; set"):
        table(path)
    assert table(path, date_format="%Y%m%d").events[TIME].dt.day().to_list() == [31, 1]
    assert table(path, time_unit="order").events[TIME].to_list() == [20240131, 20240201]


def test_a_column_is_one_thing(tmp_path: Path) -> None:
    path = written(tmp_path, "user_id,item_id,timestamp\n1,7,2024-01-01\n2,8,2024-01-02\n")
    with pytest.raises(ConfigError, match=r"user_id and data\.columns\.item_id are both"):
        table(path, columns={"user_id": "item_id"})
    with pytest.raises(ConfigError, match=r"item_id and data\.columns\.timestamp are both"):
        table(path, columns={"item_id": "timestamp"})


def test_an_error_lists_some_columns(tmp_path: Path) -> None:
    names = ",".join(f"c{number}" for number in range(30))
    with pytest.raises(DataError, match=r"\(there are: c0, .*, c19, …\)"):
        table(written(tmp_path, f"{names}\n{names}\n"))
