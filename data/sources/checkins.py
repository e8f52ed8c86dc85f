"""Check-ins of Foursquare in New York, 2012-2013: places with coordinates.

Origin: `data/NYC.npy` and `data/NYC_POI.npy` of
https://github.com/yingtaoluo/Spatial-Temporal-Attention-Network-for-POI-Recommendation at commit
8b82f2840e7f. The repository has no licence; it names the data set of Yang et al. (TSMC 2014) as its
origin. Ask there before passing the files on.

1,083 users, 5,135 places, 147,938 check-ins in minutes since a start that the files do not name: an
order, and no times of day.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.sources.files import PublicFile, reading
from recsys.errors import DataError
from recsys.log.event_log import ITEM, TIME, USER, EventLog
from recsys.ranges import above

_ORIGIN = (
    "https://github.com/yingtaoluo/Spatial-Temporal-Attention-Network-for-POI-Recommendation (data)"
)
KM_PER_DEGREE = 111.195
"""Of latitude, on a sphere of 6,371 km."""


def _public(name: str, sha256: str) -> PublicFile:
    return PublicFile(f"checkin_nyc_stan/{name}", _ORIGIN, sha256)


VISITS = _public("NYC.npy", "9e28b974a52d233e201ff9e82e1c076818c90b1e8f25f4ef93daaf1d7e8ddf55")
PLACES = _public("NYC_POI.npy", "f709f4796ca117d0b96ad2d0201a9869920364e2c476c4362e746740ded08d95")


def checkins(*, cell_km: float | None = None) -> EventLog:
    """147,938 check-ins; `items` hold `latitude` and `longitude`.

    Args:
        cell_km: items are squares of this many kilometres in place of single places; their
            coordinates are the mean of their places'. With 1, 859 have a place.

    Raises:
        ConfigError: a cell without a size.
        DataError: a file is not there, or not the published one.
    """
    above(0, cell_km=cell_km)
    visits, places = _read(VISITS.find(), np.int32), _read(PLACES.find(), np.float64)
    items = pl.DataFrame(places, ["place", "latitude", "longitude"]).with_columns(
        pl.col("place").cast(pl.Int64)
    )
    item_of = items.with_columns(
        (pl.col("place") if cell_km is None else _cell(cell_km)).alias(ITEM)
    )
    events = pl.DataFrame(visits, [USER, "place", TIME]).cast(pl.Int64)
    events = events.join(item_of.select("place", ITEM), on="place", maintain_order="left")
    coordinates = item_of.group_by(ITEM).agg(pl.col("latitude", "longitude").mean())
    return EventLog.from_frames(events.drop("place"), coordinates, name="checkins")


def _cell(km: float) -> pl.Expr:
    """The number of a place's cell: cells with a place, counted from the south-west, by rows."""
    latitude, longitude = pl.col("latitude"), pl.col("longitude")
    width = (latitude.mean() * math.pi / 180).cos()
    row = (latitude * KM_PER_DEGREE / km).floor()
    column = (longitude * width * KM_PER_DEGREE / km).floor()
    span = column.max() - column.min() + 1
    return (row * span + column).rank("dense").cast(pl.Int64)


def _read(path: Path, kind: type[np.generic]) -> np.ndarray:
    """(rows, 3) of a file of numpy's."""
    with reading(path):
        table = np.load(path, allow_pickle=False)
    if table.dtype != kind or table.ndim != 2 or table.shape[1] != 3:
        raise DataError(
            f"{path}: {table.dtype} of shape {table.shape}; expected {kind.__name__} "
            "in three columns"
        )
    return table
