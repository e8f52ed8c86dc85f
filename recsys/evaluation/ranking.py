"""Evaluation: histories → top-k of the full catalogue → metrics per user → means with intervals.

One evaluator for every model. Every item of the catalogue is a candidate, except, where the
protocol masks it, the items of the user's history. Equal scores go to the lower item index. A
user's metrics are kept in a frame beside the run, and everything else is computed from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys import ranks
from recsys.batch.examples import Part, Prefixes
from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged, offsets_of
from recsys.errors import ConfigError
from recsys.evaluation import metrics
from recsys.evaluation.beyond import Beyond
from recsys.evaluation.statistics import mean_intervals
from recsys.retrieval.lists import TopK
from recsys.scoring.lists import BuildIndex, of_all_ranks, rank
from recsys.scoring.scorer import Scorer
from recsys.summary import Summarised
from recsys.timing import timed

logger = logging.getLogger(__name__)

ABOUT_USER = ("user", "history_length", "num_targets", "repeat_share", "target_popularity")
"""Columns of a per-user frame that are no metrics."""


@dataclass(frozen=True)
class Protocol:
    """How a model is evaluated.

    Attributes:
        ks: lengths of the ranked list at which metrics are taken.
        mask_history: whether the items of a user's history are left out of the ranking.
        batch_size: users scored at once at most, fewer where the catalogue is large
            (`Scorer.users_at_once`); the result does not depend on it.

    Raises:
        ConfigError: there is no length, one below 1, or one twice.

    >>> Protocol(ks=(10, 20), mask_history=True)
    Protocol(ks=(10, 20), mask_history=True, batch_size=1024)
    """

    ks: Sequence[int] = (10,)
    mask_history: bool = False
    batch_size: int = 1024

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise ConfigError(f"ks={list(self.ks)}: expected distinct lengths from 1, as [10,20]")


DEFAULT = Protocol()
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Summarised):
    """What a model reached on a part.

    Attributes:
        per_user: a row per user: `ABOUT_USER`, then a column per metric. `repeat/…` columns count
            only the targets that the history holds, `explore/…` only the others; they are null
            for users that have no such target. Of a user with several rows in the part it holds
            means over these, the sum of their targets, and the last one's length of history.
        catalogue: metrics of all lists together: coverage, novelty, Gini.
        top: the ranked lists, in the order of `per_user`; of a user with several, the last.
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

    def lists_of(self, users: Tensor) -> TopK:
        """The lists of some users, whom the log knows."""
        rows = torch.searchsorted(self.per_user["user"].to_torch(), users)
        return TopK(self.top.items[rows], self.top.scores[rows])

    def summary(self) -> dict[str, object]:
        """Users and means; with standard errors where users have the metric."""
        errors = self.per_user.select(
            pl.col(self.metrics).std() / pl.col(self.metrics).count().sqrt()
        )
        spread = errors.row(0, named=True)
        means = {
            name: f"{mean:.4f}" + (f" ± {error:.4f}" if (error := spread.get(name)) else "")
            for name, mean in self.means.items()
        }
        return {"users": len(self.per_user), **means}

    def intervals(
        self, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap intervals of the per-user means, users drawn with replacement."""
        return mean_intervals(self.per_user.select(self.metrics), level, resamples, seed)

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
    candidates: Tensor | None = None,
    beyond: Beyond | None = None,
    build_index: BuildIndex | None = None,
    progress: Callable[[Loader], Iterable[Part]] = iter,
) -> Evaluation:
    """Rank the catalogue, or some of it, for every user of a part and compare with the targets.

    Args:
        model: fitted, on any device.
        part: histories and targets; by rank, each asks its users, and all get the figures of all.
        protocol: list lengths, and whether histories are masked.
        popularity: (n,) events of each item in training, for novelty and slices.
        candidates: (n,) bool, the items that are ranked, such as those of a domain; None: all. The
            figures of the catalogue are of all items either way.
        beyond: for figures of each list beyond accuracy, with columns of their own per user.
        build_index: makes a retrieval index of item vectors `(n, D)`; by default an exact one.
        progress: wraps the batches, for a progress bar.

    Raises:
        CatalogueError: a list is to be longer than the catalogue.

    >>> rows = {"user_id": [1, 2] * 4, "item_id": [5, 5, 6, 6, 7, 7, 8, 8], "timestamp": range(8)}
    >>> split = leave_last_out(EventLog.from_frames(pl.DataFrame(rows)))
    >>> result = evaluate(Popularity().fit(split), split.test, Protocol(ks=(2, 4)))
    >>> result.means["recall@2"], result.means["recall@4"]
    (0.0, 1.0)
    """
    part = part.to("cpu")
    k = max(protocol.ks)
    num_items = part.history.num_items
    with timed(logger, "ranked %s items for %s users of %s", num_items, len(part), part.name):
        top = rank(
            model,
            part,
            k,
            mask_history=protocol.mask_history,
            candidates=candidates,
            batch_size=protocol.batch_size,
            build_index=build_index,
            progress=progress,
        )
    pieces = [slice(0, len(part))]
    if isinstance(part, Prefixes):  # histories that rows share are copied for a few rows at once
        starts = range(0, max(len(part), 1), ROWS_AT_ONCE)
        pieces = [slice(first, first + ROWS_AT_ONCE) for first in starts]
    rows = torch.arange(len(part))
    figures = None
    if beyond is not None:
        figures = partial(
            beyond.per_user,
            ks=protocol.ks,
            candidates=candidates,
            mask_history=protocol.mask_history,
        )
    frames = [
        _about_rows(
            part.rows(rows[piece]) if isinstance(part, Prefixes) else part,
            top.items[piece],
            protocol.ks,
            popularity,
            figures,
        )
        for piece in pieces
    ]
    frame = pl.concat(frames)
    if part.by_rank:
        frame, top = _of_all_ranks(frame, top)
    catalogue = _catalogue(top.items, num_items, popularity, protocol.ks)
    return _of_users(part, Evaluation(frame, catalogue, top))


def _of_all_ranks(frame: pl.DataFrame, top: TopK) -> tuple[pl.DataFrame, TopK]:
    """Rows and lists of the users of all ranks, in the order of users, as a process alone has."""
    frame, top = pl.concat(ranks.gathered(frame)), of_all_ranks(top)
    order = frame["user"].to_numpy().argsort(stable=True)
    return frame[order], TopK(top.items[order], top.scores[order])


def _about_rows(
    part: Part,
    items: Tensor,
    ks: Sequence[int],
    popularity: Tensor | None,
    beyond: Callable[[Tensor, Tensor, Ragged], pl.DataFrame] | None,
) -> pl.DataFrame:
    """What `Evaluation.per_user` holds, a row per row of the part, with lists of `items` (U, k)."""
    targets, num_items = part.target, part.history.num_items
    hits = metrics.hits(items, targets, num_items)
    row_metrics = metrics.per_user(hits, targets.lengths, ks)
    is_repeat = _member(targets, part.history.ragged, num_items)
    frames = [
        _about(part, is_repeat, popularity),
        pl.DataFrame({name: values.numpy() for name, values in row_metrics.items()}),
        _recalls("repeat", items, _where(targets, is_repeat), ks, num_items),
        _recalls("explore", items, _where(targets, ~is_repeat), ks, num_items),
    ]
    if beyond is not None:
        frames.append(beyond(items, hits, part.history.ragged))
    return pl.concat(frames, how="horizontal")


def _of_users(part: Part, rows: Evaluation) -> Evaluation:
    """A row per user, of an evaluation with a row per row of the part."""
    if not isinstance(part, Prefixes):
        return rows
    owners = rows.per_user["user"].to_numpy() if part.by_rank else part.owners.numpy()
    frame = rows.per_user.with_columns(owner=owners).group_by("owner", maintain_order=True)
    about = pl.col("user", "history_length").last(), pl.col("num_targets").sum()
    means = pl.exclude("owner", "user", "history_length", "num_targets").mean()
    per_user = frame.agg(*about, means)
    (last,) = np.append(np.diff(owners) != 0, True).nonzero()
    top = TopK(rows.top.items[last], rows.top.scores[last])
    return Evaluation(per_user.select(rows.per_user.columns), rows.catalogue, top)


def _member(rows: Ragged, others: Ragged, num_items: int) -> Tensor:
    """(E,) bool: whether each value of a row is among the values of the same row of `others`."""
    keys = rows.owners() * num_items + rows.values
    other_keys = (others.owners() * num_items + others.values).sort().values
    place = torch.searchsorted(other_keys, keys)
    # A place past the end is that of a key larger than all.
    return (place < len(other_keys)) & (torch.nn.functional.pad(other_keys, (0, 1))[place] == keys)


def _where(rows: Ragged, keep: Tensor) -> Ragged:
    """The values at `keep` (E,) bool only, by row."""
    lengths = torch.bincount(rows.owners()[keep], minlength=len(rows))
    return Ragged(rows.values[keep], offsets_of(lengths))


def _about(part: Part, is_repeat: Tensor, popularity: Tensor | None) -> pl.DataFrame:
    """The columns `ABOUT_USER`; target popularity is the mean share of training events."""
    targets = part.target
    count = targets.lengths
    owners = targets.owners()

    def mean(values: Tensor) -> np.ndarray:
        total = torch.zeros(len(part), dtype=torch.float64).index_add_(0, owners, values.double())
        return (total / count).numpy()

    num_events = torch.ones(part.history.num_items) if popularity is None else popularity.cpu()
    columns = {
        "user": part.history.users.numpy(),
        "history_length": part.history.lengths().numpy(),
        "num_targets": count.numpy(),
        "repeat_share": mean(is_repeat),
        "target_popularity": mean(num_events[targets.values] / num_events.sum()),
    }
    return pl.DataFrame(columns)


def _recalls(
    name: str, items: Tensor, targets: Ragged, ks: Sequence[int], num_items: int
) -> pl.DataFrame:
    """`<name>/recall@k`, null for users without such targets."""
    hits = metrics.hits(items, targets, num_items)
    count = targets.lengths.numpy()
    recalls = {f"{name}/recall@{k}": metrics.recall(hits[:, :k], targets.lengths) for k in ks}
    columns = {column: values.numpy() for column, values in recalls.items()}
    undefined = pl.Series(count == 0)
    return pl.DataFrame(columns).with_columns(pl.when(~undefined).then(pl.all()))


def _catalogue(
    items: Tensor, num_items: int, popularity: Tensor | None, ks: Sequence[int]
) -> dict[str, float]:
    figures = {}
    for k in ks:
        figures[f"coverage@{k}"] = float(metrics.coverage(items[:, :k], num_items))
        figures[f"gini@{k}"] = float(metrics.gini(items[:, :k], num_items))
        if popularity is not None:
            figures[f"novelty@{k}"] = float(metrics.novelty(items[:, :k], popularity))
    return figures
