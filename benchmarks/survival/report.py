"""Tables of `benchmarks/survival/README.md` from the records of `soden` and `logs`.

    python -m benchmarks.survival.report

Models are compared on the ten splits by two paired tests of the differences. The splits are draws
of 60, 20 and 20 percent of the same rows: the test rows of two have a fifth of their rows in
common, as draws by chance would. So differences are not independent, and the corrected test of
Nadeau & Bengio (2003), which adds test rows over training rows to 1 / 10 in the variance, is the
one to read; Student's, which takes them as independent, stands beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.record import ROOT
from benchmarks.survival.soden import CHOSEN_ON, HORIZONS, MODELS, RESULTS, SPLITS, by_split, seeds
from recsys.evaluation.statistics import holm, paired_t
from recsys.files import write_text

README = ROOT / "benchmarks" / "survival" / "README.md"
TEST_OVER_TRAIN = 1 / 3
COMPARED = ("log_likelihood", "concordance", "ibs")
AGAINST = "hazard_net_hgp"
HEAD = """# Survival models

Made by `python -m benchmarks.survival.report` from the records in `results/`, which
`RECSYS_DATA=FOLDER python -m benchmarks.survival.soden metabric support` writes, those of behaviour
logs at the end aside: the ten splits of
METABRIC (1,904 rows, 9 covariates) and SUPPORT (8,873 rows, 27 covariates) that the authors of
SODEN ship. Every model has 30 random trials, chosen by the log-likelihood of validation rows (three
splits of METABRIC, one of SUPPORT), and is then trained on each of the ten splits, networks and
trees from three seeds; figures are means over seeds, and over the splits' test rows with their
standard deviation. `hazard_ode` has the options of
`hazard_net`.

NLL is the negative log-likelihood a row, of durations as they are shipped; *of shares*, of
durations divided by the longest of the training rows. Kaplan-Meier's and Cox's curves are steps;
their likelihood is that of baseline hazards that are constant between ten quantiles. A time scale
adds a constant to all models' NLL alike, and nothing to the other metrics. C is Antolini's, C
(IPCW) the same weighted; IBS and IBLL are integrated over the test rows' durations.

p is of the corrected resampled t-test (Nadeau & Bengio) over the ten splits, whose test rows
overlap as draws by chance do; p (t) is of Student's paired t-test, which takes splits as
independent and is too small. p (Holm) corrects p over all rows of its table.
"""

LOGS = {
    "complete_journey": "Complete Journey from midnights, features of `task=return_time`: gaps, "
    "clock, recency, frequency and value",
    "complete_journey_vectors": "the same features and 64 frozen numbers of a ShopperBERT",
    "complete_journey_visits": "Complete Journey from the end of each basket; the same features, "
    "recent gaps and the last visit",
    "cdnow": "CDNOW, features of `task=return_time`",
}
SHOWN = {
    "log-likelihood": "log_likelihood",
    "of shares": "log_likelihood_of_shares",
    "C": "concordance",
    "C (IPCW)": "concordance_ipcw",
    "IBS": "ibs",
    "IBLL": "ibll",
    "AUC at 3": "auc@3",
    "AUC at 7": "auc@7",
    "AUC at 10": "auc@10",
    "AUC at 30": "auc@30",
    "calibration at 7": "calibration@7",
    "calibration at 30": "calibration@30",
}
OF_LOGS = """## Behaviour logs

`python -m benchmarks.survival.logs EXPERIMENT` writes the records of `experiment=return_time/…`. A
seed draws the rows and the weights that networks start from; figures are means of three seeds,
lowest to highest in brackets. All options are those of `conf/model`; `l2` of `cox` and
`weibull_aft` was chosen on the validation rows of one seed of Complete Journey, the others on
nothing. *Of shares* is the log-likelihood of durations as shares of the horizon; more is better of
all columns but IBS and calibration.

**Complete Journey from midnights**: days until a household's next basket, followed for 14 days, of
households with a basket in the week before, at seven midnights from March to July for training,
three of September for validation, and five from 20 October to 20 November for the test. **From the
end of each basket**: the same, of every basket that ends from March to July, in September, and from
20 October to 20 November; recent gaps and the last visit were added because they raised
LightGBM's C of baskets in September. **CDNOW**: days until a customer's next purchase, followed for
90 days, at two days of 1997 for training, one for validation, and two of 1998 for the test.

