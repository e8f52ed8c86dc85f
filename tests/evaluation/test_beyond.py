"""Figures beyond accuracy against numbers by hand and a slow computation, user by user."""

import math
from collections.abc import Sequence
from itertools import combinations

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.evaluation.beyond import Beyond, kl_from_history
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.models import EASE, Popularity
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

KINDS = ["a", "b", "a", None, "c"]
TAGS = [["x", "y"], ["x"], ["y", "z"], [], None]
ITEMS = pl.DataFrame({"kind": KINDS, "tags": TAGS})
POPULARITY = torch.tensor([10, 4, 4, 1, 0])


def figures(
    items: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    histories: Sequence[Sequence[int]],
    ks: Sequence[int],
    *,
    mask_history: bool = False,
) -> pl.DataFrame:
    of = Beyond.of(ITEMS, POPULARITY, ["kind", "tags"])
    lists = torch.tensor(items)
    hits = Ragged.from_lists(targets).contains(lists, len(KINDS))
    history = Ragged.from_lists(histories)
    return of.per_user(lists, hits, history, ks, mask_history=mask_history)


def test_numbers_by_hand() -> None:
    row = figures([[1, 2, 4, 3]], [[2, 4]], [[0, 0, 1]], (2, 4)).row(0, named=True)
    # The two most popular items are 0 and 1; 2 is a hit that these do not give, and 4 another.
    assert row["serendipity@2"] == 1 / 2
    # Item 2 is among the four most popular, item 4 is not.
    assert row["serendipity@4"] == 1 / 4
    assert row["popularity@2"] == 4
    assert row["popularity_lift@2"] == pytest.approx(4 / 8 - 1)
    # Of b, a, c and nothing each pair of three differs.
    assert row["diversity/kind@4"] == 1
    assert row["diversity/tags@2"] == 1  # x; y, z
    wanted, shares = (2 / 3, 1 / 3), (1 / 3, 1 / 3)  # of a and b
    expected = sum(
        p * math.log(p / (0.99 * q + 0.01 * p)) for p, q in zip(wanted, shares, strict=True)
    )
    assert row["miscalibration/kind@4"] == pytest.approx(expected)
    # The history is x, y twice and x: x 2/3, y 1/3. The list has x and y, z: 1/2, 1/4, 1/4.
    wanted, shares = (2 / 3, 1 / 3), (1 / 2, 1 / 4)
    expected = sum(
        p * math.log(p / (0.99 * q + 0.01 * p)) for p, q in zip(wanted, shares, strict=True)
    )
    assert row["miscalibration/tags@2"] == pytest.approx(expected)


def test_without_anything_to_measure_there_is_no_figure() -> None:
    table = figures([[3, -1], [-1, -1], [1, 0]], [[3], [1], [0]], [[0], [0], []], (2,))
    one, nothing, new = table.iter_rows(named=True)
    assert one["diversity/kind@2"] is one["miscalibration/kind@2"] is None
    assert (one["serendipity@2"], one["popularity@2"]) == (1 / 2, 1)
    assert nothing["popularity@2"] is nothing["popularity_lift@2"] is None
    assert nothing["serendipity@2"] == 0
    assert new["popularity_lift@2"] is new["miscalibration/kind@2"] is None
    assert new["diversity/kind@2"] == 1


def test_where_histories_are_masked_popularity_is_too() -> None:
    """Who has had 0 is given 1 and 2 by popularity."""
    rows = [[2, 3]], [[2, 3]], [[0]]
    assert figures(*rows, (2,), mask_history=True)["serendipity@2"].item() == 1 / 2
    assert figures(*rows, (2,))["serendipity@2"].item() == 1


