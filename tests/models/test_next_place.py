"""NextPlace."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.models import NextPlace
from recsys.models.sequences import Adjacency
from recsys.models.sequences._recent import recent_items, recent_times
from recsys.models.sequences.next_place import kernel

HISTORIES = BasketBatch.from_lists([[[0], [3], [1]], [[2]], []], num_items=4)


def test_the_last_items_stand_latest_first() -> None:
    assert recent_items(HISTORIES, 2).tolist() == [[1, 3], [2, 4], [4, 4]]
    assert recent_times(HISTORIES, 2).tolist() == [[2, 1], [0, 0], [0, 0]]


def test_scores_by_plain_arithmetic() -> None:
    torch.manual_seed(0)
    model = NextPlace(4, embedding_dim=3, max_length=2)
    with torch.no_grad():
        model.outer.weight.normal_()
        model.bias.normal_()
    items, gates, bias = (w.detach().numpy() for w in (model.items, model.gates, model.bias))
    x = gates[0] * items[1] + gates[1] * items[3]
    inner = model.inner.weight.detach().numpy() @ x + model.inner.bias.detach().numpy()
    h = x + model.outer.weight.detach().numpy() @ np.maximum(inner, 0)
    np.testing.assert_allclose(
        model.score(HISTORIES)[0].detach().numpy(), items @ h + bias, rtol=1e-5
    )


def test_a_kernel_of_distances_by_hand() -> None:
    # A degree of latitude is 111.195 km; one of longitude at 60 degrees north half of that.
    items = pl.DataFrame({"latitude": [60.0, 61.0, 60.0], "longitude": [0.0, 0.0, 1.0]})
    rows = kernel(items, km=60.0).double()
    torch.testing.assert_close(rows.sum(1), torch.ones(3).double())
    ratios = rows[0] / rows[0, 0]
    assert ratios[1].item() == pytest.approx(math.exp(-((111.195 / 60) ** 2) / 2), rel=1e-3)
    assert ratios[2].item() == pytest.approx(math.exp(-((55.6 / 60) ** 2) / 2), rel=1e-2)


def test_a_place_that_was_never_seen_moves_with_its_neighbours() -> None:
    torch.manual_seed(0)
    model = NextPlace(3, adjacency=Adjacency(share=0.5, km=1.0))
    items = pl.DataFrame({"latitude": [0.0, 0.001, 9.0], "longitude": [0.0, 0.0, 0.0]})
    model.keep("neighbours", kernel(items, km=1.0))
    before = model._vectors(model.items[None])[0].detach()
    with torch.no_grad():
        model.items[0] += 1
    moved = model._vectors(model.items[None])[0].detach() - before
    assert moved[1].mean().item() == pytest.approx(0.25, abs=0.01)
    assert moved[0].mean().item() == pytest.approx(0.75, abs=0.01)
    assert moved[2].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (pl.DataFrame({"item_id": [1]}), "items have no latitude; adjacency needs it; set adjac"),
        (
            pl.DataFrame({"latitude": [1.0, None], "longitude": [None, None]}),
            "3 coordinates of items are missing; set adjacency=null",
        ),
    ],
)
def test_items_without_coordinates(items: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        kernel(items, km=1.0)


def test_options_out_of_range() -> None:
    for make, message in [
        (lambda: NextPlace(4, max_length=0), "max_length=0: expected at least 1"),
        (lambda: Adjacency(share=2.0), r"share=2\.0: expected a share"),
        (lambda: Adjacency(km=0.0), r"km=0\.0: expected above 0"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make()
