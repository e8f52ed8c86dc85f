"""Predictors on tables of labels: what one reached is measured, and held against another.

A table whose phases are in order of time is predicted twice: by a predictor that has learnt from
all training rows, for `validation` and `test`; and by repeated folds, in which no user is in both
training and test, for `folds`. A table without order in time is predicted by folds alone, and their
mean is its `test`.

Shapes: R rows of the table, B rows predicted, C candidates, S resamples, U users, M metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.errors import ConfigError, RunError
from recsys.evaluation import metrics
from recsys.evaluation.binary_metrics import auroc, average_precision
from recsys.evaluation.figures import read_figures, write_figures
from recsys.evaluation.statistics import (
    PAIRED,
    bootstrap,
    compare_folds,
    draws_at_once,
    level_with_best,
    mean_of_defined,
    ratio,
    same_folds,
    with_holm,
)
from recsys.files import atomic_folder, write_parquet
from recsys.log.event_log import USER
from recsys.reading import read_table
from recsys.scoring.predictor import WEIGHTS, Linear, Predictor
from recsys.tasks import as_of
from recsys.tasks.as_of import AS_OF
from recsys.tasks.labels import LabelTable
from recsys.tasks.phases import PHASES, TEST, TRAIN, VALIDATION

K = 10
BY_CANDIDATE = {"auroc": auroc, "ap": average_precision}
BY_ROW = (f"hr@{K}", f"ndcg@{K}", "mrr")
_CELLS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Folds:
    """How often users are divided, and into how many folds.

    Without repeats a table in order of time has no folds; one without order has them once.

    Raises:
        ConfigError: fewer than two folds, or less than no repeats.
    """

    num_folds: int = 5
    repeats: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_folds < 2 or self.repeats < 0:
            raise ConfigError(
                f"num_folds={self.num_folds}, repeats={self.repeats}: expected 2 folds or more and "
                "0 repeats or more"
            )


@dataclass(frozen=True, eq=False)
class TableResult:
    """What a predictor reached on a table.

    Attributes:
        means: by part and metric; NaN where no fold has both labels among its users.
        intervals: their 95% bootstrap intervals over users.
        folds: a row per fold: `repeat`, `fold`, how many `train` and `test` rows, its metrics.
        predictions: a row per row predicted, part and fold: `user_id`, `as_of`, `part`, `fold`;
            where candidates are ranked its metrics, else of each candidate the score and the label.
        weights: of a `Linear` predictor that has learnt from all training rows, or the means over
            the folds where the table has no order; None of another.
    """

    means: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, list[float]]]
    folds: pl.DataFrame
    predictions: pl.DataFrame
    weights: pl.DataFrame | None = None

    @classmethod
    def read(cls, folder: Path) -> TableResult:
        """The result that `write` wrote.

        Raises:
            RunError: a file of it is missing or damaged.
        """
        figures = read_figures(folder)
        folds, predictions = (read_table(folder / f"{n}.parquet") for n in ("folds", "predictions"))
        path = folder / "weights.parquet"
        weights = read_table(path, *WEIGHTS) if path.is_file() else None
        return cls(*figures, folds, predictions, weights)

    def write(self, folder: Path) -> None:
        """Write a folder whole or not at all."""
        with atomic_folder(folder) as scratch:
            write_parquet(scratch / "folds.parquet", self.folds)
            write_parquet(scratch / "predictions.parquet", self.predictions)
            if self.weights is not None:
                write_parquet(scratch / "weights.parquet", self.weights)
            write_figures(scratch, self.means, self.intervals)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores for rows of a table.

    Attributes:
        table: of labels.
        rows: (B,) int64.
        scores: (B, C).
        weights: of the predictor, where it is `Linear`.
    """

    table: LabelTable
    rows: Tensor
    scores: Tensor
    weights: pl.DataFrame | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its M metrics."""
        return BY_ROW if self.table.ranked else tuple(BY_CANDIDATE)

    def row_metrics(self) -> pl.DataFrame:
        """For each row: hit rate and nDCG among the first 10, and the reciprocal rank."""
        labels = self.table.labels.rows(self.rows)
        num_labels = labels.lengths
        scores = self.scores.masked_fill(~self.table.allowed(self.rows), -torch.inf)
        ranked = scores.argsort(dim=1, descending=True, stable=True)
        hits = labels.dense(scores.shape[1]).gather(1, ranked)
        columns = (
            metrics.phr(hits[:, :K], num_labels),
            metrics.ndcg(hits[:, :K], num_labels),
            metrics.mrr(hits, num_labels),
        )
        return pl.DataFrame({n: c.numpy() for n, c in zip(BY_ROW, columns, strict=True)})

    def means(self) -> dict[str, float]:
        """Every metric."""
        if self.table.ranked:
            return self.row_metrics().mean().fill_null(np.nan).row(0, named=True)
        return {name: float(values[0]) for name, values in self.by_candidate(None).items()}

    def by_candidate(self, weights: np.ndarray | None) -> dict[str, np.ndarray]:
        """Metrics (S,) that compare rows, means over the candidates, for weights (S, B)."""
        labels = self.table.label_matrix(self.rows).numpy()
        columns = list(zip(self.scores.numpy().T, labels.T, strict=True))
        return {
            name: mean_of_defined(np.stack([metric(*column, weights) for column in columns]))
            for name, metric in BY_CANDIDATE.items()
        }

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """Every metric (S, M) of resamples, given how often each user is drawn (S, U)."""
        user = self.table.user_of(self.rows).numpy()
        if not self.table.ranked:
            step = max(1, _CELLS_AT_ONCE // max(1, len(user)))
            parts = np.split(drawn, range(step, len(drawn), step))
            values = [np.stack([*self.by_candidate(p[:, user]).values()], axis=1) for p in parts]
            return np.concatenate(values)
        weights = drawn[:, user].astype(np.float64)
        by_row, total = self.row_metrics(), weights.sum(1)
        return np.stack([ratio(weights @ by_row[n].to_numpy(), total) for n in BY_ROW], axis=1)

    def frame(self, part: str, fold: int | None) -> pl.DataFrame:
        """What `TableResult.predictions` holds of them."""
        moments = self.table.rows.select(USER, AS_OF)[self.rows.numpy()]
        about = moments.with_columns(
            pl.lit(part).alias("part"), pl.lit(fold, dtype=pl.Int32).alias("fold")
        )
        if self.table.ranked:
            return pl.concat([about, self.row_metrics()], how="horizontal")
        names = self.table.candidates.ids.cast(pl.String)
        labels = self.table.label_matrix(self.rows).numpy()
        columns = {f"score/{n}": self.scores[:, c].numpy() for c, n in enumerate(names)}
        columns |= {f"label/{n}": labels[:, c] for c, n in enumerate(names)}
        return pl.concat([about, pl.DataFrame(columns)], how="horizontal")


def cross_validate(
    table: LabelTable, build: Callable[[], Predictor], folds: Folds = Folds()
) -> TableResult:
    """What predictors reach on a table, by time where it has an order, and by folds.

    Args:
        table: of labels.
        build: makes the predictor anew, unfitted, and sets what is random; called for every fit.
        folds: how users are divided.

    Raises:
        LeakError: a prediction changes when the log ends at its row's moment.
        RunError: a score is not finite.
    """
    by_time = _by_time(table, build) if table.has_phases else {}
    repeats = folds.repeats if by_time else max(folds.repeats, 1)
    pairs = list(as_of.folds(table, num_folds=folds.num_folds, repeats=repeats, seed=folds.seed))
    by_fold = [
        _of_fold(table, build(), train, test, check=not by_time and number == 0)
        for number, (train, test) in enumerate(pairs)
    ]
    rows = [
        {
            "repeat": number // folds.num_folds,
            "fold": number % folds.num_folds,
            "train": len(train),
            "test": len(test),
            **predictions.means(),
        }
        for number, ((train, test), predictions) in enumerate(zip(pairs, by_fold, strict=True))
    ]
    per_fold = pl.DataFrame(rows)
    by_part = {part: [predictions] for part, predictions in by_time.items()}
    if by_fold:
        by_part["folds" if by_time else "test"] = by_fold
    means = {
        part: {
            name: float(mean_of_defined(np.array([p.means()[name] for p in several])))
            for name in several[0].metrics
        }
        for part, several in by_part.items()
    }
    intervals = {part: user_intervals(several) for part, several in by_part.items()}
    frames = [predictions.frame(part, None) for part, predictions in by_time.items()]
    frames += [predictions.frame("folds", number) for number, predictions in enumerate(by_fold)]
    weights = _mean_weights([*by_time.values()] or by_fold)
    return TableResult(means, intervals, per_fold, pl.concat(frames), weights)


def _mean_weights(predictions: Sequence[Predictions]) -> pl.DataFrame | None:
    """The means over fits; one that a fit did not have is 0 there."""
    weights = [of.weights for of in predictions if of.weights is not None]
    if not weights:
        return None
    sums = pl.concat(weights).group_by("candidate", "feature", maintain_order=True)
    return sums.agg(pl.col("weight").sum() / len(weights))


def _by_time(table: LabelTable, build: Callable[[], Predictor]) -> dict[str, Predictions]:
    """By part, what a predictor says that has learnt from all training rows."""
    predictor = build().fit(table, table.phase(TRAIN))
    predictor.check_leaks(table, table.phase(TEST))
    parts = {PHASES[phase]: table.phase(phase) for phase in (VALIDATION, TEST)}
    return {
        part: Predictions(table, rows, _scores(predictor, table, rows), _weights(predictor, table))
        for part, rows in parts.items()
        if len(rows)
    }


def _of_fold(
    table: LabelTable, predictor: Predictor, train: Tensor, test: Tensor, *, check: bool
) -> Predictions:
    """What a predictor says of a fold's test rows that has learnt from its training rows."""
    predictor.fit(table, train)
    if check:
        predictor.check_leaks(table, test)
    scores = _scores(predictor, table, test)
    return Predictions(table, test, scores, _weights(predictor, table))