The likelihood is that of a time of day, too: of 2,597 events of training from midnights 54 come
before six in the morning. Twenty intervals follow that in part, ten cells less, the smooth hazards
of networks not at all: Kaplan-Meier's alone is -2.42, -2.36, -2.29 or -2.18 a validation row with
5, 10, 20 or 60 cells. So read it between models of one kind, and C, IBS and IBLL between kinds.
"""


def main() -> None:
    parts = [HEAD]
    for data in CHOSEN_ON:
        records = {m: r for m in MODELS if (r := read(data, m)) is not None}
        if records:
            parts += [f"## {data}\n", figures(data, records), comparisons(records)]
    write_text(README, "\n".join([*parts, *logs()]))
    print(f"wrote {README}")


def read(data: str, model: str) -> dict[str, Any] | None:
    """A record that has all splits."""
    path: Path = RESULTS / data / f"{model}.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    whole = len(SPLITS) * len(seeds(model))
    return record if len(record.get("splits", ())) == whole else None


def logs() -> list[str]:
    """Behaviour logs: a table for each experiment and each number of training rows."""
    parts = []
    for name, described in LOGS.items():
        path: Path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        for size in (key for key in record if key.startswith("rows=")):
            rows = int(size.removeprefix("rows="))
            first = next(iter(record[size]["models"].values()))
            shown = {head: metric for head, metric in SHOWN.items() if metric in first}
            lines = [line(["model", *shown]), line(["---"] * (len(shown) + 1))]
            for model, of in record[size]["models"].items():
                cells = [_ends(of[metric]["values"]) for metric in shown.values()]
                lines.append(line([f"`{model}`", *cells]))
            parts.append(f"### {rows:,} training rows; {described}\n\n" + "\n".join(lines) + "\n")
    return [OF_LOGS, *parts] if parts else []


def _ends(values: list[float]) -> str:
    """The mean, and in brackets the lowest and the highest."""
    low, high = number(min(values)), number(max(values))
    return f"{number(float(np.mean(values)))} ({low} to {high})"


def figures(data: str, records: dict[str, dict[str, Any]]) -> str:
    """A row a model."""
    horizons = HORIZONS[data]
    columns = ["NLL", "NLL of shares", "C", "C (IPCW)", "IBS", "IBLL"]
    columns += [f"AUC at {h:g}" for h in horizons] + [f"calibration at {h:g}" for h in horizons]
    names = ["log_likelihood", "log_likelihood_of_shares", "concordance", "concordance_ipcw"]
    names += ["ibs", "ibll", *(f"auc@{h:g}" for h in horizons)]
    names += [f"calibration@{h:g}" for h in horizons]
    lines = [
        line(["model", *columns, "trials", "CPU seconds a fit"]),
        line(["---"] * (len(columns) + 3)),
    ]
    for model, record in records.items():
        sign = {name: -1 if "likelihood" in name else 1 for name in names}
        frame = by_split(record["splits"])
        cells = [spread((sign[n] * frame[n]).to_list()) for n in names]
        seconds = float(np.mean([s["cpu_seconds"] for s in record["splits"]]))
        lines.append(line([f"`{model}`", *cells, str(len(record["trials"])), f"{seconds:.1f}"]))
    return "\n".join(lines) + "\n"


def comparisons(records: dict[str, dict[str, Any]]) -> str:
    """The penalty against every other model."""
    if AGAINST not in records:
        return ""
    splits = {model: by_split(record["splits"]) for model, record in records.items()}
    first = splits.pop(AGAINST)
    rows = []
    for model, second in splits.items():
        for metric in COMPARED:
            pair = metric, second[metric], first[metric]
            corrected = paired_t(*pair, test_train_ratio=TEST_OVER_TRAIN)
            rows.append({"model": model, **corrected, "p_t": paired_t(*pair)["p_value"]})
    table = pl.DataFrame(rows)
    table = table.with_columns(p_holm=pl.Series(holm(table["p_value"].to_numpy())))
    head = ["", "against", "metric", "difference", "95% interval", "p", "p (Holm)", "p (t)"]
    lines = [line(head), line(["---"] * len(head))]
    for row in table.iter_rows(named=True):
        interval = f"{row['low']:+.4f} to {row['high']:+.4f}"
        numbers = [f"{row[name]:.2g}" for name in ("p_value", "p_holm", "p_t")]
        cells = [f"`{AGAINST}`", f"`{row['model']}`", row["metric"], f"{row['difference']:+.4f}"]
        lines.append(line([*cells, interval, *numbers]))
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    return f"{number(float(np.mean(values)))} ± {number(float(np.std(values, ddof=1)))}"


def number(value: float) -> str:
    """Four places, without the 0 before the point."""
    return f"{value:.4f}".replace("0.", ".", 1)


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
