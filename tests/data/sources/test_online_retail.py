from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.sources import online_retail
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE


@pytest.fixture
def sales(tmp_path: Path) -> str:
    path = tmp_path / "sales.parquet"
    columns = {
        "InvoiceNo": [1, 1, 2, 3],
        "StockCode": ["85123A", "71053", "85123A", "85123A"],
        "Description": ["WHITE  HEART ", "LANTERN", "wrong", "WHITE  HEART"],
        "Quantity": [6, 2, 1, 1],
        "InvoiceDate": ["2010-12-01 08:26:00"] * 2 + ["2010-12-02 09:00:00"] * 2,
        "UnitPrice": [2.5, 3.0, 2.5, 2.5],
        "CustomerID": [17850.0, 17850.0, 0.0, 12583.0],
        "Country": ["United Kingdom"] * 3 + ["France"],
    }
    pl.DataFrame(columns).write_parquet(path)
    return str(path)


def test_a_user_is_a_customer(sales: str) -> None:
    log = online_retail.customers(sales)
    assert log.events.select(USER, ITEM, BASKET, QUANTITY, VALUE, "country").rows() == [
        (12583, "85123A", 3, 1, 2.5, "France"),
        (17850, "85123A", 1, 6, 15.0, "United Kingdom"),
        (17850, "71053", 1, 2, 6.0, "United Kingdom"),
    ]
    assert log.events[TIME][1] == datetime(2010, 12, 1, 8, 26)
    assert log.items.rows() == [
        ("71053", "Lantern", "LANTERN"),
        ("85123A", "White Heart", "WHITE HEART"),
    ]


def test_goods_are_told_from_postage_and_charges(tmp_path: Path, sales: str) -> None:
    path = tmp_path / "with_postage.parquet"
    codes = pl.Series("StockCode", ["POST", "71053", "M", "85123A"])
    pl.read_parquet(sales).with_columns(codes).write_parquet(path)
    log = online_retail.customers(str(path), goods_only=True)
    assert log.events.select(USER, ITEM).rows() == [(12583, "85123A"), (17850, "71053")]
    assert log.items[ITEM].to_list() == ["71053", "85123A"]
    assert online_retail.customers(str(path)).num_events == 3


def test_a_user_is_an_invoice(sales: str) -> None:
    log = online_retail.invoices(sales)
    assert log.events[USER].to_list() == [1, 1, 2, 3]


@pytest.mark.data
def test_published_sizes(public_data: Path) -> None:
    log = online_retail.invoices()
    assert (log.num_events, len(log.users), len(log.items)) == (531_282, 20_725, 3_940)
    assert len(online_retail.customers().users) == 4_339
    goods = online_retail.customers(goods_only=True)
    assert (goods.num_events, len(goods.users), len(goods.items)) == (396_370, 4_335, 3_659)
    unisrec = online_retail.unisrec()
    assert (unisrec.num_events, len(unisrec.users), len(unisrec.items)) == (519_907, 16_520, 3_469)
    times = unisrec.events.group_by(USER).agg(pl.col(TIME).n_unique())[TIME]
    assert (times == 1).mean() == pytest.approx(0.9975, abs=5e-5)
