"""What can go wrong on a user's side: one small tree, each message one line.

The command line prints the message of a `RecsysError` and exits with a non-zero code; any other
exception is a fault of ours and keeps its traceback. A message gives the value, what was expected
and what to do: ``k=500 exceeds the 312 items in the index; lower k or rebuild the index``.
"""

_PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD)


def visible(text: str) -> str:
    """Text in which control characters, which a terminal would obey, are pictures of themselves."""
    return text.translate(_PICTURES)


class RecsysError(Exception):
    """Base of every error that a user can cause and mend."""

    def __str__(self) -> str:
        """The message on one line, whatever values it holds; `KeyError` would put it in quotes."""
        return visible(" ".join(" ".join(str(arg) for arg in self.args).split("\n")))


class DataError(RecsysError, ValueError):
    """A log, or a file of one, that cannot be used as it is."""


class LeakError(RecsysError):
    """Something that is computed from what was not known at the moment it is asked about."""


class ConfigError(RecsysError, ValueError):
    """An option, or a value of one, that does not exist or cannot be."""


class RunError(RecsysError):
    """A run's folder that is missing, incomplete or not a run's."""


class CatalogueError(RecsysError, ValueError):
    """A request that the catalogue cannot meet, such as more items than it holds."""


class UnknownIdError(RecsysError, KeyError):
    """A user or item id that the vocabulary does not know."""


class BadRequestError(RecsysError, ValueError):
    """A request to the service is not what is expected."""
