"""Tables of return times: what a survival model reached on their rows, with intervals over users.

Every metric but the error of calibration is a ratio of two sums over rows, or over pairs of rows.
A resample of users weighs rows. Of pairs its sums are those of the rows' own pairs, each row by its
weight, which leaves out what is of second order in how far weights are from 1 (Hajek's projection):
a bootstrap of pairs would take the square of the rows for every resample.

Shapes: R rows, U users, S resamples, M metrics, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.errors import RunError
from recsys.evaluation.figures import read_figures, write_figures
from recsys.evaluation.statistics import PAIRED, bootstrap, paired_t, ratio, with_holm
from recsys.evaluation.survival import (
    Censoring,
    Outcomes,
    auc_pairs,
    binomial_rows,
    brier_rows,
    calibration_at,
    calibration_error,
    concordance_pairs,
    even_times,
)
from recsys.files import write_parquet
from recsys.log.event_log import USER
from recsys.reading import read_table
from recsys.scoring.survival import SurvivalCurves, SurvivalPredictor, kaplan_meier
from recsys.tasks.as_of import AS_OF
from recsys.tasks.phases import PHASES, TEST, VALIDATION
from recsys.tasks.return_times import ReturnTimes

LIKELIHOOD = "log_likelihood"
QUARTILES = (25, 50, 75)
NUM_POINTS = 80
NUM_GROUPS = 10
CELLS = 2**22
"""Weights of rows in resamples at once."""
FRAMES = ("per_user", "predictions", "curves", "calibration")


@dataclass(frozen=True, eq=False)
class ReturnTimesResult:
    """What a survival model reached on a table.

    Attributes:
        means: by part, `validation` and `test`, and metric.
        intervals: their 95% bootstrap intervals over users.
        per_user: `part`, `user_id`, and the mean log-likelihood of the user's rows.
        predictions: of each row `part`, `user_id`, `as_of`, `duration`, `observed`, `median`, null
            where a curve does not fall so far, and `survival@7` for each horizon.
        curves: of the test rows, by `time`: `seen`, the Kaplan-Meier curve of what came; `mean`, of
            the predicted ones; `p25` `p50` `p75`, those of the rows at the quartiles of the median.
        calibration: of the test rows, as `calibration_at` says, by `horizon`.
    """

    means: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, list[float]]]
    per_user: pl.DataFrame
    predictions: pl.DataFrame
    curves: pl.DataFrame
    calibration: pl.DataFrame

    @classmethod
    def read(cls, folder: Path) -> ReturnTimesResult:
        """The result that `write` wrote.

        Raises:
            RunError: a file of it is missing or damaged.
        """
        frames = (read_table(folder / f"{name}.parquet") for name in FRAMES)
        return cls(*read_figures(folder), *frames)

    def write(self, folder: Path) -> None:
        """Write a file each; a folder with `metrics.json` has all."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in FRAMES:
            write_parquet(folder / f"{name}.parquet", getattr(self, name))
        write_figures(folder, self.means, self.intervals)


@dataclass(frozen=True, eq=False)
class Sums:
    """A metric as the sum of `above` over the sum of `below`, (R) each.

    Attributes:
        pairs: whether they are sums over pairs, of which each counts at both of its rows.
    """

    above: Tensor
    below: Tensor
    pairs: bool = False


