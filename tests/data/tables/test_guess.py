"""What a first look at a file says of it."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.cli.compose import compose
from recsys.cli.guess import command
from recsys.data.tables.guess import Guess, guess
from recsys.errors import DataError

Run = Callable[..., tuple[int, str, str]]


def rows(form: str) -> str:
    """Thirty events of four users and seven items."""
    return "".join(
        form.format(u=n % 4, i=n * 3 % 7, d=1 + n % 28, n=n, q=1 - 2 * (n == 7)) + "\n"
        for n in range(30)
    )


def of(folder: Path, content: str, name: str = "log.csv", encoding: str = "utf-8") -> Guess:
    path = folder / name
    path.write_bytes(content.encode(encoding))
    return guess(str(path))


def options(found: Guess) -> dict[str, object]:
    """Without the path, and the prefix that all have."""
    return {name[5:]: value for name, value in found.options.items() if name != "data.path"}


@pytest.mark.parametrize(
    ("head", "form", "expected"),
    [
        ("CustomerID,StockCode,InvoiceDate", "{u},{i},2024-01-{d:02}", "CustomerID StockCode Inv"),
        ("visitorid,itemid,ts", "{u},{i},1700000{n:03}", "visitorid itemid ts"),
        ("order_date,sku,member", "2024-01-{d:02},{i},{u}", "member sku order_date"),
        ("Kunde,Artikel,Datum", "{u},{i},2024-01-{d:02}", "Kunde Artikel Datum"),
        ("Käufer,Ware,Wann", "k{u},w{i},2024-01-{d:02}", "Käufer Ware Wann"),
        ("event_time,product_id,price,user_id", "2024-01-{d:02},{i},{n}.5,{u}", "user_id prod"),
        (",user_id,track_name,track_id,played_at", "{n},{u},So,t{i},2024-01-{d:02}", "user_id tr"),
    ],
)
def test_columns_by_their_names(tmp_path: Path, head: str, form: str, expected: str) -> None:
    found = options(of(tmp_path, f"{head}\n{rows(form)}"))
    names = [str(found.get(f"columns.{c}", c)) for c in ("user_id", "item_id", "timestamp")]
    assert " ".join(names).startswith(expected)


@pytest.mark.parametrize(
    ("content", "name", "encoding", "expected"),
    [
        (
            rows("{u};{i};2024-01-{d:02};1,5"),
            "log.csv",
            "utf-8",
            ["semicolon", "comma", "column_4"],
        ),
        (rows("{u}::{i}::{n}::17000000{n:02}"), "log.dat", "utf-8", ["colons", None, "column_3"]),
        (rows("{u}\t{i}\t2024-01-{d:02}\té"), "log.txt", "latin-1", ["tab", None, "column_4"]),
        (rows("{u},{i},2024-01-{d:02},x"), "log.csv", "utf-16", [None, None, "column_4"]),
    ],
)
def test_dialects(
    tmp_path: Path, content: str, name: str, encoding: str, expected: list[str | None]
) -> None:
    found = options(of(tmp_path, content, name, encoding))
    assert [found.get("separator"), found.get("decimal")] == expected[:2]
    names = found["names"]
    assert isinstance(names, list)
    assert {"user_id", "item_id", "timestamp", expected[2]} == set(names)
    assert found.get("encoding") == {"latin-1": "cp1252", "utf-16": "utf-16"}.get(encoding)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{d:02}.01.2024", {"date_format": "%d.%m.%Y"}),
        ("1/{d}/2024 18:05", {"date_format": "%m/%d/%Y %H:%M"}),
        ("1700000{n:03}000", {"time_unit": "ms"}),
        ("2024-01-{d:02}T10:00:00Z", {}),
        ("{n}", {}),
        ("202401{d:02}", {"date_format": "%Y%m%d"}),
        ("2024-01", {}),
        ("01/2024", {"date_format": "%m/%Y"}),
    ],
)
def test_times(tmp_path: Path, form: str, expected: dict[str, str]) -> None:
    content = "user_id,item_id,timestamp\n" + rows("{u},{i}," + form)
    assert options(of(tmp_path, content)) == expected
    untimed = options(of(tmp_path, "user_id,item_id\n" + rows("{u},{i}")))
    assert untimed == {"time_unit": "row"}


def test_excels_hint_is_no_row(tmp_path: Path) -> None:
    content = "sep=;\nuser_id;item_id;timestamp\n" + rows("{u};{i};2024-01-{d:02}")
    found = of(tmp_path, content)
    assert set(found.options) == {"data.path"}
    assert ("between fields", "semicolon", "the first line says so, sep=;") in found.reasons


def test_rows_and_reasons(tmp_path: Path) -> None:
    head = "customer,sku,date,qty,invoice_no,action,Product Name\n"
    lines = rows("{u},{i},2024-01-{d:02},{q},o{n},buy,Tea {i}")
    found = of(tmp_path, head + lines + "NULL,1,2024-01-01,1,o9,view,Tea\n")
    assert options(found) == {
        "columns.user_id": "customer",
        "columns.item_id": "sku",
        "columns.timestamp": "date",
        "columns.basket_id": "invoice_no",
        "columns.event": "action",
        "columns.quantity": "qty",
        "columns.title": "Product Name",
        "nulls": "usual",
        "missing": "drop",
        "negative": "subtract",
    }
    reasons = {what: why for what, _, why in found.reasons}
    assert reasons["user_id"] == "its name says customer; 4 of them in 31 rows"
    assert reasons["event"] == "its name says action; kinds: buy, view"
    assert reasons["quantity"] == "its name says qty; numbers from -1 to 1"
    assert reasons["rows"] == "1 lack something"


def test_an_order_of_which_some_rows_have_none_is_no_basket(tmp_path: Path) -> None:
    head = "user_id,item_id,timestamp,transactionid\n"
    content = head + rows("{u},{i},2024-01-{d:02},") + rows("{u},{i},2024-01-{d:02},{n}")
    assert options(of(tmp_path, content)) == {}


def test_baskets_of_any_name_are_a_task(tmp_path: Path) -> None:
    for name in ("basket_id", "order_no"):
        found = of(
            tmp_path, f"user_id,item_id,timestamp,{name}\n" + rows("{u},{i},2024-01-{d:02},o{n}")
        )
        assert command(found)[-2:] == ["task=next_basket", "model=item_knn"]


def test_a_header_that_names_a_column_twice_is_one(tmp_path: Path) -> None:
    found = of(tmp_path, "user_id,item_id,item_id,timestamp\n" + rows("{u},{i},x,2024-01-{d:02}"))
    assert options(found) == {}


def test_tables_beside_the_events_in_plain_csv(tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_text("order_id;product_id;v\n" + rows("{n};{i};1,5") * 3)
    (tmp_path / "orders.csv").write_text("order_id,user_id,date\n" + rows("{n},{u},2024-01-{d:02}"))
    (tmp_path / "products.csv").write_text('product_id,title\n1,"a, b"\n2,é\n')
    found = guess(str(tmp_path))
    plain = {"separator": "comma", "decimal": "point"}
    join = {"path": str(tmp_path / "orders.csv"), "key": "order_id", **plain}
    expected = {"join": join, "items.separator": "comma", "items.decimal": "point"}
    assert {name: options(found).get(name) for name in expected} == expected
    log = compose(shlex.split(" ".join(command(found)))[2:]).data
    assert log.join.separator == "comma"


def test_other_kinds_of_files(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1, 2, 1], "item": ["a", "b", "b"], "day": [1, 2, 3]})
    frame = frame.with_columns(pl.date(2024, 1, pl.col("day")).alias("day"))
    frame.write_parquet(tmp_path / "log.parquet")
    frame.write_ndjson(tmp_path / "log.jsonl")
    frame.write_json(tmp_path / "log.json")
    (tmp_path / "parts" / "month=1").mkdir(parents=True)
    frame.write_parquet(tmp_path / "parts" / "month=1" / "0.parquet")
    for name in ("log.parquet", "log.jsonl", "log.json", "parts"):
        found = options(guess(str(tmp_path / name)))
        assert found == {f"columns.{c}": found[f"columns.{c}"] for c in ("user_id", "item_id")} | {
            "columns.timestamp": "day"
        }


def test_what_nothing_can_be_seen_of(tmp_path: Path) -> None:
    for content in ("", "user_id,item_id\n"):
        with pytest.raises(DataError, match=r"log\.csv: no rows to look at"):
            of(tmp_path, content)
    with pytest.raises(DataError, match=r"no column looks like user_id \(there are: item_id, t"):
        of(tmp_path, "item_id,title\n1,Tea\n2,Milk\n")
    with pytest.raises(DataError, match=r"the first line, '# of May', has other fields than"):
        of(tmp_path, "# of May\nuser_id,item_id\n1,Tea\n2,Milk\n")
    with pytest.raises(DataError, match=r"no file .*nowhere\.csv"):
        guess(str(tmp_path / "nowhere.csv"))
    with pytest.raises(DataError, match=r"log\.npy: it is no text, and of no kind that is read"):
        of(tmp_path, "\0\0\xe9\xff,", "log.npy", "latin-1")
    with pytest.raises(DataError, match=r"\(there are: item, c1, c2.*c19, …\); name it"):
        of(
            tmp_path,
            ",".join(["item", *(f"c{n}" for n in range(1, 30))]) + "\n" + "1," * 29 + "1\n",
        )
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "a.csv").write_text("item_id,title\n1,Tea\n2,Milk\n")
    (tmp_path / "shop" / "b.csv").write_text("user_id,age\n1,30\n2,40\n")
    with pytest.raises(DataError, match="no table has users and items, alone or with another"):
        guess(str(tmp_path / "shop"))


def test_the_command_is_one_that_a_shell_and_hydra_read(tmp_path: Path) -> None:
    folder = tmp_path / "it's a, shop {1}"
    folder.mkdir()
    head = 'Käufer id;item:id;the date, new;say "x"\n'
    found = of(folder, head + rows("{u};{i};{d:02}.01.2024;a"), "1.csv")
    words = shlex.split(" ".join(command(found)))
    config = compose(words[2:]).data
    assert config.path == str(folder / "1.csv")
    assert config.columns.user_id == "Käufer id"
    assert config.columns.timestamp == "the date, new"
    assert config.date_format == "%d.%m.%Y"
    assert words[-1] == "model=item_knn"
    for name in ("a${x}.csv", r"[a]\b 'c' \"d\".csv", "x\\.csv\\"):
        path = Path("/logs") / name
        words = command(Guess({"data.path": str(path)}))
        config = compose(shlex.split(" ".join(words))[2:])
        assert config.data.path == str(path)


def test_the_command_line(tmp_path: Path, run: Run) -> None:
    (tmp_path / "log.csv").write_text("user_id,sku,timestamp\n1,a,2024-01-01\n2,b,2024-01-02\n")
    code, out, err = run("data", "guess", tmp_path / "log.csv")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1] == "item_id    sku        its name says sku; 2 of them in 2 rows"
    assert lines[4].startswith("recsys train data=table")
    code, out, err = run("data", "guess", tmp_path / "no.csv")
    assert (code, out, err) == (2, "", f"recsys: no file {tmp_path / 'no.csv'}\n")
    code, out, err = run("data", "guess", tmp_path / "log.csv", "data.separator=tab")
    assert (code, out) == (2, "")
    assert "takes a file or a folder alone, without data.separator=tab" in err
    code, out, err = run("data", "describe", "table", 'data.path="${x}.csv"')
    assert (code, out, err) == (2, "", "recsys: data.path is x, which this run has not\n")


def test_nothing_waits_for_torch() -> None:
    code = "import sys, recsys.cli.guess; print({'torch', 'hydra'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
