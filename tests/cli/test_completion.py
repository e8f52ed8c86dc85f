"""What bash is told of a line that is being typed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.cli.completion import candidates
from recsys.cli.main import COMMANDS, COMPOSED, flags


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("recsys tr", ["train", "transfer"]),
        ("recsys train data=scien", ["scientific"]),
        ("recsys train -m  experiment=up_cf/d", ["up_cf/dc"]),
        ("recsys train model=sasrec trainer.max", ["trainer.max_epochs="]),
        ("recsys search model=ease model.l", ["model.l2="]),
        ("recsys train model=nothing model.l", []),
        ("recsys train seed=", []),
        ("recsys data describe ta", ["table", "tafeng"]),
        ("recsys evaluate r", []),
        ("recsys recommend runs/a --al", ["--all-users", "--allow"]),
        ("recsys train data=dc --m", ["--multirun"]),
        ("recsys models --", ["--help", "--verbose"]),
        ("recsys nothing --", ["--help", "--version"]),
        ("recsys --v", ["--version"]),
    ],
)
def test_the_last_word_goes_on(line: str, expected: list[str]) -> None:
    assert candidates(line, COMMANDS, COMPOSED, flags) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_script_is_one_that_bash_runs(tmp_path: Path) -> None:
    program = "import sys; from recsys.cli.main import main; sys.exit(main())"
    command = tmp_path / "recsys"
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{program}' \"$@\"\n")
    command.chmod(0o755)
    script = (
        'eval "$(recsys completion)"; COMP_LINE="recsys train data=scien"; '
        'COMP_POINT=${#COMP_LINE}; _recsys 2>/dev/null; echo "${COMPREPLY[@]}"'
    )
    ended = subprocess.run(
        ["bash", "-c", f'PATH="{tmp_path}:$PATH"; {script}'], capture_output=True, text=True
    )
    assert ended.stdout == "scientific\n", ended.stderr
