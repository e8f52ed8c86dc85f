"""Vocabulary: the user's keys (ids) and the rows that tensors know them by (indices)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

UNKNOWN = -1
"""The index of an id that a vocabulary does not hold."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Ids in index order: `ids[i]` has index `i`; `len(vocabulary)` is the padding index.

    Attributes:
        ids: unique and without nulls, integers or strings.

    >>> users = Vocabulary(pl.Series(["ann", "bob"]))
    >>> users.index_of(pl.Series(["bob", "eve"])).to_list()
    [1, -1]
    >>> users.ids_of(pl.Series([0, -1])).to_list()
    ['ann', None]
    """

    ids: pl.Series

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def padding(self) -> int:
        """The row after the last real one."""
        return len(self.ids)

    @cached_property
    def _lookup(self) -> pl.DataFrame:
        return pl.DataFrame({"id": self.ids, "index": pl.int_range(len(self), eager=True)})

    @cached_property
    def _array(self) -> np.ndarray | None:
        """The index at `id - smallest id`, where integer ids lie close enough together."""
        if self.ids.dtype != pl.Int64 or not len(self):
            return None
        ids = self.ids.to_numpy()
        span = int(ids.max()) - int(ids.min()) + 1
        if span > 16 * len(self):
            return None
        array = np.full(span, UNKNOWN)
        array[ids - ids.min()] = np.arange(len(self))
        return array

    def index_of(self, ids: pl.Series) -> pl.Series:
        """Index (int64) of each id, `UNKNOWN` for an id that is not held.

        Ids of another type are compared by value: `"42"` and 42.0 find the integer 42.
        """
        if ids.dtype.is_float():
            integers = ids.cast(pl.Int64, strict=False)
            ids = integers.set(integers != ids, None)  # 42.5 is not 42
        if ids.dtype != self.ids.dtype:
            ids = ids.cast(self.ids.dtype, strict=False)
        if self._array is not None and not ids.null_count():
            place = ids.to_numpy() - int(self.ids.min())  # type: ignore[arg-type]
            if len(place) and place.min() >= 0 and place.max() < len(self._array):
                return pl.Series("index", self._array[place])
        rows = pl.DataFrame({"id": ids}).join(
            self._lookup, on="id", how="left", maintain_order="left"
        )
        return rows["index"].fill_null(UNKNOWN)

    def ids_of(self, index: pl.Series) -> pl.Series:
        """The id of each index 0 .. n-1, and null for `UNKNOWN`."""
        indices = index.cast(pl.Int64)
        return self.ids.gather(indices.set(indices == UNKNOWN, None))
