"""How well the scores of labelled items tell what is taken up: over all, and within each list.

Shapes: E labelled items, L lists.
"""

from __future__ import annotations

import numpy as np

from recsys.evaluation.binary_metrics import auroc


def within_auroc(scores: np.ndarray, labels: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """(L,) the area under the ROC curve of each list by itself; NaN of one without both labels.

    The Mann-Whitney statistic, by the ranks of the items that were taken up; equal scores share the
    mean of their ranks.

    Args:
        scores: (E,).
        labels: (E,) bool.
        lists: (E,) int64, 0 .. L - 1 ascending, the list of each item.

    >>> scores, labels = np.array([0.1, 0.4, 0.3, 0.9]), np.array([False, True, True, True])
    >>> within_auroc(scores, labels, np.array([0, 0, 0, 1])).tolist()
    [1.0, nan]
    """
    order = np.lexsort((scores, lists))
    scores, labels, lists = scores[order], labels[order].astype(bool), lists[order]
    sizes = np.bincount(lists)
    begins = sizes.cumsum() - sizes
    place = np.arange(len(lists)) - begins[lists] + 1
    changes = (np.diff(scores, prepend=np.nan) != 0) | (np.diff(lists, prepend=-1) != 0)
    tie = changes.cumsum() - 1
    rank = (np.bincount(tie, place) / np.bincount(tie))[tie]
    up = np.bincount(lists, labels)
    down = sizes - up
    above = np.bincount(lists, rank * labels) - up * (up + 1) / 2
    return np.divide(above, up * down, out=np.full(len(sizes), np.nan), where=up * down > 0)


def feedback_figures(scores: np.ndarray, labels: np.ndarray, lists: np.ndarray) -> dict[str, float]:
    """`auroc` over all items, and `within_auroc`, the mean over the lists that have both labels.

    A figure that no pair tells of is left out.

    Args:
        scores, labels, lists: as `within_auroc` takes them.
    """
    each = within_auroc(scores, labels, lists)
    figures = {"auroc": float(auroc(scores, labels)[0])}
    if not np.isnan(each).all():
        figures["within_auroc"] = float(np.nanmean(each))
    return {name: value for name, value in figures.items() if not np.isnan(value)}
