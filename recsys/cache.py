"""The folder that keeps results which take long to compute, from one run to the next."""

from __future__ import annotations

import os
import warnings
from pathlib import Path


def cache_folder() -> Path:
    """`$RECSYS_CACHE`, or `~/.cache/recsys/prepared`; it may be deleted at any time.

    Raises:
        OSError: nothing says where the home folder is.
    """
    folder = os.path.expanduser(os.environ.get("RECSYS_CACHE") or "~/.cache/recsys/prepared")
    if folder.startswith("~"):
        raise FileNotFoundError("there is no home folder")
    return Path(folder).absolute()


def warn_not_kept(what: str, error: Exception) -> None:
    """Say once that something will have to be made again, and why."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    warnings.warn(
        f"{what} not cached ({reason}); set RECSYS_CACHE to a folder that can be written",
        stacklevel=3,
    )
