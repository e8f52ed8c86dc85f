"""Online Retail: invoices of a British gift wholesaler, December 2010 to December 2011.

Origin: UCI Machine Learning Repository, https://archive.ics.uci.edu/dataset/352/online+retail, read
as a Parquet file of https://github.com/Yussufgit/retail-customer-analytics (commit f91dc95), which
left out cancellations and rows without a positive quantity; that repository states no licence.

531,282 rows of 20,725 invoices; `CustomerID` 0.0 means that it is missing (133,358 rows). Stock
codes such as POST and M are postage and manual entries, not goods. There are three readings,
because the literature has them: a user is a customer; a user is an invoice; and UniSRec's and
LMRec's set of invoices, which counts cancelled ones too and keeps the 5-core. Nearly all invoices
have a single timestamp, so the order of their items is the file's, and their next item is an
arbitrary one of the basket.
"""

from __future__ import annotations

import polars as pl

from recsys.data.sources.files import PublicFile, reading
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE, EventLog

SALES = PublicFile(
    "online_retail_uci/online_retail_2010_2011_sales.parquet",
    "https://github.com/Yussufgit/retail-customer-analytics (commit f91dc95), or made from "
    "https://archive.ics.uci.edu/dataset/352/online+retail",
    "ad09db649d5ee696a47d87d042b4c364c0d386a6873f195e34bda01411d2349d",
)

_FOLDER = "online_retail_uci"
_REBUILT = "made from the two files of Online Retail by UniSRec's processing"
SEQUENCES = PublicFile(
    f"{_FOLDER}/unisrec_like_sequences.txt",
    _REBUILT,
    "3bfbe5fe55a2438a59029ee8557306a8c57759fedba58a5b0ea2b52235970a12",
)
ITEMS = PublicFile(
    f"{_FOLDER}/unisrec_like_items.tsv",
    _REBUILT,
    "8c1597236687b9ba2aff2dd51c6e158bbc6b256343dc9206ce56eb3f1b51237a",
)
_GOODS = r"^\d{5}"  # a code of goods is five digits and at times a letter
_FORM = "%Y-%m-%d %H:%M:%S"
_TIME = pl.col("InvoiceDate").str.to_datetime(_FORM, time_unit="us")


def customers(path: str | None = None, *, goods_only: bool = False) -> EventLog:
    """A user is a customer, a basket an invoice: 4,339 users.

    `events` hold `basket_id`, `quantity`, `value` (quantity times price, pounds), `price` and
    `country`; `items` hold `title` and `text`: the description that the code has most often.

    Args:
        path: the file; null: where `PublicFile` looks for it.
        goods_only: leave out postage, manual entries and charges, 1,554 rows of codes such as POST.
    """
    sales = _sales(path).filter(pl.col("CustomerID") > 0)
    if goods_only:
        sales = sales.filter(pl.col("StockCode").str.contains(_GOODS))
    return _log(sales, pl.col("CustomerID").cast(pl.Int64), name="online_retail")


def invoices(path: str | None = None) -> EventLog:
    """A user is an invoice, as in UniSRec and LMRec: 20,725 users, most with one timestamp."""
    return _log(_sales(path), pl.col("InvoiceNo"), name="online_retail_invoices")


def unisrec() -> EventLog:
    """UniSRec's and LMRec's set: 16,520 invoices with 3,469 items, a first event per pair.

    Cancelled invoices lost their number with the original; each is rebuilt as the rows of one
    customer and time, which its user id names. Within a timestamp the order is the file's.
    """
    files = {file: file.find() for file in (SALES, SEQUENCES, ITEMS)}
    with reading(files[SEQUENCES]):
        lines = pl.Series("line", files[SEQUENCES].read_text().splitlines()).to_frame()
    # A rebuilt invoice is called N<customer>_<date> <time>.
    parts = pl.col("line").str.extract_groups(r"^(?<user>N\S+ \S+|\S+) (?<item>.+)$")
    events = lines.select(parts.alias("parts")).unnest("parts")
    events = events.with_columns(pl.col("item").str.split(" ")).explode("item")
    with reading(files[ITEMS]):
        items = pl.read_csv(
            files[ITEMS], separator="\t", quote_char=None, infer_schema=False, glob=False
        )
    events = events.join(items, on="item", maintain_order="left")
    sales = _sales(None).unique(["InvoiceNo", "StockCode"], keep="first", maintain_order=True)
    times = sales.select(
        user=pl.col("InvoiceNo").cast(pl.String), stockcode="StockCode", time=_TIME
    )
    events = events.join(times, on=["user", "stockcode"], how="left", maintain_order="left")
    time_of_name = pl.col("user").str.extract(r"_(.+)$").str.to_datetime(_FORM, time_unit="us")
    events = events.select(
        pl.col("user").alias(USER),
        pl.col("item").cast(pl.Int64).alias(ITEM),
        pl.coalesce("time", time_of_name).alias(TIME),
    )
    text = pl.col("description").str.strip_chars()
    items = items.select(
        pl.col("item").cast(pl.Int64).alias(ITEM),
        title=text.str.to_titlecase(),
        text=text,
        stock_code="stockcode",
    )
    return EventLog.from_frames(events, items, name="online_retail_unisrec")


def _sales(path: str | None) -> pl.DataFrame:
    file = SALES.find(path)
    with reading(file):
        return pl.read_parquet(file, glob=False)


def _log(sales: pl.DataFrame, user: pl.Expr, *, name: str) -> EventLog:
    events = sales.select(
        user.alias(USER),
        pl.col("StockCode").alias(ITEM),
        _TIME.alias(TIME),
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
