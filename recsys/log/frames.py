"""Tables that people have in memory, as polars frames: of polars, pandas, Arrow and their kin."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import polars as pl

from recsys.errors import DataError


@runtime_checkable
class ArrowStream(Protocol):
    """Gives its rows as Arrow's streams of columns, as tables of pyarrow, pandas and DuckDB do."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The rows."""


AnyFrame: TypeAlias = pl.DataFrame | pl.LazyFrame | ArrowStream


def as_polars(frame: object, table: str = "frame") -> pl.DataFrame:
    """The rows of any of these kinds of table, in their order.

    The index of a pandas frame is left out, but where it has a name: then it is a column.

    Args:
        frame: of polars, lazy too, of pandas, or anything that gives Arrow's streams.
        table: what it holds, for the error.

    Raises:
        DataError: it is none of these, or has columns that are no columns.

    >>> as_polars(pl.LazyFrame({"user_id": [1, 2]})).columns
    ['user_id']
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    try:
        if _is_of_pandas(frame):
            return _of_pandas(frame)
        if isinstance(frame, ArrowStream):
            return pl.DataFrame(frame)
    except Exception as error:  # of polars, pandas, pyarrow and whatever gives the stream
        reason = str(error).partition("\n")[0]
        raise DataError(f"{table}: cannot be read as columns: {reason}") from error
    raise DataError(
        f"{table}: {type(frame).__name__} is no table; give a frame of polars or pandas, or an "
        "Arrow table"
    )


def _is_of_pandas(frame: Any) -> bool:
    """Without an import of pandas, which need not be installed."""
    return any(
        kind.__module__.partition(".")[0] == "pandas" and kind.__name__ == "DataFrame"
        for kind in type(frame).__mro__
    )


def _of_pandas(frame: Any) -> pl.DataFrame:
    is_named = any(name is not None for name in frame.index.names)
    return pl.from_pandas(frame, include_index=is_named)
