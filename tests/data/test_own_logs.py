"""The commands of `docs/own_logs.md` read what they are for."""

import gzip
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.cli.compose import compose
from recsys.log.event_log import EventLog
from recsys.run.log import read

Run = Callable[..., tuple[int, str, str]]
PAGE = Path(__file__).parents[2] / "docs" / "own_logs.md"
COMMANDS = re.findall(r"\| `(recsys train data=table [^`]+)` \|", PAGE.read_text())
DAYS = [f"2024-12-{day:02}" for day in range(1, 25)]
NUM_EVENTS = len(DAYS)


def rows(form: str, head: str = "user_id,item_id,timestamp") -> str:
    """A line for each day: `u` a user, `i` an item, `d` and `m` day and month, `n` a number."""
    lines = (
        form.format(u=f"u{n % 4}", i=f"i{n * 5 % 12}", day=day, d=day[8:], m=day[5:7], n=n)
        for n, day in enumerate(DAYS)
    )
    return "\n".join([*([head] if head else []), *lines, ""])


CSV = rows("{u},{i},{day}")
FILES = {
    "log.csv": CSV,
    "shop.csv": CSV.replace("user_id,item_id,timestamp", "customer,sku,date"),
    "semicolon.csv": rows("{u};{i};{day};1,5", "user_id;item_id;timestamp;value"),
    "hinted.csv": "sep=;\n" + CSV.replace(",", ";"),
    "tabs.txt": CSV.replace(",", "\t"),
    "bare.csv": rows("{u},{i},{day}", ""),
    "colons.dat": rows("{u}::{i}::{day}", ""),
    "latin.csv": rows("{u},Crème {i},{day}"),
    "shop.inter": rows("{u}\t{i}\t17{n:02}000000", "user_id:token\titem_id:token\ttimestamp:float"),
    "shop.item": "item_id:token\tname:token_seq\ni1\tTea\n",
    "german.csv": rows("{u},{i},{d}.{m}.2024"),
    "american.csv": rows("{u},{i},{m}/{d}/2024 18:05"),
    "months.csv": rows("{u},{i},2024-{m}"),
    "mixed.csv": rows("{u},{i},{d}.{m}.2024") + "u1,i2,31.12.2024 18:05\n",
    "seconds.csv": rows("{u},{i},17{n:02}000000"),
    "numbers.csv": rows("{u},{i},{n}", "user_id,item_id,order_number"),
    "untimed.csv": rows("{u},{i}", "user_id,item_id"),
    "gaps.csv": CSV + ",i1,2024-12-01\nu1,,2024-12-01\nu1,i1,\n",
    "nulls.csv": CSV + "NULL,i1,2024-12-01\nu1,NA,2024-12-01\n",
    "returns.csv": rows("{u},{i},{day},2", "user_id,item_id,timestamp,quantity")
    + "u0,i0,2024-12-30,-1\n",
    "kinds.csv": rows("{u},{i},{day},purchase", "user_id,item_id,timestamp,event")
    + "u0,i0,2024-12-30,cart\nu0,i0,2024-12-30,view\n",
    "ratings.csv": rows("{u},{i},{day},4.5", "user_id,item_id,timestamp,rating")
    + "u0,i0,2024-12-30,3.5\n",
    "items.csv": "article,title\ni1,Tea\n",
    "users.txt": "user_id;age\nu1;30\n",
    "rows.csv": rows("{n},{i}", "order_id,item_id"),
    "orders.csv": rows("{n},{u},{day}", "order_id,user_id,date"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        encoding = "cp1252" if name == "latin.csv" else "utf-8"
        (tmp_path / name).write_bytes(content.encode(encoding))
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    frame = pl.read_csv(tmp_path / "log.csv")
    frame.write_json(tmp_path / "log.json")
    for month in ("01", "02"):
        part = tmp_path / "parts" / f"month={month}" / "part.parquet"
        part.parent.mkdir(parents=True)
        frame[: NUM_EVENTS // 2].write_parquet(part)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(command: str, folder: Path) -> list[str]:
    return shlex.split(command.replace("file:///tmp", folder.as_uri()))[2:]


@pytest.mark.parametrize("command", [c for c in COMMANDS if "xlsx" not in c])
def test_a_command_reads_its_log(folder: Path, command: str) -> None:
    log = read(compose(words_of(command, folder)).data)
    more = sum(words in command for words in ("mixed.csv", "view: 1"))
    assert log.num_events == NUM_EVENTS + more
    assert (len(log.users), len(log.items)) == (4, 12)


def the_log(folder: Path, of: str) -> EventLog:
    (command,) = [c for c in COMMANDS if of in c]
    return read(compose(words_of(command, folder)).data)


def test_what_the_commands_make_of_rows(folder: Path) -> None:
    assert the_log(folder, "returns.csv").events["quantity"].sum() == 2 * NUM_EVENTS - 1
    assert the_log(folder, "view: 1").events["value"].sum() == 5 * NUM_EVENTS + 1
    assert the_log(folder, "latin.csv").items["item_id"][0] == "Crème i0"
    assert the_log(folder, "items.csv").items["title"].drop_nulls().to_list() == ["Tea"]
    assert the_log(folder, "users.txt").users["age"].drop_nulls().to_list() == [30]
    assert set(the_log(folder, "parts model").events["month"]) == {"01", "02"}
    assert the_log(folder, "mixed.csv").events["timestamp"].dt.hour().max() == 18


@pytest.mark.parametrize("of", ["semicolon.csv", "orders.csv"])
def test_a_command_trains_a_model(folder: Path, run: Run, of: str) -> None:
    (command,) = [c for c in COMMANDS if of in c]
    code, out, err = run("train", *words_of(command, folder), "task.ks=[5]", "hydra.run.dir=run")
    assert (code, err) == (0, "")
    assert "run folder: " in out


def test_every_recipe_stands_on_the_page() -> None:
    conf = PAGE.parents[1] / "conf" / "data"
    of_table = {path.stem for path in conf.glob("*.yaml") if "- table\n" in path.read_text()}
    assert of_table == set(re.findall(r"`recsys train data=(\w+) ", PAGE.read_text())) - {"table"}
