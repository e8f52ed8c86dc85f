"""The commands and the Python of the README and of its pages run as they stand, offline."""

import re
import shlex
import sys
from pathlib import Path

import polars as pl
import pytest

from recsys.cli import main
from recsys.cli.names import names
from recsys.scoring.ids import UnknownIdWarning

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def run(block: str, *short: str) -> None:
    """Run its commands; `short` are options of those that train ShopperBERT."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)[1:]
        assert main.main([*words, *(short if "model=shopperbert" in words else ())]) == 0, line


def execute(code: str, page: Path) -> None:
    exec(compile(code, str(page), "exec"), {})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: with a log of one's own, and a later one of other items."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["recsys"])
    rows = purchases()
    rows.write_csv("purchases.csv")
    later = {"sku": pl.format("new {}", "sku"), "date": pl.col("date") + pl.duration(days=30)}
    rows.with_columns(**later).write_csv("later.csv")
    return tmp_path


def purchases() -> pl.DataFrame:
    number, day = pl.col("number"), pl.date(2024, 4, 1)
    return pl.select(number=pl.int_range(400)).select(
        customer=number // 10,
        sku=pl.format("sku {}", number * 7 % 47),
        date=day + pl.duration(days=number * 3 % 60),
        category=pl.format("kind {}", number * 7 % 47 % 3),
        brand=pl.format("brand {}", number * 7 % 47 % 5),
    )


def test_its_commands_and_then_its_python(capsys: pytest.CaptureFixture[str]) -> None:
    make, of_a_log = blocks("bash")
    targets = re.findall(r"^make (\w+)", make, flags=re.MULTILINE)
    makefile = (README.parent / "Makefile").read_text()
    assert targets == [name for name in targets if f"\n{name}:" in makefile] == ["run", "test"]
    run(of_a_log)
    (code,) = blocks("python")
    execute(code, README)
    printed = capsys.readouterr().out
    assert "after Holm's correction" in printed
    assert "similar_id" in printed


def test_the_commands_of_the_quickstart(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("bash", DOCS / "quickstart.md")
    run(block)
    assert "p_holm" in capsys.readouterr().out


def test_the_commands_for_ones_own_log(folder: Path) -> None:
    look, train, profiles, use = blocks("bash", DOCS / "first_log.md")
    run(look)
    run(train)
    run(profiles, "trainer.max_epochs=1")
    written = sorted(path.name for path in (folder / "runs/shopper/profiles").iterdir())
    assert written == ["later_2024-06-01.parquet", "purchases.parquet"]
    run(use)
    assert pl.read_parquet("lists.parquet")["user_id"].n_unique() == 40


def test_the_python_of_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = DOCS / "python.md"
    with pytest.warns(UnknownIdWarning, match="user_id: 1 of 2 not among the 40"):
        execute("".join(blocks("python", page)), page)
    printed = capsys.readouterr().out
    for words in ("EventLog(name=shop, events=400", "(400, 4)", "similar_id", "p_holm"):
        assert words in printed


def test_a_model_of_ones_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = DOCS / "adding_models.md"
    model, in_python, contract = blocks("python", page)
    (folder / "my_models.py").write_text(model)
    (folder / "my_conf/model").mkdir(parents=True)
    (folder / "my_conf/model/latest.yaml").write_text(*blocks("yaml", page))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "my_models", raising=False)  # that of another test
    run(*blocks("bash", page))
    execute(in_python, page)
    assert "latest" in capsys.readouterr().out
    execute(contract, page)


def composed() -> list[str]:
    """Trainings that pages show and that would take long, or need files."""
    pages = ("quickstart", "first_log", "choosing", "reproducing")
    shown = [block for page in pages for block in blocks("sh", DOCS / f"{page}.md")]
    lines = "".join(shown).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"recsys train (?!--multirun|.*start=)", line)]


@pytest.mark.parametrize("line", composed())
def test_trainings_that_pages_show_compose(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    assert main.main([*words, "--cfg", "job"]) == 0


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_experiments_that_pages_name_exist(page: Path) -> None:
    known = names("experiment")
    assert [
        name for name in re.findall(r"experiment=(\w\S*)", page.read_text()) if name not in known
    ] == []
