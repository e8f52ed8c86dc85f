"""The pages of `recsys search`, as `recsys.report.page` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from recsys.evaluation.figures import read_figures
from recsys.evaluation.ranking import Protocol
from recsys.reading import read_json, read_table
from recsys.report import page, plots
from recsys.report.page import name_of
from recsys.report.search_tables import short, shown, value_text

LAST = 200
"""Trials whose rows a page shows."""


def write(folder: Path) -> None:
    """Write `report.html` of the search of one model, whole or not at all.

    Args:
        folder: as `recsys.run.search` describes it.

    Raises:
        RunError: the folder holds no finished search.
    """
    page.write(folder, "search.html.jinja", _of_one)


def write_of_several(folder: Path, places: Mapping[str, str]) -> None:
    """Write `report.html` of a search of several models.

    Args:
        folder: of the search.
        places: the folder of each model in it, by name.

    Raises:
        RunError: the folder holds no finished search.
    """
    page.write(folder, "searches.html.jinja", partial(_of_several, places))


def _of_one(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    of = read_json(folder / "search.json")
    trials = read_table(folder / "trials.parquet", "trial", "state", "value")
    weights = sorted(of["importances"].items(), key=lambda pair: -pair[1])
    bars = [plots.Bar(short(name), weight, weight, weight) for name, weight in weights]
    figures = [_history(of, trials)]
    if len(bars) > 1:
        figures.append(plots.bars("importance", bars, limit=1.0))
    return (
        _about(config)
        | _reached(folder, of, config)
        | {
            "model_name": of["model"],
            "of": of,
            "rows": _settings(of),
            "plots_of_search": figures,
            "trials": _rows(trials),
            "options": [short(name) for name in of["spaces"]],
        }
    )


def _of_several(places: Mapping[str, str], folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    summaries = {name: read_json(folder / of / "search.json") for name, of in places.items()}
    leads = folder / "compared.parquet"
    differences = read_table(leads).to_dicts() if leads.is_file() else []
    return _about(config) | {
        "model_name": f"{len(places)} models",
        "monitor": next(iter(summaries.values()))["monitor"],
        "models": [
            {
                "of": of,
                "place": places[name],
                "rows": _settings(of),
                "lead": next((row for row in differences if row["model"] == name), None),
                **_reached(folder / places[name], of, config),
            }
            for name, of in summaries.items()
        ],
        "against": differences[0]["against"] if differences else None,
        "plots_of_search": [
            _history(of, read_table(folder / places[name] / "trials.parquet"))
            for name, of in summaries.items()
        ],
    }


def _about(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "split": name_of(config["task"]["split"]).replace("_", " "),
    }


def _reached(folder: Path, of: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    means, intervals = (figures["test"] for figures in read_figures(folder))
    metric = shown(of["monitor"], Protocol(config["task"]["ks"]))
    return {"metric": metric, "test": means[metric], "interval": intervals[metric]}


def _settings(of: Mapping[str, Any]) -> list[dict[str, str]]:
    weights = of["importances"]
    return [
        {
            "option": name,
            "tried": of["spaces"][name].replace(",", ", "),
            "default": value_text(of["defaults"]["options"][name]),
            "chosen": value_text(value),
            "importance": f"{weights[name]:.2f}" if name in weights else "–",
        }
        for name, value in of["best"]["options"].items()
    ]


def _history(of: Mapping[str, Any], trials: pl.DataFrame) -> plots.Plot:
    words = f"{of['model']}: {of['monitor']} by trial"
    return plots.trials(words, of["monitor"], trials)


def _rows(trials: pl.DataFrame) -> list[list[str]]:
    return [
        ["–" if cell is None else value_text(cell) for cell in row]
        for row in trials.head(LAST).iter_rows()
    ]
