"""Logistic regression of a user's features, one against the rest for each candidate.

Paper: Cox, "The regression analysis of binary sequences", JRSS B 1958; here by scikit-learn.
Features are standardised on the training rows.

Shapes: B rows, C candidates, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import polars as pl
import torch
from sklearn.linear_model import LogisticRegression as Regression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from recsys.errors import ConfigError
from recsys.ranges import above
from recsys.scoring.predictor import WEIGHTS, FeaturePredictor
from recsys.tasks.features import Feature
from recsys.tasks.labels import LabelTable


class LogisticRegression(FeaturePredictor):
    """A linear model of the log odds with an L2 penalty.

    Args:
        features: of a user as of a moment.
        l2: weight of the penalty; scikit-learn's `C` is its inverse.
        standardise: whether each feature is brought to mean 0 and deviation 1.

    Raises:
        ConfigError: `l2` is not positive.
    """

    def __init__(
        self, *, features: Sequence[Feature], l2: float = 1000.0, standardise: bool = True
    ) -> None:
        super().__init__(features=features)
        above(0, l2=l2)
        if l2 <= 0:
            raise ConfigError(f"l2={l2} is not positive; 1 to 1000 suits most features")
        self.l2, self.standardise = l2, standardise
        self._fitted: list[Pipeline | float] = []

    def fit(self, table: LabelTable, rows: Tensor) -> Self:
        self.refuse_ranking(table)
        self.refuse_no_rows(table, rows)
        inputs, labels = self.inputs(table, rows), table.label_matrix(rows).numpy()
        self._fitted = [self._column(inputs, labels[:, c]) for c in range(labels.shape[1])]
        return self

    def _column(self, inputs: np.ndarray, labels: np.ndarray) -> Pipeline | float:
        if labels.all() or not labels.any():  # nothing to tell apart
            return float(labels[0])
        scaler = [StandardScaler()] if self.standardise else []
        regression = Regression(C=1 / self.l2, max_iter=2_000)
        return make_pipeline(*scaler, regression).fit(inputs, labels)

    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        inputs = self.inputs(table, rows)
        columns = [
            np.full(len(inputs), model)
            if isinstance(model, float)
            else model.predict_proba(inputs)[:, 1]
            for model in self._fitted
        ]
        return torch.from_numpy(np.stack(columns, axis=1)).float()

    def weights(self, table: LabelTable) -> pl.DataFrame:
        """`candidate`, `feature` and `weight`: of a feature in deviations where it is standardised.

        A candidate without two kinds of labels has none.
        """
        names = self.columns(table)
        frames = [
            pl.DataFrame(
                {"candidate": name, "feature": names, "weight": model[-1].coef_[0]}, schema=WEIGHTS
            )
            for name, model in zip(table.candidates.ids.cast(pl.String), self._fitted, strict=True)
            if not isinstance(model, float)
        ]
        return pl.concat([pl.DataFrame(schema=WEIGHTS), *frames])
