"""How much memory there is, so that what needs more is refused before it is taken."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from recsys.errors import DataError

LITTLE = 2**30
"""Bytes that are taken without asking."""
GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def check_memory(num_bytes: int, what: str, remedy: str) -> None:
    """See that there is as much memory as something needs.

    Args:
        num_bytes: that it takes at its largest.
        what: takes them.
        remedy: what to do where there are not so many.

    Raises:
        DataError: there are not.
    """
    if num_bytes > LITTLE and num_bytes > (free := available_memory()):
        raise DataError(
            f"{what} would take {num_bytes / GIB:,.0f} GiB of memory, and {free / GIB:,.1f} GiB "
            f"are free; {remedy}"
        )


def in_bytes(number: int) -> str:
    """A number of bytes in words.

    >>> in_bytes(700), in_bytes(3_200_000), in_bytes(5 * 2**30)
    ('1 KiB', '3 MiB', '5.0 GiB')
    """
    if number >= GIB:
        return f"{number / GIB:,.1f} GiB"
    return f"{number / 2**20:,.0f} MiB" if number >= 2**20 else f"{-(-number // 1024)} KiB"


def refused(error: BaseException) -> str | None:
    """How much memory the system or a device had not, in words; None if that was not the error."""
    # Torch's own on the processor is a RuntimeError like any other.
    is_refusal = re.search(r"can't allocate memory|out of memory", str(error))
    if not (isinstance(error, MemoryError) or is_refusal):
        return None
    match = re.search(r"(?:tried|unable) to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
    return f"{match[1]} more than there is" if match else "more than there is"


def available_memory() -> int:
    """Bytes that this process may still take of its machine, or of the container it is in."""
    return min(_of_machine(), _of_container())


def _of_machine() -> int:
    if MEMINFO.is_file():
        lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_container() -> int:
    """By Linux's control groups (version 2); more than there is where they set no limit."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        current = int((CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or "max"
        return sys.maxsize
    # Files that are cached make room when it is asked for.
    return limit - current + int(stat.get("inactive_file", 0))
