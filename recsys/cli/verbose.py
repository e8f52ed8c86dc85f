"""What `-v` shows: the messages that the package logs at INFO, on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from recsys.errors import visible


@contextmanager
def verbose() -> Iterator[None]:
    """Show the package's messages in the block, each on a line of its own."""
    logger = logging.getLogger("recsys")
    handler, level = logging.StreamHandler(sys.stderr), logger.level
    handler.setFormatter(_Line("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _Line(logging.Formatter):
    """A message on one line: names and paths in it are whatever a log or a folder holds."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record).replace("\n", " "))
