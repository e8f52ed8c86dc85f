"""The column of the items whose values are the domains."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.ranges import at_least
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of


def num_domains(num_classes: Mapping[str, int], column: str) -> int:
    """How many values a column takes.

    Raises:
        ConfigError: items have no such column, or it has no value.
    """
    if column not in num_classes:
        raise ConfigError(
            f"column={column}: items have no such column; there is "
            f"{', '.join(num_classes) or 'none'}"
        )
    at_least(1, **{f"num_classes.{column}": num_classes[column]})
    return num_classes[column]


def domain_of_item(split: Split, column: str) -> Tensor:
    """(n,) int64: the place of each item's domain among the values of a column, in order.

    Raises:
        DataError: an item has no domain.
    """
    values = split.item_table[column].cast(pl.String)
    if values.null_count():
        raise DataError(
            f"{split.log.name}: {values.null_count()} items have no {column}; give each item a "
            "domain, or leave them out"
        )
    return tensor_of(values.rank("dense").cast(pl.Int64) - 1)
