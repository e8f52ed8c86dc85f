"""How a file of text writes a table: separators, a header, decimals, letters."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from recsys.errors import ConfigError
from recsys.ranges import distinct

SEPARATORS = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "\\t": "\t",
    "pipe": "|",
    "space": " ",
    "colons": "::",
}
"""Words for what a shell makes hard to write."""
DECIMALS = {"point": ".", "comma": ","}
USUAL = "usual"
USUAL_NULLS = ("NULL", "null", "NA", "N/A", "n/a", "NaN", "nan", "None", "none", "\\N", "<NA>")
"""What programs write for a missing value."""


@dataclass(frozen=True)
class Dialect:
    r"""How a file of text is written.

    Attributes:
        separator: between fields, of one letter or several, or a word of `SEPARATORS`; None: by the
            file's ending. Quotes are letters where it is a tab or has several letters.
        header: whether the first line names the columns; None: unless `names` does.
        names: of the columns, in place of those of the header if there is one.
        decimal: `.` or `,`, or `point` or `comma`: in front of the decimals of a number.
        encoding: of letters, as Python calls it.
        nulls: words that stand for a missing value, as an empty field does; `usual` is those that
            programs write, such as NULL and NA. None is the word null.

    Raises:
        ConfigError: a value that is none of these.

    >>> Dialect(separator="tab").letters, Dialect(names=["user_id"]).has_header
    ('\t', False)
    """

    separator: str | None = None
    header: bool | None = None
    names: Sequence[str] | None = None
    decimal: str = "point"
    encoding: str = "utf-8"
    nulls: Sequence[str | None] | str = ()

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.letters is not None and (not self.letters or set(self.letters) & set('"\n')):
            raise ConfigError(
                f"data.separator={self.separator!r}: expected what stands between fields, such as "
                f"{', '.join(SEPARATORS)}"
            )
        if self.point not in DECIMALS.values():
            raise ConfigError(f"data.decimal={self.decimal}: expected point or comma")
        if self.point == self.letters:
            raise ConfigError(
                "data.decimal and data.separator are both a comma; quote decimals, and leave "
                "data.separator out for a .csv file"
            )
        if isinstance(self.nulls, str) and self.nulls != USUAL:
            raise ConfigError(f"data.nulls={self.nulls}: expected a list of words, or {USUAL}")
        if not self.has_header and self.names is None:
            raise ConfigError("data.header=false: say what the columns are, data.names=[NAME,…]")
        distinct(**{"data.names": self.names})
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ConfigError(
                f"data.encoding={self.encoding} is none; give such as utf-8, latin-1 or cp1252"
            ) from None

    def _check_kinds(self) -> None:
        """Raise a `ConfigError` where a value is of another kind: not all are checked by Hydra."""
        kinds: dict[str, tuple[str, tuple[type, ...]]] = {
            **dict.fromkeys(("separator", "decimal", "encoding"), ("text", (str,))),
            "header": ("true or false", (bool,)),
            "names": ("a list, [NAME,…]", (list, tuple)),
            "nulls": (f"a list of words, or {USUAL}", (list, tuple, str)),
        }
        for name, (words, types) in kinds.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, types):
                raise ConfigError(f"data.{name}={value}: expected {words}")

    @property
    def letters(self) -> str | None:
        """What stands between fields."""
        return SEPARATORS.get(self.separator or "", self.separator)

    @property
    def has_header(self) -> bool:
        """Whether the first line is one."""
        return self.names is None if self.header is None else self.header

    @property
    def point(self) -> str:
        """What stands in front of decimals."""
        return DECIMALS.get(self.decimal, self.decimal)

    @property
    def null_words(self) -> list[str]:
        """What stands for a missing value; a command line reads NULL as nothing."""
        if isinstance(self.nulls, str):
            return ["", *USUAL_NULLS]
        words = (("NULL", "null") if word is None else (word,) for word in self.nulls)
        return ["", *(word for some in words for word in some)]

    def but_for(self, other: Mapping[str, Any]) -> Dialect:
        """The same but for the options that are set, and the header, which is each file's own."""
        own = {f.name: getattr(self, f.name) for f in fields(self)} | {
            "header": None,
            "names": None,
        }
        return Dialect(**own | {name: value for name, value in other.items() if value is not None})


OPTIONS = tuple(f.name for f in fields(Dialect))
