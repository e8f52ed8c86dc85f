"""Features by hand, and the ones that know too much."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError, DataError, LeakError
from recsys.log.event_log import EventLog
from recsys.tasks.as_of import before
from recsys.tasks.features import RFM, CandidateShares, Counts, check_features, computed
from recsys.tasks.first_purchases import new_items
from recsys.tasks.labels import LabelTable
from recsys.testing.logs import checkerboard, new_item_table

DAY = ["2024-01-03", "2024-01-04", "2024-01-05"]


@pytest.fixture(scope="module")
def table() -> LabelTable:
    return new_items(checkerboard(), "new", train=DAY[:1], test=DAY[2], horizon_days=1)


def shop() -> EventLog:
    events = pl.DataFrame(
        {
            "user_id": ["a", "a", "a", "b", "b"],
            "item_id": ["x", "y", "x", "x", "z"],
            "timestamp": [datetime(2026, 1, d, 12) for d in (1, 1, 4, 2, 9)],
            "basket_id": [1, 1, 2, 3, 4],
            "value": [2.0, 3.0, 5.0, 7.0, 9.0],
            "off": [0.0, -5.0, 0.0, 0.0, 0.0],
            "shop": [1, 1, 2, 1, 1],
        }
    )
    items = pl.DataFrame({"item_id": ["x", "y", "z"], "kind": ["food", "food", "toy"]})
    return EventLog.from_frames(events, items)


def as_of(*rows: tuple[str, int]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=["user_id", "day"], orient="row")
    when = pl.datetime(2026, 1, "day", time_unit="us")
    return frame.select("user_id", as_of=when)


def test_counts_that_memory_would_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    log = checkerboard()
    rows = log.users.select("user_id", as_of=pl.lit(datetime(2024, 1, 9))).sample(
        3_000_000, with_replacement=True, seed=0
    )
    monkeypatch.setattr("recsys.memory.available_memory", lambda: 2**30)
    with pytest.raises(DataError, match=r"Counts.* of 3,000,000 rows, with 40 values, would take"):
        Counts("item_id")(log, rows)


def test_counts_of_items_and_of_what_groups_them() -> None:
    rows = as_of(("a", 4), ("a", 5), ("b", 5), ("nobody", 5))
    # z comes after the first moment, and has no column
    counts = Counts("item_id", log=False)(shop(), rows)
    assert counts.tolist() == [[1, 1], [2, 1], [1, 0], [0, 0]]
    kinds = Counts("kind", log=False)(shop(), rows)
    assert kinds.tolist() == [[2], [3], [1], [0]]
    assert Counts("kind")(shop(), rows) == pytest.approx(np.log1p(kinds))
    frequent = Counts("item_id", log=False, min_users=2)(shop(), rows)
    assert frequent.tolist() == [[1], [2], [1], [0]]
    assert Counts("item_id", log=False, normalise=True)(shop(), rows)[1] == pytest.approx(
        np.array([2, 1]) / 5**0.5
    )


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no column brand; there is user_id, item_id, timestamp"):
        Counts("brand")(shop(), as_of(("a", 4)))


def test_recency_frequency_and_money() -> None:
    feature = RFM(windows=(2,), discounts=("off",), distinct=("shop",))
    frame = feature.frame(shop(), as_of(("a", 5), ("nobody", 5)))
    first = frame.row(0, named=True)
    assert first["recency"] == pytest.approx(0.5)
    assert first["tenure"] == pytest.approx(3.5)
    for name, count in (
        ("visits", 2),
        ("events", 3),
        ("items", 2),
        ("spent", 10),
        ("visits_2", 1),
        ("events_2", 1),
        ("items_2", 1),
        ("spent_2", 5),
        ("distinct_shop", 2),
    ):
        assert first[name] == pytest.approx(np.log1p(count)), name
    assert first["value_a_visit"] == pytest.approx(5)
    assert first["share_off"] == pytest.approx(5 / 15)
    assert first["hour_12"] == 1
    assert first["hour_11"] == 0
    assert first["day_4"] == pytest.approx(1 / 2)  # the 1st of January 2026 is a Thursday
    assert first["gap"] == 3
    assert first["age_in_gaps"] == pytest.approx(0.5 / 3)
    assert set(frame.row(1)) == {0}
    assert feature(shop(), as_of(("a", 5), ("nobody", 5))).shape == frame.shape


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 2), st.integers(1, 9)),
        min_size=2,
        max_size=20,
    ),
    st.randoms(use_true_random=False),
)
def test_visits_are_baskets_whose_id_may_come_again(rows: list, random: Random) -> None:
    """As in plain Python, whatever the order of the input."""
    rows = [(0, 0, 0, 1), (1, 0, 0, 1), *rows]
    random.shuffle(rows)
    frame = pl.DataFrame(rows, schema=["user_id", "day", "basket_id", "value"], orient="row")
    time = datetime(2026, 1, 1) + pl.duration(days="day")
    log = EventLog.from_frames(
        frame.select("user_id", "basket_id", "value", timestamp=time, item_id=1)
    )
    moments = pl.DataFrame({"user_id": [0, 1], "as_of": [datetime(2026, 1, 5)] * 2})
    found = RFM(windows=(2,)).frame(log, moments.cast({"as_of": pl.Datetime("us")}))
    for user in (0, 1):
        past = log.events.filter(
            (pl.col("user_id") == user) & (pl.col("timestamp") < moments["as_of"][0])
        )
        visits = [
            [row["timestamp"] for row in run]
            for _, run in groupby(past.iter_rows(named=True), lambda row: row["basket_id"])
        ]
        ages = [(moments["as_of"][0] - visit[0]).days for visit in visits]
        row = found.row(user, named=True)
        assert row["recency"] == min(ages)
        assert row["tenure"] == max(ages)
        assert row["visits"] == pytest.approx(np.log1p(len(visits)))
        assert row["visits_2"] == pytest.approx(np.log1p(sum(age <= 2 for age in ages)))
        assert row["value_a_visit"] == pytest.approx(past["value"].sum() / len(visits))


def test_recency_of_a_log_that_knows_no_time_and_no_money() -> None:
    events = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": [1, 5, 3]})
    rows = pl.DataFrame({"user_id": [1, 2], "as_of": [7, 4]})
    frame = RFM().frame(EventLog.from_frames(events), rows)
    assert frame["recency"].to_list() == [2, 1]
    assert frame["gap"].to_list() == [4, 0]
    assert not [c for c in frame.columns if c.startswith(("hour", "spent"))]


def test_shares_of_a_candidates_items() -> None:
    table = new_item_table()
    found = CandidateShares("colour")(table)
    item = table.candidates.ids.to_numpy()
    assert found[:, 0].tolist() == (item % 2 == 0).tolist()  # black before white
    assert found[:, 2] == pytest.approx(np.log(2))


@dataclass(frozen=True)
class Future:
    """What a user does in all, after the moment too."""

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        counts = log.events.group_by("user_id").len()
        return rows.join(counts, on="user_id", how="left")["len"].to_numpy()[:, None].astype("f4")


@dataclass(frozen=True)
class FutureItems:
    """Of every item of the log a column, of later ones too."""

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        return np.zeros((len(rows), log.events["timestamp"].n_unique()), dtype="f4")


def test_a_feature_from_after_the_moment_is_refused(table: LabelTable) -> None:
    with pytest.raises(
        LeakError, match=r"Future\(\) knows what comes after 2024-01-03 .* 32 of 32"
    ):
        computed(table, Future())
    with pytest.raises(LeakError, match=r"FutureItems\(\) knows"):
        computed(table, FutureItems())


def test_counts_and_rfm_pass_and_are_computed_once(table: LabelTable) -> None:
    for feature in (Counts("colour"), RFM()):
        assert computed(table, feature) is computed(table, feature)
    assert computed(table, Counts("colour")) is computed(table, Counts("colour"))


def test_the_log_up_to_a_moment_keeps_its_items_and_users() -> None:
    log = shop()
    cut = before(log, datetime(2026, 1, 2))
    assert len(cut.events) == 2
    assert cut.items is log.items
    assert cut.users is log.users


OURS = ["row", "as_of", "users", "age", "place", "len", "events", "_visit", "_column", "visits"]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("of_items", [False, True])
def test_columns_called_as_ours_give_what_others_give(name: str, of_items: bool) -> None:
    rows = as_of(("a", 4), ("a", 5), ("b", 5), ("nobody", 5))
    plain = shop()
    column = "kind" if of_items else "shop"
    table = "items" if of_items else "events"
    renamed = replace(plain, **{table: getattr(plain, table).rename({column: name})})
    expected = Counts(column, log=False)(plain, rows)
    assert expected.any()
    assert Counts(name, log=False)(renamed, rows).tolist() == expected.tolist()
    found = RFM(distinct=(name,)).frame(renamed, rows)
    assert found.columns[-1] == f"distinct_{name}"
    assert found.equals(
        RFM(distinct=(column,))
        .frame(plain, rows)
        .rename({f"distinct_{column}": f"distinct_{name}"})
    )


def test_discounts_are_numbers_of_64_bits() -> None:
    log = shop()
    large = log.events.with_columns(off=pl.lit(2_000_000_000, pl.Int32), note=pl.lit("7,50"))
    log = replace(log, events=large)
    frame = RFM(discounts=("off",)).frame(log, as_of(("a", 5)))
    assert frame["share_off"][0] == pytest.approx(1, abs=1e-6)
    with pytest.raises(ConfigError, match="discounts: note of log is String; name numbers"):
        RFM(discounts=("note",)).frame(log, as_of(("a", 5)))


class Numberless(Counts):
    """Gives something else than a row of numbers for each row."""

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        return np.array(["many"] * len(rows))


def test_what_is_no_feature_or_gives_no_numbers(table: LabelTable) -> None:
    with pytest.raises(ConfigError, match=r"^features\.1: Counter is no feature; name a function"):
        check_features([RFM(), Counter()])
    with pytest.raises(ConfigError, match=r"features: Numberless.* gives ndarray \(\d+,\) of <U4"):
        computed(table, Numberless("item_id"))
    with pytest.raises(ConfigError, match=r"^windows=\[7,7\] names 7 twice"):
        RFM(windows=[7, 7])
    with pytest.raises(ConfigError, match=r"^distinct=\[shop,shop\] names shop twice"):
        RFM(distinct=["shop", "shop"])
