"""The folder of a run: who is at work in it, which run it holds, and what is said at its end."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recsys import ranks
from recsys.devices import running_on
from recsys.errors import ConfigError
from recsys.files import held, write_text
from recsys.log.event_log import BASKET, ITEM, TIME, USER, EventLog, runs
from recsys.reading import read_config, read_json, reading
from recsys.renamed import renamed_tables
from recsys.report import tables
from recsys.report.page import name_of
from recsys.report.screen import console, say
from recsys.run.config import as_values, config_words, flat, plain
from recsys.run.moments import check_moments
from recsys.run.options import as_text, check_options
from recsys.run.task_kinds import LISTS, TaskKind, check_models, kind_of
from recsys.run.tracking import check_loggers
from recsys.training.processes import join

logger = logging.getLogger(__name__)
OF_RANKS = ("trainer.devices", "trainer.num_nodes", "trainer.strategy")
"""Options that a run may go on with another value of."""
EPOCHS = "trainer.max_epochs"


@contextmanager
def folder_of_a_run(folder: Path) -> Iterator[None]:
    """Keep others out of a run's folder; files of a new run that fails before a fit are removed.

    The first rank does so for all.
    """
    if not ranks.is_first():
        yield
        return
    with held(folder):
        before = set(folder.iterdir())
        try:
            yield
        except Exception:
            new_paths = set(folder.iterdir()) - before
            # A checkpoint, a model or a table of predictions has a folder of its own.
            if folder / "config.yaml" in new_paths and not any(path.is_dir() for path in new_paths):
                for path in new_paths:
                    path.unlink()
            raise


@contextmanager
def of_all_ranks(config: DictConfig, folder: Path) -> Iterator[Path]:
    """The folder of a run, which is that of the first rank where there are several.

    The others work in silence: warnings and lines that go on standard output are the first's.

    Args:
        config: composed.
        folder: of this process, named by the moment at which it started, maybe.

    Raises:
        ConfigError: another number of processes was started, or the task is done in one.
    """
    devices, num_nodes = (_number(config, name) for name in ("devices", "num_nodes"))
    join(devices, num_nodes, str(config.device))
    if ranks.world() > 1 and (kind := kind_of(config)) is not LISTS:
        raise ConfigError(
            f"trainer.devices={devices} trainer.num_nodes={num_nodes}: what {kind.does} runs in "
            "one process; set both to 1"
        )
    whole = ranks.agreed(folder)
    if not ranks.is_first():
        console.quiet = True
        logging.getLogger("recsys").setLevel(logging.ERROR)
        if folder != whole:
            with suppress(OSError):
                folder.rmdir()
    yield whole
    ranks.wait()


def _number(config: DictConfig, name: str) -> int:
    """Of the trainer's options; what is no number is refused with the other options."""
    value = OmegaConf.select(config, f"trainer.{name}")
    return value if isinstance(value, int) and value > 0 else 1


