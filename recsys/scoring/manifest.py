"""What a saved folder's files should hold: `manifest.json`, with the size and the SHA-256 of each.

It tells a file that was damaged, cut or mixed up with another from one that was not. It does not
say who made the folder: whoever changes a file on purpose can change the manifest with it.
"""

from __future__ import annotations

import json
from pathlib import Path

from recsys.errors import RunError
from recsys.files import facts_of
from recsys.reading import read_json

NAME = "manifest.json"


def write(folder: Path) -> None:
    """Write the manifest of all files that are in a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != NAME)
    facts = {path.name: facts_of(path) for path in files}
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
        if facts != facts_of(path):
            raise RunError(f"{path} is not the file that was written; make the run again")
