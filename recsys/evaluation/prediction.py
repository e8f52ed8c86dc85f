"""Trials: a predictor answers a table of questions, and what it reached is measured and compared.

A table whose phases are in order of time is answered twice: by a predictor that has learnt from all
training rows, for `validation` and `test`; and by repeated folds, in which no user is in both
training and test, for `folds`. A table without order in time is answered by folds alone, and their
mean is its `test`.

Shapes: R rows of the table, B rows asked, C candidates, S resamples, U users, M metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    mean_of_defined,
    ratio,
    same_folds,
    with_holm,
)
from recsys.files import atomic_folder, write_parquet
from recsys.log.event_log import USER
from recsys.reading import read_table
from recsys.scoring.predictor import Predictor
from recsys.tasks.labels import Questions, folds
from recsys.tasks.phases import PHASES, TEST, TRAIN, VALIDATION

K = 10
BY_CANDIDATE = {"auroc": auroc, "ap": average_precision}
BY_ROW = (f"hr@{K}", f"ndcg@{K}", "mrr")
_CELLS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Folds:
    """How often users are divided, and into how many folds.

    Without repeats a table in order of time is not asked by folds; one without order still is.

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
class Trial:
    """What a predictor reached on a table.

    Attributes:
        means: by part and metric; NaN where no fold has both answers among its users.
        intervals: their 95% bootstrap intervals over users.
        folds: a row per fold: `repeat`, `fold`, how many `train` and `test` rows, its metrics.
        predictions: a row per row asked, part and fold: `user_id`, `as_of`, `part`, `fold`; where
            candidates are ranked its metrics, else of each candidate the score and the label.
    """

    means: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, list[float]]]
    folds: pl.DataFrame
    predictions: pl.DataFrame

    @classmethod
    def read(cls, folder: Path) -> Trial:
        """The trial that `write` wrote.

        Raises:
            RunError: a file of it is missing or damaged.
        """
        figures = read_figures(folder)
        frames = (read_table(folder / f"{name}.parquet") for name in ("folds", "predictions"))
        return cls(*figures, *frames)

    def write(self, folder: Path) -> None:
        """Write a folder whole or not at all."""
        with atomic_folder(folder) as scratch:
            write_parquet(scratch / "folds.parquet", self.folds)
            write_parquet(scratch / "predictions.parquet", self.predictions)
            write_figures(scratch, self.means, self.intervals)


