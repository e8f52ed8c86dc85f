import json
from pathlib import Path

import pytest

from recsys.data.sources import temporal_sets
from recsys.errors import DataError
from recsys.log.event_log import BASKET, ITEM, TIME, USER
from recsys.tasks.splits import user_holdout


def written(folder: Path, content: object) -> str:
    path = folder / "sets.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_sets_become_baskets_in_order_with_an_item_once(tmp_path: Path) -> None:
    parts = {
        "train": {"7": [[3, 1], [1, 1, 2]]},
        "validate": {"8": [[2], [1]]},
        "test": {"9": [[0], [], [2]]},
    }
    log = temporal_sets.dc(written(tmp_path, parts))
    assert log.events.select(USER, TIME, BASKET, ITEM).rows() == [
        ("7", 0, 0, 3),
        ("7", 0, 0, 1),
        ("7", 1, 1, 1),
        ("7", 1, 1, 2),
        ("8", 0, 0, 2),
        ("8", 1, 1, 1),
        ("9", 0, 0, 0),
        ("9", 2, 2, 2),
    ]
    assert log.users.rows() == [("7", "train"), ("8", "validation"), ("9", "test")]
    assert log.items[ITEM].to_list() == [0, 1, 2, 3]


def test_keys_that_meet_are_different_users(tmp_path: Path) -> None:
    parts = {part: {"user0": [[0], [1]]} for part in ("train", "validate", "test")}
    log = temporal_sets.tms(written(tmp_path, parts))
    assert log.users.rows() == [
        ("test/user0", "test"),
        ("train/user0", "train"),
        ("validation/user0", "validation"),
    ]
    assert log.num_events == 6


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"train": {}, "test": {}},
        {"train": {"a": [1, 2]}, "validate": {}, "test": {}},
        {"train": {"a": [["x"]]}, "validate": {}, "test": {}},
        {"train": [1], "validate": [], "test": []},
        {part: {} for part in ("train", "validate", "test")},
    ],
)
def test_another_form_is_one_line(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*sets\.json: expected train, validate[^\n]*$"):
        temporal_sets.tafeng(written(tmp_path, content))


def test_no_json(tmp_path: Path) -> None:
    path = tmp_path / "sets.json"
    path.write_text('{"train": ')
    with pytest.raises(DataError, match=r"sets\.json cannot be read: Expecting value"):
        temporal_sets.dc(str(path))


@pytest.mark.data
@pytest.mark.parametrize(
    ("source", "users", "items", "sets", "parts"),
    [
        (temporal_sets.dc, 9_010, 217, 42_905, (6_307, 900, 1_803)),
        (temporal_sets.tafeng, 9_841, 4_935, 73_355, (6_888, 984, 1_969)),
        (temporal_sets.tms, 15_726, 1_565, 243_394, (11_008, 1_572, 3_146)),
    ],
)
def test_published_sizes(public_data, source, users, items, sets, parts) -> None:
    log = source()
    assert (len(log.users), len(log.items)) == (users, items)
    assert log.events.select(USER, BASKET).n_unique() == sets
    split = user_holdout(log)
    assert tuple(map(len, (split.train, split.validation, split.test))) == parts
