"""Make `benchmarks/README.md` from the records: a table per log, a row per experiment.

python -m benchmarks.report            # write it
python -m benchmarks.report --check    # exit 1 where it does not follow from the records
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.record import ROOT

FOLDER = ROOT / "benchmarks"
TABLE = FOLDER / "README.md"
METRICS = ("recall@10", "ndcg@10", "phr@10")

HEADER = """\
# Benchmarks

Made from the records in `results/` by `python -m benchmarks.report`. A row is an experiment of
`conf/experiment/`, rebuilt by `python -m benchmarks.run NAME` with `RECSYS_DATA` set; its record
holds the command, commit, composed config, fingerprint of the log, versions, hardware, seeds,
spread, time and memory. Metrics are those of the test users over the full catalogue, mean over
seeds with the standard deviation where there are several. **Quoted** numbers are other people's,
from [`quoted.yaml`](quoted.yaml), not measured here.
"""

SPEED = """
## Speed

Ratios of the seconds of two sides that were measured in turn in one run: median, and least to most
of the turns. Records in `speed/results/`; each script in `speed/` opens with its command.

| record | seconds of | wall | CPU |
|---|---|---|---|
"""


def main() -> int:
    made = table(sorted((FOLDER / "results").rglob("*.json")))
    if "--check" in sys.argv[1:]:
        if made != (TABLE.read_text() if TABLE.exists() else ""):
            print("benchmarks/README.md does not follow from the records; run benchmarks.report")
            return 1
        return 0
    TABLE.write_text(made)
    return 0


def table(records: list[Path]) -> str:
    """The page: tables by log, then the speed ratios."""
    quoted = yaml.safe_load((FOLDER / "quoted.yaml").read_text())
    by_log: dict[str, list[str]] = {}
    for record in map(_read, records):
        log = record["experiment"].partition("/")[2].partition("_")[0]
        reference = quoted.get(record["experiment"], {})
        by_log.setdefault(log, []).append(_row(record, reference))
    page = HEADER
    for log, rows in sorted(by_log.items()):
        page += f"\n## {log}\n\n"
        page += (
            "| experiment | history | Recall@10 | nDCG@10 | PHR@10 | seeds | seconds | quoted |\n"
        )
        page += "|---|---|---|---|---|---|---|---|\n"
        page += "\n".join(sorted(rows)) + "\n"
    return page + SPEED + "\n".join(_speed_rows()) + "\n"


def _row(record: dict[str, Any], quoted: dict[str, str]) -> str:
    runs = [run for run in record["runs"] if "metrics" in run]
    if not runs:
        return f"| `{record['experiment']}` | failed: {record['runs'][0]['error']} | | | | | | |"
    rule = "masked" if yaml.safe_load(runs[0]["config"])["task"]["mask_history"] else "kept"
    cells = [_cell(record["test"][name]) for name in METRICS]
    seconds = f"{sum(run['wall_seconds'] for run in runs) / len(runs):.0f}"
    reference = " ".join(f"{k}: {v}" for k, v in quoted.items())
    parts = [f"`{record['experiment']}`", rule, *cells, str(len(runs)), seconds, reference]
    return "| " + " | ".join(parts) + " |"


def _cell(spread: dict[str, float]) -> str:
    mean = f"{spread['mean']:.4f}".removeprefix("0")
    return mean + (f" ± {spread['std']:.4f}".replace("± 0.", "± .") if spread["std"] else "")


def _speed_rows() -> list[str]:
    rows = []
    for path in sorted((FOLDER / "speed" / "results").glob("*.json")):
        for name, clocks in _read(path)["ratios"].items():
            cells = [
                f"{r['median']:.3g} ({r['min']:.3g}–{r['max']:.3g})"
                for r in (clocks["wall"], clocks["cpu"])
            ]
            sides = name.replace("/", " / ")
            rows.append(
                f"| [{path.stem}](speed/results/{path.name}) | {sides} | {' | '.join(cells)} |"
            )
    return rows


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


if __name__ == "__main__":
    sys.exit(main())
