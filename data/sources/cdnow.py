"""CDNOW: purchases of a music shop, January 1997 to June 1998, of who came first in early 1997.

Origin: Fader & Hardie, https://www.brucehardie.com/notes/026/; the Python package Lifetimes 0.11.3
holds the same file, `lifetimes/datasets/CDNOW_master.txt`. A usual set of repeat-buying models: it
says who, on which day, how many CDs and for how many dollars, and not which CDs.
"""

from __future__ import annotations

import polars as pl

from recsys.data.sources.files import PublicFile, reading
from recsys.log.event_log import ITEM, QUANTITY, TIME, USER, VALUE, EventLog

PURCHASES = PublicFile(
    "cdnow/CDNOW_master.txt",
    "https://www.brucehardie.com/datasets/CDNOW_master.zip, or the package Lifetimes 0.11.3",
    "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef",
)
ROW = r"^\s*(?<user>\d+)\s+(?<day>\d{8})\s+(?<count>\d+)\s+(?<dollars>[\d.]+)\s*$"


def cdnow(path: str | None = None) -> EventLog:
    """23,570 customers and 69,659 purchases, all of the one item that the file knows, `cd`.

    `events` hold `quantity`, CDs, and `value`, dollars; timestamps are days.

    Args:
        path: of the file; None is `$RECSYS_DATA/cdnow/CDNOW_master.txt`.
    """
    file = PURCHASES.find(path)
    with reading(file):
        lines = pl.Series("line", file.read_text().splitlines()[1:]).to_frame()
        parts = lines.select(pl.col("line").str.extract_groups(ROW).alias("parts")).unnest("parts")
        events = parts.select(
            pl.col("user").cast(pl.Int64).alias(USER),
            pl.lit("cd").alias(ITEM),
            pl.col("day").str.to_datetime("%Y%m%d", time_unit="us").alias(TIME),
            pl.col("count").cast(pl.Int64).alias(QUANTITY),
            pl.col("dollars").cast(pl.Float64).alias(VALUE),
        )
    return EventLog.from_frames(events, name="cdnow")
