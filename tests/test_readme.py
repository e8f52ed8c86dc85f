"""The README's commands and its Python run as they stand, where they need no download."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from recsys import cli

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_its_commands_and_then_its_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["recsys"])
    commands = next(block for block in blocks("bash") if block.startswith("recsys "))
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        assert cli.main(words[1:]) == 0, line
    printed = capsys.readouterr().out
    assert "p_holm" in printed
    (code,) = blocks("python")
    exec(compile(code, str(README), "exec"), {})
    assert "item_id" in capsys.readouterr().out


@pytest.mark.parametrize("command", re.findall(r"experiment=(\S+)", README.read_text()))
def test_its_experiments_exist(command: str) -> None:
    assert command in cli.names("experiment")
