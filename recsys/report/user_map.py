"""A map of users: their vectors in two dimensions, coloured by what is known of them.

Where that is nothing of few values, by how much they did.

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
ACTIVITY = "number of events"
SHADES = ("yellow", "green", "teal", "blue", "violet")
"""Colours of groups in an order, from few to many."""


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
        by: what colours it.
        groups: in the order of their values; last those of whom it is not known, if any.
        num_users: of the dots.
    """

    plot: Plot
    by: str
    groups: list[Group]
    num_users: int


def user_map(profiles: pl.DataFrame, events: pl.Series, by: str | None = None) -> UserMap | None:
    """The map of users evenly taken from a table of profiles; None where they are too few.

    Args:
        profiles: `user_id`, `as_of`, `vector`, and columns that say what is known of users.
        events: how many each has.
        by: a column that says something. None is the first that has 2 to 10 values, and where none
            has, the number of events.
    """
    if len(profiles) < MIN_USERS:
        return None
    rows = np.linspace(0, len(profiles) - 1, min(len(profiles), MAX_USERS)).astype(int)
    users, events = profiles[rows], events[rows]
    if by is None:
        by = next((name for name in attributes(users) if _has_few_values(users[name])), ACTIVITY)
    has_values = by in users.columns
    groups, number = _groups(users[by].alias("value")) if has_values else _by_activity(events)
    colours = [group.colour for group in groups]
    values = [f"{by} {value}" for value in users[by]] if has_values else [None] * len(users)
    titles = [
        ", ".join(filter(None, (f"user {user}", value, f"{count:,} events")))
        for user, value, count in zip(users[USER], values, events, strict=True)
    ]
    words = f"map of {len(users):,} users by {by}"
    plot = plots.scatter(words, flat(users[VECTOR].to_numpy()), number, colours, titles)
    return UserMap(plot, by, groups, len(users))


def _by_activity(events: pl.Series) -> tuple[list[Group], np.ndarray]:
    """Groups of about equal size by numbers of events, and the number of every user's group."""
    cuts = np.unique(np.quantile(events, np.linspace(0, 1, len(SHADES) + 1)[1:-1], method="higher"))
    place = np.searchsorted(cuts, events, side="left")
    _, place = np.unique(place, return_inverse=True)
    groups = []
    for number, colour in zip(range(int(place.max()) + 1), SHADES, strict=False):
        of = events.filter(pl.Series(place == number)).to_list()
        ends = dict.fromkeys(f"{end:,}" for end in (min(of), max(of)))
        groups.append(Group(f"{'–'.join(ends)} events", len(of), colour))
    return groups, place


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
