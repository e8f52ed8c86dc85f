"""The words of a log: how items and events are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM
from recsys.log.vocabulary import Vocabulary


@dataclass(frozen=True)
class Template:
    """How items and events are written, and how much of a history is read.

    Attributes:
        columns: of the items, in the order in which they are read; lists are joined by spaces.
        event_columns: of the events, read after the item in a history. Items are compared and
            recommended by their own words alone.
        separator: between the columns.
        max_item_tokens: of a longer item, or an item with its event, the rest is cut off.
        max_tokens: of a longer history the oldest items are cut off, whole.

    Raises:
        ConfigError: no column, or a history that would not hold one item.

    >>> items = pl.DataFrame({"item_id": [1, 2], "title": ["Tea", None], "brand": ["Oo", None]})
    >>> Template(columns=("title", "brand")).texts(items).to_list()
    ['Tea. Oo', '2']
    """

    columns: Sequence[str] = ("text",)
    event_columns: Sequence[str] = ()
    separator: str = ". "
    max_item_tokens: int = 64
    max_tokens: int = 512

    def __post_init__(self) -> None:
        if not self.columns:
            raise ConfigError(
                "template.columns is empty; name the columns that hold an item's words"
            )
        # An item with its end, behind the token that opens a history.
        if not 1 <= self.max_item_tokens <= self.max_tokens - 2:
            raise ConfigError(
                f"max_item_tokens={self.max_item_tokens} does not fit into max_tokens="
                f"{self.max_tokens}; an item takes two tokens more than its words"
            )

    def texts(self, items: pl.DataFrame) -> pl.Series:
        """(n,) strings: the words of each item, or its id where it has none.

        Args:
            items: a row per item, with `item_id`.

        Raises:
            DataError: a column that the items do not have.
        """
        words = self._joined(items, "items", self.columns)
        ids = items[ITEM].cast(pl.String)
        return pl.select(text=pl.when(words != "").then(words).otherwise(ids))["text"]

    def write(self, items: pl.DataFrame, events: pl.DataFrame) -> LogTexts:
        """The words of a log.

        Args:
            items: a row per item, with `item_id`.
            events: a row per event, with `item_id` of one of the items.

        Raises:
            DataError: a column that the items, or the events, do not have.
        """
        texts = self.texts(items)
        item = Vocabulary(items[ITEM]).index_of(events[ITEM]).rename("item")
        every = pl.int_range(len(items), eager=True)
        if not self.event_columns:
            return LogTexts(texts, every, item.cast(pl.Int64))
        event_words = self._joined(events, "events", self.event_columns)
        pairs = pl.DataFrame([item, event_words.set(event_words == "", None).rename("words")])
        new_texts = (
            pairs.drop_nulls().unique(maintain_order=True).with_row_index("text", len(items))
        )
        parts = [texts[new_texts["item"]], new_texts["words"]]
        texts = pl.concat(
            [texts, pl.select(pl.concat_str(parts, separator=self.separator))["text"]]
        )
        text_of_event = pairs.join(
            new_texts, on=["item", "words"], how="left", maintain_order="left"
        )["text"]
        about = pl.concat([every, new_texts["item"].cast(pl.Int64)])
        return LogTexts(texts, about, text_of_event.cast(pl.Int64).fill_null(item))

    def _joined(self, rows: pl.DataFrame, table: str, columns: Sequence[str]) -> pl.Series:
        """The words of each row, "" where it has none."""
        if missing := [column for column in columns if column not in rows.columns]:
            raise DataError(
                f"{table} have no column {', '.join(missing)} (there are: "
                f"{', '.join(rows.columns)}); name others in template."
                f"{'event_columns' if table == 'events' else 'columns'}"
            )
        words = [_words(rows[column]) for column in columns]
        joined = pl.concat_str(words, separator=self.separator, ignore_nulls=True)
        return pl.select(joined).to_series()


@dataclass(frozen=True, eq=False)
class LogTexts:
    """The words of a log's items and events.

    Attributes:
        texts: (m,) strings: first a text for each of the n items, then one for each distinct pair
            of an item and an event's words.
        items: (m,) Int64, the item that a text is about.
        events: (E,) Int64, the text of each event; its item's text where the event has no words.
    """

    texts: pl.Series
    items: pl.Series
    events: pl.Series


def _words(column: pl.Series) -> pl.Series:
    """Text without blanks around it; null where there is none."""
    is_list = isinstance(column.dtype, pl.List)
    text = column.cast(pl.List(pl.String)).list.join(" ") if is_list else column.cast(pl.String)
    text = text.str.strip_chars()
    return text.set(text == "", None)
