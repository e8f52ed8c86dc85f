"""Area under the curve and average precision beside scikit-learn, ties and resamples included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from recsys.evaluation.binary_metrics import auroc, average_precision

rows = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2)


def test_by_hand() -> None:
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert auroc(scores, labels) == pytest.approx([3 / 4])  # of four pairs, one is wrong
    assert average_precision(scores, labels) == pytest.approx([(1 + 2 / 3) / 2])


def test_equal_scores_are_worth_a_half() -> None:
    scores, labels = np.zeros(4), np.array([True, False, False, False])
    assert auroc(scores, labels) == pytest.approx([0.5])
    assert average_precision(scores, labels) == pytest.approx([0.25])


@given(rows)
def test_as_scikit_learn(draws: list[tuple[int, bool, int]]) -> None:
    scores, labels, weights = (np.array(column) for column in zip(*draws, strict=True))
    is_drawn, yes, no = weights > 0, weights[labels].sum(), weights[~labels].sum()
    if not (yes and no):
        return
    resampled = np.stack([weights, np.ones_like(weights)])
    expected = roc_auc_score(labels[is_drawn], scores[is_drawn], sample_weight=weights[is_drawn])
    assert auroc(scores, labels, resampled)[0] == pytest.approx(expected)
    expected = average_precision_score(
        labels[is_drawn], scores[is_drawn], sample_weight=weights[is_drawn]
    )
    assert average_precision(scores, labels, resampled)[0] == pytest.approx(expected)


def test_without_a_pair_there_is_no_number() -> None:
    scores, all_yes = np.array([0.1, 0.2]), np.array([True, True])
    assert np.isnan(auroc(scores, all_yes)).all()
    assert np.isnan(average_precision(scores, ~all_yes)).all()
    assert average_precision(scores, all_yes) == pytest.approx([1.0])
