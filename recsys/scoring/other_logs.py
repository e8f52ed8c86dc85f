"""A model and another log than its own: the same users and events, as the model knows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError
from recsys.log.vocabulary import UNKNOWN, Vocabulary
from recsys.scoring.trained_model import SavedModel
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of


def known_parts(saved: SavedModel, split: Split) -> list[tuple[Part, Part]]:
    """The validation and the test users of a split, and the same as the model knows them.

    In the second part of each pair, user indices and event rows are those of the model's log,
    and -1 where that log has no such user or event.

    Args:
        split: of any log of the model's catalogue.

    Raises:
        ConfigError: the catalogue is another.
    """
    check_catalogue(saved, split)
    users = tensor_of(_index_of(saved.users, split.users.ids))
    rows = _rows_of(saved.histories, split, users)
    parts = []
    for part in (split.validation, split.test):
        history = part.history
        index, log_rows = users[history.users], rows[history.log_rows]
        known_history = replace(history, users=index, log_rows=log_rows)
        parts.append((part, replace(part, history=known_history)))
    return parts


def check_catalogue(saved: SavedModel, split: Split) -> None:
    """Refuse a split of another catalogue than the model's.

    Raises:
        ConfigError: it is another.
    """
    items, log_items = saved.items, split.items
    if items.ids.equals(log_items.ids):
        return
    if items.ids.dtype != log_items.ids.dtype:
        raise ConfigError(
            f"the items of the log are {log_items.ids.dtype}, as {log_items.ids[0]!r}, and the "
            f"model's {items.ids.dtype}, as {items.ids[0]!r}; evaluate a run on the catalogue that "
            "it was trained on"
        )
    strange, missing = (
        one.ids.filter(other.index_of(one.ids) == UNKNOWN)
        for one, other in ((log_items, items), (items, log_items))
    )
    difference = "the log holds the model's items in another order"
    if len(strange):
        difference = f"the log holds item {strange[0]!r}, which the model does not know"
    elif len(missing):
        difference = f"the model knows item {missing[0]!r}, which the log does not hold"
    raise ConfigError(f"{difference}; evaluate a run on the catalogue that it was trained on")


def _index_of(users: Vocabulary, user_ids: pl.Series) -> pl.Series:
    """As `Vocabulary.index_of`, but text is another id than the number that it spells."""
    if user_ids.dtype == users.ids.dtype:
        return users.index_of(user_ids)
    return Vocabulary(users.ids.cast(pl.String)).index_of(user_ids.cast(pl.String))


def _rows_of(histories: BasketBatch, split: Split, users: Tensor) -> Tensor:
    """(events of the split's log,) the row of each in the model's log, -1 without one."""
    model_events = pl.DataFrame(
        {
            "user": histories.owners().numpy(),
            "item": histories.items.numpy(),
            "time": histories.times.numpy(),
            "row": histories.log_rows.numpy(),
        }
    )
    index = pl.Series("user", users.numpy()[split.events["user"].to_numpy()])
    events = split.events.select("item", "time", "log_row").with_columns(index)
    same = ["user", "item", "time"]
    nth = pl.int_range(pl.len()).over(same)
    model_events, events = (f.with_columns(nth=nth) for f in (model_events, events))
    matches = events.join(model_events, on=[*same, "nth"])
    rows = np.full(split.log.num_events, -1)
    rows[matches["log_row"].to_numpy()] = matches["row"].to_numpy()
    return torch.from_numpy(rows)
