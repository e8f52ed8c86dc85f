"""Loss functions, named as in the literature. They return a value an example; callers reduce.

One does not: `linear_cross_entropy` returns the mean, which is what makes it fast.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.precision import wide

# A block of logits that stays in a processor's cache; on a GPU, one that keeps it busy.
_CELLS = {"cpu": 2**19}
_CELLS_ELSEWHERE = 2**26
_ROWS = 64


def bpr(
    positive_scores: Float[Tensor, "*#pairs"], negative_scores: Float[Tensor, "*#pairs"]
) -> Float[Tensor, "*#pairs"]:
    """Bayesian personalised ranking: -log sigmoid(positive - negative).

    Rendle et al. (2009), the likelihood term of BPR-Opt; its regulariser is the optimiser's
    weight decay.

    Args:
        positive_scores: (B,), or (B, 1) where each has several negatives.
        negative_scores: (B,) or (B, num_negatives).

    Returns:
        One value a pair, in the shape of the negatives, not reduced.

    Raises:
        ValueError: the two differ in their number of axes, so that broadcasting would pair
            scores of different examples.

    >>> bpr(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
    tensor([0.1269, 0.6931])
    """
    if positive_scores.ndim != negative_scores.ndim:
        raise ValueError(
            f"positive_scores {tuple(positive_scores.shape)} and negative_scores "
            f"{tuple(negative_scores.shape)} differ in their number of axes; "
            "add the missing one, as in positive_scores.unsqueeze(-1)"
        )
    return -F.logsigmoid(positive_scores - negative_scores)


def multilabel_soft_margin(
    scores: Float[Tensor, "users items"], targets: Ragged
) -> Float[Tensor, " users"]:
    """Binary cross-entropy of every item with whether it is a target: a mean over the items.

    Its mean over users is `torch.nn.MultiLabelSoftMarginLoss`, without a dense matrix of targets.

    Args:
        scores: (B, n), before the sigmoid.
        targets: B rows of distinct items.

    >>> multilabel_soft_margin(torch.zeros(1, 3), Ragged.from_lists([[0, 2]]))
    tensor([0.6931])
    """
    owners = targets.owners()
    hits = scores.new_zeros(len(scores)).index_add(0, owners, scores[owners, targets.values])
    return (F.softplus(scores).sum(1) - hits) / scores.shape[1]


def softmax_cross_entropy(
    scores: Float[Tensor, "users items"], targets: Ragged
) -> Float[Tensor, " users"]:
    """-log softmax of a user's targets against the whole catalogue: a mean over the targets.

    Args:
        scores: (B, n).
        targets: B rows; 0 for a row without any.

    >>> softmax_cross_entropy(torch.zeros(1, 4), Ragged.from_lists([[0, 2]]))
    tensor([1.3863])
    """
    owners = targets.owners()
    share = 1 / targets.lengths.clamp(min=1).to(scores.dtype)
    log_probabilities = scores.log_softmax(1)[owners, targets.values]
    return -scores.new_zeros(len(scores)).index_add(0, owners, log_probabilities * share[owners])


def linear_cross_entropy(
    states: Float[Tensor, "batch dim"],
    items: Float[Tensor, "items dim"],
    targets: Int64[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """`cross_entropy(states @ items.T, targets)`, a mean, without the matrix of logits.

    The logits are made in blocks of rows. As the loss is a mean, a block's gradient is known as
    soon as its logits are: it is computed there and then, and the block forgotten. Memory is that
    of one block, and the time on a processor half of what the whole matrix takes, or less. The idea
    is that of Hsu et al., "Liger Kernel" (arXiv 2410.10989), section 3.2.

    Args:
        states: (B, D); the loss of no row is 0.
        items: (n, D).
        targets: (B,), 0 .. n - 1.

    >>> states, items = torch.eye(2), torch.eye(3, 2)
    >>> linear_cross_entropy(states, items, torch.tensor([0, 1]))
    tensor(0.5514)
    """
    return _LinearCrossEntropy.apply(states, items, targets)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        # In mixed precision the products of matrices alone are in the lower one.
        states = states.to(items.dtype)
        dtype = wide(items[:0]).dtype
        total = states.new_zeros((), dtype=dtype)
        by_states, by_items = (torch.zeros_like(x, dtype=dtype) for x in (states, items))
        cells = _CELLS.get(states.device.type, _CELLS_ELSEWHERE)
        step = max(_ROWS, cells // len(items))
        for block, target, gradient in zip(
            states.split(step), targets[:, None].split(step), by_states.split(step), strict=True
        ):
            logits = (block @ items.T).log_softmax(1, dtype=dtype)
            total -= logits.gather(1, target).sum()
            # The gradient of a row's loss in its logits is softmax - one-hot.
            logits.exp_().scatter_add_(1, target, logits.new_full(target.shape, -1.0))
            gradient.copy_(logits.to(items.dtype) @ items)
            by_items.addmm_(logits.T, wide(block))
        ctx.save_for_backward(by_states, by_items)
        return total / max(len(states), 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        by_states, by_items = ctx.saved_tensors
        scale = gradients[0] / max(len(by_states), 1)
        return by_states * scale, by_items * scale, None


def sampled_softmax(
    positive_scores: Float[Tensor, " batch"],
    negative_scores: Float[Tensor, "batch negatives"],
    num_items: int,
) -> Float[Tensor, " batch"]:
    """Cross-entropy against M items drawn uniformly from n, each standing for n / M of them.

    -log softmax of the positive; in its sum the positive counts itself, and the others by an
    unbiased estimate, which is the correction of their scores by -log of the expected number of
    draws (Jean et al., "On Using Very Large Target Vocabulary", 2015). With every item drawn once
    it is the full softmax.

    Args:
        positive_scores: (B,).
        negative_scores: (B, M), -inf where a draw was the positive itself.
        num_items: n.

    >>> sampled_softmax(torch.zeros(1), torch.zeros(1, 2), num_items=4)
    tensor([1.6094])
    """
    negatives = negative_scores.logsumexp(1) + math.log(num_items / negative_scores.shape[1])
    return torch.logaddexp(positive_scores, negatives) - positive_scores


def binary_cross_entropy(
    positive_scores: Float[Tensor, " batch"], negative_scores: Float[Tensor, "batch negatives"]
) -> Float[Tensor, " batch"]:
    """-log sigmoid(positive) - sum over the negatives of log(1 - sigmoid(negative)).

    Args:
        positive_scores: (B,).
        negative_scores: (B, M).

    >>> binary_cross_entropy(torch.zeros(1), torch.zeros(1, 2))
    tensor([2.0794])
    """
    return F.softplus(-positive_scores) + F.softplus(negative_scores).sum(1)


def kl_standard_normal(
    mean: Float[Tensor, "batch dim"], log_variance: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """KL(N(mean, diag exp(log_variance)) || N(0, I)) in nats, summed over the latent dimensions.

    Kingma & Welling (2014), appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
