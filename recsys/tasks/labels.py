"""Tables of labels: of users as of moments, which candidates there are and which of them are right.

Shapes: R rows, B rows of them, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.errors import DataError
from recsys.log.hashing import fingerprint
from recsys.log.vocabulary import Vocabulary
from recsys.tasks.as_of import AsOfTable


@dataclass(frozen=True, eq=False)
class LabelTable(AsOfTable):
    """A table of labels.

    Attributes:
        candidates: the C labels that a row can have; one where a row is a yes or a no.
        labels: (R) the candidates that are right. A row that is a yes holds [0], one that is a no
            nothing; a row of one class among many holds that class.
        excluded: (R) the candidates that cannot be right for a row, such as what the user has had.
        ranked: whether candidates are ranked for a row, rather than rows by a candidate's score.
        items: (C) of each candidate the rows of `log.items` that it stands for; no values where it
            is none of items.

    Raises:
        DataError: the parts are not of one length, or a label is an excluded candidate.
        LeakError: a row's label lies after the moment of a later phase.
    """

    candidates: Vocabulary
    labels: Ragged
    excluded: Ragged
    ranked: bool
    items: Ragged

    def __post_init__(self) -> None:
        lengths = len(self.rows), len(self.labels), len(self.excluded)
        if len(set(lengths)) > 1 or len(self.items) != len(self.candidates):
            raise DataError(
                f"{self.name}: {lengths} rows, labels and excluded of {len(self.candidates)} "
                f"candidates, {len(self.items)} with items; give each row and candidate its own"
            )
        wrong = np.isin(self._keys(self.labels), self._keys(self.excluded))
        if wrong.any():
            row = int(self.labels.owners()[int(wrong.argmax())])
            raise DataError(f"{self.name}: row {row} excludes one of its labels; leave it in")
        super().__post_init__()

    @property
    def fingerprint(self) -> str:
        """The same for the same rows, candidates and labels."""
        ragged = (self.labels, self.excluded, self.items)
        parts = [tensor for part in ragged for tensor in (part.values, part.offsets)]
        frames = [pl.DataFrame({"": tensor.numpy()}) for tensor in parts]
        return fingerprint((self.rows, self.candidates.ids.to_frame(), *frames))

    def label_matrix(self, rows: Tensor) -> Tensor:
        """(B, C) bool, which candidates are right for the rows (B,)."""
        return self.labels.rows(rows).dense(len(self.candidates))

    def allowed(self, rows: Tensor) -> Tensor:
        """(B, C) bool, which candidates the rows (B,) do not exclude."""
        return ~self.excluded.rows(rows).dense(len(self.candidates))

    def _keys(self, ragged: Ragged) -> np.ndarray:
        return (ragged.owners() * len(self.candidates) + ragged.values).numpy()
