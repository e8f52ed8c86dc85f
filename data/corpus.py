"""Further logs as text: what a language model may read beside the log that it is trained for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys.batch.ragged import Ragged
from recsys.data.cache import cached
from recsys.errors import ConfigError
from recsys.log.event_log import USER
from recsys.log.words import Template
from recsys.ranges import above
from recsys.scoring import trust
from recsys.tasks.tensors import tensor_of


@dataclass(frozen=True)
class LogCorpus:
    """The histories of a log, in words. The log is read when it is asked for.

    Attributes:
        source: name of a function in `recsys.data.sources`, such as `amazon_sequences.beauty`.
        template: what is read of its items and events.
        weight: how often it is read, relative to the histories of the log that is trained on.
        options: of the function, such as `path` for `table.table`.

    Raises:
        ConfigError: a weight that is not positive; on reading, a source that does not exist.
    """

    source: str
    template: Template
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        above(0, weight=self.weight)

    def read(self) -> tuple[pl.Series, Ragged]:
        """The words of items and events, and all users' rows of them, oldest first."""
        try:
            function = trust.find(f"recsys.data.sources.{self.source}", "data")
        except ConfigError:
            raise ConfigError(
                f"source={self.source} is no source of recsys.data.sources; "
                "give one such as amazon_sequences.beauty"
            ) from None
        log = cached(function, **self.options)
        texts = self.template.write(log.items, log.events)
        begins = log.events[USER].rle_id().search_sorted(np.arange(len(log.users)))
        offsets = np.append(begins.to_numpy(), log.num_events).astype(np.int64)
        return texts.texts, Ragged(tensor_of(texts.events), torch.from_numpy(offsets))
