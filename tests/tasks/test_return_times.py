"""Return times by hand on a small log, features of gaps, and models of both."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.errors import ConfigError, DataError, LeakError
from recsys.log.event_log import EventLog
from recsys.models import Cox, Gap, HazardNet, LightGBMHazard
from recsys.scoring import Durations, Steps
from recsys.tasks.features import MOST_MOMENTS, computed
from recsys.tasks.gaps import Clock, Gaps, LastVisit, RecentGaps
from recsys.tasks.phases import TEST, TRAIN
from recsys.tasks.return_times import ReturnTimes, everyone_as_of, return_time


def shop(zone: str | None = None) -> EventLog:
    """Two items a basket; a comes on days 1, 2, 4 and 8, b on 3 and 9, c on 6."""
    visits = [("a", day) for day in (1, 2, 4, 8)] + [("b", 3), ("b", 9), ("c", 6)]
    times = pl.Series([datetime(2026, 1, day, hour) for _, day in visits for hour in (6, 18)])
    events = pl.DataFrame(
        {
            "user_id": [user for user, _ in visits for _ in range(2)],
            "item_id": ["x", "y"] * len(visits),
            "timestamp": times.dt.replace_time_zone(zone),
            "basket_id": [number for number in range(len(visits)) for _ in range(2)],
        }
    )
    return EventLog.from_frames(events)


def steps() -> EventLog:
    rows = {"user_id": [1, 1, 1, 2, 2], "item_id": [7, 8, 7, 7, 8], "timestamp": [0, 2, 7, 1, 9]}
    return EventLog.from_frames(pl.DataFrame(rows))


def answers(table: ReturnTimes, phase: int) -> dict[Any, tuple[float, bool]]:
    rows = table.phase(phase)
    users = table.rows["user_id"][rows.numpy()]
    pairs = zip(table.durations[rows].tolist(), table.observed[rows].tolist(), strict=True)
    return dict(zip(users, pairs, strict=True))


WHEN: dict[str, Any] = {"train": ["2026-01-03T12"], "test": "2026-01-07"}


def test_days_until_the_next_event() -> None:
    table = return_time(shop(), "back", **WHEN, horizon=3.0)
    # b is in the middle of a basket; nobody is followed beyond the moment of the test.
    assert answers(table, TRAIN) == {"a": (0.75, True), "b": (0.25, True)}
    assert answers(table, TEST) == {"a": (1.25, True), "b": (2.25, True), "c": (2.75, False)}
    assert table.rows["until"].max() == datetime(2026, 1, 9, 18, 0, 0, 1)


def test_until_the_next_basket() -> None:
    table = return_time(shop(), "back", **WHEN, horizon=8.0, until="basket")
    # b's basket has begun; its next comes after the moment of the test.
    assert answers(table, TRAIN) == {"a": (0.75, True), "b": (3.5, False)}
    assert table.rows["until"].to_list()[:2] == [datetime(2026, 1, 7)] * 2


def test_a_horizon_cuts_off() -> None:
    table = return_time(shop(), "back", **WHEN, horizon=2.0)
    assert answers(table, TEST) == {"a": (1.25, True), "b": (2.0, False), "c": (2.0, False)}
    at_once = return_time(shop(), "back", train=["2026-01-03"], test="2026-01-08T06", horizon=1.5)
    assert answers(at_once, TEST)["a"] == (0.0, True)
    assert answers(at_once, TRAIN) == {"a": (1.25, True)}


def test_who_was_active() -> None:
    table = return_time(shop(), "back", **WHEN, horizon=3.0, active=2.0)
    assert set(answers(table, TEST)) == {"c"}


def test_hours_and_time_zones() -> None:
    for zone in (None, "Europe/Berlin"):
        table = return_time(shop(zone), "back", **WHEN, horizon=72.0, unit="hours")
        assert answers(table, TEST)["a"] == (30.0, True)


def test_steps_of_an_order() -> None:
    table = return_time(steps(), "back", train=[2], test=5, horizon=4.0, unit="steps")
    assert answers(table, TRAIN) == {1: (0.0, True), 2: (3.0, False)}
    assert answers(table, TEST) == {1: (2.0, True), 2: (4.0, False)}


def test_several_moments_and_a_validation() -> None:
    table = return_time(
        shop(),
        "back",
        train=["2026-01-02", "2026-01-03"],
        validation="2026-01-05",
        test="2026-01-07",
        horizon=8.0,
    )
    assert table.rows["phase"].to_list() == [0, 0, 1, 1, 2, 2, 2]
    assert table.durations.tolist()[:2] == [0.25, 1.25]
    assert table.observed.tolist()[2:4] == [False, False]
    known = table.rows["until"].to_list()
    assert known[:4] == [datetime(2026, 1, 5)] * 2 + [datetime(2026, 1, 7)] * 2
    assert table.fingerprint != replace(table, durations=table.durations + 1).fingerprint


def test_several_moments_of_a_test_and_rows_that_are_drawn() -> None:
    options = {"train": "2026-01-02", "test": ["2026-01-05", "2026-01-07"], "horizon": 8.0}
    whole = return_time(shop(), "back", **options)
    assert whole.rows["phase"].to_list() == [0, 2, 2, 2, 2, 2]
    drawn = return_time(shop(), "back", **options, max_rows={"test": 3, "train": 9})
    assert drawn.rows["phase"].to_list() == [0, 2, 2, 2]
    assert drawn.rows.join(whole.rows, on=["user_id", "as_of"], how="anti").is_empty()
    again = return_time(shop(), "back", **options, max_rows={"test": 3}, seed=1)
    assert not again.rows.equals(drawn.rows)


VISITS: dict[str, Any] = {"train": ["2026-01-01", "2026-01-05"], "since": "visit"}
VISITS |= {"test": ["2026-01-06", "2026-01-09"]}


def test_days_since_each_visit() -> None:
    table = return_time(shop(), "back", **VISITS, until="basket", horizon=5.0)
    rows = table.rows.with_columns(days=table.durations.numpy(), observed=table.observed.numpy())
    day = pl.col("as_of").dt.day()
    assert rows.select("user_id", day, "phase", "days", "observed").rows() == [
        ("a", 1, 0, 0.5, True),
        ("a", 2, 0, 1.5, True),
        ("a", 4, 0, 1.25, False),  # until the first moment of the test
        ("b", 3, 0, 2.25, False),
        ("a", 8, 2, 1.0, False),  # until just after the last event
        ("c", 6, 2, 3.0, False),
    ]
    assert (rows["as_of"].dt.microsecond() == 1).all()
    assert table.since == "visit"


def test_visits_of_one_day_are_one_and_a_day_counts_from_it() -> None:
    days = [f"2026-01-0{day}" for day in (1, 1, 2, 4, 5, 9)]
    events = {"user_id": [1] * 6, "item_id": [7] * 6, "timestamp": days, "basket_id": [*range(6)]}
    other = {"user_id": [2], "item_id": [7], "timestamp": ["2026-01-09"], "basket_id": [9]}
    log = EventLog.from_frames(pl.concat([pl.DataFrame(events), pl.DataFrame(other)]))
    windows = {"train": ["2026-01-01", "2026-01-03"], "test": ["2026-01-04", "2026-01-06"]}
    table = return_time(log, "back", **windows, since="visit", until="basket", horizon=5.0)
    assert table.durations.tolist() == [1.0, 2.0, 1.0, 4.0]
    assert table.observed.tolist() == [True, False, True, True]


def test_steps_since_each_visit() -> None:
    windows: dict[str, Any] = {"train": [0, 4], "test": [5, 9], "unit": "steps"}
    table = return_time(steps(), "back", **windows, since="visit", horizon=4.0)
    assert table.rows["as_of"].to_list() == [1, 3, 2, 8]
    assert table.durations.tolist() == [2.0, 3.0, 4.0, 3.0]
    assert table.observed.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"test": "2026-01-06"},
            r"returns\.test names 1 moments; with task\.returns\.since=visit give two",
        ),
        ({"test": ["2026-02-06", "2026-02-07"]}, "test: no visit ends from 2026-02-06"),
        ({"active": 3.0}, r"active=3, and with task\.returns\.since=visit every row is just after"),
    ],
)
def test_visits_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        return_time(shop(), "back", **VISITS | {"horizon": 5.0} | options)


def test_a_table_of_visits_says_nothing_of_a_day() -> None:
    table = return_time(shop(), "back", **VISITS, horizon=5.0)
    with pytest.raises(ConfigError, match="since=visit: its model counts from visits"):
        everyone_as_of(table)


def test_what_is_known_too_late_is_refused() -> None:
    table = return_time(shop(), "back", **WHEN, horizon=3.0)
    late = table.rows.with_columns(until=pl.lit(datetime(2026, 1, 8)))
    with pytest.raises(LeakError, match="2 rows are known only at 2026-01-08"):
        replace(table, rows=late)
    with pytest.raises(DataError, match=r"\(5, 4, 5\) rows, durations and observed"):
        replace(table, durations=table.durations[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train": []},
            r"train names no moment; log has room for task\.returns\.train=\[2026-01-04,",
        ),
        (
            {"test": None},
            r"test names no moment; .*\.validation=2026-01-06 task\.returns\.test=2026-01-08",
        ),
        ({"horizon": 9.0}, r"horizon=9, and log lasts 8\.5 days, from 2026-01-01 06:00:00 to"),
        (
            {"max_rows": {"training": 5}},
            "max_rows.training is no phase; there is train, validation",
        ),
        ({"max_rows": {"train": 0}}, "max_rows.train=0"),
        (
            {"train": ["2026-01-08"]},
            "test=2026-01-07 is not later than task.returns.train=2026-01-08",
        ),
        (
            {"train": ["2026-01-03", "2026-01-03"]},
            "train=2026-01-03 is not later than task.returns.train",
        ),
        ({"train": ["2025-01-03"]}, "train=2025-01-03: no user had an event before"),
        ({"test": "2027-01-03"}, "test=2027-01-03: no user had an event before, or log ends"),
        ({"horizon": 0.0}, "horizon=0"),
        ({"horizon": 0.1}, r"comes back within task\.returns\.horizon=0\.1 days; raise it"),
        ({"unit": "steps"}, "unit=steps, and log knows calendar time; choose days or hours"),
        ({"active": 0.0}, "active=0"),
    ],
)
def test_tables_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        return_time(shop(), "back", **{**WHEN, "horizon": 3.0} | options)


def test_what_a_log_has_not() -> None:
    with pytest.raises(ConfigError, match="unit=days, and log knows no time but an order"):
        return_time(steps(), "back", train=[2], test=5, horizon=4.0)
    with pytest.raises(ConfigError, match="until=basket, and log has none; name the column by"):
        return_time(steps(), "back", train=[2], test=5, horizon=4.0, unit="steps", until="basket")


def as_of(*rows: tuple[str, int]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=["user_id", "day"], orient="row")
    when = pl.datetime(2026, 1, "day", 12, time_unit="us")
    return frame.select("user_id", as_of=when)


def test_gaps_by_hand() -> None:
    found = Gaps()(shop(), as_of(("a", 5), ("a", 1), ("nobody", 5), ("b", 3)))
    spread = np.std([1, 2], ddof=1)
    expected = [
        [2, 1.5, spread, np.log1p(2), 1.25],
        [0, 0, 0, 0, 0.25],
        [0] * 5,
        [0, 0, 0, 0, 0.25],
    ]
    assert found == pytest.approx(np.array(expected))
    of_order = Gaps()(steps(), pl.DataFrame({"user_id": [1], "as_of": [8]}))
    assert of_order[0, :2].tolist() == [5, 3.5]
    assert of_order[0, 4] == 1


def test_recent_gaps_by_hand() -> None:
    feature = RecentGaps(last=3, means=[1, 2], quantiles=[0.5])
    found = feature(shop(), as_of(("a", 5), ("a", 1), ("nobody", 5), ("a", 9)))
    one, two, four = np.log1p([1, 2, 4])
    of_two, of_three = (one + two) / 2, (one + two + four) / 3
    expected = [
        [two, one, of_two, two, of_two, of_two, (two - one) / 2],
        [0] * 7,
        [0] * 7,
        [four, two, one, four, (two + four) / 2, two, np.std([one, two, four])],
    ]
    assert found == pytest.approx(np.array(expected), abs=1e-6)
    assert of_three > two  # so that the filled gap above is none of the others
    with pytest.raises(ConfigError, match=r"quantiles=2"):
        RecentGaps(quantiles=[2.0])
    with pytest.raises(ConfigError, match=r"means=0"):
        RecentGaps(means=[0])


def test_the_last_visit_by_hand() -> None:
    rows = {"user_id": [1, 1, 1, 1, 2], "item_id": [7] * 5, "basket_id": [0, 0, 1, 1, 2]}
    days = ["2026-01-01", "2026-01-01", "2026-01-03", "2026-01-03", "2026-01-01"]
    bought = pl.DataFrame(rows | {"timestamp": days, "value": [3.0, 1.0, -9.0, 2.0, 5.0]})
    moments = pl.DataFrame(
        {"user_id": [1, 1, 3], "as_of": [datetime(2026, 1, day) for day in (3, 4, 4)]}
    )
    with_value = LastVisit()(EventLog.from_frames(bought), moments)
    events, value = np.log1p([2, 4])  # what is given back leaves the second visit nothing
    expected = [[events, 0, value, 0], [events, 0, 0, -value / 2], [0, 0, 0, 0]]
    assert with_value == pytest.approx(np.array(expected), abs=1e-6)
    without = LastVisit()(EventLog.from_frames(bought.drop("value")), moments)
    assert without == pytest.approx(with_value[:, :2])


def test_clock_by_hand() -> None:
    found = Clock()(shop(), as_of(("a", 5), ("nobody", 5)))  # the 5th is a Monday, the 4th a Sunday
    monday, noon, evening = 2 * np.pi / 7, np.pi, 1.5 * np.pi
    expected = [np.sin(monday), np.cos(monday), np.sin(noon), np.cos(noon)]
    assert found[1] == pytest.approx(np.array([*expected, 0, 0, 0, 0]), abs=1e-6)
    assert found[0, 4:] == pytest.approx(np.array([0, 1, np.sin(evening), 0]), abs=1e-6)
    assert Clock()(steps(), pl.DataFrame({"user_id": [1], "as_of": [8]})).shape == (1, 0)


def regulars() -> EventLog:
    """60 users who come every so many days, between 1 and 12, with some noise."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(60):
        day = generator.uniform(0, 5)
        while day < 120:
            rows.append((user, 0, datetime(2026, 1, 1).timestamp() + day * 86_400))
            day += (1 + user % 12) * generator.gamma(20, 1 / 20)
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    seconds = pl.col("timestamp").cast(pl.Int64)
    return EventLog.from_frames(frame.with_columns(pl.from_epoch(seconds, "s")))


