"""Plans from files: a user's own, and the promotions of Complete Journey."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from recsys.data import plans
from recsys.data.plans import plan, promotions
from recsys.errors import ConfigError, DataError


def test_a_plan_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    path.write_text("shop,day,off\n007,2024-01-01,0.5\n012,2024-01-02,0\n")
    read = plan(str(path))
    assert read["shop"].to_list() == ["007", "012"]
    assert read["off"].to_list() == [0.5, 0]
    with pytest.raises(DataError, match=r"none\.csv"):
        plan(str(tmp_path / "none.csv"))


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three products of two categories, in two shops for two weeks."""
    products = pl.DataFrame({"product_id": [1, 2, 3], "product_category": ["x", "x", None]})
    rows = pl.DataFrame(
        {
            "product_id": [1, 2, 1, 2, 3],
            "store_id": [8, 8, 9, 8, 9],
            "week": [1, 1, 1, 2, 2],
            "mailer_location": ["A", "D", "0", "0", "A"],
            "display_location": ["0", "0", "7", "A", "0"],
        }
    )
    monkeypatch.setattr(plans, "table", lambda name: products)
    monkeypatch.setattr(plans, "scan", lambda name: rows.lazy())


@pytest.mark.usefixtures("tables")
def test_promotions_are_shares_of_the_shops() -> None:
    """Two products of one mailer are one; the second week's other shop shows what has no series."""
    assert promotions().rows() == [
        ("x", date(2016, 12, 26), 0.5, 0.5),
        ("x", date(2017, 1, 2), 0.0, 0.5),
    ]
    assert promotions(by="item_id").filter(week=date(2017, 1, 2)).rows() == [
        (2, date(2017, 1, 2), 0.0, 0.5),
        (3, date(2017, 1, 2), 0.5, 0.0),
    ]
    with pytest.raises(ConfigError, match=r"by=colour: products have item_id, product_category"):
        promotions(by="colour")


@pytest.mark.slow
def test_the_packages_promotions() -> None:
    shares = promotions()
    assert shares["product_category"].n_unique() > 250
    assert shares["week"].n_unique() == 53
    assert shares.select(pl.col("mailer", "display").is_between(0, 1).all()).row(0) == (True, True)
