"""How long things take, for whoever asks with `recsys -v`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import Logger
from time import perf_counter


@contextmanager
def timed(logger: Logger, did: str, *values: object) -> Iterator[None]:
    """Log at INFO what a block did and how many seconds it took; nothing where it fails.

    Args:
        logger: of the module that does it.
        did: with `%s` for each of the values.
        values: what stands there.
    """
    start = perf_counter()
    yield
    logger.info("%s in %.1f s", did % values, perf_counter() - start)