@given(st.data())
def test_a_slow_computation_says_the_same(data: st.DataObject) -> None:
    item = st.integers(0, len(KINDS) - 1)
    lists = data.draw(st.lists(st.permutations(range(len(KINDS))), min_size=1, max_size=4))
    count = len(lists)
    rows = st.lists(st.lists(item, max_size=6), min_size=count, max_size=count)
    targets, histories = data.draw(rows), data.draw(rows)
    mask = data.draw(st.booleans())
    if mask:
        lists = [
            [i for i in row if i not in had] + [-1] * len({*had})
            for row, had in zip(lists, histories, strict=True)
        ]
    table = figures(lists, targets, histories, (1, 3, 5), mask_history=mask)
    for n, row in enumerate(table.iter_rows(named=True)):
        for k in (1, 3, 5):
            slow = slowly([i for i in lists[n][:k] if i >= 0], targets[n], histories[n], k, mask)
            for name, value in slow.items():
                assert row[f"{name}@{k}"] == (None if value is None else pytest.approx(value))


def slowly(
    items: list[int], targets: list[int], history: list[int], k: int, mask: bool
) -> dict[str, float | None]:
    popular = sorted(range(len(KINDS)), key=lambda item: (-int(POPULARITY[item]), item))
    popular = [item for item in popular if not (mask and item in history)][:k]
    unexpected = [item for item in items if item in targets and item not in popular]
    mean, had = (
        sum(int(POPULARITY[i]) for i in of) / len(of) if of else None for of in (items, history)
    )
    result: dict[str, float | None] = {"serendipity": len(unexpected) / k, "popularity": mean}
    result["popularity_lift"] = None if mean is None or not had else mean / had - 1
    values: dict[str, list[set[str | None]]] = {
        "kind": [{kind} - {None} for kind in KINDS],
        "tags": [set(tags or ()) for tags in TAGS],
    }
    for column, sets in values.items():
        pairs = [(sets[i], sets[j]) for i, j in combinations(items, 2) if sets[i] and sets[j]]
        distances = [1 - len(a & b) / len(a | b) for a, b in pairs]
        result[f"diversity/{column}"] = sum(distances) / len(pairs) if pairs else None
        wanted, shares = (
            [(value, 1 / len(sets[i])) for i in of for value in sets[i]] for of in (history, items)
        )
        divergence = 0.0
        for value in {value for value, _ in wanted}:
            p, q = (
                sum(w for v, w in of if v == value) / sum(w for _, w in of) if of else 0
                for of in (wanted, shares)
            )
            divergence += p * math.log(p / (0.99 * q + 0.01 * p))
        result[f"miscalibration/{column}"] = divergence if wanted and shares else None
    return result


def test_a_list_like_the_history_is_calibrated() -> None:
    items, history = torch.tensor([[0, 2, 1, -1]]), Ragged.from_lists([[0, 2, 1]])
    values = Beyond.of(ITEMS, POPULARITY, ["kind"]).values["kind"]
    assert kl_from_history(items, history, values).item() == pytest.approx(0)


@pytest.mark.parametrize("mask_history", [False, True])
def test_popularity_gives_no_serendipity(mask_history: bool) -> None:
    split = last_basket(checkerboard())
    popularity = torch.bincount(split.training.items, minlength=split.num_items)
    beyond = Beyond.of(split.item_table, popularity, [])
    protocol = Protocol((5, 10), mask_history=mask_history)
    of = {
        model: evaluate(model.fit(split), split.test, protocol, beyond=beyond)
        for model in (Popularity(), EASE())
    }
    popular, ease = of.values()
    assert popular.means["serendipity@5"] == popular.means["serendipity@10"] == 0
    assert 0 < ease.means["serendipity@10"] < ease.means["precision@10"]
    assert popular.means["popularity@10"] > ease.means["popularity@10"]
    assert set(ease.intervals()) > {"serendipity@10", "popularity_lift@5"}


def test_a_column_that_items_do_not_have() -> None:
    with pytest.raises(
        ConfigError, match=r"report\.beyond: items have no column genre; there is ki"
    ):
        Beyond.of(ITEMS, POPULARITY, ["genre"])
