"""The page of `recsys transfer`, as `recsys.report.page` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation.figures import read_figures
from recsys.evaluation.ranking import Protocol
from recsys.evaluation.transfer import ALL, PAIR
from recsys.reading import read_json, read_table
from recsys.report import page, plots
from recsys.report.page import name_of
from recsys.report.plots import Plot
from recsys.report.tables import SHOWN, history_rule
from recsys.report.transfer_tables import cells_of_pairs, short, verdict

TEMPLATE = "transfer.html.jinja"


def write(folder: Path) -> None:
    """Write `report.html` of a finished run, whole or not at all.

    Args:
        folder: the run's, as `recsys.run.transfer` describes it.

    Raises:
        RunError: the folder holds no finished run.
    """
    page.write(folder, TEMPLATE, _content)


def _content(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    task = config["task"]
    k = task["ks"][0]
    gains = read_table(folder / "gains.parquet", "metric", "training", "domain", "beside")
    means, intervals = (figures["test"] for figures in read_figures(folder))
    metric = f"ndcg@{k}"
    rows = gains.filter(training=ALL)
    of_all = rows.filter(metric=metric).to_dicts()
    return {
        "model_name": name_of(config["model"]),
        "column": config["transfer"]["column"],
        "split": name_of(task["split"]).replace("_", " "),
        "history_rule": history_rule(Protocol(mask_history=task["mask_history"])),
        "metric": metric,
        "facts": read_json(folder / "domains.json"),
        "rows": of_all,
        "verdicts": {row["domain"]: verdict(row) for row in of_all},
        "means": means,
        "intervals": intervals,
        "others": {
            name: {row["domain"]: row for row in rows.filter(metric=name).to_dicts()}
            for name in (f"{name}@{k}" for name in SHOWN)
            if name != metric
        },
        "maps": [_map(metric, gains)] if len(gains.filter(training=PAIR)) else [],
    }


def _map(metric: str, gains: pl.DataFrame) -> Plot:
    """What the domain of a column gains from that of a row."""
    cells = cells_of_pairs(metric, gains)
    names = list(cells)
    values = np.full((len(names), len(names)), np.nan)
    texts = np.full(values.shape, "", dtype=object)
    for x, asked in enumerate(names):
        for y, beside in enumerate(names):
            if (row := cells[asked].get(beside)) is not None:
                values[y, x], texts[y, x] = row["difference"], short(row)
    words = f"{metric}: what a column's domain gains from a row's"
    return plots.heat_map(words, names, names, values, texts)
