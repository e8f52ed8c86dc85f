"""A map of users: who is shown, in which colour, and where."""

import re

import numpy as np
import polars as pl
import pytest

from recsys.report.user_map import attributes, flat, user_map


def profiles(num_users: int = 60, **attributes: list) -> pl.DataFrame:
    """Users in three distant clouds of vectors, one after the other."""
    generator = np.random.default_rng(0)
    vectors = 9 * np.eye(3, 8)[np.arange(num_users) % 3] + generator.normal(size=(num_users, 8))
    columns = {
        "user_id": [f"u{n:04}" for n in range(num_users)],
        "as_of": range(num_users),
        "vector": vectors.astype(np.float32),
    }
    return pl.DataFrame(columns | attributes)


def events(num_users: int = 60) -> pl.Series:
    return pl.Series([1, 1, 2, 5, 9] * (num_users // 5) + [9] * (num_users % 5))


def test_colours_are_those_of_the_first_attribute_with_few_values() -> None:
    table = profiles(
        name=[f"name {n}" for n in range(60)],
        split=["train"] * 60,
        tags=[[n] for n in range(60)],
        age=[None, 10, 9] * 20,
        kids=[True, False] * 30,
    )
    assert attributes(table) == ["name", "split", "age", "kids"]
    plot_of_users = user_map(table, events())
    assert plot_of_users is not None
    assert (plot_of_users.by, plot_of_users.num_users) == ("age", 60)
    legend = [(group.value, group.count, group.colour) for group in plot_of_users.groups]
    # In the order of numbers; those of whom it is not known are grey.
    assert legend == [("9", 20, "blue"), ("10", 20, "orange"), ("unknown", 20, "baseline")]
    for _, count, colour in legend:
        assert plot_of_users.plot.svg.count(f"var(--{colour})") == count
    by_kids = user_map(table, events(), "kids")
    assert by_kids is not None
    assert [(group.value, group.count) for group in by_kids.groups] == [("false", 30), ("true", 30)]


def test_of_many_values_the_most_frequent_have_colours() -> None:
    often = ["a", "b"] * 10 + [f"town {n}" for n in range(9)] * 3
    town = often + [f"hamlet {n}" for n in range(60 - len(often))]
    by_town = user_map(profiles(town=town), events(), "town")
    assert by_town is not None
    assert len(by_town.groups) == 11
    assert [group.value for group in by_town.groups[:3]] == ["a", "b", "town 0"]
    assert by_town.groups[-1].value == "others"
    assert sum(group.count for group in by_town.groups) == 60


def test_a_log_that_knows_nothing_of_its_users_is_coloured_by_what_they_did() -> None:
    by_activity = user_map(profiles(), events())
    assert by_activity is not None
    assert by_activity.by == "number of events"
    legend = [(group.value, group.count, group.colour) for group in by_activity.groups]
    assert legend == [
        ("1 events", 24, "yellow"),
        ("2 events", 12, "green"),
        ("5 events", 12, "teal"),
        ("9 events", 12, "blue"),
    ]
    for _, count, colour in legend:
        assert by_activity.plot.svg.count(f"var(--{colour})") == count


def test_a_dot_says_who_it_is() -> None:
    names = [f"<b>{n}" for n in range(10)]
    by_kids = user_map(profiles(10, name=names, kids=[True, False] * 5), events(10), "kids")
    assert by_kids is not None
    uses = re.findall(r"<use [^>]*><title>([^<]*)</title></use>", by_kids.plot.svg)
    assert len(uses) == by_kids.plot.svg.count("<use ") == 10
    assert uses[:2] == ["user u0000, kids True, 1 events", "user u0002, kids True, 2 events"]
    assert uses[5] == "user u0001, kids False, 1 events"
    by_name = user_map(profiles(10, name=names), events(10), "name")
    assert by_name is not None
    assert "name &lt;b&gt;0, 1 events" in by_name.plot.svg


def test_who_lies_together_is_alike_and_always_in_the_same_place() -> None:
    vectors = profiles()["vector"].to_numpy()
    points = flat(vectors)
    distance = np.linalg.norm(points[:, None] - points, axis=2) + np.diag([np.inf] * 60)
    assert (distance.argmin(1) % 3 == np.arange(60) % 3).all()
    np.testing.assert_array_equal(points, flat(vectors))


@pytest.mark.parametrize(("num_users", "num_shown"), [(9, None), (10, 10), (45, 30)])
def test_as_many_as_a_map_can_show(
    num_users: int, num_shown: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.report.user_map.MAX_USERS", 30)
    map_of_users = user_map(profiles(num_users), events(num_users))
    assert (None if map_of_users is None else map_of_users.num_users) == num_shown
