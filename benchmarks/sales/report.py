"""Make `benchmarks/sales/README.md` from the records: two tables an experiment.

python -m benchmarks.sales.report
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from benchmarks.record import ROOT
from recsys.evaluation.forecasts import METRICS

FOLDER = ROOT / "benchmarks" / "sales"
HEADER = """\
# Forecasts of sales

Made from the records in `results/` by `python -m benchmarks.sales.report`. An experiment is one of
`conf/experiment/sales/`, rebuilt by `python -m benchmarks.sales.run NAME` with `RECSYS_DATA` set.
Means over rolling origins and seeds, with standard deviations over origins and over seeds where a
model has several; less is better, coverage is best at .5 and .9. Seconds are those of a fit, on
cores that were shared with other work. Every model of an experiment had the same number of trials,
or as many as it has combinations of options, judged by the weighted quantile loss at the origins of
the validation alone. What the figures are stands in [docs/forecasts.md](../../docs/forecasts.md).
"""


def main() -> None:
    records = sorted((FOLDER / "results").glob("*.json"))
    page = HEADER + "".join(section(json.loads(path.read_text())) for path in records)
    (FOLDER / "README.md").write_text(page)


def section(record: dict[str, Any]) -> str:
    """An experiment's tables."""
    task = yaml.safe_load(record["config"])["task"]
    origins = record["models"][next(iter(record["models"]))]["by_origin"]
    page = f"\n## `{record['experiment']}`\n\n{record['series']:,} series by "
    page += f"`{task['series']['by']}`, {task['series']['measure']} a {task['series']['every']}; "
    fitted = "at each of them" if task["refit"] == "origin" else "once before the first"
    page += f"{len(origins)} origins from {origins[0]['origin']}, fitted {fitted}; trials: "
    page += f"{task['trials']}, seeds: {task['seeds']}.\n\n"
    page += f"| model | {' | '.join(METRICS)} | seconds |\n" + "|---" * (len(METRICS) + 2) + "|\n"
    for name, model in record["models"].items():
        cells = [_cell(model, metric) for metric in METRICS]
        page += f"| {name} | {' | '.join(cells)} | {model['seconds']['fit']:.3g} |\n"
    first = next(iter(record["models"]))
    page += f"\n{first} less each of the others, series by series: difference, p (Holm), and at "
    page += "how many origins it is the better one.\n\n"
    tested = list(dict.fromkeys(row["metric"] for row in record["leads"]))
    page += f"| against | {' | '.join(tested)} |\n" + "|---" * (len(tested) + 1) + "|\n"
    for name in [name for name in record["models"] if name != first]:
        rows = {row["metric"]: row for row in record["leads"] if row["against"] == name}
        cells = [_lead(rows[metric]) if metric in rows else "" for metric in tested]
        page += f"| {name} | {' | '.join(cells)} |\n"
    page += _again(record["models"]) + _beside(record)
    page += "\nRMSE / WQL by origin:\n\n| model | "
    page += " | ".join(row["origin"] for row in origins) + " |\n"
    page += "|---" * (len(origins) + 1) + "|\n"
    for name, model in record["models"].items():
        cells = [f"{row['rmse']:.3g} / {_short(row['wql'])}" for row in model["by_origin"]]
        page += f"| {name} | {' | '.join(cells)} |\n"
    return page


def _again(models: dict[str, Any]) -> str:
    """Which models are younger than the record."""
    dates = {
        name: model["again"]["date"][:10] for name, model in models.items() if "again" in model
    }
    if not dates:
        return ""
    names = ", ".join(f"`{name}`" for name in dates)
    page = (
        f"\nRun again on {max(dates.values())}: {names}. Their differences are those of before, "
        "where they cannot have changed.\n"
    )
    older = [name for name in models if name not in dates and "members" in models[name]["options"]]
    return page + "".join(f"`{name}` is made of them as they were before.\n" for name in older)


def _beside(record: dict[str, Any]) -> str:
    """Differences from the same models of another experiment."""
    if "beside" not in record:
        return ""
    models = record["beside"]["models"]
    tested = [row["metric"] for row in next(iter(models.values()))]
    page = f"\nEach model less the same one of `{record['beside']['experiment']}`:\n\n"
    page += f"| model | {' | '.join(tested)} |\n" + "|---" * (len(tested) + 1) + "|\n"
    return page + "".join(
        f"| {name} | {' | '.join(map(_lead, rows))} |\n" for name, rows in models.items()
    )


def _cell(model: dict[str, Any], metric: str) -> str:
    mean = _short(model["metrics"]["test"][metric])
    spread = [model["over_origins"][metric]]
    spread += [model["over_seeds"][metric]] if model["seeds"] > 1 else []
    return f"{mean} ± {', '.join(f'{value:.2g}' for value in spread)}"


def _lead(row: dict[str, Any]) -> str:
    p_value = "no p" if row["p_holm"] is None else f"{row['p_holm']:.2g}"
    return f"{row['difference']:+.3g}, {p_value}, {row['origins_won']}"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 10 else f"{value:.1f}"


if __name__ == "__main__":
    main()
