"""Clients: who holds which examples.

Shapes: C clients, U users, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self, cast, runtime_checkable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.batch.examples import Part, Prefixes
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import offsets_of, ranges
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import USER
from recsys.scoring.recommender import Recommender
from recsys.tasks.splits import Split

Weights = dict[str, Tensor]
ROWS_AT_ONCE = 1024


@runtime_checkable
class OnClients(Protocol):
    """What a recommender needs beside `prepare` to be trained on clients, many at once.

    Both functions read no weights but those that they are given: by name, each (C, …), those of
    C clients side by side.
    """

    def inputs(self, batch: BasketBatch) -> Weights:
        """What the functions below read of B histories, a row each."""
        ...

    def scores_of(self, weights: Weights, inputs: Weights) -> Tensor:
        """(C, B, n) of inputs (C, B, …)."""
        ...

    def descend(self, weights: Weights, inputs: Weights, target: Tensor, rates: Tensor) -> None:
        """Subtract from the weights, in place, the slopes of the sum of rate * loss.

        Args:
            weights, inputs: as of `scores_of`.
            target: (C, B) the items that came next.
            rates: (C, B) what the loss of each row counts.
        """
        ...


@dataclass(frozen=True, eq=False)
class Clients:
    """The examples of C clients, which each of them holds by itself.

    Attributes:
        examples: what the model reads, by name, and `target`: rows by client.
        offsets: (C + 1,) int64, where each client's rows begin.
        numbers: (C,) int64, of the clients, which their random numbers depend on.
        ids: (C,) what the clients are called.
        users: (U,) int64, the client of each of a split's users, -1 of a user without one.
    """

    examples: Mapping[str, Tensor]
    offsets: Tensor
    numbers: Tensor
    ids: pl.Series
    users: Tensor

    @classmethod
    def of(cls, model: Recommender, split: Split, *, column: str = USER) -> Clients:
        """The training examples of a split by the values of a column of its users.

        Args:
            model: reads histories, as `OnClients`.
            split: whose training events.
            column: `user_id`, or an attribute of the users such as a store.

        Raises:
            ConfigError: a model that cannot be trained on clients.
            DataError: no such column, or users without a value.
        """
        if not isinstance(model, OnClients):
            raise ConfigError(
                f"{type(model).__name__} cannot be trained on clients; choose one with "
                "`descend`, such as NextPlace"
            )
        ids, client_of_user = _clients_of_users(split, column)
        part = model.prepare(split)
        owners = part.owners if isinstance(part, Prefixes) else torch.arange(len(part))
        clients = client_of_user[part.history.users[owners]]
        order = clients.argsort(stable=True)
        pieces = [_examples(model, part.rows(rows)) for rows in order.split(ROWS_AT_ONCE)]
        examples = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        counts = torch.bincount(clients, minlength=len(ids))
        return cls(examples, offsets_of(counts), torch.arange(len(ids)), ids, client_of_user)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def num_examples(self) -> Tensor:
        """(C,) int64."""
        return self.offsets.diff()

    def rows(self, index: Tensor) -> Self:
        """The clients at `index` (C',) int64, with their rows alone."""
        places, offsets = ranges(self.offsets[index], self.num_examples[index])
        examples = {name: tensor[places] for name, tensor in self.examples.items()}
        ids, numbers = self.ids[index.numpy()], self.numbers[index]
        return replace(self, examples=examples, offsets=offsets, numbers=numbers, ids=ids)

    def entropies(self) -> Tensor:
        """(C,) float64: of each client's own targets, in nats; it never leaves the client."""
        targets = self.examples["target"]
        owners = torch.arange(len(self)).repeat_interleave(self.num_examples)
        width = int(targets.max()) + 1 if len(targets) else 1
        cells, counts = (owners * width + targets).unique(return_counts=True)
        client = cells // width
        p = counts.double() / self.num_examples[client]
        return torch.zeros(len(self), dtype=torch.float64).index_add_(0, client, -p * p.log())


def _examples(model: Recommender, part: Part) -> dict[str, Tensor]:
    return cast(OnClients, model).inputs(part.history) | {"target": part.target.values}


def _clients_of_users(split: Split, column: str) -> tuple[pl.Series, Tensor]:
    """The ids of the clients, and (U,) the client of each user."""
    users = split.users.ids.rename(USER).to_frame()
    if column not in split.log.users.columns:
        raise DataError(
            f"users have no column {column!r}; clients are values of one of "
            f"{', '.join(split.log.users.columns)}"
        )
    values = users.join(split.log.users.select(USER, client=column), on=USER, maintain_order="left")
    if nulls := values["client"].null_count():
        raise DataError(f"users.{column} is missing for {nulls} users; fill it, or choose another")
    ids = values["client"].unique().sort()
    return ids, torch.from_numpy(ids.search_sorted(values["client"]).to_numpy().astype(np.int64))
