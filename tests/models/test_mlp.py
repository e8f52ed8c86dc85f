"""MLP: what it starts from, what it holds out, and the loss of a ranking by hand."""

import math

import pytest
import torch

from recsys.batch.ragged import Ragged
from recsys.errors import DataError
from recsys.models import MLP, NewEASE
from recsys.models.labels.mlp import _Data, _ranking_loss
from recsys.scoring.predictor import Steps
from recsys.tasks.as_of import folds
from recsys.tasks.features import CandidateShares, Counts
from recsys.testing.logs import colour_table, new_item_table

NONE = Steps(max_epochs=0)
ITEMS = [Counts("item_id")]


@pytest.mark.parametrize("candidate_features", [[], [CandidateShares("colour")]])
def test_untrained_it_ranks_as_its_prior(candidate_features: list[CandidateShares]) -> None:
    table = new_item_table()
    rows = table.phase(2)
    prior = NewEASE(l2=10.0)
    model = MLP(features=ITEMS, candidate_features=candidate_features, prior=prior, steps=NONE)
    scores = model.fit(table, table.phase(0)).predict(table, rows)
    expected = prior.predict(table, rows).clamp(min=0)
    learnt = prior.predict(table, table.phase(0))
    floor = 0.01 * learnt[learnt > 0].mean()
    torch.testing.assert_close(scores, (expected + floor).log().log_softmax(1))


def test_the_ranking_loss_is_over_the_candidates_allowed() -> None:
    data = _Data(
        inputs=torch.zeros(2, 1),
        prior=None,
        labels=Ragged.from_lists([[0], [1, 2]]),
        excluded=Ragged.from_lists([[2], []]),
        users=torch.arange(2),
        moments=torch.zeros(2, dtype=torch.int64),
    )
    scores = torch.tensor([[1.0, 0.0, 9.0], [0.0, 0.0, math.log(2)]])
    first = math.log(1 + math.exp(-1))
    second = (math.log(4) + math.log(2)) / 2  # shares of a quarter and a half
    assert _ranking_loss(scores, data).item() == pytest.approx((first + second) / 2)


def test_the_last_moment_is_held_out_and_then_learnt_from() -> None:
    """Noise helps nobody: no epoch is better than none, and the scores stay where they start."""
    table = new_item_table()
    two = torch.cat([table.phase(0), table.phase(1)])
    steps = Steps(learning_rate=1.0, max_epochs=3, patience=3)
    model = MLP(features=ITEMS, prior=NewEASE(l2=10.0), steps=steps, num_members=1)
    wild = model.fit(table, two).predict(table, table.phase(2))
    untrained = MLP(features=ITEMS, prior=NewEASE(l2=10.0), steps=NONE, num_members=1)
    expected = untrained.fit(table, two).predict(table, table.phase(2))
    torch.testing.assert_close(wild, expected)


def test_training_that_diverges_is_an_error() -> None:
    table = colour_table()
    train, _ = next(folds(table))
    model = MLP(features=ITEMS, steps=Steps(learning_rate=1e30), num_members=1)
    with pytest.raises(
        DataError, match=r"MLP: the loss on the rows held out is nan; .*rate=1e\+30"
    ):
        model.fit(table, train)
