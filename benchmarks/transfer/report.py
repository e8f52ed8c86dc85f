"""Tables of `benchmarks/transfer/README.md` from the records of `run`.

python -m benchmarks.transfer.report
"""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from benchmarks.record import ROOT
from benchmarks.transfer.run import RESULTS, ROWS
from recsys.files import write_text

README = ROOT / "benchmarks" / "transfer" / "README.md"
HEAD = """# Several domains

Made by `python -m benchmarks.transfer.report` from the records in `results/`, which `python -m
benchmarks.transfer.run diagnostic` and `five_seeds` write. All figures are nDCG@10 of the test
users over the items of the domain that their target is in; bold differences have p < .05 after
Holm's correction."""
DIAGNOSTIC = """## Does mixing hurt a domain? Item-based neighbours

`recsys transfer model=item_knn`: trained on the domain alone, and on all five. Differences are by
user, with Student's 95% interval; p is corrected over the domains of a log. It is deterministic."""
BESIDE = """One other domain beside it, differences to the domain alone; the row is the one that is
added. p is corrected over the twenty pairs."""
FIVE_SEEDS = """## Amazon: models that know of domains

Means over seeds, with the lowest and the highest mean over domains. All models have 64 dimensions,
dropout .5 and steps of 64 users at a learning rate of .002, and stop by the validation's mean over
domains; layers were chosen on the validation of seed 0, two for SASRec mixed, one for the others,
and so was the rest of CrossDomain, in some thirty runs, against six of SASRec. CrossDomain of one
domain is SASRec, so the first row is its single-domain model, too. Two rows are compared on the
seeds that both have. Measured weightings hold a tenth of the training users out."""
CLAIMS = """A user's mean over seeds is one value of a paired test of the mean over domains;
p is corrected over the table."""
BY_DOMAIN = (
    """By domain, differences to the domain alone; p is corrected over the domains of a row."""
)
NAMES = {"amazon_domains": "Amazon", "complete_journey": "Complete Journey"}


def main() -> None:
    parts = [HEAD]
    if (path := RESULTS / "item_knn.json").is_file():
        record = json.loads(path.read_text())
        parts.append(DIAGNOSTIC)
        for name, title in NAMES.items():
            if name not in record:
                continue
            parts += [f"### {title}", diagnostic(record[name]), BESIDE, pairs(record[name])]
        parts.append(made(record))
    if (path := RESULTS / "amazon_domains.json").is_file():
        record = json.loads(path.read_text())
        parts += [FIVE_SEEDS, means(record), CLAIMS, claims(record), BY_DOMAIN]
        parts += [by_domain(record), newcomers(record), made(record)]
    write_text(README, "\n\n".join(part.strip() for part in parts) + "\n")


def diagnostic(gains: list[dict[str, Any]]) -> str:
    lines = [header("domain", "users", "alone", "all", "difference", "95% interval", "p (Holm)")]
    for row in (row for row in gains if row["training"] == "all"):
        figures = [f"{row['users']:,}", short(row["alone"]), short(row["together"])]
        lines.append(line(row["domain"], *figures, *gain(row)))
    return "\n".join(lines)


def pairs(gains: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(row["domain"] for row in gains))
    of = {(row["beside"], row["domain"]): row for row in gains if row["training"] == "pair"}
    lines = [header("", *names)]
    for beside in names:
        cells = [gain(of[beside, name])[0] if beside != name else "" for name in names]
        lines.append(line(beside, *cells))
    return "\n".join(lines)


def means(record: dict[str, Any]) -> str:
    names = list(record["users"])
    about = [f"{n} ({record['users'][n]}, {record['newcomers'][n]} new)" for n in names]
    lines = [header("", "seeds", "mean over domains", *about)]
    for row in [row for row in ROWS if row in record["rows"]]:
        of = record["rows"][row]
        low, high = short(of["mean"]["min"]), short(of["mean"]["max"])
        cells = [short(fmean(of[name]["values"])) for name in names]
        mean = f"{short(fmean(of['mean']['values']))} ({low}-{high})"
        lines.append(line(row, str(len(of["mean"]["values"])), mean, *cells))
    return "\n".join(lines)


def claims(record: dict[str, Any]) -> str:
    lines = [header("", "against", "seeds", "difference", "95% interval", "p (Holm)")]
    for row in record["of_mean"]:
        lines.append(line(row["row"], row["against"], str(row["seeds"]), *gain(row)))
    return "\n".join(lines)


def by_domain(record: dict[str, Any]) -> str:
    names = list(record["users"])
    lines = [header("", *names)]
    for row, gains in record["by_domain"].items():
        of = {each["domain"]: each for each in gains}
        lines.append(line(row, *(f"{gain(of[n])[0]} ({gain(of[n])[2]})" for n in names)))
    return "\n".join(lines)


def newcomers(record: dict[str, Any]) -> str:
    of = record["by_newcomers"]
    parts = [f"{name} {short(of[name]['alone'])} and {short(of[name]['together'])}" for name in of]
    return (
        "What adds up to the mean over domains, alone and of `CrossDomain, uniform`: "
        f"{', '.join(parts)}. Newcomers have nothing of the domain in their history."
    )


def gain(row: dict[str, Any]) -> tuple[str, str, str]:
    """A difference, bold where it is beyond chance, its interval and p."""
    p = row["p_holm"]
    of = f"{row['difference']:+.4f}"
    ends = f"{row['low']:+.4f} to {row['high']:+.4f}"
    return f"**{of}**" if p < 0.05 else of, ends, "<.001" if p < 0.001 else f"{p:.3f}"


def short(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def header(*cells: str) -> str:
    return line(*cells) + "\n" + "|---" * len(cells) + "|"


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def made(record: dict[str, Any]) -> str:
    return f"`{record['command']}`, commit {record['commit'][:7]}, {record['date'][:10]}."


if __name__ == "__main__":
    main()
