"""Folds of training and validation users, and settings compared over them."""

import polars as pl
import pytest

from benchmarks import folds
from recsys.errors import RunError
from recsys.log.event_log import EventLog
from recsys.tasks import last_basket, user_holdout
from recsys.tasks.splits import Split

PARTS = ["train"] * 9 + ["validation"] * 3 + ["test"] * 4


def log() -> EventLog:
    rows = [
        {"user_id": user, "item_id": (user + step) % 5, "timestamp": step}
        for user in range(len(PARTS))
        for step in range(4)
    ]
    users = pl.DataFrame({"user_id": range(len(PARTS)), "split": PARTS})
    return EventLog.from_frames(pl.DataFrame(rows), users=users)


@pytest.fixture
def split() -> Split:
    return user_holdout(log())


def test_each_training_and_validation_user_is_predicted_once(split: Split) -> None:
    parts = [folds.folded(split, fold) for fold in range(folds.NUM_FOLDS)]
    predicted = [user for part in parts for user in part.validation.users.tolist()]
    assert sorted(predicted) == list(range(12))
    for part in parts:
        trained_on = set(part.training.users.tolist())
        assert trained_on == set(range(12)) - set(part.validation.users.tolist())
        assert part.test.users.equal(split.test.users)
        assert part.test.target.values.equal(split.test.target.values)


def test_the_last_basket_is_the_target_still(split: Split) -> None:
    part = folds.folded(split, 0).validation
    assert (part.history.lengths() == 3).all()
    assert part.target.values.tolist() == [(user + 3) % 5 for user in part.users.tolist()]


def test_a_split_of_events_has_no_folds_of_users() -> None:
    with pytest.raises(RunError, match="divides the events of a user"):
        folds.folded(last_basket(log()), 0)


def test_settings_are_compared_user_by_user() -> None:
    frame = pl.DataFrame({"user_id": range(4), "fold": [0, 0, 1, 1]})
    frame = frame.with_columns(pl.lit(0.5).alias(name) for name in folds.SHOWN)
    better = frame.with_columns(pl.Series("ndcg@10", [0.6, 0.5, 0.9, 0.4]))
    both = folds.compared({"a": frame, "b": better}, "a")
    assert both["a"]["difference"] == []
    assert [row["ndcg@10"] for row in both["b"]["by_fold"]] == pytest.approx([0.55, 0.65])
    (row,) = (row for row in both["b"]["difference"] if row["metric"] == "ndcg@10")
    assert row["difference"] == pytest.approx(0.1)
