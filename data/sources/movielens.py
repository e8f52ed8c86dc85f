"""MovieLens 100K: ratings of films by 943 people, 1997-1998.

Origin: https://grouplens.org/datasets/movielens/100k/ (GroupLens; research use, no redistribution
without permission). Read in the atomic form that recbole 1.2.1 ships in its wheel on PyPI
(`recbole/dataset_example/ml-100k`), whose row order settles ties of the second-resolution times.
"""

from __future__ import annotations

import polars as pl

from recsys.data.sources.files import PublicFile, read_tsv
from recsys.log.event_log import ITEM, TIME, USER, VALUE, EventLog

_ORIGIN = "the wheel of recbole 1.2.1 on https://pypi.org (recbole/dataset_example/ml-100k)"


def _public(extension: str, sha256: str) -> PublicFile:
    return PublicFile(f"ml-100k/ml-100k.{extension}", _ORIGIN, sha256)


RATINGS = _public("inter", "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff")
FILMS = _public("item", "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532")
USERS = _public("user", "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972")


def ml100k() -> EventLog:
    """100,000 ratings (`value`, 1 to 5) of 1,682 films.

    `items` hold `title`, `text`, `year` (null for two films) and `genres` (a list), `users` hold
    `age`, `gender`, `occupation` and `zip_code`.
    """
    ratings = read_tsv(RATINGS.find()).select(
        pl.col(USER, ITEM).cast(pl.Int64),
        pl.from_epoch(pl.col("timestamp").cast(pl.Int64), "s").alias(TIME),
        pl.col("rating").cast(pl.Float32).alias(VALUE),
    )
    year, genres = pl.col("release_year").cast(pl.Int32, strict=False), pl.col("class")
    title = pl.col("movie_title")
    films = read_tsv(FILMS.find()).select(
        pl.col(ITEM).cast(pl.Int64),
        title=title,
        text=pl.concat_str(title, year, genres, separator=" ", ignore_nulls=True),
        year=year,
        genres=genres.str.split(" "),
    )
    users = read_tsv(USERS.find()).with_columns(pl.col(USER, "age").cast(pl.Int64))
    return EventLog.from_frames(ratings, films, users, name="ml100k")
