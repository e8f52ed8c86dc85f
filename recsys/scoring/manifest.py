"""What a saved folder's files should hold: `manifest.json`, with the size and the SHA-256 of each.

It tells a file that was damaged, cut or mixed up with another from one that was not. It does not
say who made the folder: whoever changes a file on purpose can change the manifest with it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from recsys.errors import RunError
from recsys.reading import read_json

NAME = "manifest.json"


def write(folder: Path) -> None:
    """Write the manifest of all files that are in a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != NAME)
    facts = {p.name: {"bytes": p.stat().st_size, "sha256": _digest(p)} for p in files}
    (folder / NAME).write_text(json.dumps({"files": facts}, indent=2))


def check(folder: Path, *names: str) -> None:
    """See that a folder's files are those of its manifest; one without a manifest passes.

    Args:
        folder: that was written with its manifest.
        names: of files that the manifest has to list.

    Raises:
        RunError: a file is missing, or is another than was written.
    """
    if not (folder / NAME).exists():
        return
    files = read_json(folder / NAME).get("files")
    if not isinstance(files, dict) or not files.keys() >= set(names):
        raise RunError(f"{folder / NAME} is damaged (it lacks files); make the run again")
    for name, facts in files.items():
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise RunError(f"{path} is missing, which {NAME} names; make the run again")
        if facts != {"bytes": path.stat().st_size, "sha256": _digest(path)}:
            raise RunError(f"{path} is not the file that was written; make the run again")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
