"""Where what takes long to make is kept from one run to the next."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$RECSYS_CACHE`, or `~/.cache/recsys/prepared`; it may be deleted at any time."""
    default = Path.home() / ".cache" / "recsys" / "prepared"
    return Path(os.environ.get("RECSYS_CACHE") or default).absolute()
