"""What a page of label tables shows of scores: curves, calibration, chance, and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from recsys.evaluation.binary_metrics import calibrated, thresholds
from recsys.evaluation.prediction import TableResult
from recsys.report import plots
from recsys.report.plots import Plot

MOST_CANDIDATES = 4
"""Candidates of which curves are drawn: those with the most yes."""
MOST_POINTS = 200
"""Of a curve."""
MOST_WEIGHTS = 12
SCORE, LABEL = "score/", "label/"


def by_chance(result: TableResult) -> dict[str, float]:
    """What scores without any knowledge reach, of the metrics that compare rows.

    .5 of AUROC; of AP the share of yes, mean over the candidates as AP is.
    """
    rows = tested(result)
    shares = [rows[LABEL + name].mean() for name in candidates(result) if rows[LABEL + name].any()]
    return {"auroc": 0.5, "ap": float(np.mean(shares))} if shares else {}  # type: ignore[arg-type]


def tested(result: TableResult) -> pl.DataFrame:
    """The predictions that test metrics are of: of the test, or else of the folds."""
    part = "test" if (result.predictions["part"] == "test").any() else "folds"
    return result.predictions.filter(part=part)


def candidates(result: TableResult) -> list[str]:
    """Whose scores were kept, those with the most yes first; none where candidates are ranked."""
    names = [c.removeprefix(LABEL) for c in result.predictions.columns if c.startswith(LABEL)]
    counts = tested(result).select(pl.col(f"^{LABEL}.*$").sum()).row(0) if names else ()
    return [n for _, n in sorted(zip(counts, names, strict=True), key=lambda pair: -pair[0])]


def curves(table: str, results: Mapping[str, TableResult]) -> Iterator[Plot]:
    """Of each candidate the ROC, the precision-recall curve, and calibration."""
    names = candidates(next(iter(results.values())))
    for name in names[:MOST_CANDIDATES]:
        pairs = {
            model: (rows[SCORE + name].to_numpy(), rows[LABEL + name].to_numpy().astype(bool))
            for model, rows in ((model, tested(result)) for model, result in results.items())
        }
        labels = next(iter(pairs.values()))[1]
        if labels.all() or not labels.any():
            continue
        title = f"{table}: {name}" if len(names) > 1 else table
        yield from _of_thresholds(title, pairs, float(labels.mean()))
        yield from _calibration(title, pairs)


Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Scores and labels by model."""


def _of_thresholds(title: str, pairs: Pairs, share: float) -> Iterator[Plot]:
    rates = {model: thresholds(*pair) for model, pair in pairs.items()}
    roc = {m: _thinned(np.r_[0, of["fall_out"]], np.r_[0, of["recall"]]) for m, of in rates.items()}
    axes = ("share of no that is taken for yes", "share of yes that is found")
    yield plots.shares(f"ROC of {title}", axes, roc, ((0, 1), (0, 1)))
    precision = {m: _thinned(of["recall"], of["precision"]) for m, of in rates.items()}
    axes = ("share of yes that is found (recall)", "precision")
    yield plots.shares(
        f"precision and recall of {title}", axes, precision, ((0, 1), (share, share))
    )


def _calibration(title: str, pairs: Pairs) -> Iterator[Plot]:
    """Of the models whose scores are probabilities; none where none has such."""
    groups = {
        model: calibrated(scores, labels)
        for model, (scores, labels) in pairs.items()
        if scores.min() >= 0 and scores.max() <= 1
    }
    if groups:
        axes = ("predicted probability", "share of yes")
        words = f"calibration of {title}"
        yield plots.shares(words, axes, groups, ((0, 1), (0, 1)), marker="o")


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
    return x[places], y[places]


def largest_weights(
    results: Mapping[str, TableResult],
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Of each linear model and candidate the features with the largest weights, up to sign."""
    for model, result in results.items():
        if result.weights is None:
            continue
        names = candidates(result)
        for name in names[:MOST_CANDIDATES]:
            rows = result.weights.filter(candidate=name)
            rows = rows.sort(pl.col("weight").abs(), descending=True, maintain_order=True)
            title = f"{model}: {name}" if len(names) > 1 else model
            pairs = rows.head(MOST_WEIGHTS).select("feature", "weight").rows()
            if pairs:
                yield title, pairs
