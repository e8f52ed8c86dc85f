"""A run's page: `report.html`, one file without scripts that needs no network.

Everything on it is read from the run's folder: it can be written of a finished run at any time, and
is the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recsys.errors import RunError
from recsys.files import write_text
from recsys.reading import read_config, read_json, reading
from recsys.report import plots
from recsys.timing import in_words

OF_ONE_RUN = ("run", "duration")
"""Facts of a head that several runs have not in common."""


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
            **head_of(folder, config["data"]),
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


def head_of(folder: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the head of a run's page, as far as its folder says so.

    Args:
        folder: of the run.
        data: the section `data` of its config.

    Returns:
        `data`, the name of the log, and `head`, pairs of a word and what is to be said.
    """
    log, timing = _json(folder / "log.json"), _json(folder / "timing.json")
    name = str(log.get("name") or name_of(data))
    file = PurePath(str(data.get("path") or "")).name
    said = f"{name} ({file})" if file and file != name else name
    run = timing.get("run") or {}
    return {"data": name, "head": [("data", said), *_sizes(log), *_times(log), *_when(run)]}


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _sizes(log: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not {"users", "items", "events"} <= log.keys():
        return
    overview = log.get("overview") or {}
    yield "users and items", f"{log['users']:,} and {log['items']:,}"
    baskets = f" in {overview['baskets']:,} baskets" if overview.get("baskets") else ""
    yield "events", f"{log['events']:,}{baskets}"
    if overview.get("density") is not None:
        yield "density", f"{100 * overview['density']:.2g}% of all pairs of a user and an item"


def _times(log: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    overview = log.get("overview") or {}
    if overview.get("first") is not None:
        yield "dates", f"{overview['first']} to {overview['last']}"


def _when(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "started" in run:
        yield OF_ONE_RUN[0], f"{datetime.fromisoformat(run['started']):%Y-%m-%d %H:%M} UTC"
        yield OF_ONE_RUN[1], in_words(run["seconds"])
