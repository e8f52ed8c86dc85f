"""Make `benchmarks/README.md` from the records: a table per log, a row per experiment.

python -m benchmarks.report            # write it
python -m benchmarks.report --check    # exit 1 where it does not follow from the records
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
import yaml

from benchmarks.record import ROOT
from recsys.evaluation.statistics import compare, with_holm

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
from [`quoted.yaml`](quoted.yaml), not measured here. Repeated targets are those that the user's
history holds, new ones the others. A paired test is Student's t over the users' differences, each
user's metric being the mean over seeds; p (Holm) is corrected over all rows of its table.
Detectable is the smallest true difference that such a test finds with 80% power at 5% / the rows of
the table, the strictest level of that correction.
"""

LONGER = tuple(f"{metric}@{k}" for k in (20, 30, 40) for metric in ("recall", "ndcg", "phr"))
PAIRS = {
    "beauty": [
        ("lmrec/beauty_states_masked", "lmrec/beauty_masked"),
        ("lmrec/beauty_states_masked", "sasrec/beauty_masked"),
        ("lmrec/beauty_states_masked", "sasrec/beauty_text_masked"),
    ],
    "scientific": [
        ("lmrec/scientific_states", "sasrec/scientific_text"),
        ("lmrec/scientific_states", "sasrec/scientific_text_repeats"),
        ("lmrec/scientific_states", "unisrec/scientific"),
        ("lmrec/scientific_states", "lmrec/scientific_states_joint"),
    ],
}
"""Rows compared user by user, by log: an experiment, and the one that it is held against."""
LONG_NAMES = ("complete_journey_types", "complete_journey", "online_retail_baskets")
"""Logs whose name holds a _, one before another that it begins with."""
APART = ("repeat/recall@10", "explore/recall@10")

SPEED = """
## Speed

Ratios of the seconds of two sides that were measured in turn in one run: median, and least to most
of the turns. Records in `speed/results/`; each script in `speed/` opens with its command.

| record | seconds of | wall | CPU |
|---|---|---|---|
"""

MEMORY = """
## Memory

MiB at the peak above a process that loads the same and scores nothing: all users, or 1,024, at once
beside as many as fit a bound on their scores (`speed/memory.py`).

| case | users | items | fixed | bounded |
|---|---|---|---|---|
"""

ON_GPU = """
## On a GPU

Epochs on synthetic logs, made by `make gpu` (`gpu/training.py`): seconds of an epoch, peak memory
of the device in MiB, share of the time in which it was busy, and for LMRec, of 125M parameters, the
share of its own rate of bfloat16 products.

| card | model | epoch | events a second | memory | busy | tokens a second | of its rate |
|---|---|---|---|---|---|---|---|
"""


def main() -> int:
    page = table(sorted((FOLDER / "results").rglob("*.json")))
    if "--check" in sys.argv[1:]:
        if page != (TABLE.read_text() if TABLE.exists() else ""):
            print("benchmarks/README.md does not follow from the records; run benchmarks.report")
            return 1
        return 0
    TABLE.write_text(page)
    return 0


def table(records: list[Path]) -> str:
    """The page: tables by log, then the speed ratios."""
    quoted = yaml.safe_load((FOLDER / "quoted.yaml").read_text())
    by_log: dict[str, list[dict[str, Any]]] = {}
    entries = sorted(map(_read, records), key=lambda record: record["experiment"])
    of_labels = [record for record in entries if "baselines" in record["runs"][0]]
    for record in entries:
        if record in of_labels:
            continue
        of_log = by_log.setdefault(_log(record["experiment"].partition("/")[2]), [])
        of_log.append(record)
    page = HEADER
    for log, of_log in sorted(by_log.items()):
        rows = [_row(record, quoted.get(record["experiment"], {})) for record in of_log]
        page += f"\n## {log}\n\n"
        page += (
            "| experiment | history | Recall@10 | nDCG@10 | PHR@10 | seeds | seconds | quoted |\n"
        )
        page += "|---|---|---|---|---|---|---|---|\n"
        page += "\n".join(rows) + "\n" + _paired(log, of_log) + _longer(of_log)
    for record in of_labels:
        if record["runs"][0]["baselines"]:
            page += _labels(record, quoted.get(record["experiment"], {}))
    page += _variants([record for record in of_labels if not record["runs"][0]["baselines"]])
    page += SPEED + "\n".join(_speed_rows()) + "\n"
    page += MEMORY + "\n".join(_memory_rows(_read(FOLDER / "speed/results/memory.json"))) + "\n"
    if on_gpu := sorted((FOLDER / "gpu" / "results").glob("*/training.json")):
        page += ON_GPU + "\n".join(row for path in on_gpu for row in gpu_rows(_read(path))) + "\n"
    return page