@dataclass(frozen=True, eq=False)
class Predicted:
    """Curves of rows, and what came of them.

    Attributes:
        curves: of the rows.
        log_likelihood: (R).
        outcomes: of the rows.
        user: (R) int64, which user each row is of.
        horizons: for AUC and calibration.
    """

    curves: SurvivalCurves
    log_likelihood: Tensor
    outcomes: Outcomes
    user: Tensor
    horizons: Sequence[float]

    @cached_property
    def survival(self) -> dict[float, Tensor]:
        """Of each horizon S (R)."""
        kind = self.curves.times
        return {h: self.curves.at(kind.new_tensor([h]))[:, 0] for h in self.horizons}

    def sums(self) -> dict[str, Sums]:
        """Every metric that is a ratio of sums, of which `evaluate_survival` has the ratios."""
        outcomes, curves = self.outcomes, self.curves
        censoring, times = Censoring.of(outcomes), even_times(outcomes)
        at = curves.at(times.to(curves.times))
        ones = torch.ones(len(outcomes), dtype=torch.float64)
        rows = {
            "ibs": brier_rows(at, outcomes, times, censoring),
            "ibll": binomial_rows(at, outcomes, times, censoring),
        }
        weighted = concordance_pairs(curves, outcomes, censoring=censoring)
        found = {
            LIKELIHOOD: Sums(self.log_likelihood.double(), ones),
            "concordance": Sums(*concordance_pairs(curves, outcomes), pairs=True),
            "concordance_ipcw": Sums(*weighted, pairs=True),
        }
        length = times[-1] - times[0]
        for name, values in rows.items():
            found[name] = Sums(torch.trapezoid(values, times, dim=1) / length, ones)
        for horizon, survival in self.survival.items():
            pairs = auc_pairs(survival, outcomes, horizon, censoring)
            found[f"auc@{horizon:g}"] = Sums(*pairs, pairs=True)
        return found

    def calibration(self) -> dict[float, pl.DataFrame]:
        """By horizon, as `calibration_at`."""
        return {
            horizon: calibration_at(survival, self.outcomes, horizon, num_groups=NUM_GROUPS)
            for horizon, survival in self.survival.items()
        }

    def measured(
        self, *, resamples: int = 1000, seed: int = 0
    ) -> tuple[dict[str, float], dict[str, list[float]]]:
        """The metrics and their 95% intervals, users drawn with replacement."""
        sums = self.sums()
        means = {
            name: float(ratio(of.above.sum().numpy(), of.below.sum().numpy()))
            for name, of in sums.items()
        }
        for horizon, groups in self.calibration().items():
            means[f"calibration@{horizon:g}"] = calibration_error(groups)
        num_users = int(self.user.max()) + 1

        def measure(drawn: np.ndarray) -> np.ndarray:
            weights = drawn[:, self.user.numpy()].astype(np.float64)
            columns = [_resampled(of, weights) for of in sums.values()]
            columns += [self._calibration(horizon, weights) for horizon in self.horizons]
            return np.stack(columns, axis=1)

        ends = bootstrap(measure, _draws(num_users, len(self.user), resamples, seed))
        return means, {name: list(pair) for name, pair in zip(means, ends, strict=True)}

    def _calibration(self, horizon: float, weights: np.ndarray) -> np.ndarray:
        """(S) the error of calibration at a horizon, in the groups of all rows."""
        survival = self.survival[horizon]
        order = survival.argsort(descending=True, stable=True)
        error = np.zeros(len(weights))
        for rows in order.tensor_split(min(NUM_GROUPS, len(order))):
            of_rows = weights[:, rows.numpy()]
            predicted = ratio(of_rows @ (1 - survival[rows].double().numpy()), of_rows.sum(1))
            seen = 1 - _weighted_kaplan_meier(self.outcomes, rows, of_rows, horizon)
            error += np.nan_to_num(np.abs(predicted - seen)) * of_rows.sum(1)
        return ratio(error, weights.sum(1))


def _resampled(sums: Sums, weights: np.ndarray) -> np.ndarray:
    """(S) a metric of resamples, given the weights of rows (S, R).

    Of pairs in first order, so that of few pairs a share may come out beyond 0 and 1, where none
    can be: there it stands at the end, and is undefined where no pairs are left.
    """
    above, below = (
        weights @ part.numpy() - (float(part.sum()) / 2 if sums.pairs else 0.0)
        for part in (sums.above, sums.below)
    )
    if not sums.pairs:
        return ratio(above, below)
    return ratio(above, below.clip(min=0)).clip(0, 1)


def _weighted_kaplan_meier(
    outcomes: Outcomes, rows: Tensor, weights: np.ndarray, horizon: float
) -> np.ndarray:
    """(S) the share of rows without an event by a horizon, for weights (S, B) of the rows (B)."""
    durations, observed = outcomes.durations[rows].numpy(), outcomes.observed[rows].numpy()
    order = np.lexsort((~observed, durations))  # at one time, events first
    weights = weights[:, order]
    at_risk = weights[:, ::-1].cumsum(1)[:, ::-1]
    counts = weights * (observed & (durations <= horizon))[order]
    lost = np.divide(counts, at_risk, out=np.zeros_like(counts), where=at_risk > 0)
    return np.prod(1 - lost, axis=1)


