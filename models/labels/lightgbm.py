"""LightGBM: gradient-boosted trees over a user's features, one ensemble for each candidate.

Paper: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017; the
authors' package, which the extra `boosting` brings.

Shapes: B rows, C candidates, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.ranges import above, at_least, share
from recsys.scoring.predictor import FeaturePredictor
from recsys.tasks.features import Feature
from recsys.tasks.labels import LabelTable


class LightGBM(FeaturePredictor):
    """Trees that each correct the ones before.

    Args:
        features: of a user as of a moment.
        num_trees: of an ensemble.
        num_leaves: of a tree.
        learning_rate: what a tree's output is multiplied by.
        min_leaf: training rows in a leaf, at least.
        feature_fraction: share of the features that a tree may use.
        row_fraction: share of the rows that a tree learns from.
        l2: penalty of the leaves' values.
        seed: of the two fractions.

    Raises:
        ConfigError: the package lightgbm is not installed, or an option is out of its range.
    """

    def __init__(
        self,
        *,
        features: Sequence[Feature],
        num_trees: int = 600,
        num_leaves: int = 7,
        learning_rate: float = 0.02,
        min_leaf: int = 30,
        feature_fraction: float = 0.3,
        row_fraction: float = 0.8,
        l2: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(features=features)
        at_least(1, num_trees=num_trees)
        self.num_trees = num_trees
        self.options = tree_options(
            "binary",
            num_leaves=num_leaves,
            learning_rate=learning_rate,
            min_leaf=min_leaf,
            feature_fraction=feature_fraction,
            row_fraction=row_fraction,
            l2=l2,
            seed=seed,
        )
        self._package = lightgbm_package()
        self._fitted: list[Any] = []

    def fit(self, table: LabelTable, rows: Tensor) -> Self:
        self.refuse_ranking(table)
        self.refuse_no_rows(table, rows)
        inputs, labels = self.inputs(table, rows), table.label_matrix(rows).numpy()
        self._fitted = [
            self._package.train(
                {**self.options, "num_threads": torch.get_num_threads()},
                self._package.Dataset(inputs, labels[:, column].astype(np.float32)),
                self.num_trees,
            )
            for column in range(labels.shape[1])
        ]
        return self

    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        inputs = self.inputs(table, rows)
        columns = [trees.predict(inputs) for trees in self._fitted]
        return torch.from_numpy(np.stack(columns, axis=1)).float()


def lightgbm_package() -> Any:
    """The package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ConfigError(
            "lightgbm is not installed; install it with `pip install recsys[boosting]`"
        ) from error
    return lightgbm


def tree_options(
    objective: str,
    *,
    num_leaves: int,
    learning_rate: float,
    min_leaf: int,
    feature_fraction: float,
    row_fraction: float,
    l2: float,
    seed: int,
) -> dict[str, Any]:
    """Options by the names that the package has for them; the same seed gives the same trees.

    Raises:
        ConfigError: one is out of its range.
    """
    at_least(2, num_leaves=num_leaves)
    at_least(0, min_leaf=min_leaf, l2=l2)
    above(0, learning_rate=learning_rate)
    above(0, feature_fraction=feature_fraction, row_fraction=row_fraction)
    share(feature_fraction=feature_fraction, row_fraction=row_fraction)
    return {
        "objective": objective,
        "num_leaves": num_leaves,
        "learning_rate": learning_rate,
        "min_data_in_leaf": min_leaf,
        "feature_fraction": feature_fraction,
        "bagging_fraction": row_fraction,
        "bagging_freq": 1,
        "lambda_l2": l2,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
