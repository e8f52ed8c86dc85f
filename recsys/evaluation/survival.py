"""Metrics of survival curves when some rows are censored.

The log-likelihood is a proper score and models are chosen by it; concordance, the Brier score and
the binomial log-likelihood are not under censoring (Rindt et al., "Survival regression with proper
scoring rules and monotonic neural networks", arXiv 2103.14755) and are shown beside it.

Weights are the inverse of G, the Kaplan-Meier curve of being censored, of which events count as
before what is censored at the same time. G comes from the rows that are asked, or others.

Shapes: R rows, T times, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.scoring.survival import SurvivalCurves, kaplan_meier

CELLS = 2**23
"""Pairs of rows that are compared at once."""
CLIP = 1e-7
"""Probabilities are at least this far from 0 and 1 where a logarithm is taken."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What came of rows.

    Attributes:
        durations: (R) until the event, or until nobody looked any more.
        observed: (R) bool, whether there was an event.
    """

    durations: Tensor
    observed: Tensor

    def __len__(self) -> int:
        return len(self.durations)


@dataclass(frozen=True, eq=False)
class Censoring:
    """G, the probability of not being censored until a time, a curve of steps.

    Attributes:
        times: (T) ascending from 0.
        uncensored: (T) G from each time on.
    """

    times: Tensor
    uncensored: Tensor

    @classmethod
    def of(cls, outcomes: Outcomes) -> Censoring:
        """The Kaplan-Meier curve of outcomes, with censoring as the event.

        Of what happens at one time, events come first and are no longer at risk of censoring.
        """
        durations = outcomes.durations.double()
        order = durations.sort().values
        ended = durations[outcomes.observed].sort().values
        times, censored = durations[~outcomes.observed].unique(return_counts=True)
        at_risk = len(durations) - torch.searchsorted(order, times)
        at_risk -= torch.searchsorted(ended, times, right=True) - torch.searchsorted(ended, times)
        left = (1 - censored.double() / at_risk).cumprod(0)
        zero = durations.new_zeros(1)
        return cls(torch.cat([zero, times]), torch.cat([zero + 1, left]))

    def weights(self, times: Tensor) -> Tensor:
        """1 / G at times (N) float64; 0 where nobody is known to be uncensored so long."""
        cell = torch.searchsorted(self.times, times.double(), right=True) - 1
        left = self.uncensored[cell]
        return torch.where(left > 0, 1 / left.clamp(min=1e-300), 0.0)


def concordance(
    curves: SurvivalCurves,
    outcomes: Outcomes,
    *,
    censoring: Censoring | None = None,
    until: float = float("inf"),
) -> float:
    """The share of pairs of which the one with the earlier event is lower: S_i(T_i) < S_j(T_i).

    Source: Antolini et al., "A time-dependent discrimination index for survival data", Statistics
    in Medicine 2005. With `censoring`, pairs are weighted by 1 / G(T_i)^2 as in Uno et al. (2011),
    so that the figure does not depend on who was censored.

    A row i with an event makes a pair with each row j that lasts longer, or as long and is
    censored. Equal curves count half; rows with events at the same time make no pair.

    Args:
        curves: of the rows.
        outcomes: of the rows.
        censoring: weights pairs.
        until: events from this time on make no pairs.

    Raises:
        DataError: no pair can be compared.
    """
    first = (outcomes.observed & (outcomes.durations < until)).nonzero()[:, 0]
    order = outcomes.durations[first].argsort()
    return _concordance(first[order], _at_times_of(curves, outcomes), outcomes, censoring)


def risk_concordance(
    risk: Tensor,
    outcomes: Outcomes,
    *,
    censoring: Censoring | None = None,
    until: float = float("inf"),
) -> float:
    """As `concordance`, of one number a row, higher for earlier events: Harrell's C, or Uno's.

    Source: Uno et al., "On the C-statistics for evaluating overall adequacy of risk prediction
    procedures with censored survival data", Statistics in Medicine 2011.
    """
    first = (outcomes.observed & (outcomes.durations < until)).nonzero()[:, 0]
    return _concordance(first, lambda rows: (-risk).expand(len(rows), -1), outcomes, censoring)


def _concordance(
    first: Tensor,
    compared: Callable[[Tensor], Tensor],
    outcomes: Outcomes,
    censoring: Censoring | None,
) -> float:
    """The weighted share of pairs (i, j) with less of what is compared for i than for j."""
    agreed, total = _pairs(first, compared, outcomes, censoring)
    if not total.any():
        raise DataError(
            f"concordance: of {len(outcomes)} rows with {int(outcomes.observed.sum())} events no "
            "two can be compared; give rows of which some last longer than an event"
        )
    return float(agreed.sum() / total.sum())


def concordance_pairs(
    curves: SurvivalCurves, outcomes: Outcomes, *, censoring: Censoring | None = None
) -> tuple[Tensor, Tensor]:
    """Of each row (R) the weight of its pairs that `concordance` agrees with, and of all of them.

    A pair counts at both of its rows.
    """
    first = outcomes.observed.nonzero()[:, 0]
    order = outcomes.durations[first].argsort()
    return _pairs(first[order], _at_times_of(curves, outcomes), outcomes, censoring)


def _at_times_of(curves: SurvivalCurves, outcomes: Outcomes) -> Callable[[Tensor], Tensor]:
    def compared(rows: Tensor) -> Tensor:
        """(B, R) S_j(T_i) of rows i that had an event."""
        distinct, place = outcomes.durations[rows].unique(return_inverse=True)
        return curves.at(distinct)[:, place].T

    return compared


def _pairs(
    first: Tensor,
    compared: Callable[[Tensor], Tensor],
    outcomes: Outcomes,
    censoring: Censoring | None,
) -> tuple[Tensor, Tensor]:
    """As `concordance_pairs`, of rows that had an event with all others."""
    size = max(1, CELLS // max(len(outcomes), 1))
    agreed, total = torch.zeros(2, len(outcomes), dtype=torch.float64)
    for rows in first.split(size):
        values, times = compared(rows), outcomes.durations[rows, None]
        at_own_time = values.gather(1, rows[:, None])
        pairs = (outcomes.durations > times) | ((outcomes.durations == times) & ~outcomes.observed)
        lower = ((at_own_time < values).double() + 0.5 * (at_own_time == values)) * pairs
        weight = torch.ones(len(rows), dtype=torch.float64)
        if censoring is not None:
            weight = censoring.weights(times[:, 0]) ** 2
        for sums, of_pairs in ((agreed, lower), (total, pairs.double())):
            sums += weight @ of_pairs
            sums.index_add_(0, rows, of_pairs.sum(1) * weight)
    return agreed, total


def brier(survival: Tensor, outcomes: Outcomes, times: Tensor, censoring: Censoring) -> Tensor:
    """(T) at each time the weighted mean square of S with whether the event was still to come.

    Source: Graf et al., "Assessment and comparison of prognostic classification schemes for
    survival data", Statistics in Medicine 1999.

    Args:
        survival: (R, T) at the times.
        outcomes: of the rows.
        times: (T).
        censoring: for weights.
    """
    return brier_rows(survival, outcomes, times, censoring).mean(0)


def brier_rows(survival: Tensor, outcomes: Outcomes, times: Tensor, censoring: Censoring) -> Tensor:
    """(R, T) what each row adds to the mean that `brier` is."""
    survival = survival.double()
    return _weighted(survival**2, (1 - survival) ** 2, outcomes, times, censoring)


def binomial_log_likelihood(
    survival: Tensor, outcomes: Outcomes, times: Tensor, censoring: Censoring
) -> Tensor:
    """(T) as `brier`, of the log-likelihood of whether the event was still to come."""
    return binomial_rows(survival, outcomes, times, censoring).mean(0)


def binomial_rows(
    survival: Tensor, outcomes: Outcomes, times: Tensor, censoring: Censoring
) -> Tensor:
    """(R, T) what each row adds to the mean that `binomial_log_likelihood` is."""
    survival = survival.double().clamp(CLIP, 1 - CLIP)
    return _weighted((1 - survival).log(), survival.log(), outcomes, times, censoring)


def _weighted(
    had: Tensor, open_: Tensor, outcomes: Outcomes, times: Tensor, censoring: Censoring
) -> Tensor:
    """(R, T) of `had` (R, T) for past events and of `open_` for those to come, weighted."""
    before = outcomes.durations[:, None] <= times
    past = (before & outcomes.observed[:, None]) * censoring.weights(outcomes.durations)[:, None]
    return had * past + open_ * ~before * censoring.weights(times)


def integrated(values: Tensor, times: Tensor) -> float:
    """The mean of values (T) over the times between the first and the last, by trapezia."""
    return float(torch.trapezoid(values, times.double()) / (times[-1] - times[0]))


def auc_at(survival: Tensor, outcomes: Outcomes, time: float, censoring: Censoring) -> float:
    """How well S at a time tells rows that have had the event by then from those that have not.

    The cumulative, dynamic AUC: Uno et al., "Evaluating prediction rules for t-year survivors with
    censored regression models", JASA 2007. Equal rows count half. NaN where there are none of one
    kind.

    Args:
        survival: (R) at the time.
        outcomes: of the rows.
        time: the horizon.
        censoring: for weights.
    """
    agreed, total = auc_pairs(survival, outcomes, time, censoring)
    return float(agreed.sum() / total.sum()) if total.any() else float("nan")


def auc_pairs(
    survival: Tensor, outcomes: Outcomes, time: float, censoring: Censoring
) -> tuple[Tensor, Tensor]:
    """Of each row (R) the weight of its pairs that `auc_at` agrees with, and of all of them.

    A pair counts at both of its rows.
    """
    had = (outcomes.observed & (outcomes.durations <= time)).nonzero()[:, 0]
    had = had[survival[had].argsort()]
    later = (outcomes.durations > time).nonzero()[:, 0]
    later = later[survival[later].argsort()]
    weight = censoring.weights(outcomes.durations[had])
    agreed, total = torch.zeros(2, len(outcomes), dtype=torch.float64)
    total[had], total[later] = weight * len(later), weight.sum()
    below, up_to = (
        torch.searchsorted(survival[later], survival[had], right=right) for right in (False, True)
    )
    agreed[had] = weight * (len(later) - (below + up_to) / 2)
    summed = torch.cat([weight.new_zeros(1), weight.cumsum(0)])
    below, up_to = (
        torch.searchsorted(survival[had], survival[later], right=right) for right in (False, True)
    )
    agreed[later] = (summed[below] + summed[up_to]) / 2
    return agreed, total


def calibration_at(
    survival: Tensor, outcomes: Outcomes, time: float, *, num_groups: int = 10
) -> pl.DataFrame:
    """Of groups of rows, by what was predicted, the share with an event by a time.

    A row per group: `predicted`, the mean of 1 - S; `seen`, 1 - the group's Kaplan-Meier curve;
    `rows`. Groups are of equal size.

    Args:
        survival: (R) at the time.
        outcomes: of the rows.
        time: the horizon.
        num_groups: at most; there is none without a row.
    """
    order = survival.argsort(descending=True, stable=True)
    return pl.DataFrame(
        [
            {
                "predicted": 1 - float(survival[rows].double().mean()),
                "seen": 1
                - _still_to_come(Outcomes(outcomes.durations[rows], outcomes.observed[rows]), time),
                "rows": len(rows),
            }
            for rows in order.tensor_split(min(num_groups, len(order)))
        ]
    )


def calibration_error(groups: pl.DataFrame) -> float:
    """The mean over rows of how far `calibration_at`'s prediction is from what was seen."""
    distance = (pl.col("predicted") - pl.col("seen")).abs()
    return float(groups.select((distance * pl.col("rows")).sum() / pl.col("rows").sum()).item())


