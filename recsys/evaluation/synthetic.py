"""Whether drawn users are like those who are there, and whether they are copies of them.

A user is a row of counts of items. Shapes: U rows, n items, C classes of a column of the items.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.evaluation.binary_metrics import auroc

ROWS_AT_ONCE = 512


def two_sample_auc(real: np.ndarray, drawn: np.ndarray, *, seed: int = 0) -> float:
    """The classifier two-sample test (Lopez-Paz & Oquab, ICLR 2017), by its AUROC.

    Boosted trees learn to tell rows apart on a half of each sample, and are asked about the other
    halves: .5 where they cannot, 1 where they always can.

    Args:
        real, drawn: (U, F) features of rows.
        seed: of the halves.

    >>> rows = np.random.default_rng(0).normal(size=(400, 2))
    >>> two_sample_auc(rows[:200], rows[200:] + 5) > 0.99
    True
    """
    generator = np.random.default_rng(seed)
    halves = [np.array_split(generator.permutation(rows), 2) for rows in (real, drawn)]
    train, test = (np.concatenate([halves[0][i], halves[1][i]]) for i in (0, 1))
    labels = [np.repeat([False, True], [len(halves[0][i]), len(halves[1][i])]) for i in (0, 1)]
    trees = HistGradientBoostingClassifier(max_iter=50, random_state=seed)
    scores = trees.fit(train, labels[0]).predict_proba(test)[:, 1]
    return float(auroc(scores, labels[1])[0])


def shares_of_classes(batch: BasketBatch, class_of_item: Tensor) -> Tensor:
    """(U, C) float64: how a user's events divide among the classes of the items (n,)."""
    num_classes = int(class_of_item.max()) + 1
    cells = batch.owners() * num_classes + class_of_item[batch.items]
    counts = torch.bincount(cells, minlength=len(batch) * num_classes).view(len(batch), -1)
    return counts.double() / counts.sum(1, keepdim=True).clamp(min=1)


def habits(batch: BasketBatch) -> Tensor:
    """(U, 4) float64: logarithms of events, of baskets and of distinct items, events a basket."""
    events, baskets = batch.lengths().double(), batch.num_baskets().double()
    distinct = batch.ragged.distinct(batch.num_items).lengths.double()
    logs = [of.log1p() for of in (events, baskets, distinct)]
    return torch.stack([*logs, events / baskets.clamp(min=1)], dim=1)


def total_variation(first: Tensor, second: Tensor) -> float:
    """Of two distributions (C,): half the sum of differences, at most 1.

    >>> total_variation(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    0.5
    """
    return float((first - second).abs().sum() / 2)


def nearest_distances(rows: BasketBatch, others: BasketBatch, *, leave_out: bool = False) -> Tensor:
    """(U,) float64: cosine distance of each row to the nearest of the others.

    Args:
        rows, others: users, by logarithms of their counts.
        leave_out: the two are the same, and a row is not its own neighbour.
    """
    theirs, distances = _at_length_one(others), []
    for first in range(0, len(rows), ROWS_AT_ONCE):
        places = torch.arange(first, min(first + ROWS_AT_ONCE, len(rows)))
        alike = _at_length_one(rows.rows(places)) @ theirs.T
        if leave_out:
            alike[torch.arange(len(places)), places] = -1
        distances.append(1 - alike.amax(1).double())
    return torch.cat(distances)


def _at_length_one(batch: BasketBatch) -> Tensor:
    return torch.nn.functional.normalize(batch.counts().log1p(), dim=1)
