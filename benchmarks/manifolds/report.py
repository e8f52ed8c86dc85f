"""The tables of `benchmarks/manifolds/README.md`, from the records in `results/`.

python -m benchmarks.manifolds.report
"""

from __future__ import annotations

import json
from collections.abc import Callable
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


def cold_start(record: dict[str, Any]) -> str:
    asked, users = record["asked"], record["users"]
    lines = [
        "## Cold start across departments\n",
        f"{asked:,} first purchases in a department, of {users:,} households, ranked over all "
        "products of the department; means over them, of the median seed, lowest to highest in "
        "brackets.\n",
        "| | recall@10 | nDCG@10 |",
        "|---|---|---|",
    ]
    for name, row in record["rows"].items():
        lines.append(f"| {name} | {of_seeds(row['recall@10'])} | {of_seeds(row['ndcg@10'])} |")
    lines += [
        "",
        "Paired by household (the mean over departments and seeds), Holm over the table.\n",
        "| second | first | metric | difference | 95% interval | p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["tests"]:
        lines.append(
            f"| {row['second_row']} | {row['first_row']} | {row['metric']} | "
            f"{row['difference']:+.4f} | {row['low']:+.4f} to {row['high']:+.4f} | "
            f"{row['p_holm']:.2g} |"
        )
    names = list(record["departments"])
    lines += [
        "",
        f"| nDCG@10 | households | {' | '.join(names)} |",
        "|---" * (len(names) + 2) + "|",
    ]
    for domain, of in record["departments"][names[0]].items():
        cells = [f"{record['departments'][name][domain]['ndcg@10']:.3f}" for name in names]
        lines.append(f"| {domain} | {of['users']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def of_seeds(of: dict[str, Any]) -> str:
    """The median, and the ends where there are several."""
    ends = f" ({of['min']:.4f} to {of['max']:.4f})" if of["min"] < of["max"] else ""
    return f"{of['median']:.4f}{ends}"


def synthesis(record: dict[str, Any]) -> str:
    names = list(record["rows"])
    lines = ["## Synthetic logs\n", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    words: dict[str, Callable[[dict[str, Any]], str]] = {
        "told from real households, AUROC": lambda r: f"{r['two_sample']['all']:.3f}",
        "by their departments alone": lambda r: f"{r['two_sample']['classes']:.3f}",
        "total variation of departments": lambda r: f"{r['total_variation']:.4f}",
        "nDCG@10 after the real log": lambda r: reached(r["order"]["real"]),
        "nDCG@10 after the synthetic log": lambda r: reached(r["order"]["synthetic"]),
        "order of the three": lambda r: "kept" if r["order"]["is_kept"] else "not kept",
        "nearest training household, median": lambda r: f"{r['nearest']['synthetic']:.3f}",
        "that of held-out households": lambda r: f"{r['nearest']['real']:.3f}",
        "closer than 1 % of these": lambda r: (
            f"{100 * r['nearest']['share_below_first_percentile']:.1f} %"
        ),
    }
    for head, cell in words.items():
        cells = [cell(record["rows"][name]) for name in names]
        lines.append(f"| {head} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def reached(of: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in of.items())


TABLES = {"toy": toy, "cold_start": cold_start, "synthesis": synthesis}

if __name__ == "__main__":
    main()
