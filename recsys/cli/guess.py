"""`recsys data guess FILE`: the command that reads a file as a log, and why; without torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recsys.data.tables.guess import Guess, guess
from recsys.log.event_log import BASKET

_PLAIN = r"[A-Za-z0-9/\-+.%*@?|:_~ ]+"
"""What Hydra reads as text without quotes; a shell may still want some."""
_NOT_TEXT = r"(?i)null|true|false|nan|inf|[+-]?[0-9._]+(e[0-9]+)?"
_WIDTH = 88


def show(name: str) -> None:
    """Print what a file was taken for, and the command."""
    found = guess(name)
    print("\n".join(_lines(found)))


def _lines(found: Guess) -> Iterator[str]:
    widths = [max(len(reason[place]) for reason in found.reasons) for place in (0, 1)]
    for what, value, why in found.reasons:
        yield f"{what:<{widths[0]}}  {value:<{widths[1]}}  {why}"
    yield ""
    yield from _wrapped(command(found))
    yield ""
    yield "`recsys data describe table` with the same options shows what the log is."


def command(found: Guess) -> list[str]:
    """The words of the command that trains a first model on a log."""
    has_baskets = any(what == BASKET for what, *_ in found.reasons)
    task = ["task=next_basket"] if has_baskets else []
    words = [_argument(name, value) for name, value in found.options.items()]
    return ["recsys", "train", "data=table", *words, *task, "model=item_knn"]


def _wrapped(words: Sequence[str]) -> Iterator[str]:
    line = " ".join(words[:3])
    for word in words[3:]:
        if len(line) + len(word) > _WIDTH:
            yield f"{line} \\"
            line = " " * 13 + word
        else:
            line = f"{line} {word}"
    yield line


def _argument(name: str, value: Any) -> str:
    return shlex.quote(f"{name}={_written(value)}")


def _written(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}: {_written(inner)}' for name, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    text = str(value)
    is_plain = re.fullmatch(_PLAIN, text) and text == text.strip()
    if is_plain and not re.fullmatch(_NOT_TEXT, text):
        return text
    # Backslashes are letters but in front of a quote, and ${ would name another option.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + m[2].replace('"', '\\"'), text)
    return '"{}"'.format(escaped.replace("${", "\\${"))
