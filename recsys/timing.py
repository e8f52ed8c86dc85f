"""How long things take: a line for whoever asks with `recsys -v`, and figures of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import Logger
from time import perf_counter, process_time
from typing import Any


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


def in_words(seconds: float) -> str:
    """A time as somebody would say it.

    >>> [in_words(seconds) for seconds in (0.25, 100, 1200, 20_000, 400_000)]
    ['0.2 s', '100 s', '20 min', '5.6 h', '4.6 days']
    """
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{0 if unit == 'min' else 1}f} {unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s"


@contextmanager
def clocked(figures: dict[str, Any]) -> Iterator[None]:
    """Add `seconds` and `cpu_seconds`, of all threads of the process, of a block to a dict."""
    start, cpu = perf_counter(), process_time()
    yield
    figures["seconds"] = round(perf_counter() - start, 3)
    figures["cpu_seconds"] = round(process_time() - cpu, 3)
