"""A batch computed in micro-batches gives what it gives at once."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader, MicroBatches
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.scoring.kinds import Separable
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

from . import on_ranks


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard())


@pytest.fixture(scope="module")
def trained(
    split: Split, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], tuple[dict[str, Tensor], pl.DataFrame]]:
    """Weights and `train.csv` of a model whose batches are computed in so many."""

    def training(name: str, accumulate: int) -> tuple[dict[str, Tensor], pl.DataFrame]:
        folder = tmp_path_factory.mktemp(name)
        # The second batch of an epoch has one user, and so two micro-batches without any.
        epochs = {"max_epochs": 1} if name == "lmrec" else {}
        on_ranks.train(name, split, folder, accumulate=accumulate, **epochs)
        state = torch.load(folder / "weights.pt", weights_only=True)
        return state, pl.read_csv(folder / "train.csv")

    return training


@pytest.mark.parametrize("name", ["sasrec", "next_place", "lmrec"])
def test_micro_batches_compute_what_the_batch_does(
    name: str, trained: Callable[[str, int], tuple[dict[str, Tensor], pl.DataFrame]]
) -> None:
    (whole, curve), (divided, curve_of_divided) = trained(name, 1), trained(name, 3)
    for key, weight in whole.items():
        assert (weight - divided[key]).abs().max() < 1e-12, key
    losses = [c["train/loss"].to_torch() for c in (curve, curve_of_divided)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["bpr_mf", "count_vae"])
def test_they_weigh_what_they_have_of_terms(name: str, split: Split) -> None:
    """What is drawn differs; how much each counts does not."""
    model = on_ranks.model_of(name, split)
    assert isinstance(model, Separable)
    part = model.prepare(split)
    batches = list(MicroBatches(Loader(part, 59), 4, model.num_terms))
    of_first = batches[:4]
    terms = [model.num_terms(batch) for batch in of_first]
    assert [batch.weight for batch in of_first] == [4 * n / sum(terms) for n in terms]
    assert [len(batch) for batch in batches] == [15, 15, 15, 14, 1, 0, 0, 0]


def test_a_batch_without_terms_weighs_nothing() -> None:
    part = Part("train", BasketBatch.from_lists([[[0]]], num_items=1), Ragged.from_lists([[0]]))
    batches = MicroBatches(Loader(part, 1), 2, lambda batch: 0)
    assert [batch.weight for batch in batches] == [0.0, 0.0]


@pytest.mark.parametrize("name", ["gloie", "dnntsp"])
def test_losses_that_read_a_batch_as_a_whole(name: str, split: Split, tmp_path: Path) -> None:
    options = TrainingOptions(accumulate=2, monitor="ndcg@5", device="cpu")
    model = on_ranks.model_of(name, split)
    message = f"trainer.accumulate=2: the loss of {type(model).__name__} reads a batch as a whole"
    with pytest.raises(ConfigError, match=message):
        fit(model, split, options, on_ranks.PROTOCOL, folder=tmp_path)


@pytest.mark.parametrize("accumulate", [0, 5])
def test_numbers_of_micro_batches_that_there_are_not(accumulate: int) -> None:
    with pytest.raises(ConfigError, match=f"accumulate={accumulate} is not in 1 .. batch_size=4"):
        TrainingOptions(batch_size=4, accumulate=accumulate)
