"""Tables of labels by hand on a small log, and their populations on Complete Journey."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
import torch

from recsys.data.coupons import coupon, coupon_response
from recsys.data.sources.complete_journey import complete_journey
from recsys.errors import ConfigError, LeakError
from recsys.log.event_log import EventLog
from recsys.tasks.absences import lapse
from recsys.tasks.first_purchases import new_items
from recsys.tasks.labels import LabelTable
from recsys.tasks.user_attributes import profiling

TRAIN = ["2017-06-12", "2017-07-10", "2017-08-07", "2017-09-04"]
WHEN = {"train": TRAIN, "validation": "2017-10-02", "test": "2017-10-30"}


def shop(zone: str | None = None) -> EventLog:
    """Four users, a day an event: who, what."""
    rows = [("a", "x", 1), ("a", "y", 2), ("a", "z", 5), ("a", "x", 9), ("b", "x", 2)]
    rows += [("b", "x", 3), ("b", "y", 5), ("c", "y", 8), ("c", "w", 9)]
    rows += [("d", "z", 2), ("d", "x", 3), ("d", "x", 7)]
    times = pl.Series([datetime(2026, 1, day, 12) for _, _, day in rows])
    events = pl.DataFrame(
        {
            "user_id": [user for user, _, _ in rows],
            "item_id": [item for _, item, _ in rows],
            "timestamp": times.dt.replace_time_zone(zone),
        }
    )
    items = pl.DataFrame({"item_id": ["w", "x", "y", "z"], "kind": [None, "p", "q", "q"]})
    users = pl.DataFrame(
        {"user_id": ["a", "b", "c"], "age": [20, 31, None], "sex": ["f", "m", "f"]}
    )
    return EventLog.from_frames(events, items, users)


def labels_of(table: LabelTable, phase: int) -> dict[str, list[object]]:
    """Of each user the candidates that are right, by id."""
    rows = table.phase(phase)
    users = table.rows["user_id"][rows.numpy()]
    ids = table.candidates.ids
    right = table.label_matrix(rows)
    return {
        u: ids.filter(pl.Series(r.numpy())).to_list() for u, r in zip(users, right, strict=True)
    }


DAYS: dict[str, Any] = {"active_days": 3, "horizon_days": 2}


def test_lapse_by_hand() -> None:
    table = lapse(shop(), "q", train=["2026-01-04"], test="2026-01-06", **DAYS)
    # On the 4th a, b and d were active since the 1st; a and b are back on the 5th.
    assert labels_of(table, 0) == {"a": [], "b": [], "d": ["lapsed"]}
    # On the 6th they were active since the 3rd; d is back by the 8th.
    assert labels_of(table, 2) == {"a": ["lapsed"], "b": ["lapsed"], "d": []}
    assert table.rows["until"].to_list() == [datetime(2026, 1, 6)] * 3 + [datetime(2026, 1, 8)] * 3


def test_one_moment_needs_no_list() -> None:
    one, listed = (
        lapse(shop(), "q", train=train, test="2026-01-06", **DAYS)
        for train in ("2026-01-04", ["2026-01-04"])
    )
    assert one.rows.equals(listed.rows)


def test_windows_that_overlap_are_refused() -> None:
    with pytest.raises(LeakError, match="3 rows are known only at 2026-01-06"):
        lapse(shop(), "q", train=["2026-01-04"], test="2026-01-05", **DAYS | {"active_days": 2})


def test_new_items_by_hand() -> None:
    table = new_items(shop(), "q", train=["2026-01-03"], test="2026-01-05", horizon_days=2)
    assert table.candidates.ids.to_list() == ["x", "y", "z"]  # w comes later
    assert labels_of(table, 0) == {"d": ["x"]}
    assert labels_of(table, 2) == {"a": ["z"], "b": ["y"]}
    excluded = ~table.allowed(torch.arange(len(table)))
    assert excluded[table.phase(2)].tolist() == [[True, True, False], [True, False, False]]
    kinds = new_items(shop(), "q", column="kind", test="2026-01-05", horizon_days=5)
    assert labels_of(kinds, 2) == {"b": ["q"]}
    assert [
        kinds.log.items["item_id"][r.tolist()].to_list()
        for r in kinds.items.values.split(kinds.items.lengths.tolist())
    ] == [["x"], ["y", "z"]]


def test_candidates_are_what_enough_users_had_before() -> None:
    rows = [(1, "x", 1), (1, "y", 2), (2, "x", 1), (2, "z", 2), (3, "y", 1), (3, "x", 3)]
    days = [datetime(2026, 1, day) for *_, day in rows]
    events = {"user_id": [u for u, *_ in rows], "item_id": [i for _, i, _ in rows]}
    log = EventLog.from_frames(pl.DataFrame({**events, "timestamp": days}))
    few = new_items(log, "q", test="2026-01-03", horizon_days=1, min_users=2)
    assert few.candidates.ids.to_list() == ["x", "y"]
    with pytest.raises(
        ConfigError, match=r"q: test=2026-01-03: min_users=3, but the most .* are 2"
    ):
        new_items(log, "q", test="2026-01-03", horizon_days=1, min_users=3)


def test_profiles_of_words_and_of_numbers() -> None:
    women = profiling(shop(), "q", column="sex", classes={"women": ["f"]})
    assert labels_of(women, 0) == {"a": ["women"], "b": [], "c": ["women"]}
    young = profiling(shop(), "q", column="age", classes={"young": [0, 30], "old": [30, 99]})
    assert labels_of(young, 0) == {"a": ["young"], "b": ["old"]}  # c does not say
    assert young.log.users.columns == ["user_id"]
    assert (young.rows["as_of"] > datetime(2026, 1, 9, 12)).all()
    assert not young.has_phases


def test_tables_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="no users' column size; there is user_id, age, sex"):
        profiling(shop(), "q", column="size", classes={"big": [1]})
    with pytest.raises(ConfigError, match=r"nobody has sex in other=\['x'\]"):
        profiling(shop(), "q", column="sex", classes={"other": ["x"]})
    with pytest.raises(ConfigError, match="no items' column brand"):
        new_items(shop(), "q", column="brand", test="2026-01-05")
    with pytest.raises(ConfigError, match="q: test='soon': the timestamps of log ask for a time"):
        new_items(shop(), "q", test="soon")
    ordered = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": [1, 5, 3]})
    for make in (lapse, new_items):
        with pytest.raises(ConfigError, match="q: log knows no time but an order"):
            make(EventLog.from_frames(ordered), "q", train=[2], test=3)
    with pytest.raises(ConfigError, match=r"q: train=\[\] leaves nothing to learn from"):
        lapse(shop(), "q", train=[], test="2026-01-06")
    with pytest.raises(ConfigError, match="q: horizon_days=0 is no number of days; give 1 or more"):
        new_items(shop(), "q", test="2026-01-05", horizon_days=0)
    with pytest.raises(ConfigError, match="q: active_days=-2 is no number of days"):
        lapse(shop(), "q", train=["2026-01-04"], test="2026-01-05", active_days=-2)
    when: dict[str, Any] = {"train": ["2026-01-04"], "test": "2026-01-06"}
    for make in (lapse, new_items):
        with pytest.raises(ConfigError, match=r"^999999999999 days from 2026-01-0. .* at most"):
            make(shop(), "q", horizon_days=999_999_999_999, **when)
    with pytest.raises(ConfigError, match=r"^999999999999 days from 2026-01-04"):
        lapse(shop(), "q", active_days=999_999_999_999, horizon_days=2, **when)
    with pytest.raises(ConfigError, match="q: train names 2026-01-04T00:00 twice; name it once"):
        lapse(shop(), "q", train=["2026-01-04", "2026-01-04T00:00"], test="2026-01-06", **DAYS)


@pytest.mark.parametrize(
    ("column", "classes", "message"),
    [
        ("age", {}, r"q: classes=\{\} names no label; give one"),
        ("age", {"old": ["a", "b"]}, r"q: old=\['a', 'b'\]: age is a number; give the range"),
        ("age", {"old": [1, None]}, r"q: old=\[1, None\]: age is a number; give the range"),
        ("nothing", {"x": [1]}, "q: no user of log states nothing; choose another"),
    ],
)
def test_classes_that_are_none(column: str, classes: dict[str, Any], message: str) -> None:
    log = shop()
    log = replace(log, users=log.users.with_columns(nothing=pl.lit(None, dtype=pl.Int64)))
    with pytest.raises(ConfigError, match=message):
        profiling(log, "q", column=column, classes=classes)


@pytest.mark.parametrize("yes", [True, "true", "True"])
def test_a_class_of_true(yes: bool | str) -> None:
    """What a file says of truth, whoever wrote it."""
    no = False if yes is True else "False"
    stated = pl.DataFrame({"user_id": ["a", "b", "c"], "club": [yes, no, yes]})
    log = shop()
    log = replace(log, users=log.users.select("user_id").join(stated, on="user_id", how="left"))
    table = profiling(log, "q", column="club", classes={"member": [True]})
    assert labels_of(table, 0) == {"a": ["member"], "b": [], "c": ["member"]}


@pytest.mark.parametrize("zone", [None, "America/Santiago"])
@pytest.mark.parametrize("option", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("2025-12-31", "no event of log lies before; choose one after 2026-01-01 12:00:00"),
        ("2026-01-01", "no event of log lies before"),
        ("2027-01-01", "lasts until 2027-01-03, and log ends at 2026-01-09 12:00:00"),
        ("2026-01-09", "lasts until 2026-01-11, and log ends"),
    ],
)
def test_moments_whose_days_are_not_in_the_log(
    zone: str | None, option: str, when: str, message: str
) -> None:
    moments: dict[str, Any] = {"train": ["2026-01-03"], "test": "2026-01-05"}
    moments[option] = [when] if option == "train" else when
    for make in (lapse, new_items):
        with pytest.raises(ConfigError, match=f"^q: {option}={when}: .*{message}"):
            make(shop(zone), "q", horizon_days=2, **moments)


def test_moments_and_days_at_hours_that_clocks_left_out() -> None:
    """In Santiago the 3rd of September 2023 began at 1:00."""
    rows = [("a", -2), ("b", -2), ("c", -2), ("a", 2), ("d", 6), ("a", 9), ("b", 10), ("a", 14)]
    rows += [("b", 21)]  # days after the 27th of August
    times = pl.Series([datetime(2023, 8, 27, 12) + timedelta(days=day) for _, day in rows])
    events = {"user_id": [user for user, _ in rows], "item_id": "x"}
    local = times.dt.replace_time_zone("America/Santiago")
    log = EventLog.from_frames(pl.DataFrame({**events, "timestamp": local}))
    for make in (lapse, new_items):
        with pytest.raises(ConfigError, match="q: test=2023-09-03: no such time in America/Sant"):
            make(log, "q", train=["2023-08-27"], test="2023-09-03", horizon_days=7)
    # The train's days end at that midnight, the test's active days begin there.
    days = {"active_days": 7, "horizon_days": 7}
    table = lapse(log, "q", train=["2023-08-27"], test="2023-09-10", **days)
    until, _ = table.rows["until"].unique().sort().dt.replace_time_zone(None)
    assert until == datetime(2023, 9, 3, 1)
    assert labels_of(table, 0) == {"a": [], "b": ["lapsed"], "c": ["lapsed"]}
    assert labels_of(table, 2) == {"a": [], "b": ["lapsed"]}


def test_the_last_day_of_a_log_is_whole() -> None:
    found = new_items(shop(), "q", test="2026-01-05", horizon_days=5)
    assert found.rows["until"].max() == datetime(2026, 1, 10)


@pytest.mark.parametrize("option", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("days", "others", "when", "message"),
    [
        (
            (1, 1),
            "2026-01-03",
            "2026-01-05",
            "no user had an event in the 1 days before; choose another",
        ),
        ((3, 4), "2026-01-06", "2026-01-04", "all of the 3 users come back in 4 days"),
        (
            (3, 2),
            "2026-01-04",
            "2026-01-07",
            "none of the 2 users come back in 2 days, so there is noth",
        ),
    ],
)
def test_lapses_of_nobody_or_of_one_label(
    option: str, days: tuple[int, int], others: str, when: str, message: str
) -> None:
    moments: dict[str, Any] = {"train": [others], "test": others}
    moments[option] = [when] if option == "train" else when
    given = dict(zip(("active_days", "horizon_days"), days, strict=True))
    with pytest.raises(ConfigError, match=rf"^q: {option}=\W*{when}\W*: {message}"):
        lapse(shop(), "q", **moments, **given)


def test_new_items_of_nobody() -> None:
    with pytest.raises(ConfigError, match="q: test=2026-01-07: no user has one item_id before"):
        new_items(shop(), "q", test="2026-01-07", horizon_days=1)


def test_an_attribute_is_predicted_within_the_log() -> None:
    options = {"column": "sex", "classes": {"women": ["f"]}}
    late = profiling(shop(), "q", as_of="2026-01-10", **options)  # type: ignore[arg-type]
    assert late.rows["as_of"].to_list() == [datetime(2026, 1, 10)] * 3
    for as_of, message in (
        ("2026-01-11", "lies after log, which ends at 2026-01-09 12:00:00; leave it out for"),
        ("2026-01-01", "no event of log lies before; choose one after 2026-01-01 12:00:00"),
        ("soon", "the timestamps of log ask for a time"),
    ):
        with pytest.raises(ConfigError, match=f"^q: as_of='?{as_of}.*{message}"):
            profiling(shop(), "q", as_of=as_of, **options)  # type: ignore[arg-type]


def test_a_campaign_is_one_that_lies_in_the_log(journey: EventLog) -> None:
    for make in (coupon_response, coupon):
        with pytest.raises(ConfigError, match="q: train: campaign 99 does not exist; they are 1 t"):
            make(journey, "q", train=[99], test=18)
        with pytest.raises(ConfigError, match="q: train: campaign 24: no event of complete_jour"):
            make(journey, "q", train=[24], test=18)
        with pytest.raises(ConfigError, match=r"q: test: campaign 22: .* until 2018-01-08, and"):
            make(journey, "q", train=[8], test=22)
    with pytest.raises(ConfigError, match=r"q: train=\[\] leaves nothing to learn from"):
        coupon_response(journey, "q", train=[], test=18)


@pytest.fixture(scope="module")
def journey() -> EventLog:
    return complete_journey(zero_quantities=True)


def population(table: LabelTable) -> tuple[int, int, float]:
    """Test users, candidates open to them at most, share or number of right ones."""
    rows = table.phase(2 if table.has_phases else 0)
    open_ = int((~table.excluded.rows(rows).dense(len(table.candidates)).all(0)).sum())
    right = table.labels.rows(rows).lengths.float().mean()
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
    table = coupon(journey, "coupon", train=[8, 13], test=18)
    ids = table.candidates.ids
    for phase, campaigns in ((0, {"8", "13"}), (2, {"18"})):
        allowed = table.allowed(table.phase(phase)).any(0).numpy()
        assert set(ids.filter(pl.Series(allowed)).str.split("/").list.first()) == campaigns
    sizes = pl.DataFrame({"id": ids, "size": table.items.lengths.numpy()})
    # The largest covers 14,477, of which one is no product.
    assert sizes.filter(pl.col("id").str.starts_with("18/"))["size"].max() == 14_476


def test_candidates_stand_for_items_as_they_were_known() -> None:
    rows = [("a", "x", 1, None), ("a", "y", 2, "q"), ("b", "x", 2, "p"), ("b", "z", 6, "q")]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "day", "kind"], orient="row")
    events = frame.select("user_id", "item_id", "kind", timestamp=pl.datetime(2026, 1, "day"))
    log = EventLog.from_frames(events, item_columns=["kind"])
    assert log.items.rows() == [("x", "p"), ("y", "q"), ("z", "q")]
    table = new_items(log, "q", column="kind", test="2026-01-05", horizon_days=2)
    assert labels_of(table, 2) == {"b": ["q"]}
    # Nothing had said on the 5th that z is a q.
    assert [
        log.items["item_id"][r.tolist()].to_list()
        for r in table.items.values.split(table.items.lengths.tolist())
    ] == [["x"], ["y"]]
