"""Vectors of texts that were computed before, by whichever encoder, from a table of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.ranges import at_least
from recsys.reading import read_table, reading


@dataclass(frozen=True)
class FileVectors:
    """Vectors of items' texts from a Parquet file, less their mean (it tells none apart).

    A row of the file is a text and its vector: `text`, a string, and `vector`, a list or an array
    of numbers. Texts are looked up as they stand. A saved model holds what it has read, and no
    longer needs the file.

    Attributes:
        path: of the file.
        dim: T, how many numbers each vector has.

    Raises:
        ConfigError: `dim` is not positive.
    """

    path: str
    dim: int

    def __post_init__(self) -> None:
        at_least(1, dim=self.dim)

    def read(self, texts: pl.Series) -> Tensor:
        """(n, T), zeros for a text that is null or blank.

        Raises:
            ConfigError: there is no such file, its vectors are of another length, or a text has
                none.
            RunError: it is no such table.
        """
        table = self._table()
        items = pl.DataFrame({"text": texts.cast(pl.String)})
        rows = items.join(table, on="text", how="left", maintain_order="left")
        has_words = rows["text"].str.strip_chars().fill_null("") != ""
        if len(missing := rows.filter(has_words & rows["vector"].is_null())):
            raise ConfigError(
                f"path={self.path} has no vector of {len(missing)} of {len(rows)} texts, such as "
                f"{missing['text'][0][:40]!r}; encode these, too"
            )
        vectors = torch.zeros(len(rows), self.dim)
        if has_words.any():
            known = torch.from_numpy(rows["vector"].filter(has_words).to_numpy(writable=True))
            vectors[torch.from_numpy(has_words.to_numpy(writable=True))] = known - known.mean(0)
        return vectors

    def _table(self) -> pl.DataFrame:
        """`text` and `vector`, an array of float32, each text once."""
        path = Path(self.path)
        if not path.is_file():
            raise ConfigError(f"path={self.path}: no such file; expected Parquet of text, vector")
        table = read_table(path, "text", "vector").select("text", "vector")
        with reading(path, fault="has no vectors of numbers", remedy="write text and vector anew"):
            table = table.unique("text", keep="first").drop_nulls()
            lists = table["vector"].cast(pl.List(pl.Float32))
            lengths = lists.list.len().unique()
            if len(table) and lengths.to_list() != [self.dim]:
                raise ConfigError(
                    f"dim={self.dim}, but vectors of {self.path} have {lengths.sort()[0]} numbers; "
                    "set dim to that"
                )
            return table.with_columns(vector=lists.cast(pl.Array(pl.Float32, self.dim)))
