"""A log divided by a column of its items: who is asked what, and what a part of a split knows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from recsys.errors import ConfigError, DataError
from recsys.log.event_log import EventLog
from recsys.tasks.domains import (
    domain_of_items,
    domains_of,
    having_targets_in,
    log_of_domains,
    within,
)
from recsys.tasks.splits import Split, global_time, last_basket, leave_last_out, user_holdout

SPLITS = {
    "leave_last_out": leave_last_out,
    "last_basket": last_basket,
    "user_holdout": user_holdout,
    "global_time": partial(global_time, validation_start=40, test_start=60),
}


def log_of(rows: list[tuple[int, int, int, int]], domains: dict[int, object]) -> EventLog:
    """Of rows of user, item, time and basket."""
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "basket_id"], orient="row")
    items = pl.DataFrame({"item_id": list(domains), "domain": list(domains.values())})
    return EventLog.from_frames(events, items)


@pytest.fixture(scope="module")
def log() -> EventLog:
    """Thirty users, twelve items of three domains, baskets of one to three."""
    generator = np.random.default_rng(0)
    rows = [
        (user, int(item), int(time), int(time))
        for user in range(30)
        for time in np.sort(generator.choice(80, size=9, replace=False))
        for item in generator.choice(12, size=generator.integers(1, 4), replace=False)
    ]
    parts = ["train", "validation", "test"] * 10
    return EventLog.from_frames(
        pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "basket_id"], orient="row"),
        pl.DataFrame({"item_id": range(12), "domain": ["a", "b", "c"] * 4}),
        pl.DataFrame({"user_id": range(30), "split": parts}),
    )


@pytest.mark.parametrize("divide", SPLITS.values(), ids=list(SPLITS))
def test_all_items_are_the_whole_split(log: EventLog, divide: Callable[[EventLog], Split]) -> None:
    split = divide(log)
    whole = within(split, torch.ones(split.num_items, dtype=torch.bool))
    assert whole.events.equals(split.events)
    assert whole.log.fingerprint == log.fingerprint


@pytest.mark.parametrize("divide", SPLITS.values(), ids=list(SPLITS))
def test_a_domain_alone_knows_its_events_of_each_phase_and_no_others(
    log: EventLog, divide: Callable[[EventLog], Split]
) -> None:
    split = divide(log)
    is_theirs = domain_of_items(split, column="domain", names=["b"]) == 0
    alone = within(split, is_theirs)
    assert alone.items.ids.to_list() == [1, 4, 7, 10]

    def rows(of: Split) -> pl.DataFrame:
        events = of.events.select("time", "phase", "quantity").with_columns(
            user=of.users.ids_of(of.events["user"]), item=of.items.ids_of(of.events["item"])
        )
        return events.filter(pl.col("item") % 3 == 1)

    assert rows(alone).equals(rows(split))
    # And of those that are predicted the same are targets.
    is_target = pl.col("target") & (pl.col("phase") > 0)
    of_all = split.events.filter(is_target)
    of_domain = of_all.filter(pl.Series(is_theirs.numpy()[of_all["item"].to_numpy()]))
    assert len(alone.events.filter(is_target)) == len(of_domain) > 0
    # Rows of the log are those of the log that is left.
    of_log = alone.log.events[alone.events["log_row"].to_numpy()]
    assert of_log["item_id"].to_list() == alone.items.ids_of(alone.events["item"]).to_list()
    assert alone.training_ends.numel() == len(alone.training)


@pytest.mark.parametrize("divide", SPLITS.values(), ids=list(SPLITS))
def test_both_are_asked_the_same_users_for_the_same_items(
    log: EventLog, divide: Callable[[EventLog], Split]
) -> None:
    split = divide(log)
    is_theirs = domain_of_items(split, column="domain", names=["c"]) == 0
    alone, of_all = within(split, is_theirs), having_targets_in(split.test, is_theirs)
    assert len(of_all) > 3
    users = (alone.users.ids_of(pl.Series(alone.test.history.users.numpy())).to_list(),)
    assert users == (split.users.ids_of(pl.Series(of_all.history.users.numpy())).to_list(),)
    targets = alone.items.ids_of(pl.Series(alone.test.target.values.numpy()))
    assert targets.equals(split.items.ids_of(pl.Series(of_all.target.values.numpy())))
    assert alone.test.target.offsets.equal(of_all.target.offsets)
    # Of the history the domain's events are what the domain alone knows.
    of_domain = of_all.history.where(is_theirs[of_all.history.items])
    assert of_domain.lengths().equal(alone.test.history.lengths())
    assert of_domain.times.equal(alone.test.history.times)


def test_the_last_basket_of_the_domain_is_the_target_in_training() -> None:
    rows = [(1, item, time, time) for time, item in enumerate([5, 6, 5, 7, 7, 7])]
    rows += [(2, item, time, time) for time, item in enumerate([6, 5, 7, 6, 6, 6])]
    rows += [(3, item, time, time) for time, item in enumerate([5, 7, 7, 7, 5, 5])]
    split = leave_last_out(log_of(rows, {5: "a", 6: "a", 7: "b"}))
    # The whole log's training target of user 1 is the item 7 of the other domain.
    alone = within(split, domain_of_items(split, column="domain", names=["a"]) == 0)
    training = alone.events.filter(pl.col("phase") == 0)
    assert training.filter(pl.col("user") == 0).select("item", "basket", "target").rows() == [
        (0, 0, False),
        (1, 1, False),
        (0, 2, True),
    ]
    # A user with a single event of the domain has nothing before it.
    assert training.filter(pl.col("user") == 2).select("item", "target").rows() == [(0, False)]


def test_a_user_without_the_domain_before_has_an_empty_history() -> None:
    rows = [(user, item, time, time) for user in (1, 2) for time, item in enumerate([5, 6, 5, 6])]
    rows += [(3, item, time, time) for time, item in enumerate([7, 7, 7, 5])]
    split = leave_last_out(log_of(rows, {5: "a", 6: "a", 7: "b"}))
    alone = within(split, domain_of_items(split, column="domain", names=["a"]) == 0)
    assert alone.test.history.lengths().tolist() == [3, 3, 0]


def test_the_largest_domains_by_events_or_those_that_are_named(log: EventLog) -> None:
    rows = [(user, item, item, item) for user in (1, 2) for item in (1, 2, 3, 4, 5, 6)]
    rows += [(user, item, item + 9, item + 9) for user in (1, 2) for item in (1, 3, 4)]
    small = log_of(rows, {1: "x", 2: "x", 3: "y", 4: "z", 5: "z", 6: None})
    assert domains_of(small, column="domain") == ["x", "z", "y"]
    assert domains_of(small, column="domain", largest=2) == ["x", "z"]
    assert domains_of(small, column="domain", names=["y", "x"]) == ["y", "x"]
    left = log_of_domains(small, column="domain", names=["y", "x"])
    assert left.items["item_id"].to_list() == [1, 2, 3]
    split = leave_last_out(left)
    assert domain_of_items(split, column="domain", names=["y", "x"]).tolist() == [1, 1, 0]


def test_numbers_may_be_domains() -> None:
    rows = [(user, item, item, item) for user in (1, 2) for item in (1, 2, 3)]
    assert domains_of(log_of(rows, {1: 30, 2: 4, 3: 4}), column="domain") == ["4", "30"]


ROWS = [(user, item, item, item) for user in (1, 2) for item in (1, 2)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"column": "colour"}, "items have no column 'colour' to divide them by; there is domain"),
        ({"column": "item_id"}, "items have no column 'item_id'"),
        ({"column": "domain", "largest": 1}, "largest=1"),
        ({"column": "domain", "names": ["a", "q"]}, "no event has domain=q; there is a, b"),
        ({"column": "domain", "names": ["a"]}, "expected at least two"),
        ({"column": "domain", "names": ["a", "a"]}, "expected at least two, each once"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        domains_of(log_of(ROWS, {1: "a", 2: "b"}), **options)


def test_a_list_is_no_domain() -> None:
    with pytest.raises(DataError, match=r"items.domain is List\(String\); a domain is one value"):
        domains_of(log_of(ROWS, {1: ["a"], 2: ["b"]}), column="domain")


def test_a_domain_that_nobody_is_asked_about_is_refused() -> None:
    rows = [(user, item, time, time) for user in (1, 2) for time, item in enumerate([5, 6, 6, 6])]
    split = leave_last_out(log_of(rows, {5: "a", 6: "b"}))
    with pytest.raises(DataError, match="shop a: no user is left"):
        within(split, domain_of_items(split, column="domain", names=["a"]) == 0, name="shop a")
