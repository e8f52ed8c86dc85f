"""Amazon reviews as item sequences: Beauty (2014) and Industrial and Scientific (2018).

The sequences come without times: `timestamp` is an item's place in its user's sequence. Item ids
are the numbers of the files, so that rows keep the files' order. The reviews are McAuley's and
Ni's (UCSD), offered for research; none of the repositories below states a licence of the data.
Beauty's sequences hold the reviews of one day in ascending order of their ASIN, so two thirds of
neighbouring items ascend: the order within a day carries no behaviour.
"""

from __future__ import annotations

import polars as pl

from recsys.data.sources.files import PublicFile, read_tsv, reading
from recsys.log.event_log import ITEM, TIME, USER, EventLog

_S3REC = "https://github.com/RUCAIBox/CIKM2020-S3Rec (commit 2a81540, data/Beauty.txt)"
_BEAUTY_TITLES = (
    "https://github.com/dh-r/LLM-Sequential-Recommendation (commit 6464b39, beauty/), joined with "
    "the ids of https://github.com/WangXFng/RDRec (commit 4055c30, data/beauty/datamaps.json)"
)
_COWPIREC = "https://github.com/ysh-1998/CoWPiRec (commit db47560, dataset/Scientific/)"


def _beauty(name: str, origin: str, sha256: str) -> PublicFile:
    return PublicFile(f"amazon14_beauty/{name}", origin, sha256)


def _scientific(extension: str, sha256: str) -> PublicFile:
    return PublicFile(f"amazon18_scientific_unisrec/Scientific.{extension}", _COWPIREC, sha256)


BEAUTY_SEQUENCES = _beauty(
    "sequences.txt", _S3REC, "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8"
)
BEAUTY_ITEMS = _beauty(
    "items.tsv", _BEAUTY_TITLES, "97a37c81271dba2e5d085b10c34b9d409724e656a5c6be544717579953026329"
)
BEAUTY_USERS = _beauty(
    "users.tsv", _BEAUTY_TITLES, "61e443ab0aa5cdadc3cdbc8803cd31d73aaba7af2966f6fb3ce9d8c0fe34a479"
)
SCIENTIFIC_TEST = _scientific(
    "test.inter", "546da7e5f44002b4518d7fd58066684bc09613f76c240914e16976d57cfe7083"
)
SCIENTIFIC_TEXT = _scientific(
    "text", "95887e6bda76e54f59b71b566320520d5da74e21d3b6ff8f20bfb6e8e84aa831"
)
SCIENTIFIC_ITEMS = _scientific(
    "item2index", "896ab1017508cf20834d3d0537da9f8f624324223a835af272a98ba16f8c087a"
)
SCIENTIFIC_USERS = _scientific(
    "user2index", "f0162b1a3a0c6b7e816f86208e7b36f65d6787923126f9558fbc6d368e4c4974"
)


def beauty() -> EventLog:
    """Beauty, 5-core: 22,363 users, 12,101 items, 198,502 reviews, without repeats.

    `items` hold `asin`, `title` (missing for 7), `attributes` (a list of brand and categories) and
    `text`; `users` hold `reviewer_id`.
    """
    path = BEAUTY_SEQUENCES.find()
    with reading(path):
        numbers = pl.Series(path.read_text("utf-8").splitlines()).str.split(" ")
        numbers = numbers.cast(pl.List(pl.Int64))
    events = _events(numbers.list.first(), numbers.list.slice(1))
    attributes = pl.col("attributes").str.split(" | ")
    items = read_tsv(BEAUTY_ITEMS.find()).select(
        pl.col(ITEM).cast(pl.Int64),
        "asin",
        "title",
        text=pl.concat_str("title", attributes.list.join(" "), separator=". ", ignore_nulls=True),
        attributes=attributes,
    )
    users = read_tsv(BEAUTY_USERS.find()).with_columns(pl.col(USER).cast(pl.Int64))
    return EventLog.from_frames(events, items, users, name="beauty")


def scientific() -> EventLog:
    """Industrial and Scientific, 5-core: 8,442 users, 4,385 items, 59,384 reviews.

    The sequences are rebuilt from the test lines, whose histories are cut to 50 items: LMRec counts
    43 reviews more. 242 users have an item twice. `items` hold `asin`, `title` and `text` (title,
    categories and brand), `users` hold `reviewer_id`.
    """
    lines = read_tsv(SCIENTIFIC_TEST.find())
    history = lines["item_id_list"].str.split(" ").cast(pl.List(pl.Int64))
    sequences = history.list.concat(lines[ITEM].cast(pl.Int64))
    events = _events(lines[USER].cast(pl.Int64), sequences)
    text = pl.col("text").str.strip_chars()
    items = (
        _index(SCIENTIFIC_ITEMS, "asin", ITEM)
        .join(read_tsv(SCIENTIFIC_TEXT.find()).rename({ITEM: "asin"}), on="asin", how="left")
        .with_columns(
            title=text.str.extract(r"^(.*?)\. (?:Industrial & Scientific|\. )"), text=text
        )
    )
    users = _index(SCIENTIFIC_USERS, "reviewer_id", USER)
    return EventLog.from_frames(events, items, users, name="scientific")


def _events(users: pl.Series, sequences: pl.Series) -> pl.DataFrame:
    frame = pl.DataFrame({USER: users, ITEM: sequences})
    return frame.with_columns(pl.int_ranges(pl.col(ITEM).list.len()).alias(TIME)).explode(
        ITEM, TIME
    )


def _index(file: PublicFile, raw: str, index: str) -> pl.DataFrame:
    """A headerless table of raw id and number."""
    path = file.find()
    with reading(path):
        return pl.read_csv(
            path,
            separator="\t",
            has_header=False,
            quote_char=None,
            glob=False,
            schema={raw: pl.String, index: pl.Int64},
        )
