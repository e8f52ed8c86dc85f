"""Search settings on the validation users, and keep what was tried as a record.

    python -m benchmarks.search tifuknn_dc data=dc model=tifuknn n_trials=40

is `recsys search` with these options in the folder `runs/search/<name>`, from which it goes on when
it is started again, and `benchmarks/tuning/<name>.json`: of each model every trial's options and
validation figure, the importances, the chosen setting, and its figures on the test users.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, write
from recsys.cli import main as command
from recsys.evaluation.figures import read_figures
from recsys.reading import read_config, read_json, read_table

RESULTS = ROOT / "benchmarks" / "tuning"
RUNS = ROOT / "runs" / "search"
SHOWN = ("recall@10", "ndcg@10", "phr@10")
PACKAGES = ["recsys", "optuna", "torch", "pytorch-lightning", "polars"]


def main() -> None:
    name, *options = sys.argv[1:]
    folder = RUNS / name
    arguments = list(sys.argv)
    if code := command.main(["search", *options, f"hydra.run.dir={folder}"]):
        sys.exit(code)
    sys.argv = arguments  # Hydra's were others
    write(
        RESULTS / f"{name}.json",
        reached(folder),
        packages=PACKAGES,
        seed=read_config(folder)["seed"],
    )


def reached(folder: Path) -> dict[str, Any]:
    """What a search's folder holds, of one model or of several."""
    if (folder / "search.json").is_file():
        return of_model(folder)
    models = {path.parent.name: of_model(path.parent) for path in folder.glob("*/search.json")}
    compared = folder / "compared.parquet"
    differences = read_table(compared).to_dicts() if compared.is_file() else []
    return {"models": models, "differences": differences}


def of_model(folder: Path) -> dict[str, Any]:
    """What was tried of a model, and the figures of the setting that was chosen."""
    means, intervals = read_figures(folder)
    test = {
        metric: {"mean": round(means["test"][metric], 6), "interval": intervals["test"][metric]}
        for metric in SHOWN
        if metric in means["test"]
    }
    points = read_table(folder / "trials.parquet").to_dicts()
    summary = read_json(folder / "search.json")
    chosen = {"train": summary.pop("command")}  # a record has a command of its own
    return summary | chosen | {"test": test, "points": points}


if __name__ == "__main__":
    main()
