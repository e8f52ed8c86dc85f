"""What there is to name at the command line, and how its mistakes are told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from recsys.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"


def names(group: str) -> list[str]:
    """The options of a config group: its files' names, without imports."""
    folder = CONF / group
    return sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml"))


def nearest(word: str, known: Sequence[str]) -> str:
    """Known words that a misspelt one may have meant, as the end of a sentence."""
    if close := get_close_matches(word, known, n=3, cutoff=0.5):
        return f"; did you mean {' or '.join(close)}?"
    return f"; there is {', '.join(known)}" if len(known) <= 50 else "; `recsys` lists them"


class Parser(argparse.ArgumentParser):
    """Argparse's mistakes as ours: one line, the nearest name."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def failed(message: str, code: int = 2) -> int:
    """Print what went wrong; returns the exit code."""
    print(f"recsys: {message}", file=sys.stderr)
    return code


def of_the_system(error: OSError) -> str:
    """One line for what the system refused, such as to write on a full disk."""
    said = error.strerror or str(error).partition("\n")[0]
    return f"{error.filename}: {said}" if error.filename else said
