"""Several models on one log, each user asked of all: a table with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, TypeAlias

import polars as pl

from recsys.errors import ConfigError
from recsys.evaluation.ranking import Evaluation
from recsys.evaluation.statistics import compare, with_holm
from recsys.interactive.fitted import FittedModel, fitted
from recsys.interactive.plan import Data, Plan, Settings
from recsys.log.event_log import USER
from recsys.run.ranking import Task
from recsys.scoring.scorer import Scorer
from recsys.training.callbacks import monitored

Models: TypeAlias = (
    Sequence[str | Scorer] | Mapping[str, str | Scorer | tuple[str, Mapping[str, Any]]]
)
"""Models by their names in the zoo, or objects; or by names of one's own, then with options, too:
`{"small": ("sasrec", {"embedding_dim": 16})}`."""
SHOWN = ("recall", "ndcg", "mrr")
IN_FULL: dict[str, Any] = {
    "tbl_hide_column_data_types": True,
    "tbl_hide_dataframe_shape": True,
    "tbl_rows": -1,
    "tbl_cols": -1,
    "tbl_width_chars": 200,
    "fmt_str_lengths": 80,
}
"""How a table is shown of which nothing is left out."""


@dataclass(frozen=True, eq=False, repr=False)
class Benchmark:
    """What several models reached on the same users.

    Attributes:
        models: fitted, by name.
        evaluations: of the test users, by name.
        best: the name of the model that was best on the validation users, with which the others
            are compared on the test users: to be chosen there itself would flatter it.
        metrics: that are compared.
    """

    models: dict[str, FittedModel]
    evaluations: dict[str, Evaluation]
    best: str
    metrics: tuple[str, ...]

    @cached_property
    def table(self) -> pl.DataFrame:
        """A row per model and metric, the best mean first.

        `model, metric, mean, low, high`, with the 95% bootstrap interval over users; `difference`
        is the model minus `best`, with `p_value` of the paired t-test over users and `p_holm`,
        Holm's correction over all rows that have one. Both are null for `best` itself.
        """
        rows = [row for name in self.evaluations for row in self._rows(name)]
        schema = {"model": pl.String, "metric": pl.String}
        figures = ("mean", "low", "high", "difference", "p_value")
        table = pl.DataFrame(rows, schema | dict.fromkeys(figures, pl.Float64))
        order = pl.col("metric").replace_strict({m: n for n, m in enumerate(self.metrics)})
        return with_holm(table).sort(order, -pl.col("mean"), maintain_order=True)

    @property
    def per_user(self) -> pl.DataFrame:
        """Every test user's metrics, model by model: `model, user_id` and what `Evaluation` has."""
        frames = []
        for name, result in self.evaluations.items():
            ids = self.models[name].task.split.users.ids_of(result.per_user["user"]).rename(USER)
            about = [pl.Series("model", [name] * len(ids)), ids]
            frames.append(pl.DataFrame(about).hstack(result.per_user.drop("user")))
        return pl.concat(frames, how="diagonal")

    def to_pandas(self) -> Any:
        """The table as a pandas frame."""
        return self.table.to_pandas()

    def __repr__(self) -> str:
        with pl.Config(**IN_FULL):
            return f"{self._title()}\n{self._wide()}"

    def _repr_html_(self) -> str:
        with pl.Config(**IN_FULL):
            return f"<p>{escape(self._title())}</p>{self._wide()._repr_html_()}"

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        result = self.evaluations[name]
        intervals = result.intervals()
        paired = {}
        if name != self.best:
            against = compare(self.evaluations[self.best], result, names=self.metrics)
            paired = {row["metric"]: row for row in against.iter_rows(named=True)}
        for metric in self.metrics:
            low, high = intervals[metric]
            of_pairs = paired.get(metric, {})
            yield {
                "model": name,
                "metric": metric,
                "mean": result.means[metric],
                "low": low,
                "high": high,
                "difference": of_pairs.get("difference"),
                "p_value": of_pairs.get("p_value"),
            }

    def _title(self) -> str:
        users = len(self.evaluations[self.best].per_user)
        return (
            f"{users:,} test users, 95% intervals; p of the difference from {self.best}, the best "
            "on the validation users, after Holm's correction"
        )

    def _wide(self) -> pl.DataFrame:
        """A row per model, a column per metric, in words."""
        figures = {m: self.table.filter(metric=m) for m in self.metrics}
        first = figures[self.metrics[0]]["model"]
        columns = [first]
        for metric, frame in figures.items():
            words = {row["model"]: _words(row) for row in frame.iter_rows(named=True)}
            columns.append(pl.Series(metric, [words[name] for name in first]))
        return pl.DataFrame(columns)