def _log(variant: str) -> str:
    """The log of an experiment's variant: dc of `dc_gaussian`."""
    return next((log for log in LONG_NAMES if variant.startswith(log)), variant.partition("_")[0])


def _longer(records: list[dict[str, Any]]) -> str:
    """Longer lists, and repeated and new targets apart, where an experiment measures them."""
    names = (*APART, *LONGER)
    longer = [r for r in records if set(names) <= set(r["test"])]
    if not longer:
        return ""
    titles = ["repeated R@10", "new R@10"]
    titles += [f"{short}@{k}" for k in (20, 30, 40) for short in ("R", "N", "PHR")]
    rows = [f"| experiment | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for record in longer:
        cells = [f"{record['test'][name]['mean']:.4f}".removeprefix("0") for name in names]
        rows.append(f"| `{record['experiment']}` | {' | '.join(cells)} |")
    return "\n" + "\n".join(rows) + "\n"


def _paired(log: str, records: list[dict[str, Any]]) -> str:
    """GLOIE against DNNTSP and the strongest of the others, and `PAIRS`, by user.

    Its one setting for all logs is compared with every other model.
    """
    users = {
        record["experiment"]: pl.read_parquet(path, glob=False)
        for record in records
        if (path := FOLDER / "results" / f"{record['experiment']}.parquet").exists()
    }
    ours = [name for name in (f"gloie/{log}", f"gloie_plus/{log}") if name in users]
    means = {r["experiment"]: r["test"]["ndcg@10"]["mean"] for r in records if r["test"]}
    others = [name for name in users if not name.startswith("gloie")]
    pairs = [pair for pair in PAIRS.get(log, []) if users.keys() >= set(pair)]
    if others:
        against = {f"dnntsp/{log}", max(others, key=means.__getitem__)} & users.keys()
        pairs += product(ours, sorted(against))
        pairs += product({f"gloie_plus/{log}_any"} & users.keys(), sorted(others))
    if not pairs:
        return ""
    tests = [
        compare(users[other], users[name]).select(
            pl.lit(f"`{name}`").alias("name"), pl.lit(f"`{other}`").alias("other"), pl.all()
        )
        for name, other in pairs
    ]
    return "\n" + _tests(["", "against"], pl.concat(tests))


def _tests(titles: list[str], tests: pl.DataFrame) -> str:
    """A table of comparisons, named by the columns before `metric`."""
    titles = [*titles, "metric", "difference", "95% interval", "p", "p (Holm)", "detectable"]
    page = f"| {' | '.join(titles)} |\n" + "|---" * len(titles) + "|\n"
    names = tests.columns[: tests.columns.index("metric") + 1]
    for row in with_holm(tests).iter_rows(named=True):
        cells = [row[name] for name in names] + [f"{row['difference']:+.4f}"]
        if row["p_value"] is None:
            cells += [""] * 4
        else:
            cells += [f"{row['low']:+.4f} to {row['high']:+.4f}"]
            cells += [f"{row['p_value']:.2g}", f"{row['p_holm']:.2g}"]
            detectable = row.get("detectable_holm")  # not in older records of folds
            cells += ["" if detectable is None else f"{detectable:.4f}"]
        page += f"| {' | '.join(cells)} |\n"
    return page


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


def _labels(record: dict[str, Any], quoted: dict[str, str]) -> str:
    """Tables of labels: a row per predictor, and what the model of profiles was trained to."""
    run = record["runs"][0]
    names = list(run["metrics"]["test"])
    page = f"\n## Tables of labels: `{record['experiment']}`\n\n"
    page += f"| predictor | {' | '.join(names)} |\n" + "|---" * (len(names) + 1) + "|\n"
    models = {"**profile and counts**": run["metrics"], **run["baselines"]}
    for name, metrics in models.items():
        page += f"| {name} | {' | '.join(_short(metrics['test'].get(n)) for n in names)} |\n"
    page += f"| quoted | {' | '.join(str(quoted.get(n, '')) for n in names)} |\n"
    page += "\nProfile and counts less each predictor, over the folds that both have, with the "
    page += "p-value of the corrected resampled t-test (Nadeau & Bengio, 2003), and that after "
    page += "Holm's correction over all rows.\n\n"
    paired = {name: pl.DataFrame(rows) for name, rows in run["paired"].items() if rows}
    tests = [rows.insert_column(0, pl.lit(name).alias("name")) for name, rows in paired.items()]
    page += _tests(["predictor"], pl.concat(tests))
    return page + _pretraining(run["pretraining"]["validation"], quoted)


def _variants(records: list[dict[str, Any]]) -> str:
    """Tables of labels that the vector alone predicts: a row per experiment."""
    if not records:
        return ""
    metrics = list(records[0]["test"])
    first = records[0]["runs"][0]["pretraining"]["validation"]
    fields = [name.removesuffix("/nll_users") for name in first if name.endswith("/nll_users")]
    page = "\n## Tables of labels: variants of the vector, which predicts alone\n\nBeside them "
    page += "the nats a field in masked baskets of users who were held out; empty where no head "
    page += "predicts it.\n\n"
    page += f"| experiment | {' | '.join([*metrics, *fields])} | seeds | seconds |\n"
    page += "|---" * (len(metrics) + len(fields) + 3) + "|\n"
    for record in records:
        cells = [_cell(record["test"][name]) for name in metrics]
        before = [run["pretraining"]["validation"] for run in record["runs"]]
        for field in fields:
            figures = [nll[key] for nll in before if (key := f"{field}/nll_users") in nll]
            cells.append(f"{fmean(figures):.3f}" if figures else "")
        seconds = fmean(run["wall_seconds"] for run in record["runs"])
        page += f"| `{record['experiment']}` | {' | '.join(cells)} | {len(record['seeds'])} | "
        page += f"{seconds:.0f} |\n"
    return page


def _pretraining(figures: dict[str, float], quoted: dict[str, str]) -> str:
    """Negative log-likelihoods of each field in held-out baskets, beside those of counts."""
    page = "\nNats a field in baskets after training ended: masked ones with the rest of the log "
    page += "given, and the next ones from the log before them, as counts are evaluated; and "
    page += "masked ones of users who were held out.\n\n"
    page += "| field | masked | next | own counts | everybody's | users held out | quoted own |\n"
    page += "|---|---|---|---|---|---|---|\n"
    kinds = ("nll", "nll_next", "nll_user", "nll_unigram", "nll_users")
    for field in [name.removesuffix("/nll_next") for name in figures if name.endswith("/nll_next")]:
        values = [figures.get(f"{field}/{kind}") for kind in kinds]
        cells = ["" if value is None else f"{value:.3f}" for value in values]
        page += f"| {field} | {' | '.join(cells)} | {quoted.get(f'{field}/nll_user', '')} |\n"
    return page


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".removeprefix("0")


def _cell(spread: dict[str, float]) -> str:
    mean = f"{spread['mean']:.4f}".removeprefix("0")
    return mean + (f" ± {spread['std']:.4f}".replace("± 0.", "± .") if spread["std"] else "")


def _speed_rows() -> list[str]:
    rows = []
    for path in sorted((FOLDER / "speed" / "results").glob("*.json")):
        for name, clocks in _read(path).get("ratios", {}).items():
            cells = [
                f"{r['median']:.3g} ({r['min']:.3g}–{r['max']:.3g})"
                for r in (clocks["wall"], clocks["cpu"])
            ]
            sides = name.replace("/", " / ")
            rows.append(
                f"| [{path.stem}](speed/results/{path.name}) | {sides} | {' | '.join(cells)} |"
            )
    return rows


def _memory_rows(record: dict[str, Any]) -> list[str]:
    rows = []
    for name, case in record["cases"].items():
        above = case["mib_above_idle"]
        cells = [name, f"{case['users']:,}", f"{case['items']:,}"]
        rows.append(f"| {' | '.join(cells)} | {above['fixed']:,} | {above['bounded']:,} |")
    return rows


def gpu_rows(record: dict[str, Any]) -> list[str]:
    """A row per model of a record of `benchmarks.gpu.training`."""
    rows = []
    for name, row in record["models"].items():
        shares = {key: row.get(key) for key in ("utilisation", "flop_utilisation")}
        busy, of_rate = ("" if value is None else f"{value:.0%}" for value in shares.values())
        numbers = row["events_per_second"], row["peak_memory_mib"], row.get("tokens_per_second")
        events, memory, tokens = ("" if n is None else f"{n:,.0f}" for n in numbers)
        cells = [record["card"], name, f"{row['epoch_seconds']['median']:.3g} s", events, memory]
        rows.append(f"| {' | '.join([*cells, busy, tokens, of_rate])} |")
    return rows


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


if __name__ == "__main__":
    sys.exit(main())
