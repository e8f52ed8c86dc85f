"""The tables of `benchmarks/manifolds/README.md`, from the records in `results/`.

python -m benchmarks.manifolds.report
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.record import ROOT
from recsys.files import write_text

FOLDER = ROOT / "benchmarks" / "manifolds"
MARK = "<!-- tables -->"


def main() -> None:
    write_page()


def write_page() -> None:
    """Rewrite what stands below the mark."""
    page = FOLDER / "README.md"
    head = page.read_text().partition(MARK)[0]
    parts = [of(record) for name, of in TABLES.items() if (record := read(name))]
    write_text(page, "\n".join([f"{head}{MARK}\n", *parts]))


def read(name: str) -> dict[str, Any] | None:
    path = FOLDER / "results" / f"{name}.json"
    record: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return record


def toy(record: dict[str, Any]) -> str:
    lines = [
        f"## Three curves, {len(record['seeds'])} seeds\n",
        "![Samples over the curves](toy.svg)\n",
        "| | weights | off | far off | off its curve | rank correlation | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in record["rows"].items():
        shares = [percent(row.get(c)) for c in ("off", "far_off", "off_its_curve")]
        ranks = row.get("rank_correlation")
        ranks = f"{ranks['median']:.4f} ({ranks['min']:.4f})" if ranks else "–"
        sizes = f"{row['weights']['median']:,.0f}", f"{row['cpu_seconds']['median']:.0f}"
        lines.append(f"| {name} | {sizes[0]} | {' | '.join(shares)} | {ranks} | {sizes[1]} |")
    return "\n".join(lines) + "\n"


def percent(of: dict[str, Any] | None) -> str:
    """The median, and the highest of the seeds."""
    return f"{100 * of['median']:.1f} % ({100 * of['max']:.1f} %)" if of else "–"


TABLES = {"toy": toy}

if __name__ == "__main__":
    main()
