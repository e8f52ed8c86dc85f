"""A run's page: `report.html`, one file without scripts that needs no network.

Everything on it is read from the run's folder: it can be written of a finished run at any time, and
is the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recsys.errors import RunError
from recsys.files import write_text
from recsys.reading import read_config, reading
from recsys.report import plots


def write(
    folder: Path, template: str, content: Callable[[Path, dict[str, Any]], dict[str, Any]]
) -> None:
    """Write `report.html` of a finished run, whole or not at all.

    Args:
        folder: the run's.
        template: a file in `templates/`.
        content: what it shows, of a run's folder and config, besides what every page does.

    Raises:
        RunError: the folder holds no finished run.
    """
    for name in ("config.yaml", "metrics.json"):
        if not (folder / name).is_file():
            raise RunError(f"{folder} holds no finished run: there is no {name}")
    with reading(folder, fault="cannot be shown"):
        config = read_config(folder)
        shown = {
            "seed": config["seed"],
            "config": (folder / "config.yaml").read_text("utf-8"),
            "colours": plots.COLOURS,
        }
        page = render(template, shown | content(folder, config))
    write_text(folder / "report.html", page)


def render(template: str, content: Mapping[str, Any]) -> str:
    """A page of what a template in `templates/` shows."""
    return _environment().get_template(template).render(content)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # titles and ids are whatever the log holds
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def name_of(config: Mapping[str, Any]) -> str:
    """The class or function that a config names, `EASE` of `recsys.models.EASE`."""
    return str(config["_target_"]).rpartition(".")[2]
