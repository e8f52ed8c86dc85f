"""Of users who are new to a domain: what is asked, and what is known when it is."""

import polars as pl
import pytest
import torch

from recsys.errors import ConfigError, DataError
from recsys.log.event_log import EventLog
from recsys.tasks.domains import first_in_domain, having_targets_in
from recsys.tasks.splits import Split
from recsys.testing.logs import checkerboard

SHOPS = {0: "a", 1: "a", 2: "b", 3: "b", 4: "c", 5: None}


def split_of(rows: list[tuple[int, int, int]]) -> Split:
    """Of rows of user, item and time, which is the basket, too; windows start at 10 and at 20."""
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    events = events.with_columns(basket_id=pl.col("timestamp"))
    items = pl.DataFrame({"item_id": list(SHOPS), "shop": list(SHOPS.values())})
    log = EventLog.from_frames(events, items)
    return first_in_domain(log, column="shop", validation_start=10, test_start=20)


ROWS = [
    *[(0, 0, 1), (0, 1, 2)],  # knows a
    *[(0, 1, 11), (0, 2, 12), (0, 3, 12), (0, 0, 12), (0, 3, 13)],  # b is new at 12
    *[(0, 2, 20), (0, 4, 22), (0, 5, 22)],  # c at 22; item 5 is in no domain
    *[(1, 2, 1), (1, 2, 3), (1, 5, 14), (1, 0, 24), (1, 4, 25), (1, 4, 26)],
    *[(2, 0, 12), (2, 2, 13), (2, 4, 21)],  # was not there before the first window
]


def listed(split: Split, phase: str) -> dict[int, tuple[list[int], list[int]]]:
    """Of each user of a part the history and the targets."""
    part = getattr(split, phase)
    items, targets = part.history.ragged, part.target
    return {
        int(user): (
            items.rows(torch.tensor([row])).values.tolist(),
            targets.rows(torch.tensor([row])).values.tolist(),
        )
        for row, user in enumerate(part.history.users)
    }


def test_targets_are_the_first_baskets_of_new_domains() -> None:
    split = split_of(ROWS)
    assert listed(split, "validation") == {0: ([0, 1], [2, 3])}
    assert listed(split, "test") == {
        0: ([0, 1, 1, 2, 3, 0, 3], [4]),  # all of the window before, whatever it was there
        1: ([2, 2, 5], [0, 4]),  # both domains, each by its first basket
        2: ([0, 2], [4]),
    }
    assert split.training.users.tolist() == [0, 1]
    assert split.train.target.values.tolist() == [1, 2]


def test_nothing_of_a_domain_is_known_of_who_is_new_to_it() -> None:
    log = checkerboard(num_users=80, num_items=40, num_baskets=9)
    kinds = pl.format("kind {}", pl.col("item_id") // 2 % 10)
    log = EventLog.from_frames(
        log.events, log.items.with_columns(kind=kinds), name="checkerboard of kinds"
    )
    starts = {"validation_start": "2024-01-03", "test_start": "2024-01-06"}
    split = first_in_domain(log, column="kind", **starts)
    ids = split.items.ids.to_numpy()
    for part in (split.validation, split.test):
        for kind in range(10):
            is_theirs = torch.from_numpy(ids // 2 % 10 == kind)
            of_kind = having_targets_in(part, is_theirs)
            assert not is_theirs[of_kind.history.items].any()
            assert is_theirs[of_kind.target.values].all()
    assert len(split.test) > 10


def test_errors() -> None:
    with pytest.raises(DataError, match="no user is left for test"):
        split_of([row for row in ROWS if row[2] < 20 or row[1] == 2])
    with pytest.raises(ConfigError, match="items have no column 'aisle'"):
        first_in_domain(
            checkerboard(), column="aisle", validation_start="2024-01-03", test_start="2024-01-05"
        )
