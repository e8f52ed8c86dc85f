"""A map of users: who is shown, in which colour, and where."""

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


def test_colours_are_those_of_the_first_attribute_with_few_values() -> None:
    table = profiles(
        name=[f"name {n}" for n in range(60)],
        split=["train"] * 60,
        tags=[[n] for n in range(60)],
        age=[None, 10, 9] * 20,
        kids=[True, False] * 30,
    )
    assert attributes(table) == ["name", "split", "age", "kids"]
    plot_of_users = user_map(table)
    assert plot_of_users is not None
    assert (plot_of_users.by, plot_of_users.num_users) == ("age", 60)
    legend = [(group.value, group.count, group.colour) for group in plot_of_users.groups]
    # In the order of numbers; those of whom it is not known are grey.
    assert legend == [("9", 20, "blue"), ("10", 20, "orange"), ("unknown", 20, "baseline")]
    for _, count, colour in legend:
        assert plot_of_users.plot.svg.count(f"var(--{colour})") == count
    by_kids = user_map(table, "kids")
    assert by_kids is not None
    assert [(group.value, group.count) for group in by_kids.groups] == [("false", 30), ("true", 30)]


def test_of_many_values_the_most_frequent_have_colours() -> None:
    often = ["a", "b"] * 10 + [f"town {n}" for n in range(9)] * 3
    town = often + [f"hamlet {n}" for n in range(60 - len(often))]
    by_town = user_map(profiles(town=town), "town")
    assert by_town is not None
    assert len(by_town.groups) == 11
    assert [group.value for group in by_town.groups[:3]] == ["a", "b", "town 0"]
    assert by_town.groups[-1].value == "others"
    assert sum(group.count for group in by_town.groups) == 60


def test_a_log_that_knows_nothing_of_its_users() -> None:
    without_attributes = user_map(profiles())
    assert without_attributes is not None
    assert (without_attributes.by, without_attributes.groups) == (None, [])
    assert without_attributes.plot.svg.count("var(--model)") == 60


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
    map_of_users = user_map(profiles(num_users))
    assert (None if map_of_users is None else map_of_users.num_users) == num_shown