def _words(row: Mapping[str, Any]) -> str:
    interval = f"{row['mean']:.4f} ({row['low']:.4f}–{row['high']:.4f})"
    return interval if row["p_holm"] is None else f"{interval} p={row['p_holm']:.3f}"


def benchmark(
    data: Data,
    models: Models,
    *,
    task: str = "next_item",
    ks: int | Sequence[int] | None = None,
    mask_history: bool | None = None,
    trainer: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    overrides: Sequence[str] = (),
    progress: bool | None = None,
) -> Benchmark:
    """Fit models on one split, and compare what they reach on its test users.

    Args:
        data: as for `recsys.fit`; it is split once.
        models: names in the zoo and objects, or a mapping of names of one's own to these, or to a
            name in the zoo with options, `("sasrec", {"embedding_dim": 16})`.
        task, ks, mask_history, trainer, seed, device, overrides, progress: as for `recsys.fit`, the
            same for each model; the first length of list is the one that is compared.

    Raises:
        ConfigError: no model, one twice, or as `recsys.fit`.
        DataError: as `recsys.fit`.

    >>> log = checkerboard()
    >>> result = recsys.benchmark(log, ["popularity", "item_knn"], task="next_basket", ks=[10])
    >>> result.table.filter(metric="recall@10").select("model", pl.col("mean").round(2)).rows()
    [('item_knn', 0.51), ('popularity', 0.35)]
    >>> result.best, round(result.table["p_holm"].min(), 3)
    ('item_knn', 0.003)
    """
    settings = Settings(task, ks, mask_history, trainer, seed, device, overrides, progress)
    plans = {name: Plan.of(model, settings, options) for name, model, options in _named(models)}
    of_task = next(iter(plans.values())).task(data)
    fits = {name: fitted(plan, of_task) for name, plan in plans.items()}
    reached = {name: _validated(model, of_task) for name, model in fits.items()}
    best = max(reached, key=lambda name: reached[name])
    metrics = tuple(f"{metric}@{of_task.protocol.ks[0]}" for metric in SHOWN)
    return Benchmark(fits, {n: model.evaluate() for n, model in fits.items()}, best, metrics)


def _validated(model: FittedModel, task: Task) -> float:
    metric = f"ndcg@{task.protocol.ks[0]}"
    return monitored(model.evaluate("validation").means, metric, task.protocol)


def _named(models: Models) -> Iterator[tuple[str, str | Scorer, Mapping[str, Any]]]:
    """Name, model and options of each.

    Raises:
        ConfigError: there is none, or two have one name.
    """
    if isinstance(models, str) or not models:
        raise ConfigError(f"models={models!r}: expected several, as ['popularity', 'item_knn']")
    if isinstance(models, Mapping):
        for name, model in models.items():
            yield (name, *model) if isinstance(model, tuple) else (name, model, {})
        return
    names = [model if isinstance(model, str) else type(model).__name__ for model in models]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"models: {twice[0]} twice; give them names, {{'NAME': model, …}}")
    yield from ((name, model, {}) for name, model in zip(names, models, strict=True))
