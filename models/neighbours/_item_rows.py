"""What ItemKNN, Markov and TextTFIDF share: a sparse row per item, added up over a history.

Shapes: B users, E events, n items, C columns.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from recsys.batch.bounds import check_index, check_offsets, check_tensor
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, gather_positions
from recsys.batch.sparse import csr, matmul
from recsys.memory import check_memory
from recsys.scoring.parts import Parts
from recsys.scoring.scorer import ClosedForm


def held_items(batch: BasketBatch) -> csr_array:
    """(B, n), 1 where a user's history holds the item."""
    rows = batch.ragged.distinct(batch.num_items)
    ones = np.ones(len(rows.values), dtype=np.float32)
    shape = (len(rows), batch.num_items)
    return csr_array((ones, rows.values.numpy(), rows.offsets.numpy()), shape=shape)


BYTES_PER_PAIR = 40
"""Of an entry of a matrix at the height of its making."""


def check_pairs(num_pairs: int, what: str, remedy: str) -> None:
    """See that there is memory for a sparse matrix of so many entries.

    Raises:
        DataError: there is not.
    """
    check_memory(BYTES_PER_PAIR * num_pairs, f"{what}, up to {num_pairs:,} pairs of items,", remedy)


class ItemRows(ClosedForm):
    """A closed-form model of one sparse matrix (n, C) with a row per item."""

    offsets: Tensor
    columns: Tensor
    values: Tensor
    num_columns: Tensor

    def keep_rows(self, matrix: csr_array) -> None:
        """Hold `matrix` (n, C) in float32."""
        self.keep("offsets", torch.from_numpy(matrix.indptr.astype(np.int64)))
        self.keep("columns", torch.from_numpy(matrix.indices.astype(np.int64)))
        self.keep("values", torch.from_numpy(matrix.data.astype(np.float32)))
        self.keep("num_columns", torch.tensor(matrix.shape[1]))

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("num_columns", self.num_columns, torch.int64)
        # No column is empty but where columns are items.
        most = max(len(self.columns), histories.num_items)
        check_index("num_columns", self.num_columns.flatten(), most + 1)
        check_index("columns", self.columns, int(self.num_columns))
        check_offsets("offsets", self.offsets, histories.num_items, len(self.columns))
        check_tensor("values", self.values, torch.float32, len(self.columns))

    @property
    def rows(self) -> Tensor:
        """(n, C) in CSR."""
        return csr(Ragged(self.columns, self.offsets), int(self.num_columns), self.values)

    def sum_rows(self, batch: BasketBatch, weights: Tensor) -> Tensor:
        """(B, C): the rows of each user's items, each times the weight (E,) of its event."""
        return matmul(csr(batch.ragged, batch.num_items, weights), self.rows)

    def event_parts(self, batch: BasketBatch, items: Tensor, weights: Tensor) -> Parts:
        """What each user's events, of the weights (E,), bring to the column `items` (B,) names."""
        owners = batch.owners()
        cells, offsets = gather_positions(self.offsets, batch.items)
        event = Ragged(cells, offsets).owners()
        is_item = self.columns[cells] == items[owners[event]]
        cells, event = cells[is_item], event[is_item]
        values = self.values[cells].double() * weights[event]
        return Parts.summed("history", owners[event], batch.items[event], values)
