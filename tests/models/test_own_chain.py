"""OwnChain."""

import math

import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError
from recsys.models import OwnChain

HISTORIES = BasketBatch.from_lists([[[0], [1], [0], [2], [0]], [[1], [1]], []], num_items=3)


def test_frequencies_by_hand() -> None:
    scores = OwnChain(smoothing=1.0, prior=None).score(HISTORIES).exp()
    expected = torch.tensor([[3, 1, 1], [0, 2, 0]]) + 1 / 3
    expected = torch.cat([expected / torch.tensor([[6], [3]]), torch.full((1, 3), 1 / 3)])
    torch.testing.assert_close(scores, expected.double())


def test_a_chain_by_hand() -> None:
    # After place 0, where user 0 is, came 1 and 2; after 1, where the other is, came 1.
    scores = OwnChain(smoothing=1.0, prior=2.0).score(HISTORIES).exp()
    share = OwnChain(smoothing=1.0, prior=None).score(HISTORIES).exp()
    after = torch.tensor([[0, 1, 1], [0, 1, 0], [0, 0, 0]])
    expected = (after + 2 * share) / (after.sum(1, keepdim=True) + 2)
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(scores.sum(1), torch.ones(3, dtype=torch.float64))


def test_older_events_count_less() -> None:
    scores = OwnChain(smoothing=3.0, prior=None, decay=0.5).score(HISTORIES).exp()
    counts = torch.tensor([1 + 1 / 4 + 1 / 16, 1 / 8, 1 / 2]).double()
    torch.testing.assert_close(scores[0], (counts + 1) / (counts.sum() + 3))


def test_a_history_is_read_without_another() -> None:
    alone = OwnChain().score(HISTORIES.rows(torch.tensor([1])))
    torch.testing.assert_close(OwnChain().score(HISTORIES)[1:2], alone)


@pytest.mark.parametrize("option", ["smoothing", "prior", "decay"])
def test_options_out_of_range(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"{option}=-1\.0: expected above 0"):
        OwnChain(**{option: -1.0})
    assert math.isfinite(OwnChain().score(HISTORIES).sum())
