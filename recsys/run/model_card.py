"""`MODEL.md` of a run: what its model is, what it learnt from, what it reached, and how to load it.

In Markdown, for who is handed the folder: from its config and its figures, and from the log.
"""

from __future__ import annotations

import inspect
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import recsys
from recsys.errors import visible
from recsys.evaluation.figures import read_figures
from recsys.files import write_text
from recsys.log.event_log import TIME, EventLog
from recsys.log.filters import filtered
from recsys.reading import read_config
from recsys.report.page import name_of
from recsys.report.screen import short
from recsys.report.tables import SHOWN
from recsys.run.options import as_text
from recsys.scoring.trust import TARGET
from recsys.tasks.splits import Split

FILE = "MODEL.md"
SIZES = ("num_items", "num_users", "num_classes")
"""Options that the log sets."""
PACKAGES = ("torch", "polars", "numpy")
AFTER_OTHERS = ("leave_last_out", "last_basket", "last_share")
"""Splits by user, whose training may hold what came later than another user's target."""


def write(folder: Path, split: Split, members: Sequence[str] = ()) -> None:
    """Write the card of a run that ranks items, whole or not at all.

    Args:
        folder: the run's, with its config and figures.
        split: that the model was trained and evaluated on.
        members: the models that it is made of, by name.

    Raises:
        RunError: the folder holds no finished run.
    """
    config = read_config(folder)
    card = Card(folder, config, split, members)
    sections = (
        card.opening(),
        card.settings(),
        card.figures(),
        card.limits(),
        card.use(),
        card.origin(),
    )
    write_text(folder / FILE, "\n\n".join("\n".join(lines) for lines in sections) + "\n")


@dataclass(frozen=True)
class Card:
    """What stands in the card, section by section, as lines of Markdown.

    Attributes:
        folder: the run's.
        config: of the run.
        split: of its log.
        members: of its model.
    """

    folder: Path
    config: Mapping[str, Any]
    split: Split
    members: Sequence[str]

    def opening(self) -> Iterator[str]:
        """Which model, of which log, for which task."""
        model, task, log = self.config["model"], self.config["task"], self.split.log
        yield f"# {name_of(model)} on {cell(log.name)}"
        yield ""
        yield f"{_summary(model)} {len(self.split.items):,} items are ranked for a user."
        yield ""
        yield from table(
            ("", ""),
            (
                ("model", f"`{model[TARGET]}`"),
                ("made of", ", ".join(map(cell, self.members)) or "itself"),
                ("log", f"{cell(log.name)}, {_period(log)}"),
                ("events, users, items", _sizes(self.split)),
                ("fingerprint of the log", f"`{log.fingerprint[:16]}`"),
                ("split", _call(task["split"])),
                ("filters", _options(_filters(task["filters"])) or "none"),
                ("lists", f"of {', '.join(map(str, task['ks']))}; {_rule(task)}"),
                ("seed", cell(self.config["seed"])),
            ),
        )

    def settings(self) -> Iterator[str]:
        """Options of the model, and of the training where there was one, that are no defaults."""
        sections = {"model": self.config["model"]}
        if (self.folder / "train.csv").is_file():
            sections["trainer"] = self.config["trainer"]
        rows = [row for name, section in sections.items() for row in _changed(name, section)]
        yield "## Settings"
        yield ""
        if rows:
            yield from table(("option", "value", "default"), rows)
        else:
            yield "All are the defaults."

    def figures(self) -> Iterator[str]:
        """Metrics with intervals, of the model and of what stands beside it."""
        k = self.config["task"]["ks"][0]
        metrics = [f"{name}@{k}" for name in SHOWN]
        places = {name_of(self.config["model"]): self.folder}
        places |= {f"{name} alone": self.folder / "members" / name for name in self.members}
        for name in self.config["baselines"]:
            places[str(name)] = self.folder / "baselines" / str(name)
        yield "## What it reached"
        yield ""
        yield (
            f"Means over {len(self.split.test.last_of_users()):,} test users with 95% intervals, "
            "over the whole catalogue."
        )
        yield ""
        yield from table(
            ("", *metrics),
            [(cell(name), *_figures(place, metrics)) for name, place in places.items()],
        )

    def limits(self) -> Iterator[str]:
        """What the figures do not say."""
        report, split = self.config.get("report") or {}, name_of(self.config["task"]["split"])
        asked, users = len(self.split.test.last_of_users()), len(self.split.users)
        yield "## What it was not judged on"
        yield ""
        yield "- What users do when they see its lists: it was asked what they did without them."
        yield f"- Users other than the {asked:,} of {users:,} that the split asks of."
        if not self.config["baselines"]:
            yield "- Other models: none stands beside it (`baselines=[popularity,item_knn]`)."
        if not report.get("slices"):
            yield "- Whether it serves groups of users alike (`report.slices=[COLUMN]`)."
        if report.get("beyond") is None:
            yield "- Diversity, serendipity and popularity of its lists (`report.beyond=[COLUMN]`)."
        if split in AFTER_OTHERS:
            yield (
                "- Days to come: each user's own last events are asked for, and training may hold "
                "what others did after them (`task.split` by `global_time`)."
            )
        yield "- Chance in its training: it is one run, of one seed."

    def use(self) -> Iterator[str]:
        """How to load it."""
        package = str(self.config["model"][TARGET]).partition(".")[0]
        is_ours = package == "recsys"
        trusted = "" if is_ours else f" --trusted {package}"
        more = "" if is_ours else f', trusted=["{package}"]'
        place = shlex.quote(str(self.folder))
        user = self.split.users.ids[0]
        yield "## How to use it"
        yield ""
        yield "```sh"
        yield visible(f"recsys recommend {place}{trusted} --users {shlex.quote(str(user))} -k 10")
        yield "```"
        yield ""
        yield "```python"
        yield "import recsys"
        yield ""
        yield visible(f"model = recsys.load({str(self.folder)!r}{more})")
        yield visible(f"print(model.recommend([{user!r}], k=10))")
        yield "```"
        yield ""
        yield (
            "To read the folder runs no code of it. It holds the ids and the histories of users."
        )

    def origin(self) -> Iterator[str]:
        """With what it was made, and when."""
        packages = {name: version(name) for name in PACKAGES}
        now = datetime.now(UTC).date()
        commit = f", commit `{found}`" if (found := _commit()) else ""
        others = ", ".join(f"{name} {number}" for name, number in packages.items())
        yield "## Made with"
        yield ""
        yield (
            f"recsys {recsys.__version__}{commit}, Python {platform.python_version()}, {others}; "
            f"{now}. All options are in `config.yaml`, all figures in `metrics.json`, a page in "
            "`report.html`."
        )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def cell(value: object) -> str:
    """A value as it stands in a table: whatever it holds, it is one cell and no mark-up."""
    text = visible(" ".join(str(value).split()))
    return "".join(f"\\{letter}" if letter in "\\|`*_<[" else letter for letter in text)


