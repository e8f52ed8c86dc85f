"""Trials: a predictor answers a table of questions, and what it reached is measured and compared.

A table whose phases are in order of time is answered twice: by a predictor that has learnt from all
training rows, for `validation` and `test`; and by repeated folds, in which no user is in both
training and test, for `folds`. A table without order in time is answered by folds alone, and their
mean is its `test`.

Shapes: R rows of the table, B rows asked, C candidates, S resamples, U users.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.errors import ConfigError, RunError
from recsys.evaluation import metrics
from recsys.evaluation.binary_metrics import auroc, average_precision
from recsys.evaluation.statistics import PAIRED, interval, paired_t, with_holm
from recsys.files import atomic_folder, write_parquet
from recsys.log.event_log import USER
from recsys.reading import read_json, read_table
from recsys.scoring.predictor import Predictor
from recsys.tasks.labels import TEST, VALIDATION, Questions, folds

K = 10
BY_CANDIDATE = {"auroc": auroc, "ap": average_precision}
BY_ROW = (f"hr@{K}", f"ndcg@{K}", "mrr")
FOLD = ("repeat", "fold", "train", "test")
"""Columns of `Trial.folds` that are no metrics."""
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
        means, intervals = (
            _nan_for_null(read_json(folder / name)) for name in ("metrics.json", "intervals.json")
        )
        frames = (read_table(folder / f"{name}.parquet") for name in ("folds", "predictions"))
        return cls(means, intervals, *frames)

    def write(self, folder: Path) -> None:
        """Write a folder whole or not at all."""
        with atomic_folder(folder) as scratch:
            write_parquet(scratch / "folds.parquet", self.folds)
            write_parquet(scratch / "predictions.parquet", self.predictions)
            (scratch / "intervals.json").write_text(to_json(self.intervals))
            (scratch / "metrics.json").write_text(to_json(self.means))


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
            return self.measured().mean().fill_null(np.nan).row(0, named=True)
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
        total = weights.sum(1)
        return {n: _ratio(weights @ values[n].to_numpy(), total) for n in BY_ROW}

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
    if not scores.isfinite().all():
        row = int((~scores.isfinite()).any(1).nonzero()[0])
        raise RunError(
            f"{type(predictor).__name__} gives row {int(rows[row])} of {questions.name} a score "
            "that is not finite; look for missing values in its features, or lower learning_rate"
        )
    return scores


def bootstrap(
    answers: list[Answers], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, list[float]]:
    """Percentile intervals of the mean over folds of each metric, users drawn with replacement.

    A resample that leaves a fold without users, or without one of two classes, has no number there.
    """
    num_users = len(answers[0].questions.users)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(num_users, np.full(num_users, 1 / num_users), size=resamples)
    found = [a.resampled(draws) for a in answers]
    means = {name: _mean(np.stack([f[name] for f in found])) for name in found[0]}
    return {name: list(interval(values, level)) for name, values in means.items()}


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean of (N, …) over the rows that are numbers; NaN where none is."""
    known = ~np.isnan(values)
    return _ratio(np.asarray(np.where(known, values, 0).sum(0)), np.asarray(known.sum(0)))


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """A mean; NaN where it is of nothing."""
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def compare(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Paired comparison of two trials on the same folds: corrected resampled t-test.

    A row per metric: `metric, first, second, difference, low, high, p_value`; interval and p-value
    are null where a fold has no figure. Folds share training rows, which makes their differences
    alike: Nadeau & Bengio (2003, eq. 14) add to the variance of the mean the ratio of the rows held
    out to those trained on, 1/4 in five folds.

    Args:
        first, second: `Trial.folds`.

    Raises:
        RunError: they are of different folds.
    """
    if not same_folds(first, second):
        raise RunError("the trials were divided into other folds; compare trials of one table")
    names = [name for name in first.columns if name not in FOLD]
    ratio = _held_out(first)
    rows = [paired_t(name, first[name], second[name], overlap=ratio) for name in names]
    return pl.DataFrame(rows, schema=PAIRED)


def same_folds(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Whether two trials can be compared: both were asked by folds, and by the same."""
    return not first.is_empty() and first.select(FOLD).equals(second.select(FOLD))


def _held_out(folds: pl.DataFrame) -> float:
    """Training rows that a fold holds out over those it trains on.

    The other folds' training rows hold each row out once: together they are all rows so many times.
    """
    others = pl.len().over("repeat") - 1
    whole = pl.col("train").sum().over("repeat") / others
    # Without any the users are divided all the same.
    ratio = ((whole - pl.col("train")) / pl.col("train")).fill_nan(1 / others)
    return float(folds.select(ratio.mean()).item())


def leads(tables: Mapping[str, Mapping[str, Trial]]) -> pl.DataFrame:
    """In every table, how far the first model is ahead of each other asked by the same folds.

    Args:
        tables: by table and model.

    Returns:
        a row per table, other model and metric: `table, against`, the columns of `compare`, whose
        `second` is the first model, and `p_holm`, Holm's correction over all rows.
    """
    found = [pl.DataFrame(schema={"table": pl.String, "against": pl.String, **PAIRED})]
    for name, models in tables.items():
        ahead, *others = models
        for other in others:
            pair = models[other].folds, models[ahead].folds
            if same_folds(*pair):
                about = {"table": pl.lit(name), "against": pl.lit(other)}
                found.append(compare(*pair).select(pl.all(), **about).select(found[0].columns))
    return with_holm(pl.concat(found))


def best(models: Mapping[str, Trial]) -> dict[str, float]:
    """Each metric's highest mean in the test; NaN where no model has one."""
    means = [model.means["test"] for model in models.values()]
    return {name: float(np.fmax.reduce([m[name] for m in means])) for name in means[0]}


def to_json(values: Any) -> str:
    """Means or intervals as JSON, null where there is no number."""
    return json.dumps(_replaced(values, lambda v: None if v != v else v), indent=2)


def _nan_for_null(values: Any) -> Any:
    return _replaced(values, lambda v: np.nan if v is None else v)


def _replaced(values: Any, by: Callable[[Any], Any]) -> Any:
    """The same dicts and lists with other values in them."""
    match values:
        case Mapping():
            return {name: _replaced(value, by) for name, value in values.items()}
        case list():
            return [_replaced(value, by) for value in values]
    return by(values)
