"""Feedback of Complete Journey: what the mailer of a trip's shop showed, bought on the trip or not.

The package's `promotions` say for every product, shop and week where in the mailer and on which
display it was, 20.9 million rows. A week runs from Monday to Sunday on the clocks of New York, the
first is the one day of 1 January 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from recsys.data.sources.complete_journey import table
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM, EventLog
from recsys.log.time import Moment, moment
from recsys.tasks.feedback import END, START, FeedbackTable, bought

NOWHERE = "0"
SHOP = "store_id"


def promoted(
    log: EventLog,
    name: str,
    *,
    validation: Moment,
    test: Moment,
    where: Literal["mailer", "display"] = "mailer",
    locations: Sequence[str] | None = None,
    known: bool = False,
    train: Moment | None = None,
    max_lists: Mapping[str, int] | None = None,
    seed: int = 0,
) -> FeedbackTable:
    """Which of the items in the mailer or on display in a trip's shop were bought on the trip.

    Args:
        log: of the package, by product or by category.
        name: of the table.
        where: an item was shown.
        locations: of the mailer's pages or the displays, such as `[A, D]`; None takes all.
        known: take only items that the household had before the trip.
        validation, test, train, max_lists, seed: as `recsys.tasks.feedback_table` takes them.

    Raises:
        ConfigError: a location that is none, or as `feedback_table`.
        DataError: the log is not of the package, or as `feedback_table`.
    """
    if SHOP not in log.events.columns:
        raise DataError(
            f"{name}: events of {log.name} have no {SHOP}; promotions are those of "
            "complete_journey and complete_journey_categories"
        )
    exposures = _items(log, _exposures(name, f"{where}_location", locations))
    return bought(
        log,
        name,
        _with_moments(log, exposures),
        by=[SHOP],
        known=known,
        validation=validation,
        test=test,
        train=train,
        max_lists=max_lists,
        seed=seed,
    )


def _exposures(name: str, column: str, locations: Sequence[str] | None) -> pl.DataFrame:
    """`product_id`, `store_id` and `week` of what was shown."""
    promotions = table("promotions")
    known = promotions[column].unique().sort()
    for location in locations or ():
        if location not in known or location == NOWHERE:
            there = ", ".join(known.filter(known != NOWHERE))
            raise ConfigError(f"{name}: locations: {location} is none; there is {there}")
    shown = pl.col(column) != NOWHERE if locations is None else pl.col(column).is_in(locations)
    return promotions.filter(shown).select("product_id", SHOP, "week")


def _items(log: EventLog, exposures: pl.DataFrame) -> pl.DataFrame:
    """`item_id`, `store_id` and `week`; of a log by category the categories of the products."""
    item = "product_category" if log.items[ITEM].dtype == pl.String else "product_id"
    items = log.items.select(pl.col(ITEM).alias(item)).with_row_index("index")
    products = table("products").select(*{"product_id", item}).join(items, on=item)
    shown = exposures.join(products.select("product_id", "index"), on="product_id")
    rows = shown.select("index", SHOP, "week").unique()
    return rows.select(log.items[ITEM][rows["index"].to_numpy()], SHOP, "week")


def _with_moments(log: EventLog, exposures: pl.DataFrame) -> pl.DataFrame:
    first = moment(log, START, "2017-01-02")
    weeks = exposures.select("week").unique().sort("week")
    start = pl.lit(first).first().dt.offset_by(pl.format("{}w", pl.col("week") - 2))
    end = pl.lit(first).first().dt.offset_by(pl.format("{}w", pl.col("week") - 1))
    weeks = weeks.with_columns(start.alias(START), end.alias(END))
    return exposures.join(weeks, on="week").drop("week")
