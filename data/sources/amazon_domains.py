"""Amazon reviews of 5,000 users who are active in each of five domains.

Origin: https://github.com/cpark88/CGRec (commit 9108dd0), the file
`src/amazon_list_dataset_202312_sampled.pkl`, which belongs to Park et al., "Cracking the Code of
Negative Transfer", CIKM 2023, written again as a Parquet file with a row per event. A pickle runs
code when it is read, so this module does not read the original. That repository states no licence;
the reviews are McAuley's (UCSD), offered for research. Its authors call the file a small sample:
it is not the data of the paper's tables.

182,044 events of 132,300 items, of which 106,460 have a single event: a model of ids has nothing
to learn of those, and `conf/data/amazon_domains.yaml` keeps the 2,593 items with five events. Times
are days, so the events of a user's day have the order of the file. Items have no words, and no
categories below the domain; no item is in two domains.
"""

from __future__ import annotations

import polars as pl

from recsys.data.sources.files import PublicFile, reading
from recsys.errors import DataError
from recsys.log.event_log import ITEM, TIME, USER, EventLog

EVENTS = PublicFile(
    "amazon_cdsr/cgrec_sample.parquet",
    "https://github.com/cpark88/CGRec (commit 9108dd0, "
    "src/amazon_list_dataset_202312_sampled.pkl), as a Parquet file of user, domain, item and "
    "unix_time",
    "db444a8e24ff94a375ef720d15d10167a4b1d525da8b042ad69c73b5601e60d5",
)
DOMAINS = {
    5: "Books",
    6: "Clothing_Shoes_and_Jewelry",
    7: "Movies_and_TV",
    8: "Toys_and_Games",
    9: "Sports_and_Outdoors",
}
"""The file's numbers, and what its authors call them."""


def amazon_domains(path: str | None = None) -> EventLog:
    """All 182,044 events. `items` hold `domain`, its name.

    Args:
        path: a file of the same four columns; None is the published one.

    Raises:
        DataError: no such file, a domain that has no name here, or an item of two domains.
    """
    file = EVENTS.find(path)
    with reading(file):
        rows = pl.read_parquet(file, glob=False, columns=["user", "domain", "item", "unix_time"])
        events = rows.select(
            pl.col("user").alias(USER),
            pl.col("item").alias(ITEM),
            pl.from_epoch(pl.col("unix_time").cast(pl.Int64), "s")
            .dt.cast_time_unit("us")
            .alias(TIME),
        )
    return EventLog.from_frames(events, _items(rows), name="amazon_domains")


def _items(rows: pl.DataFrame) -> pl.DataFrame:
    """A row per item, with the name of its domain."""
    if unnamed := sorted(set(rows["domain"].unique()) - DOMAINS.keys(), key=str):
        known = ", ".join(map(str, DOMAINS))
        raise DataError(f"amazon_domains: domain {unnamed[0]} has no name; expected {known}")
    items = rows.select(pl.col("item").alias(ITEM), "domain").unique(maintain_order=True)
    if (twice := items[ITEM].filter(items[ITEM].is_duplicated())).len():
        raise DataError(
            f"amazon_domains: item {twice[0]} is in two domains; give each of them an id of its own"
        )
    return items.with_columns(pl.col("domain").replace_strict(DOMAINS, return_dtype=pl.String))
