"""Docstrings as Markdown: their doctests become blocks of code, and a model has its file's head."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^( *)>>> .*?(?=\n\s*\n|\Z)", flags=re.MULTILINE | re.DOTALL)


class Examples(Extension):
    """Fence the doctests of docstrings, and put a model's paper behind its first line."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is None or obj.is_module:
            return
        text = fenced(obj.docstring.value)
        if obj.is_class and obj.module.path.startswith("recsys.models.") and obj.module.docstring:
            first, _, rest = text.partition("\n\n")
            text = "\n\n".join([first, obj.module.docstring.value, rest])
        obj.docstring.value = text


def fenced(text: str) -> str:
    """The text with its doctests between fences."""
    return EXAMPLE.sub(lambda found: f"{found[1]}```pycon\n{found[0]}\n{found[1]}```", text)
