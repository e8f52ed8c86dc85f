"""LMRec in micro-batches: the gradients of the whole batch, and less held for them."""

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from recsys.batch.examples import Part
from recsys.log.words import Template
from recsys.models import LMRec
from recsys.models.language import Decoder, Ids, Language, Ranking, Tuning, _states
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training.estimate import Made

SIZES: dict[str, Any] = {"num_layers": 2, "embedding_dim": 16, "num_heads": 2, "ffn_dim": 32}
LOSSES: dict[str, Any] = {
    "language": Language(batch_size=5, row_length=24),
    "ranking": Ranking(num_negatives=4),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "within the batch": {"ids": Ids(use_ids=True), "ranking": Ranking(repeats=True)},
    "whole catalogue": {"ranking": Ranking(num_negatives=None)},
    "binary": {"ranking": Ranking(softmax=False, num_negatives=3)},
    "language alone": {"ranking": Ranking(weight=0.0)},
    "frozen": {"language": Language(batch_size=0), "tuning": Tuning(freeze=True)},
    "layers again": {"tuning": Tuning(checkpoint_activations=True)},
}


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard())


def made(split: Split, *, dropout: float = 0.0, **options: Any) -> tuple[LMRec, Part]:
    """A model in float64, and a batch of 12 users."""
    torch.manual_seed(0)
    model = LMRec(
        split.num_items,
        decoder=Decoder(vocab_size=300, dropout=dropout, **SIZES),
        template=Template(),
        **(LOSSES | options),
    )
    part = model.prepare(split)
    return model.double().train(), part.rows(torch.arange(12))


def gradients(model: LMRec, batch: Part, micro_batches: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its gradients, with what is drawn from one seed."""
    model.micro_batches = micro_batches
    model.zero_grad()
    torch.manual_seed(1)
    loss = model.loss(batch, Progress(0, 1))
    loss.backward()
    every = model.named_parameters()
    return loss.detach(), {name: w.grad.clone() for name, w in every if w.grad is not None}


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_are_those_of_the_whole_batch(name: str, split: Split) -> None:
    model, batch = made(split, **OPTIONS[name])
    loss, of_whole = gradients(model, batch, 1)
    for number in (2, 9):  # more than there are rows of language
        of_pieces, divided = gradients(model, batch, number)
        assert abs(of_pieces - loss) < 1e-12
        assert divided.keys() == of_whole.keys()
        for weight, gradient in of_whole.items():
            assert (divided[weight] - gradient).abs().max() < 1e-12, weight


def test_both_passes_draw_the_same_dropout(split: Split) -> None:
    model, batch = made(split, dropout=0.3)
    loss, twice = gradients(model, batch, 4)
    with mock.patch.object(_states, "checkpoint", lambda read, *inputs, **_: read(*inputs)):
        same_loss, once = gradients(model, batch, 4)
    assert same_loss == loss
    for name, gradient in once.items():
        assert twice[name].equal(gradient), name
    _, undivided = gradients(model, batch, 1)
    assert not undivided["user_projection.weight"].allclose(once["user_projection.weight"])


def test_less_is_held_at_once(split: Split) -> None:
    def most(number: int) -> int:
        with Made() as counted:
            gradients(model, batch, number)
        return counted.most

    model, batch = made(split)
    whole, divided = most(1), most(3)
    assert divided < 0.6 * whole


def test_in_mixed_precision(split: Split) -> None:
    model, batch = made(split)
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        _, whole = gradients(model, batch, 1)
        _, divided = gradients(model, batch, 4)
    for name, gradient in whole.items():
        distance = (divided[name] - gradient).norm()
        assert distance <= 0.05 * gradient.norm() + 1e-6, name  # 8 bits


def test_vectors_to_score_by_are_those_of_a_whole_batch(split: Split) -> None:
    model, batch = made(split)
    scores = []
    for number in (1, 4):
        model.micro_batches = number
        with torch.inference_mode():
            scores.append(model.eval().score(batch.history))
    assert scores[0].equal(scores[1])
