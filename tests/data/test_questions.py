"""Tables of questions by hand on a small log, and their populations on Complete Journey."""

from datetime import datetime

import polars as pl
import pytest
import torch

from recsys.data.coupons import coupon, coupon_response
from recsys.data.questions import lapse, new_items, profiling
from recsys.data.sources.complete_journey import complete_journey
from recsys.errors import ConfigError, LeakError
from recsys.events import EventLog
from recsys.questions import Questions

TRAIN = ["2017-06-12", "2017-07-10", "2017-08-07", "2017-09-04"]
WHEN = {"train": TRAIN, "validation": "2017-10-02", "test": "2017-10-30"}


def shop() -> EventLog:
    """Three users, a day an event: who, what."""
    rows = [("a", "x", 1), ("a", "y", 2), ("a", "z", 5), ("a", "x", 9), ("b", "x", 2)]
    rows += [("b", "x", 3), ("b", "y", 5), ("c", "y", 8), ("c", "w", 9)]
    events = pl.DataFrame(
        {
            "user_id": [user for user, _, _ in rows],
            "item_id": [item for _, item, _ in rows],
            "timestamp": [datetime(2026, 1, day, 12) for _, _, day in rows],
        }
    )
    items = pl.DataFrame({"item_id": ["w", "x", "y", "z"], "kind": [None, "p", "q", "q"]})
    users = pl.DataFrame(
        {"user_id": ["a", "b", "c"], "age": [20, 31, None], "sex": ["f", "m", "f"]}
    )
    return EventLog.from_frames(events, items, users)


def answered(questions: Questions, phase: int) -> dict[str, list[object]]:
    """Of each user asked the candidates that are right, by id."""
    rows = questions.phase(phase)
    users = questions.rows["user_id"][rows.numpy()]
    ids = questions.candidates.ids
    right = questions.labels(rows)
    return {
        u: ids.filter(pl.Series(r.numpy())).to_list() for u, r in zip(users, right, strict=True)
    }


def test_lapse_by_hand() -> None:
    days = {"active_days": 3, "horizon_days": 2}
    questions = lapse(shop(), "q", train=["2026-01-04"], test="2026-01-06", **days)
    # On the 4th a and b were active since the 1st; both are back on the 5th.
    assert answered(questions, 0) == {"a": [], "b": []}
    # On the 6th they were active since the 3rd; neither is back by the 8th.
    assert answered(questions, 2) == {"a": ["lapsed"], "b": ["lapsed"]}
    assert (
        questions.rows["until"].to_list() == [datetime(2026, 1, 6)] * 2 + [datetime(2026, 1, 8)] * 2
    )


def test_windows_that_overlap_are_refused() -> None:
    with pytest.raises(LeakError, match="2 rows are known only at 2026-01-07"):
        lapse(shop(), "q", train=["2026-01-04"], test="2026-01-06", active_days=3, horizon_days=3)


def test_new_items_by_hand() -> None:
    questions = new_items(shop(), "q", train=["2026-01-03"], test="2026-01-05", horizon_days=2)
    assert questions.candidates.ids.to_list() == ["x", "y"]  # z and w come later
    assert answered(questions, 2) == {"b": ["y"]}
    excluded = ~questions.allowed(torch.arange(len(questions)))
    assert excluded[questions.phase(2)].tolist() == [[True, False]]
    kinds = new_items(shop(), "q", column="kind", test="2026-01-05", horizon_days=5)
    assert answered(kinds, 2) == {"b": ["q"]}
    assert [
        kinds.log.items["item_id"][r.tolist()].to_list()
        for r in kinds.items.values.split(kinds.items.lengths.tolist())
    ] == [["x"], ["y", "z"]]
    few = new_items(shop(), "q", test="2026-01-05", horizon_days=5, min_users=2)
    assert few.candidates.ids.to_list() == ["x"]


def test_profiles_of_words_and_of_numbers() -> None:
    women = profiling(shop(), "q", column="sex", classes={"women": ["f"]})
    assert answered(women, 0) == {"a": ["women"], "b": [], "c": ["women"]}
    young = profiling(shop(), "q", column="age", classes={"young": [0, 30], "old": [30, 99]})
    assert answered(young, 0) == {"a": ["young"], "b": ["old"]}  # c does not say
    assert young.log.users.columns == ["user_id"]
    assert (young.rows["as_of"] > datetime(2026, 1, 9, 12)).all()
    assert not young.has_phases


