"""Evaluation: histories → top-k of the full catalogue → metrics per user → means with intervals.

One evaluator for every model. Every item of the catalogue is a candidate, except, where the
protocol masks it, the items of the user's history. Equal scores go to the lower item index. A
user's metrics are kept in a frame beside the run, and everything else is computed from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import torch
from scipy import stats
from torch import Tensor

from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged, offsets_of
from recsys.devices import place_of
from recsys.errors import ConfigError, RunError
from recsys.evaluation import metrics
from recsys.retrieval.index import ExactIndex, ItemIndex, TopK
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Part

BuildIndex = Callable[[Tensor], ItemIndex]
ABOUT_USER = ("user", "history_length", "num_targets", "repeat_share", "target_popularity")
"""Columns of a per-user frame that are no metrics."""
PAIRED = {
    "metric": pl.String,
    **dict.fromkeys(("first", "second", "difference", "low", "high", "p_value"), pl.Float64),
}
"""Columns of a comparison."""


@dataclass(frozen=True)
class Protocol:
    """How a model is asked.

    Attributes:
        ks: lengths of the ranked list at which metrics are taken.
        mask_history: whether the items of a user's history are left out of the ranking.
        batch_size: users scored at once at most, fewer where the catalogue is large
            (`Scorer.users_at_once`); the result does not depend on it.

    Raises:
        ConfigError: there is no length, one below 1, or one twice.
    """

    ks: Sequence[int] = (10,)
    mask_history: bool = False
    batch_size: int = 1024

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise ConfigError(f"ks={list(self.ks)}: expected distinct lengths from 1, as [10,20]")


DEFAULT = Protocol()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model reached on a part.

    Attributes:
        per_user: a row per user: `ABOUT_USER`, then a column per metric. `repeat/…` columns count
            only the targets that the history holds, `explore/…` only the others; they are null
            for users that have no such target.
        catalogue: metrics of all lists together: coverage, novelty, Gini.
        top: the ranked lists, in the order of `per_user`.
    """

    per_user: pl.DataFrame
    catalogue: dict[str, float]
    top: TopK

    @property
    def metrics(self) -> list[str]:
        return [column for column in self.per_user.columns if column not in ABOUT_USER]

    @cached_property
    def means(self) -> dict[str, float]:
        """Every metric's mean over the users for whom it is defined, and the catalogue's."""
        means = self.per_user.select(self.metrics).mean().row(0, named=True)
        return {name: value for name, value in means.items() if value is not None} | self.catalogue

    def intervals(
        self, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap intervals of the per-user means, users drawn with replacement."""
        return bootstrap(self.per_user.select(self.metrics), level, resamples, seed)

    def slices(self, by: str, metric: str, *, num_groups: int = 4) -> pl.DataFrame:
        """A metric's mean and standard error in groups of users of about equal size.

        Args:
            by: one of `ABOUT_USER`, by whose quantiles users are grouped.
            metric: a column of `per_user`.
            num_groups: how many; fewer where many users share a value.
        """
        values = self.per_user[by].cast(pl.Float64)
        cuts = np.unique(np.quantile(values, np.arange(1, num_groups) / num_groups))
        group = pl.Series("group", np.searchsorted(cuts, values, side="left"))
        frame = self.per_user.with_columns(group)
        return (
            frame.group_by("group")
            .agg(
                pl.col(by).min().alias("from"),
                pl.col(by).max().alias("to"),
                pl.len().alias("users"),
                pl.col(metric).mean(),
                (pl.col(metric).std() / pl.col(metric).count().sqrt()).alias("standard_error"),
            )
            .sort("group")
            .drop("group")
        )


def evaluate(
    model: Scorer,
    part: Part,
    protocol: Protocol = DEFAULT,
    *,
    popularity: Tensor | None = None,
    build_index: BuildIndex | None = None,
    progress: Callable[[Loader], Iterable[Part]] = iter,
) -> Evaluation:
    """Rank the catalogue for every user of a part and compare with the targets.

    Args:
        model: fitted, on any device.
        part: histories and targets.
        protocol: list lengths, and whether histories are masked.
        popularity: (n,) events of each item in training, for novelty and slices.
        build_index: makes a retrieval index of item vectors `(n, D)`; by default an exact one.
        progress: wraps the batches, for a progress bar.

    Raises:
        CatalogueError: a list is to be longer than the catalogue.
    """
    part = part.to("cpu")
    k = max(protocol.ks)
    top = rank(model, part, k, protocol, build_index=build_index, progress=progress)
    targets, num_items = part.target, part.history.num_items
    hits = metrics.hits(top.items, targets, num_items)
    measured = metrics.per_user(hits, targets.lengths, protocol.ks)
    repeated = _member(targets, part.history.ragged, num_items)
    frames = [
        _about(part, repeated, popularity),
        pl.DataFrame({name: values.numpy() for name, values in measured.items()}),
        _recalls("repeat", top.items, _chosen(targets, repeated), protocol.ks, num_items),
        _recalls("explore", top.items, _chosen(targets, ~repeated), protocol.ks, num_items),
    ]
    catalogue = _catalogue(top.items, num_items, popularity, protocol.ks)
    return Evaluation(pl.concat(frames, how="horizontal"), catalogue, top)


def rank(
    model: Scorer,
    part: Part,
    k: int,
    protocol: Protocol,
    *,
    build_index: BuildIndex | None = None,
    progress: Callable[[Loader], Iterable[Part]] = iter,
) -> TopK:
    """The k best items for every user of a part, on the CPU."""
    was_training = model.training
    model.eval()
    index = None
    if model.has_vectors:  # once, and not with every batch
        with torch.inference_mode():
            index = model.item_index(build_index or ExactIndex)
    users = min(protocol.batch_size, model.users_at_once(part.history.num_items))
    loader = Loader(part.to(place_of(model)), users)
    found = TopK.cat(
        (
            model.top_k(batch.history, k, mask_history=protocol.mask_history, index=index)
            for batch in progress(loader)
        ),
        k,
    )
    model.train(was_training)
    return found


def _member(rows: Ragged, others: Ragged, num_items: int) -> Tensor:
    """(E,) bool: whether each value of a row is among the values of the same row of `others`."""
    keys = rows.owners() * num_items + rows.values
    known = (others.owners() * num_items + others.values).sort().values
    place = torch.searchsorted(known, keys)
    # A place past the end is that of a key larger than all.
    return (place < len(known)) & (torch.nn.functional.pad(known, (0, 1))[place] == keys)


def _chosen(rows: Ragged, keep: Tensor) -> Ragged:
    """The values at `keep` (E,) bool only, by row."""
    kept = torch.bincount(rows.owners()[keep], minlength=len(rows))
    return Ragged(rows.values[keep], offsets_of(kept))


def _about(part: Part, repeated: Tensor, popularity: Tensor | None) -> pl.DataFrame:
    """The columns `ABOUT_USER`; target popularity is the mean share of training events."""
    targets = part.target
    count = targets.lengths
    owners = targets.owners()

    def mean(values: Tensor) -> np.ndarray:
        total = torch.zeros(len(part), dtype=torch.float64).index_add_(0, owners, values.double())
        return (total / count).numpy()

    seen = torch.ones(part.history.num_items) if popularity is None else popularity.cpu()
    columns = {
        "user": part.history.users.numpy(),
        "history_length": part.history.lengths().numpy(),
        "num_targets": count.numpy(),
        "repeat_share": mean(repeated),
        "target_popularity": mean(seen[targets.values] / seen.sum()),
    }
    return pl.DataFrame(columns)


def _recalls(
    name: str, items: Tensor, targets: Ragged, ks: Sequence[int], num_items: int
) -> pl.DataFrame:
    """`<name>/recall@k`, null for users without such targets."""
    hits = metrics.hits(items, targets, num_items)
    count = targets.lengths.numpy()
    found = {f"{name}/recall@{k}": metrics.recall(hits[:, :k], targets.lengths) for k in ks}
    columns = {column: values.numpy() for column, values in found.items()}
    undefined = pl.Series(count == 0)
    return pl.DataFrame(columns).with_columns(pl.when(~undefined).then(pl.all()))


def _catalogue(
    items: Tensor, num_items: int, popularity: Tensor | None, ks: Sequence[int]
) -> dict[str, float]:
    found = {}
    for k in ks:
        found[f"coverage@{k}"] = float(metrics.coverage(items[:, :k], num_items))
        found[f"gini@{k}"] = float(metrics.gini(items[:, :k], num_items))
        if popularity is not None:
            found[f"novelty@{k}"] = float(metrics.novelty(items[:, :k], popularity))
    return found


def bootstrap(
    per_user: pl.DataFrame, level: float, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of each column's mean over resampled rows.

    Nulls are left out, and so is a resample that draws nothing else. A column without any value has
    no interval.
    """
    per_user = per_user.select(c.name for c in per_user if c.null_count() < len(c))
    values = per_user.to_numpy().astype(np.float64)
    defined = ~np.isnan(values)
    # Sums and counts in one product.
    summed = np.hstack([np.where(defined, values, 0.0), defined])
    generator = np.random.default_rng(seed)
    users, columns = values.shape
    totals = np.empty((resamples, 2 * columns))
    for total in totals:
        drawn = np.bincount(generator.integers(users, size=users), minlength=users)
        total[:] = drawn.astype(np.float64) @ summed
    counts = totals[:, columns:]
    undefined = np.full(counts.shape, np.nan)
    means = np.divide(totals[:, :columns], counts, out=undefined, where=counts > 0)
    return {name: interval(means[:, c], level) for c, name in enumerate(per_user.columns)}


def interval(resampled: np.ndarray, level: float) -> tuple[float, float]:
    """The percentile interval of a mean (S,) over resamples, those left out that have none."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(
    first: pl.DataFrame, second: pl.DataFrame, *, names: Sequence[str] | None = None
) -> pl.DataFrame:
    """Paired comparison of two per-user frames of the same users.

    A row per metric that both hold: `metric, first, second, difference, low, high, p_value,
    p_holm`, of the users for whom it is defined in both. The difference is second - first with its
    95% interval of Student's t over the paired differences, `p_value` is the paired t-test's and
    `p_holm` Holm's correction over all rows; interval and p-values are null where nothing can be
    tested.

    Args:
        first, second: with a column `user_id` and metrics, as a run's `per_user.parquet`.
        names: metrics to compare; default all that both hold.

    Raises:
        RunError: the frames hold different users, or no common metric.
    """
    if set(first["user_id"]) != set(second["user_id"]):
        common = len(set(first["user_id"]) & set(second["user_id"]))
        raise RunError(
            f"the runs were evaluated on different users ({len(first)} and {len(second)}, {common} "
            "in common); compare runs of one data set and task"
        )
    shared = [c for c in first.columns if c in second.columns and "@" in c]
    both = first.join(second, on="user_id", suffix="_second")
    pairs = [
        (name, both[name], both[f"{name}_second"])
        for name in shared
        if names is None or name in names
    ]
    rows = [paired_t(*pair) for pair in pairs if (pair[1] + pair[2]).count()]
    if not rows:
        raise RunError("the runs have no metric in common; evaluate both at the same k")
    return with_holm(pl.DataFrame(rows, schema=PAIRED))


def paired_t(
    name: str, first: pl.Series, second: pl.Series, *, overlap: float = 0.0
) -> dict[str, object]:
    """A row of `compare`: Student's t of the differences second - first.

    Pairs of which one is null are left out. One that is no number cannot be left out, since it was
    to be measured: then there is no test. Nor is there of a single pair.

    Args:
        name: of the metric.
        first, second: paired values, each of the two on the same line.
        overlap: what is added to 1 / count in the variance of the mean, where the differences are
            alike because what they were measured with was.
    """
    pairs = pl.DataFrame([first.rename("first"), second.rename("second")])
    pairs = pairs.cast(pl.Float64).drop_nulls()
    known = pairs.filter(pl.all_horizontal(pl.all().is_not_nan()))
    difference = (known["second"] - known["first"]).to_numpy()
    count, mean = len(difference), float(difference.mean()) if len(difference) else None
    row = {"metric": name, **known.mean().row(0, named=True), "difference": mean}
    if mean is None or count < max(len(pairs), 2):
        return row | dict.fromkeys(("low", "high", "p_value"))
    error = float(difference.std(ddof=1)) * math.sqrt(1 / count + overlap)
    # Where all differ alike, it is by nothing, or surely.
    p_value = float(2 * stats.t.sf(abs(mean / error), count - 1)) if error > 0 else float(mean == 0)
    margin = float(stats.t.ppf(0.975, count - 1)) * error
    return row | {"low": mean - margin, "high": mean + margin, "p_value": p_value}


def with_holm(table: pl.DataFrame) -> pl.DataFrame:
    """Comparisons with `p_holm`, Holm's correction of `p_value` over all rows that have one."""
    corrected = holm(table["p_value"].to_numpy())
    return table.with_columns(pl.Series("p_holm", corrected).fill_nan(None))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979): family-wise adjusted p-values, in the input's order.

    What is NaN was not tested and stays so.
    """
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN is sorted last
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p_values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
