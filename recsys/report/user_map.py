"""A map of users: their vectors in two dimensions, coloured by what is known of them.

Shapes: U users, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.log.event_log import USER
from recsys.report import plots
from recsys.report.plots import Plot
from recsys.scoring.profiles import VECTOR
from recsys.tasks.as_of import AS_OF

MIN_USERS, MAX_USERS = 10, 2000
PERPLEXITY = 30


@dataclass(frozen=True)
class Group:
    """Users of one colour: what they have in common, how many they are, the colour's name."""

    value: str
    count: int
    colour: str


@dataclass(frozen=True)
class UserMap:
    """A plot with its legend.

    Attributes:
        plot: a dot per user.
        by: the attribute that colours it; None where users have none of few values.
        groups: in the order of their values; last those of whom it is not known, if any.
        num_users: of the dots.
    """

    plot: Plot
    by: str | None
    groups: list[Group]
    num_users: int


def user_map(profiles: pl.DataFrame, by: str | None = None) -> UserMap | None:
    """The map of users evenly taken from a table of profiles; None where they are too few.

    Args:
        profiles: `user_id`, `as_of`, `vector`, and columns that say what is known of users.
        by: one of these. None is the first that has 2 to 10 values.
    """
    if len(profiles) < MIN_USERS:
        return None
    rows = np.linspace(0, len(profiles) - 1, min(len(profiles), MAX_USERS)).astype(int)
    users = profiles[rows]
    if by is None:
        by = next((name for name in attributes(users) if _has_few_values(users[name])), None)
    values = pl.Series([None] * len(users)) if by is None else users[by]
    groups, number = _groups(values.alias("value"))
    colours = [group.colour for group in groups]
    title = f"map of {len(users):,} users" + ("" if by is None else f" by {by}")
    plot = plots.scatter(title, flat(users[VECTOR].to_numpy()), number, colours)
    return UserMap(plot, by, groups if by is not None else [], len(users))


def attributes(users: pl.DataFrame) -> list[str]:
    """The columns that say something of users."""
    mine = (USER, AS_OF, VECTOR)
    return [
        name for name, kind in users.schema.items() if name not in mine and not kind.is_nested()
    ]


def flat(vectors: np.ndarray) -> np.ndarray:
    """(U, 2) of (U, D): t-SNE from the first principal components, the same each time."""
    # A second to import, and for the runs alone whose models make profiles.
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    with threadpool_limits(1):  # the order of its sums would follow the number of threads
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)


def _has_few_values(column: pl.Series) -> bool:
    return 2 <= column.drop_nulls().n_unique() <= len(plots.CATEGORIES)


def _groups(values: pl.Series) -> tuple[list[Group], np.ndarray]:
    """The most frequent values, a colour each, and of every user the number of its group."""
    counts = values.drop_nulls().value_counts(name="users")
    frequent = counts.sort("users", "value", descending=[True, False]).head(len(plots.CATEGORIES))
    frequent = frequent.sort("value")
    names, sizes = frequent["value"].cast(pl.String).to_list(), frequent["users"].to_list()
    groups = list(map(Group, names, sizes, plots.CATEGORIES))
    if num_others := len(values) - sum(sizes):
        label = "others" if len(counts) > len(frequent) else "unknown"
        groups.append(Group(label, num_others, "baseline" if groups else "model"))
    place = values.cast(pl.String).replace_strict(
        names, range(len(names)), default=len(names), return_dtype=pl.Int64
    )
    return groups, place.to_numpy()