def test_questions_that_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match="no users' column size; there is user_id, age, sex"):
        profiling(shop(), "q", column="size", classes={"big": [1]})
    with pytest.raises(ConfigError, match=r"nobody has sex in other=\['x'\]"):
        profiling(shop(), "q", column="sex", classes={"other": ["x"]})
    with pytest.raises(ConfigError, match="no items' column brand"):
        new_items(shop(), "q", column="brand", test="2026-01-05")
    with pytest.raises(ConfigError, match="soon is no moment"):
        lapse(shop(), "q", train=[], test="soon")
    ordered = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": [1, 5, 3]})
    with pytest.raises(ConfigError, match="knows no time"):
        lapse(EventLog.from_frames(ordered), "q", train=[], test="2026-01-05")


@pytest.fixture(scope="module")
def journey() -> EventLog:
    return complete_journey(zero_quantities=True)


def population(questions: Questions) -> tuple[int, int, float]:
    """Users asked in test, candidates open to them at most, share or number of right ones."""
    rows = questions.phase(2 if questions.has_phases else 0)
    open_ = int((~questions.excluded.rows(rows).dense(len(questions.candidates)).all(0)).sum())
    right = questions.answers.rows(rows).lengths.float().mean()
    return len(rows), open_, round(float(right), 3)


def test_populations_of_complete_journey(journey: EventLog) -> None:
    kids = {"kids": ["1", "2", "3+"]}
    profile = profiling(journey, "kids", column="kids_count", classes=kids, as_of="2017-10-30")
    assert population(profile) == (801, 1, 0.36)
    assert population(lapse(journey, "lapse", **WHEN)) == (2210, 1, 0.117)  # type: ignore[arg-type]
    response = coupon_response(journey, "coupon_response", train=[8, 13], test=18)
    assert population(response) == (1133, 1, 0.189)
    assert response.rows["as_of"].dt.date().cast(pl.String).unique().sort().to_list() == [
        "2017-05-08",
        "2017-08-08",
        "2017-10-30",
    ]
    assert population(coupon(journey, "coupon", train=[8, 13], test=18))[:2] == (214, 209)
    types = new_items(journey, "new_types", column="product_type", min_users=5, **WHEN)  # type: ignore[arg-type]
    assert population(types)[:2] == (1951, 1823)
    products = new_items(journey, "new_products", min_users=40, test="2017-10-30")
    assert population(products)[:2] == (1909, 4228)


def test_a_coupon_stands_for_what_it_covers(journey: EventLog) -> None:
    questions = coupon(journey, "coupon", train=[8, 13], test=18)
    ids = questions.candidates.ids
    for phase, campaigns in ((0, {"8", "13"}), (2, {"18"})):
        allowed = questions.allowed(questions.phase(phase)).any(0).numpy()
        assert set(ids.filter(pl.Series(allowed)).str.split("/").list.first()) == campaigns
    sizes = pl.DataFrame({"id": ids, "size": questions.items.lengths.numpy()})
    # The largest covers 14,477, of which one is no product.
    assert sizes.filter(pl.col("id").str.starts_with("18/"))["size"].max() == 14_476


def test_candidates_stand_for_items_as_they_were_known() -> None:
    rows = [("a", "x", 1, None), ("a", "y", 2, "q"), ("b", "x", 2, "p"), ("b", "z", 6, "q")]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "day", "kind"], orient="row")
    events = frame.select("user_id", "item_id", "kind", timestamp=pl.datetime(2026, 1, "day"))
    log = EventLog.from_frames(events, item_columns=["kind"])
    assert log.items.rows() == [("x", "p"), ("y", "q"), ("z", "q")]
    questions = new_items(log, "q", column="kind", test="2026-01-05", horizon_days=2)
    assert answered(questions, 2) == {"b": ["q"]}
    # Nothing had said on the 5th that z is a q.
    assert [
        log.items["item_id"][r.tolist()].to_list()
        for r in questions.items.values.split(questions.items.lengths.tolist())
    ] == [["x"], ["y"]]