def _still_to_come(outcomes: Outcomes, time: float) -> float:
    times, survival = kaplan_meier(outcomes.durations.double(), outcomes.observed)
    at = int(torch.searchsorted(times, float(time), right=True)) - 1
    return float(survival[at]) if at >= 0 else 1.0


def even_times(outcomes: Outcomes, *, num_times: int = 100) -> Tensor:
    """Times (T) from the shortest to the longest duration, evenly spread; the last is left out.

    At the longest duration itself nobody is left to weigh by.
    """
    low, high = float(outcomes.durations.min()), float(outcomes.durations.max())
    return torch.linspace(low, high, num_times + 1, dtype=torch.float64)[:-1]


def evaluate_survival(
    curves: SurvivalCurves,
    log_likelihood: Tensor,
    outcomes: Outcomes,
    *,
    horizons: Sequence[float] = (7, 30, 90),
    times: Tensor | None = None,
    censoring: Censoring | None = None,
) -> dict[str, float]:
    """The metrics of a model on rows.

    `log_likelihood`; `concordance` and `concordance_ipcw`; `ibs` and `ibll`, the integrated Brier
    score and binomial log-likelihood; `auc@7` and `calibration@7` for each horizon, NaN where no
    row lasts so long.

    Args:
        curves: of the rows.
        log_likelihood: (R).
        outcomes: of the rows.
        horizons: for AUC and calibration.
        times: between which scores are integrated; default `even_times`.
        censoring: default that of the rows.
    """
    censoring = Censoring.of(outcomes) if censoring is None else censoring
    times = even_times(outcomes) if times is None else times
    at = curves.at(times.to(curves.times))
    figures = {
        "log_likelihood": float(log_likelihood.double().mean()),
        "concordance": concordance(curves, outcomes),
        "concordance_ipcw": concordance(curves, outcomes, censoring=censoring),
        "ibs": integrated(brier(at, outcomes, times, censoring), times),
        "ibll": integrated(binomial_log_likelihood(at, outcomes, times, censoring), times),
    }
    for horizon in map(float, horizons):
        survival = curves.at(curves.times.new_tensor([horizon]))[:, 0]
        figures[f"auc@{horizon:g}"] = auc_at(survival, outcomes, horizon, censoring)
        groups = calibration_at(survival, outcomes, horizon)
        figures[f"calibration@{horizon:g}"] = calibration_error(groups)
    return figures
