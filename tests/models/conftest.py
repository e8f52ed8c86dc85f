"""Small splits with known baskets."""

from collections.abc import Callable

import polars as pl
import pytest

from recsys.events import EventLog
from recsys.splits import Split, user_holdout

Baskets = list[list[int]]


def split_by_user(training: list[Baskets], num_items: int) -> Split:
    """Training users with the given baskets, and one user each to validate and test on.

    Those two take every item, so that item ids are indices.
    """
    asked = [list(range(num_items)), [0]]
    users = {f"{u:03}": baskets for u, baskets in enumerate(training)}
    users |= {"validation": asked, "test": asked}
    rows = [
        (user, item, t, t)
        for user, baskets in users.items()
        for t, basket in enumerate(baskets)
        for item in basket
    ]
    columns = ["user_id", "item_id", "timestamp", "basket_id"]
    parts = [user if user in ("validation", "test") else "train" for user in users]
    return user_holdout(
        EventLog.from_frames(
            pl.DataFrame(rows, columns, orient="row"),
            users=pl.DataFrame({"user_id": list(users), "split": parts}),
        )
    )


@pytest.fixture(scope="session")
def split_of() -> Callable[[list[Baskets], int], Split]:
    """Makes a split of the training users' baskets and the number of items."""
    return split_by_user
