"""Amend a record of forecasts: run some of its models again, or hold it beside another experiment.

    python -m benchmarks.sales.amend again three_origins linear_lags lightgbm_lags
    python -m benchmarks.sales.amend beside promotions categories

`again` runs models of a record with the record's own config, as code that concerns them alone has
changed. Their figures get the commit and the date. Differences from the experiment's model, which
is not run again, stay where they cannot have changed, those of a mean that misses by what it did.

`beside` adds the differences of each model from the one of the same name in another experiment, of
the same series and origins, from the folders that `benchmarks.sales.run` left.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import OmegaConf

from benchmarks.record import stamp
from benchmarks.sales.run import RESULTS, RUNS, of_model, places_of
from recsys.evaluation import forecasts
from recsys.files import write_text
from recsys.reading import read_json, read_table
from recsys.run.folder import about, models_of
from recsys.run.forecasting import OF_THE_TASK, Protocol, forecast, prepare
from recsys.run.log import read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("way", choices=["again", "beside"])
    parser.add_argument("experiment")
    parser.add_argument("names", nargs="+", help="models, or an experiment")
    options = parser.parse_args()
    path = RESULTS / f"{options.experiment}.json"
    record = read_json(path)
    if options.way == "again":
        run_again(record, options.names, RUNS / "again" / options.experiment)
    else:
        record["beside"] = beside(RUNS / options.experiment, RUNS / options.names[0])
    write_text(path, json.dumps(record, indent=2) + "\n")


def run_again(record: dict[str, Any], names: list[str], folder: Path) -> None:
    """Put figures of today into a record."""
    config = OmegaConf.create(record["config"])
    log = read(config.data)
    assert about(log)["sha256"] == record["log"], "the log is another one"
    sales = prepare(config, log)
    protocol = Protocol(**{n: config.task[n] for n in OF_THE_TASK[2:]}, seed=config.seed)
    models = models_of(config, folder)
    for name in names:
        options, place = models[name]
        rows = forecast(sales, options, place, protocol)
        before = record["models"][name]
        after = of_model(place, rows.filter(part="test"))
        record["models"][name] = after | {"again": stamp()}
        stands = {"rmse"} if _rmse(before) == _rmse(after) else set()
        record["leads"] = [
            row for row in record["leads"] if row["against"] != name or row["metric"] in stands
        ]


def beside(first: Path, second: Path) -> dict[str, Any]:
    """Differences of the models that two experiments share, by name, where there is one.

    The experiment's own model is called `TiDE`, and in others, which it stands beside, `tide`.
    """
    here, there = (
        {name.lower(): _test(place) for name, place in places_of(folder).items()}
        for folder in (first, second)
    )
    shared = [name for name in here if name in there and not here[name].equals(there[name])]
    return {
        "experiment": f"sales/{second.name}",
        "models": {
            name: forecasts.leads({"here": here[name], "there": there[name]})
            .drop("against")
            .to_dicts()
            for name in shared
        },
    }


def _test(folder: Path) -> pl.DataFrame:
    return read_table(folder / "per_series.parquet").filter(part="test")


def _rmse(model: dict[str, Any]) -> list[float]:
    return [round(row["rmse"], 4) for row in model["by_origin"]]


if __name__ == "__main__":
    main()
