"""Online Retail: invoices of a British gift wholesaler, December 2010 to December 2011.

Origin: UCI Machine Learning Repository, https://archive.ics.uci.edu/dataset/352/online+retail, read
as a Parquet file of https://github.com/Yussufgit/retail-customer-analytics (commit f91dc95), which
left out cancellations and rows without a positive quantity; that repository states no licence.

531,282 rows of 20,725 invoices; `CustomerID` 0.0 means that it is missing (133,358 rows). Stock
codes such as POST and M are postage and manual entries, not goods. There are two readings, because
the literature has both: a user is a customer, or a user is an invoice. Nearly all invoices have a
single timestamp, so the order of their items is the file's, and their next item is an arbitrary
one of the basket.
"""

from __future__ import annotations

import polars as pl

from recsys.data.sources.files import PublicFile, reading
from recsys.events import BASKET, ITEM, QUANTITY, TIME, USER, VALUE, EventLog

SALES = PublicFile(
    "online_retail_uci/online_retail_2010_2011_sales.parquet",
    "https://github.com/Yussufgit/retail-customer-analytics (commit f91dc95), or made from "
    "https://archive.ics.uci.edu/dataset/352/online+retail",
    "ad09db649d5ee696a47d87d042b4c364c0d386a6873f195e34bda01411d2349d",
)


def customers(path: str | None = None) -> EventLog:
    """A user is a customer, a basket an invoice: 4,339 users.

    `events` hold `basket_id`, `quantity`, `value` (quantity times price, pounds), `price` and
    `country`; `items` hold `title` and `text`: the description that the code has most often.
    """
    sales = _sales(path).filter(pl.col("CustomerID") > 0)
    return _log(sales, pl.col("CustomerID").cast(pl.Int64), name="online_retail")


def invoices(path: str | None = None) -> EventLog:
    """A user is an invoice, as in UniSRec and LMRec: 20,725 users, most with one timestamp."""
    return _log(_sales(path), pl.col("InvoiceNo"), name="online_retail_invoices")


def _sales(path: str | None) -> pl.DataFrame:
    file = SALES.find(path)
    with reading(file):
        return pl.read_parquet(file)


def _log(sales: pl.DataFrame, user: pl.Expr, *, name: str) -> EventLog:
    events = sales.select(
        user.alias(USER),
        pl.col("StockCode").alias(ITEM),
        pl.col("InvoiceDate").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us").alias(TIME),
        pl.col("InvoiceNo").alias(BASKET),
        pl.col("Quantity").alias(QUANTITY),
        (pl.col("Quantity") * pl.col("UnitPrice")).alias(VALUE),
        price="UnitPrice",
        country="Country",
    )
    return EventLog.from_frames(events, _items(sales), name=name)


def _items(sales: pl.DataFrame) -> pl.DataFrame:
    counts = sales.group_by("StockCode", pl.col("Description").str.strip_chars()).len()
    commonest = counts.sort("len", "Description", descending=[True, False]).unique(
        "StockCode", keep="first", maintain_order=True
    )
    text = pl.col("Description").str.replace_all(r"\s+", " ")
    return commonest.select(
        pl.col("StockCode").alias(ITEM), title=text.str.to_titlecase(), text=text
    )
