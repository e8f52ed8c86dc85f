"""Trials: a predictor answers a table of questions, and what it reached is measured and compared.

A table whose phases are in order of time is answered twice: by a predictor that has learnt from all
training rows, for `validation` and `test`; and by repeated folds, in which no user is in both
training and test, for `folds`. A table without order in time is answered by folds alone, and their
mean is its `test`.

Shapes: R rows of the table, B rows asked, C candidates, S resamples, U users.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys import metrics
from recsys.classification import auroc, average_precision
from recsys.errors import RunError
from recsys.evaluate import paired_t
from recsys.events import USER
from recsys.predictor import Predictor
from recsys.questions import TEST, VALIDATION, Questions, folds
from recsys.run_folder import read_json, read_table

K = 10
BY_CANDIDATE = {"auroc": auroc, "ap": average_precision}
BY_ROW = (f"hr@{K}", f"ndcg@{K}", "mrr")
_CELLS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Folds:
    """How often users are divided, and into how many folds.

    Without repeats a table in order of time is not asked by folds; one without order still is.
    """

    num_folds: int = 5
    repeats: int = 2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Trial:
    """What a predictor reached on a table.

    Attributes:
        means: by part and metric.
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
        means, intervals = (read_json(folder / name) for name in ("metrics.json", "intervals.json"))
        frames = (read_table(folder / f"{name}.parquet") for name in ("folds", "predictions"))
        return cls(means, intervals, *frames)

    def write(self, folder: Path) -> None:
        """Write a folder whole or not at all."""
        scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            self.folds.write_parquet(scratch / "folds.parquet")
            self.predictions.write_parquet(scratch / "predictions.parquet")
            (scratch / "intervals.json").write_text(json.dumps(self.intervals, indent=2))
            (scratch / "metrics.json").write_text(json.dumps(self.means, indent=2))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


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
            return self.measured().mean().row(0, named=True)
        return {name: float(values[0]) for name, values in self.by_candidate(None).items()}

    def by_candidate(self, weights: np.ndarray | None) -> dict[str, np.ndarray]:
        """Metrics (S,) that compare rows, means over the candidates, for weights (S, B)."""
        labels = self.questions.labels(self.rows).numpy()
        columns = list(zip(self.scores.numpy().T, labels.T, strict=True))
        return {
            name: _mean(np.stack([metric(*column, weights) for column in columns]))
            for name, metric in BY_CANDIDATE.items()
        }

    def resampled(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric for resamples, given as how often each user of the table is drawn (S, U)."""
        user = self.questions.user_of(self.rows).numpy()
        if not self.questions.ranked:
            step = max(1, _CELLS_AT_ONCE // max(1, len(user)))
            parts = [
                self.by_candidate(d[:, user])
                for d in np.split(draws, range(step, len(draws), step))
            ]
            return {name: np.concatenate([p[name] for p in parts]) for name in BY_CANDIDATE}
        weights = draws[:, user].astype(np.float64)
        values = self.measured()
        total = np.maximum(weights.sum(1), 1)
        return {name: weights @ values[name].to_numpy() / total for name in BY_ROW}

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
        RunError: a score is no number.
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
    names = BY_ROW if questions.ranked else tuple(BY_CANDIDATE)
    means = {
        part: {name: float(_mean(np.array([a.means()[name] for a in answers]))) for name in names}
        for part, answers in together.items()
    }
    intervals = {part: bootstrap(answers) for part, answers in together.items()}
    kept = [answers.frame(part, None) for part, answers in whole.items()]
    kept += [answers.frame("folds", number) for number, answers in enumerate(by_fold)]
    return Trial(means, intervals, per_fold, pl.concat(kept))


def _whole(questions: Questions, build: Callable[[], Predictor]) -> dict[str, Answers]:
    predictor = build().fit(questions, questions.phase(0))
    predictor.check_leaks(questions, questions.phase(TEST))
    parts = {"validation": questions.phase(VALIDATION), "test": questions.phase(TEST)}
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
    if scores.isnan().any():
        row = int(scores.isnan().any(1).nonzero()[0])
        raise RunError(
            f"{type(predictor).__name__} gives row {int(rows[row])} of {questions.name} a score "
            "that is no number; look for missing values in its features"
        )
    return scores


def bootstrap(
    answers: list[Answers], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, list[float]]:
    """Percentile intervals of the mean over folds of each metric, users drawn with replacement."""
    num_users = len(answers[0].questions.users)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(num_users, np.full(num_users, 1 / num_users), size=resamples)
    found = [a.resampled(draws) for a in answers]
    tail = [(1 - level) / 2, (1 + level) / 2]
    means = {name: _mean(np.stack([f[name] for f in found])) for name in found[0]}
    # A resample that lacks a class has no number.
    known = {name: values[~np.isnan(values)] for name, values in means.items()}
    low_high = {n: np.quantile(v, tail) if len(v) else (np.nan, np.nan) for n, v in known.items()}
    return {name: [float(low), float(high)] for name, (low, high) in low_high.items()}


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean of (N, …) over the rows that are numbers; NaN where none is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(0)
    return np.divide(total, known.sum(0), out=np.full(total.shape, np.nan), where=known.any(0))


def compare(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Paired comparison of two trials on the same folds: corrected resampled t-test.

    A row per metric: `metric, first, second, difference, low, high, p_value`. Folds share training
    rows, which makes their differences alike: Nadeau & Bengio (2003, eq. 14) add the ratio of test
    to training rows to the variance of the mean.

    Args:
        first, second: `Trial.folds`.

    Raises:
        RunError: they are of different folds.
    """
    key = ["repeat", "fold", "train", "test"]
    if not first.select(key).equals(second.select(key)):
        raise RunError("the trials were divided into other folds; compare trials of one table")
    names = [name for name in first.columns if name not in key]
    ratio = float((first["test"] / first["train"]).mean())  # type: ignore[arg-type]
    return pl.DataFrame([paired_t(n, first[n], second[n], overlap=ratio) for n in names])
