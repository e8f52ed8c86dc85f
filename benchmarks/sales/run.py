"""Run experiments of forecasts and keep what every model reached as records.

    python -m benchmarks.sales.run categories three_origins products online_retail

A record, `benchmarks/sales/results/<experiment>.json`, holds the metrics of each model with their
intervals and spreads, its options, its figures at each origin, the differences from the
experiment's model, the composed config, the log's fingerprint and the machine. The folder stays, as
`runs/sales/<experiment>`: the same command goes on where it was stopped. `benchmarks.sales.report`
makes the page.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, write
from recsys.evaluation import forecasts
from recsys.reading import read_config, read_json, read_table
from recsys.report.page import name_of

RESULTS = ROOT / "benchmarks" / "sales" / "results"
RUNS = ROOT / "runs" / "sales"
PACKAGES = ["recsys", "torch", "polars", "numpy", "lightgbm"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="+")
    for experiment in parser.parse_args().experiments:
        folder = RUNS / experiment
        command = [sys.executable, "-m", "recsys.cli.main", "train", "-v"]
        command += [f"experiment=sales/{experiment}", f"hydra.run.dir={folder}"]
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        measured = reached(folder) | {
            "experiment": f"sales/{experiment}",
            "wall_seconds": round(time.perf_counter() - began, 1),
            "peak_memory_mib": usage.ru_maxrss // 1024,
        }
        write(RESULTS / f"{experiment}.json", measured, packages=PACKAGES, seed=0)


def reached(folder: Path) -> dict[str, Any]:
    """What a finished run's folder says of itself."""
    models = places_of(folder)
    tests = {
        name: read_table(place / "per_series.parquet").filter(part="test")
        for name, place in models.items()
    }
    return {
        "log": read_json(folder / "log.json")["sha256"],
        "config": (folder / "config.yaml").read_text("utf-8"),
        "series": next(iter(tests.values()))["series"].n_unique(),
        "models": {name: of_model(place, tests[name]) for name, place in models.items()},
        "leads": forecasts.leads(tests).to_dicts(),
    }


def places_of(folder: Path) -> dict[str, Path]:
    """The folders of a run's models by name, the experiment's own first."""
    places = sorted(path for path in (folder / "baselines").glob("[!.]*") if path.is_dir())
    return {name_of(read_config(folder)["model"]): folder} | {path.name: path for path in places}


def of_model(folder: Path, test: Any) -> dict[str, Any]:
    """A model's figures."""
    by_origin = forecasts.by_group(test, "origin", "seed").group_by("origin").mean()
    rows = by_origin.drop("seed").sort("origin").to_dicts()
    return {
        "metrics": json.loads((folder / "metrics.json").read_text()),
        "intervals": json.loads((folder / "intervals.json").read_text())["test"],
        **read_json(folder / "spread.json"),
        "seeds": test["seed"].n_unique(),
        "by_origin": [row | {"origin": str(row["origin"])} for row in rows],
    }


if __name__ == "__main__":
    main()
