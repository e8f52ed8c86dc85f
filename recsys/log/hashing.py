"""Fingerprints of tables: the same content gives the same one, wherever and however it was read.

A SHA-256 over each column's name, type, nulls and values, whatever chunks the columns lie in and
whatever stands under a null.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

ROWS_AT_ONCE = 2**20
_SIGNED = (pl.Int8, pl.Int16, pl.Int32, pl.Int64)
_UNSIGNED = (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_NUMBERS = (*_SIGNED, *_UNSIGNED, pl.Float32, pl.Float64)


def fingerprint(tables: Iterable[pl.DataFrame]) -> str:
    """64 hexadecimal digits for tables in their order.

    >>> table = pl.DataFrame({"item_id": [7, 8]})
    >>> fingerprint([table]) == fingerprint([table.head(1).extend(table.tail(1))])
    True
    >>> fingerprint([table]) == fingerprint([table.reverse()])
    False
    """
    digest = hashlib.sha256()
    for table in tables:
        digest.update(json.dumps([table.width, table.height]).encode())
        for column in table:
            _add(digest, column)
    return digest.hexdigest()


def _add(digest: Any, column: pl.Series) -> None:
    digest.update(json.dumps([column.name, str(column.dtype)]).encode())
    digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
    kind = column.dtype
    if isinstance(kind, pl.Struct):
        for field in column.struct.unnest():
            _add(digest, field)
    elif isinstance(kind, pl.Array | pl.List):
        lists = column.cast(pl.List(kind.inner))
        lengths = lists.list.len()
        _add(digest, lengths)
        _add(digest, lists.filter(lengths > 0).explode())
    else:
        for start in range(0, len(column), ROWS_AT_ONCE):
            digest.update(_bytes(column.slice(start, ROWS_AT_ONCE)))


def _bytes(values: pl.Series) -> bytes:
    """The values of a piece of a column; nulls count as 0 or as empty text."""
    numbers = values.to_physical() if values.dtype.is_temporal() else values
    numbers = numbers.cast(pl.UInt8) if numbers.dtype == pl.Boolean else numbers
    if numbers.dtype in _NUMBERS:
        return numbers.fill_null(0).to_numpy().tobytes()
    text = values.bin.encode("hex") if values.dtype == pl.Binary else values.cast(pl.String)
    text = text.fill_null("")
    return text.str.len_bytes().to_numpy().tobytes() + text.str.join("").item().encode()
