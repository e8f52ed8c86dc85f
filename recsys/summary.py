"""What an object of ours says of itself: a line in a terminal, a table in a notebook."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from html import escape

from recsys.errors import visible


class Summarised:
    """Has a `repr` of one line and, for notebooks, a table: both of its `summary`."""

    @abstractmethod
    def summary(self) -> Mapping[str, object]:
        """What there is to say, by words."""

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={_text(value)}" for name, value in self.summary().items())
        return f"{type(self).__name__}({said})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align: left'>{escape(name)}</th>"
            f"<td style='text-align: right'>{escape(_text(value))}</td></tr>"
            for name, value in self.summary().items()
        )
        return f"<table><caption>{type(self).__name__}</caption><tbody>{rows}</tbody></table>"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else visible(str(value))