@contextmanager
def at_work(
    config: DictConfig,
    folder: Path,
    kind: TaskKind,
    kinds: Mapping[str, Any],
    extras: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Hold a run's folder and its device, after the options of the config have been checked.

    Args:
        config: composed.
        folder: the run's.
        kind: of its task.
        kinds, extras: what its options are, as `check_options` takes them.

    Raises:
        RunError: another process is at work in the folder.
        ConfigError: a model of another kind, an option that is not what is expected, or no such
            device.
    """
    with folder_of_a_run(folder):
        check_models(config, kind)
        check_moments(config)
        check_options(as_values(config), kinds, extras)
        check_loggers(config)
        with running_on(config.device) as device:
            logger.info("a run on %s, in %s", device, folder)
            yield


OVERVIEW = "overview"
"""A key of `log.json`: for reports alone, of runs since there is one."""


def about(log: EventLog) -> dict[str, Any]:
    """What `log.json` says of a log."""
    return {
        "name": log.name,
        "events": (log.whole or log).num_events,
        "items": len(log.items),
        "users": len(log.users),
        "sha256": (log.whole or log).fingerprint,
        # A rank that has read its own partitions cannot say it of the whole.
        **({} if log.whole else {OVERVIEW: _overview(log)}),
    }


def _overview(log: EventLog) -> dict[str, Any]:
    """What a report says of a log besides its sizes: it follows from what the fingerprint says."""
    events = log.events
    pairs = len(events.select(USER, ITEM).unique()) / max(1, len(log.users) * len(log.items))
    overview: dict[str, Any] = {"density": float(f"{pairs:.4g}")}
    if BASKET in events.columns:
        overview["baskets"] = int(runs(events[USER], events[BASKET]).max() or 0) + 1  # type: ignore[arg-type]
    if log.has_calendar_time and log.num_events:
        ends: tuple[Any, Any] = events[TIME].min(), events[TIME].max()
        overview |= {"first": f"{ends[0]:%Y-%m-%d}", "last": f"{ends[1]:%Y-%m-%d}"}
    return overview


ELSEWHERE = "choose another hydra.run.dir, or remove it"


def claim(folder: Path, config: DictConfig, log: Mapping[str, Any]) -> None:
    """Write the config to a new run's folder, or check that a resumed run is the same one.

    Args:
        folder: the run's.
        config: composed.
        log: what the run knows of the world beside its config, as `about` says it.

    Raises:
        ConfigError: the folder holds a run of another config, or of another log.
    """
    composed = OmegaConf.to_yaml(config, resolve=True)
    path, log_path = folder / "config.yaml", folder / "log.json"
    if path.exists():
        if log_path.exists():
            _check_log(folder, renamed_tables(read_json(log_path)), log)
        if different := _different(read_config(folder), plain(config)):
            raise ConfigError(f"{folder} holds a run of another config: {different}; {ELSEWHERE}")
        if not log_path.exists():
            raise ConfigError(f"{folder} does not say which log its run is of; {ELSEWHERE}")
    # The log first: a folder that has a config says of which log it is.
    write_text(log_path, json.dumps(log, indent=2))
    write_text(path, composed)
    _note_start(folder)


def _different(there: dict[str, Any], here: dict[str, Any]) -> str:
    """In words, the first options in which a folder's run is another than the one to be done in it.

    More epochs than it had are more of the same, and how many processes do the work changes
    nothing.
    """
    before, now = dict(flat(there)), dict(flat(here))
    names = [name for name in {**before, **now} if name not in OF_RANKS]
    old, new = before.get(EPOCHS), now.get(EPOCHS)
    if isinstance(old, int) and isinstance(new, int) and old < new:
        names.remove(EPOCHS)
    words = [
        f"{name} was {as_text(before.get(name))}, and is {as_text(now.get(name))} now"
        for name in names
        if before.get(name) != now.get(name)
    ]
    return "; ".join(words[:3])


def _check_log(folder: Path, old_log: Mapping[str, Any], log: Mapping[str, Any]) -> None:
    names = [name for name in log if name not in ("name", OVERVIEW)]
    different = [name for name in names if old_log.get(name) != log[name]]
    if different:
        name = different[0]
        raise ConfigError(
            f"{folder} holds a run of another log: {name} was {str(old_log.get(name))[:12]}, and "
            f"is {str(log[name])[:12]} now; {ELSEWHERE}"
        )


def close(folder: Path, config: DictConfig, log: EventLog, *lines: str) -> None:
    """The last lines of a run: what was said of it, what its log offers besides, where it is."""
    say(*lines, *tables.unread(log, config_words(config)), f"run folder: {folder}")


def models_of(config: DictConfig, folder: Path) -> dict[str, tuple[dict[str, Any], Path]]:
    """Options and folder of the model of a run, which comes first, and of each baseline, by name.

    The model itself is left out of the baselines.
    """
    options = plain(config.model)
    models = {name_of(options): (options, folder)}
    for name, baseline in plain(config.baselines).items():
        if baseline != options:
            models[str(name)] = (baseline, folder / "baselines" / str(name))
    return models


def note_seconds(folder: Path, what: str, figures: Mapping[str, Any]) -> None:
    """Add what something took to `timing.json`, beside what else took time."""
    path = folder / "timing.json"
    known = read_json(path) if path.is_file() else {}
    write_text(path, json.dumps(known | {what: figures}, indent=2))


def _note_start(folder: Path) -> None:
    """When a run was started, and when this process took it up."""
    known = _noted(folder)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    first = {"started": started, "seconds": 0.0} | known
    note_seconds(folder, "run", first | {"since": time.time()})


def note_end(folder: Path) -> None:
    """Add the seconds since the run was taken up, for the head of its page.

    A process that is killed adds nothing.
    """
    if known := _noted(folder):
        now = time.time()
        seconds = round(known["seconds"] + now - known["since"], 1)
        note_seconds(folder, "run", known | {"seconds": seconds, "since": now})


def _noted(folder: Path) -> dict[str, Any]:
    """What `timing.json` says of the run as a whole; nothing, of one that did not note it."""
    path = folder / "timing.json"
    if not path.is_file():
        return {}
    with reading(path):
        known = read_json(path).get("run", {})
        kinds = {"started": str, "seconds": float, "since": float}
        return {name: kind(known[name]) for name, kind in kinds.items() if known}