def _draws(num_users: int, num_rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each user is drawn (s, U), as many resamples at once as memory is meant for."""
    generator = np.random.default_rng(seed)
    share = np.full(num_users, 1 / num_users)
    step = max(1, CELLS // max(num_rows, num_users))
    for begin in range(0, resamples, step):
        yield generator.multinomial(num_users, share, size=min(step, resamples - begin))


def evaluate_return_times(
    model: SurvivalPredictor, table: ReturnTimes, horizons: Sequence[float]
) -> ReturnTimesResult:
    """What a fitted model reached on the validation and the test rows of a table.

    Args:
        model: fitted.
        table: of return times.
        horizons: for AUC and calibration; those that no row of a part lasts longer than are left
            out there.

    Raises:
        RunError: a likelihood is not finite.
    """
    means, intervals = {}, {}
    per_user, frames = [], []
    for phase in (VALIDATION, TEST):
        rows = table.phase(phase)
        if not len(rows):
            continue
        predicted = predict_rows(model, table, rows, horizons)
        part = PHASES[phase]
        means[part], intervals[part] = predicted.measured()
        frame = _frame(table, rows, predicted).select(pl.lit(part).alias("part"), pl.all())
        frames.append(frame.drop(LIKELIHOOD))
        per_user.append(frame.group_by("part", USER, maintain_order=True).agg(pl.mean(LIKELIHOOD)))
    groups = [
        of.select(pl.lit(horizon).alias("horizon"), pl.all())
        for horizon, of in predicted.calibration().items()
    ]
    empty = pl.DataFrame(
        schema={
            "horizon": pl.Float64,
            "predicted": pl.Float64,
            "seen": pl.Float64,
            "rows": pl.Int64,
        }
    )
    return ReturnTimesResult(
        means,
        intervals,
        pl.concat(per_user),
        pl.concat(frames, how="diagonal"),
        _curves(predicted),
        pl.concat([empty, *groups]),
    )


def predict_rows(
    model: SurvivalPredictor, table: ReturnTimes, rows: Tensor, horizons: Sequence[float]
) -> Predicted:
    """The curves of rows (R,) of a table, with the horizons that some row lasts longer than."""
    data = model.data(table, rows)
    log_likelihood = model.log_likelihood(data)
    if not log_likelihood.isfinite().all():
        row = int((~log_likelihood.isfinite()).nonzero()[0])
        raise RunError(
            f"{type(model).__name__} gives row {int(rows[row])} of {table.name} a likelihood that "
            "is not finite; look for missing values in its features, or lower its learning_rate"
        )
    outcomes = Outcomes(data.durations, data.observed)
    longest = float(data.durations.max())
    users = table.user_of(rows).unique(return_inverse=True)[1]
    within = [float(horizon) for horizon in horizons if horizon < longest]
    return Predicted(model.curves(data.covariates), log_likelihood, outcomes, users, within)


def medians(curves: SurvivalCurves) -> pl.Series:
    """The time at which half have had the event; null where the curve does not fall so far."""
    median = pl.Series("median", curves.median().double().numpy())
    return median.to_frame().select(pl.when(median.is_finite()).then(median).alias("median"))[:, 0]


def _frame(table: ReturnTimes, rows: Tensor, predicted: Predicted) -> pl.DataFrame:
    moments = table.rows.select(USER, AS_OF)[rows.numpy()]
    return moments.with_columns(
        pl.Series("duration", predicted.outcomes.durations.numpy()),
        pl.Series("observed", predicted.outcomes.observed.numpy()),
        medians(predicted.curves),
        *(
            pl.Series(f"survival@{horizon:g}", survival.numpy())
            for horizon, survival in predicted.survival.items()
        ),
        pl.Series(LIKELIHOOD, predicted.log_likelihood.double().numpy()),
    )


def _curves(predicted: Predicted) -> pl.DataFrame:
    outcomes = predicted.outcomes
    last = float(outcomes.durations.max())
    grid = torch.linspace(0, last, NUM_POINTS, dtype=torch.float64)
    times, seen = kaplan_meier(outcomes.durations.double(), outcomes.observed)
    place = (torch.searchsorted(times, grid, right=True) - 1).clamp(min=0)
    at = predicted.curves.at(grid.to(predicted.curves.times))
    order = at.mean(1).argsort()
    chosen = {f"p{q}": at[order[(len(order) - 1) * q // 100]] for q in QUARTILES}
    columns = {"time": grid, "seen": seen[place], "mean": at.double().mean(0), **chosen}
    return pl.DataFrame({name: values.double().numpy() for name, values in columns.items()})


def likelihood_leads(models: Mapping[str, ReturnTimesResult]) -> pl.DataFrame:
    """How far the first model's log-likelihood is ahead of each other's, user by user.

    Args:
        models: by name, of one table.

    Returns:
        a row per other model: `against`, the columns of `recsys.evaluation.compare`, whose `second`
        is the first model, and `p_holm`. Of the test.
    """
    ahead, *others = models
    first = _of_users(models[ahead])
    rows = []
    for other in others:
        both = _of_users(models[other]).join(first, on=USER, suffix="_ahead", validate="1:1")
        pair = both[LIKELIHOOD], both[f"{LIKELIHOOD}_ahead"]
        rows.append({"against": other, **paired_t(LIKELIHOOD, *pair)})
    return with_holm(pl.DataFrame(rows, schema={"against": pl.String, **PAIRED}))


def _of_users(result: ReturnTimesResult) -> pl.DataFrame:
    return result.per_user.filter(part="test").drop("part")
