"""Metrics of scores against yes and no: pure functions that count ties, with weights to resample.

Shapes: N rows, S resamples of them, each as weights (S, N); a result has one number a resample.
"""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the receiver operating characteristic, (S,): how often a yes is above a no.

    The Mann-Whitney statistic over the number of pairs; a pair with equal scores counts half. NaN
    where there is no pair.

    Args:
        scores: (N,).
        labels: (N,) bool.
        weights: (S, N) how often each row is drawn; once each by default.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])).item()
    0.875
    """
    yes, no = _by_score(scores, labels, weights)
    below = no.cumsum(1) - no
    pairs = yes.sum(1) * no.sum(1)
    return _ratio((yes * (below + no / 2)).sum(1), pairs)


def average_precision(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean over the yes rows of the precision at their score, (S,); arguments as in `auroc`.

    The sum over thresholds of the step in recall times the precision, rows with equal scores being
    one threshold. NaN where no row is a yes.

    >>> average_precision(np.array([0.1, 0.4]), np.array([True, False])).item()
    0.5
    """
    yes, no = (part[:, ::-1] for part in _by_score(scores, labels, weights))
    yes_so_far = yes.cumsum(1)
    precision = _ratio(yes_so_far, yes_so_far + no.cumsum(1), empty=0.0)
    return _ratio((yes * precision).sum(1), yes.sum(1))


def thresholds(scores: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What a threshold at each distinct score says, from the highest: rates (T,) by name.

    `recall`, the share of the yes rows at or above it; `fall_out`, that of the no rows; and
    `precision`, the share of yes among those at or above it. `fall_out` against `recall` is the
    ROC, `recall` against `precision` the precision-recall curve.

    >>> rates = thresholds(np.array([0.1, 0.4, 0.8]), np.array([False, False, True]))
    >>> rates["recall"].tolist(), rates["fall_out"].tolist()
    ([1.0, 1.0, 1.0], [0.0, 0.5, 1.0])
    """
    yes, no = (part[0, ::-1].cumsum() for part in _by_score(scores, labels, None))
    return {
        "recall": yes / max(1.0, yes[-1]),
        "fall_out": no / max(1.0, no[-1]),
        "precision": yes / (yes + no),
    }


def calibrated(
    scores: np.ndarray, labels: np.ndarray, groups: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Mean score and share of yes of groups of rows of about equal size, by score; two (G,).

    >>> [values.tolist() for values in calibrated(np.array([0.9, 0.1]), np.array([1, 0]), 2)]
    [[0.1, 0.9], [0.0, 1.0]]
    """
    parts = np.array_split(np.argsort(scores, kind="stable"), min(groups, len(scores)))
    means = [np.array([values[part].mean() for part in parts]) for values in (scores, labels)]
    return means[0], means[1]


def _by_score(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the yes and the no rows of each distinct score, ascending: (S, T) each."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    row_weights = np.ones((1, len(scores))) if weights is None else weights.astype(np.float64)
    row_weights, labels = row_weights[:, order], labels[order].astype(bool)
    return tuple(np.add.reduceat(row_weights * mask, starts, axis=1) for mask in (labels, ~labels))  # type: ignore[return-value]


def _ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), empty), where=below > 0)