def _summary(model: Mapping[str, Any]) -> str:
    """The first line of what a model's class says of itself."""
    text = inspect.getdoc(resolve_name(str(model[TARGET]))) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def _period(log: EventLog) -> str:
    if not log.has_calendar_time:
        return "in an order, without dates"
    first, last = log.events[TIME].min(), log.events[TIME].max()
    return f"from {str(first)[:10]} to {str(last)[:10]}"


def _sizes(split: Split) -> str:
    return f"{split.log.num_events:,}, {len(split.users):,}, {split.num_items:,}"


def _rule(task: Mapping[str, Any]) -> str:
    return "what a user has had is left out" if task["mask_history"] else "with what a user has had"


def _filters(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that leave something out."""
    defaults = inspect.signature(filtered).parameters
    return {name: value for name, value in options.items() if value != defaults[name].default}


def _call(section: Mapping[str, Any]) -> str:
    """A function with the options that it is given."""
    options = {name: v for name, v in section.items() if not name.startswith("_")}
    return " ".join([f"`{name_of(section)}`", _options(options)]).strip()


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{cell(name)}={cell(as_text(value))}" for name, value in options.items())


def _changed(place: str, section: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Options of a section, and of those in it, that are not the defaults of its class."""
    parameters = inspect.signature(resolve_name(str(section[TARGET]))).parameters
    for name, value in section.items():
        if name.startswith("_") or name in SIZES:
            continue
        if isinstance(value, Mapping) and TARGET in value:
            yield from _changed(f"{place}.{name}", value)
            continue
        default = parameters[name].default if name in parameters else inspect.Parameter.empty
        if default is inspect.Parameter.empty:
            yield f"{place}.{cell(name)}", cell(as_text(value)), ""
        elif value != default:
            yield f"{place}.{cell(name)}", cell(as_text(value)), cell(as_text(default))


def _figures(folder: Path, metrics: Sequence[str]) -> Iterator[str]:
    """The mean and its interval, metric by metric."""
    means, intervals = (figures["test"] for figures in read_figures(folder))
    for name in metrics:
        low, high = intervals[name]
        yield f"{short(means[name])} [{short(low)}, {short(high)}]"


def _commit() -> str:
    """Of the checkout that runs, with `+` where it was changed; nothing where there is none."""
    checkout = Path(recsys.__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # whoever commits is not in the way
    try:
        said = subprocess.run(
            command,
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()