@dataclass(frozen=True, eq=False)
class Answers:
    """Scores for rows of a table.

    Attributes:
        questions: the table.
        rows: (B,) int64.
        scores: (B, C).
    """

    questions: Questions
    rows: Tensor
    scores: Tensor

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its M metrics."""
        return BY_ROW if self.questions.ranked else tuple(BY_CANDIDATE)

    def measured(self) -> pl.DataFrame:
        """A row per row asked: hit rate and nDCG among the first 10, and the reciprocal rank."""
        answers = self.questions.answers.rows(self.rows)
        num_answers = answers.lengths
        scores = self.scores.masked_fill(~self.questions.allowed(self.rows), -torch.inf)
        ranked = scores.argsort(dim=1, descending=True, stable=True)
        hits = answers.dense(scores.shape[1]).gather(1, ranked)
        found = (
            metrics.phr(hits[:, :K], num_answers),
            metrics.ndcg(hits[:, :K], num_answers),
            metrics.mrr(hits, num_answers),
        )
        return pl.DataFrame({n: f.numpy() for n, f in zip(BY_ROW, found, strict=True)})

    def means(self) -> dict[str, float]:
        """Every metric."""
        if self.questions.ranked:
            return self.measured().mean().fill_null(np.nan).row(0, named=True)
        return {name: float(values[0]) for name, values in self.by_candidate(None).items()}

    def by_candidate(self, weights: np.ndarray | None) -> dict[str, np.ndarray]:
        """Metrics (S,) that compare rows, means over the candidates, for weights (S, B)."""
        labels = self.questions.labels(self.rows).numpy()
        columns = list(zip(self.scores.numpy().T, labels.T, strict=True))
        return {
            name: mean_of_defined(np.stack([metric(*column, weights) for column in columns]))
            for name, metric in BY_CANDIDATE.items()
        }

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """Every metric (S, M) of resamples, given how often each user is drawn (S, U)."""
        user = self.questions.user_of(self.rows).numpy()
        if not self.questions.ranked:
            step = max(1, _CELLS_AT_ONCE // max(1, len(user)))
            parts = np.split(drawn, range(step, len(drawn), step))
            found = [np.stack([*self.by_candidate(p[:, user]).values()], axis=1) for p in parts]
            return np.concatenate(found)
        weights = drawn[:, user].astype(np.float64)
        values, total = self.measured(), weights.sum(1)
        return np.stack([ratio(weights @ values[n].to_numpy(), total) for n in BY_ROW], axis=1)

    def frame(self, part: str, fold: int | None) -> pl.DataFrame:
        """What is kept of them."""
        asked = self.questions.rows.select(USER, "as_of")[self.rows.numpy()]
        about = asked.with_columns(
            pl.lit(part).alias("part"), pl.lit(fold, dtype=pl.Int32).alias("fold")
        )
        if self.questions.ranked:
            return pl.concat([about, self.measured()], how="horizontal")
        names = self.questions.candidates.ids.cast(pl.String)
        labels = self.questions.labels(self.rows).numpy()
        columns = {f"score/{n}": self.scores[:, c].numpy() for c, n in enumerate(names)}
        columns |= {f"label/{n}": labels[:, c] for c, n in enumerate(names)}
        return pl.concat([about, pl.DataFrame(columns)], how="horizontal")


def trial(questions: Questions, build: Callable[[], Predictor], divided: Folds = Folds()) -> Trial:
    """Let a predictor answer a table.

    Args:
        questions: the table.
        build: makes the predictor anew, unfitted, and sets what is random; called for every fit.
        divided: the folds.

    Raises:
        LeakError: a prediction changes when the log ends at its row's moment.
        RunError: a score is not finite.
    """
    whole = _whole(questions, build) if questions.has_phases else {}
    repeats = divided.repeats if whole else max(divided.repeats, 1)
    parts = list(folds(questions, num_folds=divided.num_folds, repeats=repeats, seed=divided.seed))
    by_fold = [
        _answered(questions, build(), train, asked, check=not whole and number == 0)
        for number, (train, asked) in enumerate(parts)
    ]
    rows = [
        {
            "repeat": number // divided.num_folds,
            "fold": number % divided.num_folds,
            "train": len(train),
            "test": len(asked),
            **answers.means(),
        }
        for number, ((train, asked), answers) in enumerate(zip(parts, by_fold, strict=True))
    ]
    per_fold = pl.DataFrame(rows)
    together = {name: [answers] for name, answers in whole.items()}
    if by_fold:
        together["folds" if whole else "test"] = by_fold
    means = {
        part: {
            name: float(mean_of_defined(np.array([a.means()[name] for a in answers])))
            for name in answers[0].metrics
        }
        for part, answers in together.items()
    }
    intervals = {part: user_intervals(answers) for part, answers in together.items()}
    kept = [answers.frame(part, None) for part, answers in whole.items()]
    kept += [answers.frame("folds", number) for number, answers in enumerate(by_fold)]
    return Trial(means, intervals, per_fold, pl.concat(kept))


def _whole(questions: Questions, build: Callable[[], Predictor]) -> dict[str, Answers]:
    predictor = build().fit(questions, questions.phase(TRAIN))
    predictor.check_leaks(questions, questions.phase(TEST))
    parts = {PHASES[phase]: questions.phase(phase) for phase in (VALIDATION, TEST)}
    return {
        part: Answers(questions, rows, _scores(predictor, questions, rows))
        for part, rows in parts.items()
        if len(rows)
    }


def _answered(
    questions: Questions, predictor: Predictor, train: Tensor, asked: Tensor, *, check: bool
) -> Answers:
    predictor.fit(questions, train)
    if check:
        predictor.check_leaks(questions, asked)
    return Answers(questions, asked, _scores(predictor, questions, asked))


def _scores(predictor: Predictor, questions: Questions, rows: Tensor) -> Tensor:
    scores = predictor.predict(questions, rows).float().cpu()
    if not scores.isfinite().all():
        row = int((~scores.isfinite()).any(1).nonzero()[0])
        raise RunError(
            f"{type(predictor).__name__} gives row {int(rows[row])} of {questions.name} a score "
            "that is not finite; look for missing values in its features, or lower learning_rate"
        )
    return scores


def user_intervals(
    answers: list[Answers], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, list[float]]:
    """Bootstrap intervals of the mean over folds of each metric, users drawn with replacement.

    A resample that leaves a fold without users, or without one of two classes, has no number there.
    """

    def means(drawn: np.ndarray) -> np.ndarray:
        return mean_of_defined(np.stack([a.resampled(drawn) for a in answers]))

    draws = draws_at_once(len(answers[0].questions.users), resamples, seed)
    intervals = bootstrap(means, draws, level=level)
    return {name: list(ends) for name, ends in zip(answers[0].metrics, intervals, strict=True)}


def leads(tables: Mapping[str, Mapping[str, Trial]]) -> pl.DataFrame:
    """In every table, how far the first model is ahead of each other asked by the same folds.

    Args:
        tables: by table and model.

    Returns:
        a row per table, other model and metric: `table, against`, the columns of `compare_folds`,
        whose `second` is the first model, and `p_holm`, Holm's correction over all rows.
    """
    columns = {"table": pl.String, "against": pl.String, **PAIRED}
    found = [pl.DataFrame(schema=columns)]
    for name, models in tables.items():
        ahead, *others = models
        for other in others:
            pair = models[other].folds, models[ahead].folds
            if same_folds(*pair):
                about = {"table": pl.lit(name), "against": pl.lit(other)}
                found.append(compare_folds(*pair).with_columns(**about).select(*columns))
    return with_holm(pl.concat(found))


def best(models: Mapping[str, Trial]) -> dict[str, float]:
    """Each metric's highest mean in the test; NaN where no model has one."""
    means = [model.means["test"] for model in models.values()]
    return {name: float(np.fmax.reduce([m[name] for m in means])) for name in means[0]}