def _weights(predictor: Predictor, table: LabelTable) -> pl.DataFrame | None:
    return predictor.weights(table) if isinstance(predictor, Linear) else None


def _scores(predictor: Predictor, table: LabelTable, rows: Tensor) -> Tensor:
    scores = predictor.predict(table, rows).float().cpu()
    if not scores.isfinite().all():
        row = int((~scores.isfinite()).any(1).nonzero()[0])
        raise RunError(
            f"{type(predictor).__name__} gives row {int(rows[row])} of {table.name} a score "
            "that is not finite; look for missing values in its features, or lower learning_rate"
        )
    return scores


def user_intervals(
    predictions: list[Predictions], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, list[float]]:
    """Bootstrap intervals of the mean over folds of each metric, users drawn with replacement.

    A resample that leaves a fold without users, or without one of two classes, has no number there.
    """

    def means(drawn: np.ndarray) -> np.ndarray:
        return mean_of_defined(np.stack([p.resampled(drawn) for p in predictions]))

    first = predictions[0]
    draws = draws_at_once(len(first.table.users), resamples, seed)
    intervals = bootstrap(means, draws, level=level)
    return {name: list(ends) for name, ends in zip(first.metrics, intervals, strict=True)}


def leads(tables: Mapping[str, Mapping[str, TableResult]]) -> pl.DataFrame:
    """In every table, how far the first model is ahead of each other with the same folds.

    Args:
        tables: by table and model.

    Returns:
        a row per table, other model and metric: `table, against`, the columns of `compare_folds`,
        whose `second` is the first model, and `p_holm`, Holm's correction over all rows.
    """
    columns = {"table": pl.String, "against": pl.String, **PAIRED}
    comparisons = [pl.DataFrame(schema=columns)]
    for name, models in tables.items():
        ahead, *others = models
        for other in others:
            pair = models[other].folds, models[ahead].folds
            if same_folds(*pair):
                about = {"table": pl.lit(name), "against": pl.lit(other)}
                compared = compare_folds(*pair).with_columns(**about).select(*columns)
                comparisons.append(compared)
    return with_holm(pl.concat(comparisons))


def level(models: Mapping[str, TableResult], metric: str) -> set[str]:
    """The models with the highest mean in the test, and those whose interval reaches it."""
    means = {name: model.means["test"][metric] for name, model in models.items()}
    intervals = {name: model.intervals["test"][metric] for name, model in models.items()}
    return level_with_best(means, intervals)
