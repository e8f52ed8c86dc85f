"""Each loss at points computed by hand and against an independent implementation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from recsys.batch.ragged import Ragged
from recsys.nn import losses
from recsys.nn.losses import (
    binary_cross_entropy,
    bpr,
    kl_standard_normal,
    linear_cross_entropy,
    multilabel_soft_margin,
    sampled_softmax,
    softmax_cross_entropy,
)


def test_bpr_is_the_log_odds_of_the_right_order() -> None:
    loss = bpr(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, 3.0]))
    expected = [math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(3))]
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_bpr_pairs_one_positive_with_each_of_its_negatives() -> None:
    positive, negative = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0, 1.0, 2.0], [3.0] * 3])
    loss = bpr(positive, negative)
    assert loss.shape == (2, 3)
    torch.testing.assert_close(loss[1, 2], torch.tensor(math.log1p(math.exp(1.0))))


def test_bpr_of_far_apart_scores_is_finite_with_a_gradient() -> None:
    positive = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = bpr(positive, torch.zeros(2))
    (gradient,) = torch.autograd.grad(loss.sum(), positive)
    torch.testing.assert_close(loss, torch.tensor([1e4, 0.0]))
    torch.testing.assert_close(gradient, torch.tensor([-1.0, 0.0]))


def test_bpr_refuses_to_pair_scores_of_different_examples() -> None:
    with pytest.raises(ValueError, match=r"\(4,\) and negative_scores \(4, 4\) differ"):
        bpr(torch.zeros(4), torch.zeros(4, 4))


def test_multilabel_soft_margin_equals_torchs() -> None:
    torch.manual_seed(0)
    scores = (3 * torch.randn(4, 6, dtype=torch.float64)).requires_grad_()
    targets = Ragged.from_lists([[0, 2], [5], [], [1, 3, 4]])
    loss = multilabel_soft_margin(scores, targets)
    labels = targets.dense(6).double()
    expected = torch.nn.MultiLabelSoftMarginLoss(reduction="none")(scores, labels)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value.sum(), scores)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_softmax_cross_entropy_equals_torchs_with_shares_as_probabilities() -> None:
    torch.manual_seed(0)
    scores = (3 * torch.randn(4, 6, dtype=torch.float64)).requires_grad_()
    targets = Ragged.from_lists([[0, 2], [5], [], [1, 3, 4]])
    loss = softmax_cross_entropy(scores, targets)
    shares = targets.dense(6).double() / targets.lengths.clamp(min=1)[:, None]
    expected = torch.nn.functional.cross_entropy(scores, shares, reduction="none")
    torch.testing.assert_close(loss, expected)
    assert loss[2] == 0
    gradients = [torch.autograd.grad(value.sum(), scores)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][2].any()


def test_softmax_cross_entropy_of_equal_scores_is_the_log_of_the_catalogue() -> None:
    loss = softmax_cross_entropy(torch.zeros(2, 5), Ragged.from_lists([[3], [0, 1, 2, 3]]))
    torch.testing.assert_close(loss, torch.full((2,), math.log(5)))


def test_softmax_cross_entropy_of_far_apart_scores_is_finite_with_a_gradient() -> None:
    scores = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = softmax_cross_entropy(scores, Ragged.from_lists([[1]]))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    torch.testing.assert_close(loss, torch.tensor([2e4]))
    torch.testing.assert_close(gradient, torch.tensor([[1.0, -1.0]]))


def test_kl_equals_torchs() -> None:
    torch.manual_seed(0)
    mean, log_variance = torch.randn(4, 3), torch.randn(4, 3)
    normal = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(normal, Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl_standard_normal(mean, log_variance), expected)


def test_kl_of_the_standard_normal_is_zero() -> None:
    assert torch.equal(kl_standard_normal(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2))


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_linear_cross_entropy_equals_torchs_of_the_logits(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CELLS", {"cpu": 1})
    monkeypatch.setattr(losses, "_ROWS", rows)
    torch.manual_seed(0)
    states = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    items = (5 * torch.randn(6, 4, dtype=torch.float64)).requires_grad_()
    targets = torch.tensor([0, 5, 5, 2, 1, 0, 3])
    loss = 3 * linear_cross_entropy(states, items, targets)
    expected = 3 * F.cross_entropy(states @ items.T, targets)
    torch.testing.assert_close(loss, expected)
    for one, other in zip(
        torch.autograd.grad(loss, [states, items]),
        torch.autograd.grad(expected, [states, items]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_linear_cross_entropy_of_far_apart_scores_is_finite() -> None:
    states = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    items = torch.tensor([[1.0], [-1.0]])
    loss = linear_cross_entropy(states, items, torch.tensor([1, 1]))
    (gradient,) = torch.autograd.grad(loss, states)
    torch.testing.assert_close(loss, torch.tensor(1e4))
    torch.testing.assert_close(gradient, torch.tensor([[1.0], [0.0]]))


def test_linear_cross_entropy_in_mixed_precision() -> None:
    torch.manual_seed(0)
    states, items = torch.randn(9, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    targets = torch.arange(9) % 5
    expected = linear_cross_entropy(states, items, targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(states, items, targets)
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.0)
    for one, other in zip(
        torch.autograd.grad(loss, [states, items]),
        torch.autograd.grad(expected, [states, items]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_linear_cross_entropy_adds_up_in_float32_at_least(dtype: torch.dtype) -> None:
    """A sum of 20,000 losses and of as many gradients, which a half cannot count up to."""
    torch.manual_seed(0)
    states = torch.randn(20_000, 8, dtype=dtype, requires_grad=True)
    items = torch.randn(40, 8, dtype=dtype, requires_grad=True)
    targets = torch.arange(20_000) % 40
    loss = linear_cross_entropy(states, items, targets)
    expected = torch.nn.functional.cross_entropy(states.double() @ items.double().T, targets)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-3, atol=0.0)
    for one, other in zip(  # scaled, as training in float16 does
        torch.autograd.grad(1024 * loss, [states, items]),
        torch.autograd.grad(1024 * expected, [states, items]),
        strict=True,
    ):
        assert one.dtype == dtype
        assert (one.double() - other.double()).norm() < 0.01 * other.double().norm()


def test_sampled_softmax_weighs_a_draw_for_all_that_it_stands_for() -> None:
    """n = 10 and two draws: -log(e / (e + 5 (e^2 + e^0)))."""
    loss = sampled_softmax(torch.tensor([1.0]), torch.tensor([[2.0, 0.0]]), 10)
    total = math.e + 5 * (math.exp(2) + 1)
    torch.testing.assert_close(loss, torch.tensor([-math.log(math.e / total)]))


def test_sampled_softmax_of_every_item_is_the_full_one() -> None:
    torch.manual_seed(0)
    scores, target = torch.randn(3, 5, dtype=torch.float64), torch.tensor([4, 0, 2])
    others = scores.scatter(1, target[:, None], -torch.inf)
    loss = sampled_softmax(scores.gather(1, target[:, None])[:, 0], others, 5)
    torch.testing.assert_close(loss, F.cross_entropy(scores, target, reduction="none"))


def test_sampled_softmax_where_every_draw_was_the_positive() -> None:
    positive = torch.zeros(1, requires_grad=True)
    loss = sampled_softmax(positive, torch.full((1, 2), -torch.inf), 5)
    assert loss.tolist() == [0.0]
    (gradient,) = torch.autograd.grad(loss.sum(), positive)
    assert gradient.tolist() == [0.0]


def test_binary_cross_entropy_equals_torchs() -> None:
    torch.manual_seed(0)
    positive, negative = torch.randn(4), torch.randn(4, 3)
    scores = torch.cat([positive[:, None], negative], 1)
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(4, 4)
    expected = F.binary_cross_entropy_with_logits(scores, labels, reduction="none").sum(1)
    torch.testing.assert_close(binary_cross_entropy(positive, negative), expected)
