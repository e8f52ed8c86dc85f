"""UniSRec: its adaptor by hand, its loss against a loop, and its errors."""

import math
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.models import UniSRec
from recsys.models.sequences import Encoder, Experts
from recsys.models.sequences.unisrec import Adaptor
from recsys.scoring.recommender import Progress

SEQUENCES = [[3, 1, 4, 1, 5], [2, 5], [0, 5, 3]]
N, T, D = 6, 3, 4


class Lengths:
    """Of a text its length, and two constants."""

    dim = T

    def read(self, texts: pl.Series) -> Tensor:
        lengths = torch.from_numpy(texts.str.len_chars().to_numpy(writable=True))
        return F.pad(lengths[:, None].float(), (0, 2), value=1.0)


def model_of(**options: Any) -> UniSRec:
    """In double precision, without dropout, with vectors of text and weights that matter."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"embedding_dim": D, "text": Lengths()}
    settings |= {"experts": Experts(2, 0.0), "encoder": Encoder(dropout=0.0), **options}
    model = UniSRec(N, **settings).double()
    with torch.no_grad():
        model.items.text.normal_()
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return model


def part_of(sequences: list[list[int]]) -> Part:
    history = BasketBatch.from_lists([[[i] for i in row] for row in sequences], num_items=N)
    return Part("train", history, history.ragged)


@torch.no_grad()
def test_the_adaptor_by_hand() -> None:
    adaptor = Adaptor(2, 1, Experts(num_experts=2, dropout=0.9)).eval()
    adaptor.weight.copy_(torch.tensor([[[1.0], [2.0]], [[10.0], [0.0]]]))
    adaptor.shift.copy_(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
    adaptor.gate.copy_(torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]))
    text = torch.tensor([[1.0, 3.0], [0.0, 1.0]])
    # Experts say 0 + 6 and 10 of the first text, -1 + 2 and 0 of the second; gates 3 : 1, 1 : 1.
    expected = torch.tensor([[0.75 * 6 + 0.25 * 10], [0.5 * 1 + 0.5 * 0]])
    torch.testing.assert_close(adaptor(text), expected)


@torch.no_grad()
def test_in_training_the_gate_has_noise_and_texts_have_dropout() -> None:
    adaptor = Adaptor(2, 1, Experts(num_experts=2, dropout=0.0))
    text = torch.tensor([[1.0, 3.0]]).expand(4_000, 2)
    adaptor.noise.copy_(torch.tensor([[0.0, math.log(math.expm1(2.0))], [0.0, 0.0]]))
    spread = (adaptor._gate(text)).std(0)
    expected = torch.tensor([math.log(2) + 0.01, 2.01])
    torch.testing.assert_close(spread, expected, rtol=0.05, atol=0.0)
    assert adaptor.eval()._gate(text).std() == 0
    adaptor = Adaptor(2, 1, Experts(num_experts=1, dropout=0.5))
    assert adaptor(text).unique().numel() > 1
    assert adaptor.eval()(text).unique().numel() == 1


@torch.no_grad()
@pytest.mark.parametrize("use_id", [False, True])
def test_the_loss_is_a_softmax_of_cosines(use_id: bool) -> None:
    model = model_of(use_id=use_id, temperature=0.2).eval()
    items = model.items.from_text(model.items.text)
    if use_id:
        items = items + model.items.id.vectors
    losses = []
    for row in SEQUENCES:
        states = model.encoder(items, Ragged.from_lists([row[:-1]]))
        for state, target in zip(states, row[1:], strict=True):
            cosines = F.cosine_similarity(state[None], items)
            losses.append(F.cross_entropy(cosines[None] / 0.2, torch.tensor([target])))
    loss = model.loss(part_of(SEQUENCES), Progress(0, 1))
    torch.testing.assert_close(loss, torch.stack(losses).mean())


@torch.no_grad()
def test_scores_are_those_cosines() -> None:
    model = model_of(temperature=0.5).eval()
    batch = part_of([*SEQUENCES, []]).history
    scores = model.score(batch)
    assert scores[:3].abs().max() <= 2.0 + 1e-9
    assert not scores[3].any()
    items = model.encode_items()
    torch.testing.assert_close(items.norm(dim=1), torch.full((N,), math.sqrt(2)).double())


def test_texts_are_not_trained_and_all_else_is() -> None:
    model = model_of(use_id=True)
    assert "items.text" not in dict(model.named_parameters())
    model.loss(part_of(SEQUENCES), Progress(0, 1)).backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not {name for name in still if name.startswith("items.")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0"),
        ({"embedding_dim": 0}, "embedding_dim=0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UniSRec(N, text=Lengths(), **options)


@pytest.mark.parametrize("options", [{"num_experts": 0}, {"dropout": 1.0}])
def test_experts_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Experts(**options)
