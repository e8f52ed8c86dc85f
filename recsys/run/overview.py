"""What finished runs reached, a row each, from what their folders say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import ConfigError, RunError
from recsys.reading import read_config, read_json
from recsys.run.config import flat
from recsys.scoring.trust import TARGET

SHOWN = ("recall", "ndcg")
"""Metrics of lists that are shown where nothing else is wanted, at their shortest length."""
FEW = 4
"""How many metrics are shown of a task without lists."""
ABOUT = ("run", "log", "model", "finished")


def runs_below(folder: Path) -> list[Path]:
    """The folders of the finished runs in a folder and its folders, by name.

    Raises:
        RunError: there is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder; name one that holds runs")
    configs = sorted(folder.rglob("config.yaml"))
    return [path.parent for path in configs if (path.parent / "metrics.json").is_file()]


def overview(runs: Sequence[Path], part: str = "test") -> pl.DataFrame:
    """What runs reached.

    Args:
        runs: folders of finished runs.
        part: `test` or `validation`.

    Returns:
        A row a run: its folder, its log and model, when it was finished, and its figures; null is
        what it has not.
    """
    schema = {name: pl.Datetime if name == "finished" else pl.String for name in ABOUT}
    rows = [_row(run, part) for run in runs]
    return pl.concat(
        [pl.DataFrame(schema=schema), *map(pl.DataFrame, rows)], how="diagonal_relaxed"
    )


def _row(run: Path, part: str) -> dict[str, list[Any]]:
    config, figures = read_config(run), read_json(run / "metrics.json")
    log = read_json(run / "log.json").get("name") if (run / "log.json").is_file() else None
    finished = datetime.fromtimestamp(int((run / "metrics.json").stat().st_mtime))
    row = dict(zip(ABOUT, (str(run), log, _model(config), finished), strict=True))
    of_part = figures.get(part, figures) if isinstance(figures, dict) else {}
    numbers = {name: v for name, v in flat(of_part) if isinstance(v, int | float)}
    return {name: [value] for name, value in (row | numbers).items()}


def _model(config: dict[str, Any]) -> str | None:
    """The class of a run's model, or those of its models, one for each table of labels."""
    model = config.get("model")
    models = [model] if not isinstance(model, dict) or TARGET in model else list(model.values())
    targets = [str(of[TARGET]) for of in models if isinstance(of, dict) and TARGET in of]
    return ", ".join(dict.fromkeys(target.rpartition(".")[2] for target in targets)) or None


def shown(table: pl.DataFrame, metrics: Sequence[str] = (), by: str | None = None) -> pl.DataFrame:
    """A table of runs with some of its figures, in an order.

    Args:
        table: of `overview`.
        metrics: which; without them, recall and nDCG of the shortest lists, or the first few.
        by: the column that puts runs in order: figures and times with the largest first, names
            from A; None keeps the order.

    Raises:
        ConfigError: no run has such a figure.
    """
    figures = [name for name in table.columns if name not in ABOUT]
    for name in (*metrics, *([by] if by and by not in ABOUT else [])):
        if name not in figures:
            raise ConfigError(f"no run has {name}; there is {', '.join(figures) or 'no figure'}")
    names = [*metrics] or _first(table)
    if by is not None:
        is_name = table.schema[by] == pl.String
        table = table.sort(by, descending=not is_name, nulls_last=True, maintain_order=True)
        names = list(dict.fromkeys([*([by] if by not in ABOUT else []), *names]))
    return table.select(*ABOUT, *names)


def _first(table: pl.DataFrame) -> list[str]:
    """What lists are known by, and a few figures of runs that make no lists."""
    figures = [name for name in table.columns if name not in ABOUT]
    parts = {name: name.partition("@") for name in figures}
    lists = [name for name, (metric, _, k) in parts.items() if metric in SHOWN and k.isdigit()]
    lists.sort(key=lambda name: int(parts[name][2]))
    names = [n for m in SHOWN for n in [n for n in lists if parts[n][0] == m][:1]]
    has_lists = pl.any_horizontal(pl.lit(False), *(pl.col(name).is_not_null() for name in names))
    others = table.filter(~has_lists)
    return names + [name for name in figures if others[name].count()][:FEW]
