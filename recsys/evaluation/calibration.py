"""Whether probabilities of items in the next basket are what comes: of all pairs of a part.

    Brier             sum over items of (p - y)^2, mean over users
    log loss          - sum over items of y log p + (1 - y) log(1 - p), mean over users
    calibration error sum over groups of |expected - seen| / all seen, in items of next baskets
    size              |sum over items of p - how many there were|, mean over users
    F1                of the basket that the probabilities make, see `basket_length`

Groups hold a tenth of the expected items each, by probability: nearly all pairs have probabilities
near 0, and groups of as many pairs each would show little else.

Shapes: B users, n items, G groups, C cells, each of probabilities that are nearly alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.ragged import Ragged
from recsys.evaluation.statistics import mean_intervals
from recsys.retrieval.lists import top_k
from recsys.scoring.calibration import MOST_ITEMS, basket_length, scored
from recsys.scoring.scorer import Scorer
from recsys.types import Scores

NUM_GROUPS = 10
_CELLS = torch.linspace(-16, 16, 3201, dtype=torch.float64)  # log odds
METRICS = ("brier", "log_loss", "size_error", "f1")


@dataclass(frozen=True, eq=False)
class Reliability:
    """How probabilities compare with what came.

    Attributes:
        per_user: a row per row of the part: `user`, `brier`, `log_loss`, `size`, how many items are
            expected, `size_error`, how far that is from how many came, and `f1`.
        groups: `predicted` probability and share `seen` of pairs in groups, `expected` and `came`
            items in each, and its `pairs`.
    """

    per_user: pl.DataFrame
    groups: pl.DataFrame

    @property
    def calibration_error(self) -> float:
        """In items, relative to all that came."""
        far = (pl.col("expected") - pl.col("came")).abs().sum()
        return float(self.groups.select(far / pl.col("came").sum()).item())

    @property
    def means(self) -> dict[str, float]:
        """Of every metric over users, and the error of calibration."""
        means = self.per_user.select(METRICS).mean().row(0, named=True)
        return means | {"calibration_error": self.calibration_error}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95% bootstrap intervals of the means over users."""
        return mean_intervals(self.per_user.select(METRICS), 0.95, 1000, 0)


def reliability(model: Scorer, part: Part, *, mask_history: bool = False) -> Reliability:
    """Compare the probabilities of a calibrated model with the targets of a part.

    Args:
        model: whose scores are log odds, such as one that is calibrated on other targets.
        part: histories and targets.
        mask_history: leave out items of the history.

    >>> split = last_basket(checkerboard())
    >>> model = EASE().fit(split)
    >>> likely = Calibrated(model, calibrate(model, split.validation))
    >>> result = reliability(likely, split.test)
    >>> result.means["log_loss"] < 10, len(result.groups)
    (True, 10)
    """
    cells, frames = torch.zeros(3, len(_CELLS) + 1, dtype=torch.float64), []
    for batch, logits in scored(model, part):
        labels = batch.target.dense(logits.shape[1])
        is_open = torch.ones_like(labels)
        if mask_history:
            is_open = ~batch.history.ragged.dense(logits.shape[1])
        frames.append(_per_user(batch, logits, labels & is_open, is_open))
        cells += _in_cells(logits[is_open], labels[is_open]).cpu()
    return Reliability(pl.concat(frames), _grouped(cells))


def _per_user(batch: Part, logits: Scores, labels: Tensor, is_open: Tensor) -> pl.DataFrame:
    probabilities = logits.sigmoid() * is_open
    # The log of 1 - p is that of the odds turned round: no digit is lost where p is near 0 or 1.
    losses = torch.nn.functional.softplus(torch.where(labels, -logits, logits)) * is_open
    size, count = probabilities.sum(1), labels.sum(1)
    columns = {
        "user": batch.history.users,
        "brier": (probabilities - labels.double()).square().sum(1),
        "log_loss": losses.sum(1),
        "size": size,
        "size_error": (size - count).abs(),
        "f1": _f1(probabilities, batch.target, size),
    }
    return pl.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


def _f1(probabilities: Tensor, target: Ragged, size: Tensor) -> Tensor:
    """(B,): of the basket with the highest expected F1."""
    top = top_k(probabilities, min(MOST_ITEMS, probabilities.shape[1]))
    length = basket_length(top.scores, size)
    hits = target.contains(top.items, probabilities.shape[1]).cumsum(1)
    return 2 * hits.gather(1, length[:, None] - 1)[:, 0] / (length + target.lengths)


def _in_cells(logits: Tensor, labels: Tensor) -> Tensor:
    """(3, C): pairs, expected and seen items of each cell, from pairs (R,)."""
    cell = torch.bucketize(logits, _CELLS.to(logits.device))
    of_pairs = torch.stack([torch.ones_like(logits), logits.sigmoid(), labels.double()])
    zeros = of_pairs.new_zeros(3, len(_CELLS) + 1)
    return zeros.index_add_(1, cell, of_pairs)


def _grouped(cells: Tensor) -> pl.DataFrame:
    """Of cells (3, C) in groups of about as many expected items."""
    middle = cells[1].cumsum(0) - cells[1] / 2
    group = (middle / cells[1].sum() * NUM_GROUPS).long().clamp(max=NUM_GROUPS - 1)
    columns = dict(zip(("pairs", "expected", "came"), cells.numpy(), strict=True))
    frame = pl.DataFrame({"group": group.numpy(), **columns}).filter(pl.col("pairs") > 0)
    sums = frame.group_by("group", maintain_order=True).sum().drop("group")
    shares = pl.col("expected") / pl.col("pairs"), pl.col("came") / pl.col("pairs")
    predicted, seen = (
        share.alias(n) for share, n in zip(shares, ("predicted", "seen"), strict=True)
    )
    return sums.select(predicted, seen, "expected", "came", "pairs")
