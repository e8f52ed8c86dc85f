"""TextTFIDF: items whose text is like that of the history. Nothing is learnt from behaviour.

    weight(i, w)   = (1 + ln count(i, w)) ln(N / items with w),  a row scaled to length 1
    profile(u)     = sum over events (i, age) of u's history of decay^age weight(i, ·)
    score(u, j)    = cosine of profile(u) and weight(j, ·)

The weighting is `ltc` of Salton & Buckley, "Term-weighting approaches in automatic text retrieval",
1988; N items have text. Words are runs of letters, digits and underscores in lower case; those of
one item alone match nothing and are left out. Items without text get zeros; an item without a
training event is scored like any other. A user without a history, or with one that shares no word
with anything, gets popularity.

Shapes: B users, n items, V words.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from scipy.sparse import csr_array
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, gather_positions
from recsys.batch.sparse import matmul
from recsys.errors import DataError
from recsys.models.neighbours._item_rows import ItemRows
from recsys.nn.text_vectors import tfidf_weights
from recsys.ranges import decays
from recsys.scoring.kinds import Explainable
from recsys.scoring.parts import Parts
from recsys.tasks.splits import Split
from recsys.types import Scores


class TextTFIDF(Explainable, ItemRows):
    """Cosine between item texts and the decayed sum of the texts of a history.

    Args:
        decay: weight of an event relative to one a basket later, in (0, 1].

    Raises:
        ConfigError: `decay` is out of its range.
        DataError: on fitting, the log's items have no column `text`, or nothing in it.
    """

    def __init__(self, *, decay: float = 0.7) -> None:
        super().__init__()
        decays(decay=decay)
        self.decay = decay

    def compute(self, split: Split) -> None:
        self.keep_rows(tfidf(item_texts(split)))

    def cells_per_user(self, num_items: int) -> int:
        """As many as there are items or words."""
        return max(num_items, int(self.num_columns))

    def score(self, batch: BasketBatch) -> Scores:
        return matmul(self.rows, self._profile(batch).T).T.contiguous()

    def _profile(self, batch: BasketBatch) -> Tensor:
        """(B, V), of length 1."""
        profile = self.sum_rows(batch, self.decay ** batch.age().float())
        return torch.nn.functional.normalize(profile, dim=1)

    def parts(self, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame) -> Sequence[Parts]:
        """By the words that an item shares with the history."""
        names = words_of(item_table["text"])
        if len(names) != int(self.num_columns):
            raise DataError("items have other texts than those that the model was fitted on")
        cells, offsets = gather_positions(self.offsets, items)
        rows, words = Ragged(cells, offsets).owners(), self.columns[cells]
        values = self._profile(batch)[rows, words] * self.values[cells]
        return [Parts.summed("word", rows, words, values, names)]


def item_texts(split: Split) -> pl.Series:
    """(n,), null for an item without text.

    Raises:
        DataError: the log's items have no column `text`, or nothing in it.
    """
    items = split.item_table
    if "text" not in items.columns or not items["text"].count():
        raise DataError(
            f"{split.log.name}: items have no text; give them a column `text` or choose a model "
            "that reads none"
        )
    return items["text"]


def tfidf(texts: pl.Series) -> csr_array:
    """(n, V) TF-IDF rows of length 1, zero for a text that is null or shares no word."""
    cells = _cells(texts).with_columns(word=pl.col("word").rank("dense") - 1)
    values, row, column = (cells[name].to_numpy() for name in ("weight", "text", "word"))
    return csr_array((values, (row, column)), shape=(len(texts), cells["word"].n_unique()))


def words_of(texts: pl.Series) -> list[str]:
    """(V,): what the columns of `tfidf` stand for."""
    return _cells(texts)["word"].unique().sort().to_list()


def _cells(texts: pl.Series) -> pl.DataFrame:
    """A row for each word of a text, with its weight."""
    words = texts.str.to_lowercase().str.extract_all(r"\w+")
    text_words = pl.DataFrame({"text": pl.int_range(len(texts), eager=True), "word": words})
    return tfidf_weights(text_words.explode("word").drop_nulls())
