"""OwnPointer, in NextPlace."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError
from recsys.models import NextPlace
from recsys.models.sequences import OwnPointer

ITEMS = [0, 1, 2, 0, 1, 3, 0, 1]
HISTORIES = BasketBatch.from_lists([[[item] for item in ITEMS], [[2]], []], num_items=5)


def small(**options: Any) -> NextPlace:
    torch.manual_seed(0)
    return NextPlace(
        5, embedding_dim=3, own=OwnPointer(**{"max_events": 8, "day": None, **options})
    )


def set_weights(model: NextPlace, **values: list[float]) -> None:
    assert model.own is not None
    for name, value in values.items():
        weight = getattr(model.own, name)
        with torch.no_grad():
            weight[: len(value)] = torch.tensor(value)


def network(model: NextPlace) -> Tensor:
    """(B, n) what the network alone says."""
    plain = NextPlace(5, embedding_dim=3)
    plain.load_state_dict(model.state_dict(), strict=False)
    return plain.score(HISTORIES).softmax(1)


def test_at_first_every_event_weighs_as_much_as_all_that_they_do_not_say() -> None:
    model = small()
    expected = (HISTORIES.counts() + network(model)) / (HISTORIES.lengths() + 1)[:, None]
    torch.testing.assert_close(model.score(HISTORIES).softmax(1), expected)


def test_weights_by_plain_arithmetic() -> None:
    model = small()
    ages, events, sentinel = (
        [0.3, -0.2, -1.0, -1.5],
        [1.0, 0.5, 0.25, -0.1, -0.2, 0.4, 0.6],
        [0.7, 0.1, -0.3],
    )
    set_weights(model, ages=ages, events=events, sentinel=sentinel)
    weight = np.zeros(5)
    for k, item in enumerate(ITEMS):
        log_age = math.log2(len(ITEMS) - k)
        after = [k > m and ITEMS[k - 1 - m] == ITEMS[-1 - m] for m in range(3)]
        follows = [all(after[: m + 1]) for m in range(3)]
        is_last = [item == ITEMS[-1 - m] for m in range(3)]
        g = np.interp(log_age, range(4), ages)
        g += np.dot(events, [*follows, *is_last, follows[0] * log_age / 3])
        weight[item] += math.exp(g)
    rest = math.exp(np.dot(sentinel, [1, math.log(9), math.log(5)]))
    expected = weight + rest * network(model)[0].detach().numpy()
    np.testing.assert_allclose(
        model.score(HISTORIES)[0].softmax(0).detach().numpy(), expected / expected.sum(), rtol=1e-5
    )


def test_an_event_at_the_same_time_of_day_weighs_more() -> None:
    model = small(day=4.0)
    set_weights(model, events=[0.0] * 9 + [1.0])  # the cosine of a turn a day
    # Items 3 and 2 came 4 and 2 hours of a day of four before the last.
    batch = BasketBatch.from_lists([[[3], [0], [2], [0], [1]]], num_items=5)
    p = model.score(batch).softmax(1)[0]
    assert p[3] > p[1] / 2 > p[2]
    rows = model.own.inputs(batch)["own_days"]
    assert rows[0, :5].tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_options_out_of_range() -> None:
    with pytest.raises(ConfigError, match="max_events=2: expected at least 3"):
        OwnPointer(max_events=2)
    with pytest.raises(ConfigError, match=r"day=0\.0: expected above 0"):
        OwnPointer(day=0.0)