@pytest.fixture(scope="module")
def table() -> ReturnTimes:
    train = [f"2026-03-{day:02}" for day in (1, 5, 9, 13, 17, 21)]
    return return_time(regulars(), "back", train=train, test="2026-04-10", horizon=15.0)


@pytest.mark.parametrize("feature", [Gaps(), Clock(), RecentGaps(), LastVisit()], ids=str)
def test_features_know_nothing_of_what_comes_later(table: ReturnTimes, feature: Any) -> None:
    assert computed(table, feature).shape[0] == len(table)


@dataclass(frozen=True)
class Ahead:
    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        return np.full((len(rows), 1), len(log.events), dtype=np.float32)


def test_a_feature_that_looks_ahead_is_refused(table: ReturnTimes) -> None:
    with pytest.raises(LeakError, match=r"Ahead.* knows what comes after"):
        Cox(features=[Ahead()]).fit(table, table.phase(TRAIN))


def test_features_of_many_moments_are_computed_again_at_some() -> None:
    windows: dict[str, Any] = {"train": ["2026-01-20", "2026-03-01"]}
    windows |= {"test": ["2026-03-02", "2026-04-01"], "since": "visit"}
    visits = return_time(regulars(), "back", **windows, horizon=15.0)
    assert visits.rows["as_of"].n_unique() > 10 * MOST_MOMENTS
    assert computed(visits, Gaps()).shape[0] == len(visits)
    with pytest.raises(LeakError, match=r"Ahead.* knows what comes after"):
        computed(visits, Ahead())


