"""What a training will take is told before, and nobody who is trained knows that it was."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.devices import free_memory
from recsys.evaluation.ranking import Protocol
from recsys.models import BPRMF, DNNTSP, EASE, CountVAE, SASRec
from recsys.nn.distributions import TweedieHead
from recsys.scoring.recommender import Recommender
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training import estimate
from recsys.training.estimate import Made, memory_of
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

CPU = torch.device("cpu")
PLENTY = 2**40


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard())


def sasrec(split: Split) -> SASRec:
    return SASRec(split.num_items, embedding_dim=8)


def training(**options: Any) -> TrainingOptions:
    defaults = {"max_epochs": 2, "batch_size": 16, "monitor": "ndcg@5", "device": "cpu"}
    return TrainingOptions(**{**defaults, **options})


def trained(
    model: Recommender, split: Split, tell: Callable[[str], object] | None, **options: Any
) -> dict[str, Tensor]:
    fit(model, split, training(**options), Protocol(ks=(5,)), tell=tell)
    return model.state_dict()


@pytest.mark.parametrize(
    ("make", "precision"),
    [
        (sasrec, "32-true"),
        (sasrec, "bf16-true"),
        (sasrec, "bf16-mixed"),
        (lambda split: BPRMF(split.num_items, len(split.users)), "32-true"),
        (lambda split: DNNTSP(split.num_items, embedding_dim=4), "32-true"),
        (lambda split: CountVAE(split.num_items, head=TweedieHead(), latent_dim=4), "32-true"),
    ],
)
def test_a_training_is_the_same_to_the_last_bit(make: Any, precision: str, split: Split) -> None:
    ends = []
    for tell in (None, print):
        torch.manual_seed(0)
        ends.append(trained(make(split), split, tell, precision=precision))
    silent, told = ends
    assert all(torch.equal(silent[name], told[name]) for name in silent)


def test_two_lines_are_told_of_a_model_that_is_trained(split: Split) -> None:
    lines: list[str] = []
    trained(sasrec(split), split, lines.append)
    memory, seconds = lines
    assert re.match(r"SASRec takes about [\d.]+ [KMG]iB on cpu, of .* a step [\d.]+ KiB", memory)
    assert re.match(r"SASRec trains for about .* an epoch of 4 steps, .* s for 2; lists", seconds)


def test_one_line_is_told_of_a_model_in_closed_form_that_knows_its_size(split: Split) -> None:
    lines: list[str] = []
    fit(EASE(), split, training(), Protocol(ks=(5,)), tell=lines.append)
    (line,) = lines  # three matrices of 40 x 40 numbers in float64
    assert line.startswith("EASE takes about 38 KiB to fit, of ")


@pytest.mark.parametrize(
    ("precision", "weights", "moments"),
    [("32-true", 4, 8), ("64-true", 8, 16), ("16-true", 2, 12), ("bf16-mixed", 4, 8)],
)
def test_what_is_held_is_so_many_bytes_a_number(
    precision: str, weights: int, moments: int, split: Split
) -> None:
    model = sasrec(split)
    model.encoder.requires_grad_(False)
    number = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    held = estimate._held(model, precision, set())
    assert held == estimate.Memory(number * weights, trained * weights, trained * moments)


def test_activations_are_those_of_the_batch(split: Split) -> None:
    model = sasrec(split)
    part, histories = model.prepare(split), split.validation.history
    small, large = (
        memory_of(model, part, histories, training(batch_size=size), CPU, PLENTY).step or 0
        for size in (15, 60)
    )
    assert 3 * small < large < 5 * small


def test_what_does_not_fit_is_not_tried_and_warned_of(
    split: Split, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(estimate, "free_memory", lambda device: 2048)
    lines: list[str] = []
    trained(sasrec(split), split, lines.append)
    assert "a step" not in lines[0]
    assert ", of 2 KiB free: weights 7 KiB" in lines[0]
    (message,) = caplog.messages
    assert re.match(r"SASRec takes about .* on cpu, and 2 KiB are free; lower trainer", message)


def test_what_may_not_fit_is_told_from_what_did() -> None:
    tried: list[int] = []

    def of_rows(rows: Tensor) -> int:
        tried.append(len(rows))
        return 100 + 10 * len(rows)

    assert estimate._extended(of_rows, 160, CPU, PLENTY) == 1700
    assert tried == [10, 40, 160]
    tried.clear()
    assert estimate._extended(of_rows, 160, CPU, 1500) == 1700
    assert tried == [10, 40]


def test_tensors_count_once_and_as_long_as_they_live() -> None:
    before, made = torch.zeros(1024), Made()
    with made:
        before.add_(1).view(2, 512)
        assert made.now == 0
        kept = before + 1
        views = kept.view(2, 512)[0], kept.mul_(2)
        assert made.now == 4096
        kept.add_(torch.ones(1024))
    assert (made.now, made.most) == (4096, 8192)
    del kept, views
    assert made.now == 0


def test_what_goes_backward_counts_too() -> None:
    weight, made = torch.ones(1024, requires_grad=True), Made()
    with made:
        (weight.exp() * 2).sum().backward()
    assert made.now >= 4096
    assert weight.grad is not None


def test_what_is_free_on_the_processor() -> None:
    assert free_memory(CPU) > 0
