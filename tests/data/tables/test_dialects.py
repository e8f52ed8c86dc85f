"""Files of text in the ways in which people write them."""

import gzip
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.sources.table import table
from recsys.data.tables.dialects import Dialect
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM, TIME, USER, VALUE

CSV = "user_id,item_id,timestamp\nann,007,3\nbob,007,1\nann,12,2\n"
ROWS = [("ann", "12", 2), ("ann", "007", 3), ("bob", "007", 1)]


def written(folder: Path, content: str | bytes, name: str = "log.csv") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.mark.parametrize(
    ("letters", "word"),
    [
        (";", "semicolon"),
        ("\t", "tab"),
        ("\t", "\\t"),
        ("|", "pipe"),
        (" ", "space"),
        ("::", "colons"),
        ("::", "::"),
        (";", ";"),
        (" | ", " | "),
    ],
)
@pytest.mark.parametrize("name", ["log.csv", "log.dat", "log.txt", "log"])
def test_separators(tmp_path: Path, letters: str, word: str, name: str) -> None:
    path = written(tmp_path, CSV.replace(",", letters), name)
    assert table(path, separator=word).events.rows() == ROWS


@pytest.mark.parametrize("line", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n"])
@pytest.mark.parametrize("name", ["log.csv", "log.txt"])
def test_excels_hint_says_what_divides_fields(tmp_path: Path, line: str, name: str) -> None:
    path = written(tmp_path, line + CSV.replace(",", ";"), name)
    assert table(path).events.rows() == ROWS
    assert table(path, separator="semicolon").events.rows() == ROWS
    longer = written(tmp_path, line + CSV.replace(",", ";") + "eve;1;2;3\n", name)
    with pytest.raises(DataError, match="row 4 has 4 fields, and the header 3"):
        table(longer)


def test_months_are_their_first_days(tmp_path: Path) -> None:
    content = "user_id,item_id,timestamp\nann,1,2024-02\nann,2,2024-01\nbob,1,2024-01\n"
    days = table(written(tmp_path, content)).events[TIME].to_list()
    assert days == [datetime(2024, month, 1) for month in (1, 2, 1)]
    slashes = written(tmp_path, content.replace("2024-02", "02/2024").replace("2024-01", "01/2024"))
    assert table(slashes, date_format="%m/%Y").events[TIME].to_list() == days
    with pytest.raises(DataError, match="not in ISO 8601; set 'data"):
        table(slashes)


@pytest.mark.parametrize(("letters", "word"), [(",", None), ("::", "colons")])
def test_a_file_without_a_header(tmp_path: Path, letters: str, word: str | None) -> None:
    path = written(tmp_path, CSV.partition("\n")[2].replace(",", letters))
    names = [USER, ITEM, TIME]
    log = table(path, separator=word, names=names)
    assert log.events.rows() == ROWS
    assert table(path, separator=word, header=False, names=names).events.equals(log.events)
    with_header = written(tmp_path, CSV.replace(",", letters))
    assert table(with_header, separator=word, header=True, names=names).events.equals(log.events)
    with pytest.raises(DataError, match=r"2 names, and the file has 3 columns; its first row is "):
        table(path, separator=word, names=names[:2])


def test_lines_of_several_letters_that_have_not_as_many_fields(tmp_path: Path) -> None:
    path = written(tmp_path, "1::2::3\n2::2::3\n\n1::2::3::4\n", "log.dat")
    with pytest.raises(DataError, match=r"log\.dat cannot be read: line 3 has 4 fields"):
        table(path, separator="::", names=[USER, ITEM, TIME])
    with pytest.raises(DataError, match=r"log\.dat cannot be read: it has no line"):
        table(written(tmp_path, "\n", "log.dat"), separator="::", names=[USER, ITEM, TIME])


def test_empty_fields_between_several_letters_are_missing(tmp_path: Path) -> None:
    content = "user_id::item_id::timestamp::note\n1::a::1::\n2::a::2::NA\n"
    events = table(written(tmp_path, content), separator="::", nulls=["NA"]).events
    assert events["note"].to_list() == [None, None]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_encodings_and_compression(tmp_path: Path, encoding: str, ending: str) -> None:
    content = "user_id,item_id,timestamp,title\n1,7,1,Crème brûlée\n2,7,2,Crème brûlée\n"
    raw = content.encode(encoding)
    path = written(tmp_path, gzip.compress(raw) if ending else raw, f"log.csv{ending}")
    log = table(path, encoding=encoding)
    assert log.name == "log"
    assert log.items["title"].to_list() == ["Crème brûlée"]


def test_decimal_commas(tmp_path: Path) -> None:
    content = "user_id;item_id;timestamp;value;weight;size\n1;1,5;1;6,00;0,25;1,5\n2;2;2;7;3;S,M\n"
    events = table(written(tmp_path, content), separator="semicolon", decimal="comma").events
    assert events[VALUE].to_list() == [6.0, 7.0]
    assert events["weight"].to_list() == [0.25, 3.0]
    assert events[ITEM].to_list() == ["1,5", "2"]
    assert events["size"].to_list() == ["1,5", "S,M"]


def test_words_for_nothing(tmp_path: Path) -> None:
    content = "user_id,item_id,timestamp,note\nNULL,1,1,x\nNA,1,1,\nann,1,1,?\nbob,2,2,None\n"
    path = written(tmp_path, content)
    assert table(path).users[USER].to_list() == ["NA", "NULL", "ann", "bob"]
    log = table(path, nulls="usual", missing="drop")
    assert log.events.select(USER, "note").rows() == [("ann", "?"), ("bob", None)]
    assert table(path, nulls=[None, "NA"], missing="drop").num_events == 2
    assert table(path, nulls=["?"]).events["note"].to_list() == [None, "x", None, "None"]


@pytest.mark.parametrize("ending", [".json", ".json.gz", ".jsonl.gz"])
def test_json(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame({USER: [1, 2], ITEM: ["007", "12"], TIME: [1, 2]})
    array, lines = frame.write_json(), frame.write_ndjson()
    for content in [lines] if ending == ".jsonl.gz" else [array, f" \n{array}", lines]:
        raw = content.encode()
        path = written(tmp_path, gzip.compress(raw) if ending.endswith("gz") else raw, f"l{ending}")
        assert table(path).events.rows() == frame.rows()


def test_the_headers_of_atomic_files_lose_their_types(tmp_path: Path) -> None:
    events = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t3\t978300760.0\n"
    path = written(tmp_path, events + "2\t7\t4\t978300761.5\n", "shop.inter")
    items = written(tmp_path, 'item_id:token\ttitle:token_seq\n7\tFilm "1"\n', "shop.item")
    log = table(path, items_path=items, time_unit="s")
    assert log.events.columns == [USER, ITEM, TIME, "rating"]
    assert log.events[TIME].dt.year().to_list() == [2000, 2000]
    assert log.items.rows() == [(7, 'Film "1"')]


def test_tables_of_items_and_users_in_another_dialect(tmp_path: Path) -> None:
    events = written(tmp_path, "1::7::1\n2::8::2\n", "ratings.dat")
    items = written(tmp_path, "8::Tea::Hot\n7::Milk::Cold\n", "movies.dat")
    users = written(tmp_path, "customer;age\n1;30\n", "users.csv")
    log = table(
        events,
        separator="colons",
        names=[USER, ITEM, TIME],
        items_path=items,
        items={"names": [ITEM, "title", "kind"], "separator": None},
        users_path=users,
        users={"separator": "semicolon", "columns": {USER: "customer", "title": None}},
    )
    assert log.items.rows() == [(7, "Milk", "Cold"), (8, "Tea", "Hot")]
    assert log.users.rows() == [(1, 30), (2, None)]


def test_keys_of_other_names(tmp_path: Path) -> None:
    events = written(tmp_path, CSV.replace("item_id", "sku"))
    items = written(tmp_path, "article,name\n007,Tea\n", "items.csv")
    columns = {"item_id": "sku"}
    own = {"columns": {"item_id": "article", "title": "name"}}
    log = table(events, columns=columns, items_path=items, items=own)
    assert log.items.rows() == [("007", "Tea"), ("12", None)]
    with pytest.raises(
        DataError, match=r"items: no column item_id .*; set data.items.columns.item"
    ):
        table(events, columns=columns, items_path=items)
    own["columns"]["item_id"] = "articel"
    with pytest.raises(
        DataError, match=r"no column 'articel'; did you mean 'article'\? set data.it"
    ):
        table(events, columns=columns, items_path=items, items=own)
    with pytest.raises(ConfigError, match=r"data.items.sep: no such option; there is columns, sep"):
        table(events, columns=columns, items_path=items, items={"sep": ";"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"separator": ""},
            "data.separator='': expected what stands between fields, such as comma",
        ),
        ({"decimal": ";"}, "data.decimal=;: expected point or comma"),
        (
            {"decimal": "comma", "separator": ","},
            "data.decimal and data.separator are both a comma",
        ),
        ({"nulls": "all"}, "data.nulls=all: expected a list of words, or usual"),
        ({"header": False}, r"data.header=false: say what the columns are, data.names=\[NAME"),
        ({"names": ["a", "a"]}, "names a twice"),
        ({"encoding": "klingon"}, "data.encoding=klingon is none; give such as utf-8, latin-1"),
    ],
)
def test_options_that_are_none(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Dialect(**options)


DATES = [datetime(2024, 12, 31, 18, 5), datetime(2024, 1, 2, 8, 30)]


def logged(folder: Path, times: list[str]) -> str:
    rows = "".join(f"{n};{n};{time}\n" for n, time in enumerate(times))
    return written(folder, f"user_id;item_id;timestamp\n{rows}")


@pytest.mark.parametrize(
    "form",
    [
        "%d.%m.%Y %H:%M",
        "%m/%d/%Y %H:%M",
        "%d/%m/%Y %I:%M %p",
        "%d %b %Y %H:%M:%S",
        "%d.%m.%y %H:%M",
    ],
)
def test_forms_of_dates(tmp_path: Path, form: str) -> None:
    path = logged(tmp_path, [date.strftime(form) for date in DATES])
    times = table(path, separator=";", date_format=form).events[TIME].to_list()
    assert times == [datetime.strptime(date.strftime(form), form) for date in DATES]
    with pytest.raises(DataError, match=r"are not in ISO 8601; set 'data.date_format=") as error:
        table(path, separator=";")
    assert form in str(error.value)


def test_forms_that_say_nothing(tmp_path: Path) -> None:
    path = logged(tmp_path, ["31.12.2024", "02.01.2024"])
    with pytest.raises(DataError, match=r"data\.date_format names no form; name one, or"):
        table(path, separator="semicolon", date_format=[])
    with pytest.raises(ConfigError, match=r"data\.time_unit=row and data\.date_format: give"):
        table(path, separator="semicolon", time_unit="row", date_format="%d.%m.%Y")


def test_months_that_look_like_days_are_asked_about(tmp_path: Path) -> None:
    path = logged(tmp_path, ["01/02/2024", "03/04/2024"])
    both = r'set \'data.date_format="%d/%m/%Y"\' or \'data.date_format="%m/%d/%Y"\''
    with pytest.raises(DataError, match=both):
        table(path, separator=";")


def test_dates_beside_times(tmp_path: Path) -> None:
    iso = logged(tmp_path, ["2024-12-31 18:05:00", "2024-01-02"])
    times = table(iso, separator=";").events[TIME].to_list()
    assert times == [DATES[0], datetime(2024, 1, 2)]
    local = logged(tmp_path, ["31.12.2024 18:05", "02.01.2024"])
    forms = ["%d.%m.%Y %H:%M", "%d.%m.%Y"]
    assert table(local, separator=";", date_format=forms).events[TIME].to_list() == times
    with pytest.raises(DataError, match=r"1 timestamps in another form, the first '02.01.2024' in"):
        table(local, separator=";", date_format=forms[0])
    with pytest.raises(DataError, match=r"data.time_unit and data.date_format: give one"):
        table(local, separator=";", date_format=forms, time_unit="s")


def test_the_order_of_the_file_is_an_order(tmp_path: Path) -> None:
    content = "user_id,item_id\nann,b\nbob,a\nann,a\n"
    log = table(written(tmp_path, content), time_unit="row")
    assert log.events.rows() == [("ann", "b", 0), ("ann", "a", 2), ("bob", "a", 1)]
    with pytest.raises(
        DataError, match=r"no column 'timestamp'; set .*, or data.time_unit=row whe"
    ):
        table(written(tmp_path, content))


def test_an_excel_file(tmp_path: Path) -> None:
    path = written(tmp_path, "no workbook", "log.xlsx")
    try:
        import fastexcel  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"needs fastexcel; pip install 'recsys\[excel\]'"):
            table(path)
        return
    with pytest.raises(DataError, match=r"log\.xlsx cannot be read: "):
        table(path)
    xlsxwriter = pytest.importorskip("xlsxwriter")
    assert xlsxwriter
    frame = pl.DataFrame({USER: ["007", "8"], ITEM: [1, 2], TIME: DATES})
    frame.write_excel(path)
    assert table(path).events.rows() == [("007", 1, DATES[0]), ("8", 2, DATES[1])]