def test_models_learn_from_a_table(table: ReturnTimes) -> None:
    steps = Steps(learning_rate=0.01, weight_decay=0.0, batch_size=64, max_epochs=15)
    for model in (
        Gap(features=[Gaps()], column=1),
        Cox(features=[Gaps(), Clock()], l2=1.0),
        HazardNet(features=[Gaps(), Clock()], hidden_dim=16, steps=steps),
        LightGBMHazard(features=[Gaps()], num_trees=20),
    ):
        train, test = table.phase(TRAIN), table.phase(TEST)
        curves = model.fit(table, train).predict(table, test)
        assert len(curves) == len(test)
        median = curves.quantile(0.5).clamp(max=20)
        seldom = table.rows["user_id"][test.numpy()].to_numpy() % 12 >= 6
        assert (
            median[torch.from_numpy(seldom)].mean() > 1.5 * median[torch.from_numpy(~seldom)].mean()
        )
        assert model.log_likelihood(model.data(table, test)).isfinite().all()


def test_what_came_of_other_rows_is_not_read(table: ReturnTimes) -> None:
    train, test = table.phase(TRAIN), table.phase(TEST)
    unknown = torch.zeros_like(table.observed)
    unknown[train] = True
    blind = replace(
        table,
        durations=torch.where(unknown, table.durations, 0.0),
        observed=table.observed & unknown,
    )
    found = [
        Cox(features=[Gaps()]).fit(of, train).predict(of, test).survival for of in (table, blind)
    ]
    assert found[0].equal(found[1])


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_whole_users_are_held_out_as_many_as_the_steps_say(
    table: ReturnTimes, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[Durations] = []
    monkeypatch.setattr(HazardNet, "learn", lambda self, *of: parts.extend(of) or self)
    train = table.phase(TRAIN)
    HazardNet(features=[Gaps()], steps=Steps(held_out=share)).fit(table, train)
    rows_of_user = table.user_of(train).bincount()
    assert sum(map(len, parts)) == len(train)
    assert len(parts[1]) == pytest.approx(share * len(train), abs=int(rows_of_user.max()))
