"""The README's commands, its Python and that of its page run as they stand, without a download."""

import re
import shlex
import sys
from pathlib import Path

import polars as pl
import pytest

from recsys.cli import main
from recsys.cli.names import names
from recsys.errors import UnknownIdWarning

README = Path(__file__).parent.parent / "README.md"
PAGE = README.parent / "docs/python.md"


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def purchases() -> pl.DataFrame:
    number, day = pl.col("number"), pl.date(2024, 4, 1)
    return pl.select(number=pl.int_range(400)).select(
        customer=number // 10,
        sku=pl.format("sku {}", number * 7 % 31),
        date=day + pl.duration(days=number * 3 % 60),
        category=pl.format("kind {}", number * 7 % 31 % 3),
        brand=pl.format("brand {}", number * 7 % 31 % 5),
    )


def test_its_commands_and_then_its_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["recsys"])
    commands = next(block for block in blocks("bash") if block.startswith("recsys "))
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        assert main.main(words[1:]) == 0, line
    printed = capsys.readouterr().out
    assert "p_holm" in printed
    purchases().write_csv("purchases.csv")
    (code,) = blocks("python")
    exec(compile(code, str(README), "exec"), {})
    assert "item_id" in capsys.readouterr().out


def test_the_python_of_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    purchases().write_csv("purchases.csv")
    with pytest.warns(UnknownIdWarning, match="user_id: 1 of 2 not among the 40"):
        exec(compile("".join(blocks("python", PAGE)), str(PAGE), "exec"), {})
    printed = capsys.readouterr().out
    for words in ("EventLog(name=shop, events=400", "(400, 4)", "similar_id", "p_holm"):
        assert words in printed


def test_its_profiles_of_ones_own_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["recsys"])
    rows = purchases()
    rows.write_csv("purchases.csv")
    later = {"sku": pl.format("new {}", "sku"), "date": pl.col("date") + pl.duration(days=30)}
    rows.with_columns(**later).write_csv("later.csv")
    (commands,) = (block for block in blocks("bash") if "recsys profile" in block)
    for line in commands.replace("\\\n", " ").splitlines():
        words = shlex.split(line)[1:]
        short = ["trainer.max_epochs=1"] if words[0] == "train" else []
        assert main.main(words + short) == 0, line
    names = sorted(path.name for path in Path("runs/shopper/profiles").iterdir())
    assert names == ["later_2024-06-01.parquet", "purchases.parquet"]


@pytest.mark.parametrize("command", re.findall(r"experiment=(\S+)", README.read_text()))
def test_its_experiments_exist(command: str) -> None:
    assert command in names("experiment")
