"""Loss functions, named as in the literature. They return a value an example; callers reduce."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recsys.ragged import Ragged


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
    """
    owners = targets.owners()
    share = 1 / targets.lengths.clamp(min=1).to(scores.dtype)
    log_probabilities = scores.log_softmax(1)[owners, targets.values]
    return -scores.new_zeros(len(scores)).index_add(0, owners, log_probabilities * share[owners])


def kl_standard_normal(
    mean: Float[Tensor, "batch dim"], log_variance: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """KL(N(mean, diag exp(log_variance)) || N(0, I)) in nats, summed over the latent dimensions.

    Kingma & Welling (2014), appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
