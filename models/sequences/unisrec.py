"""UniSRec: SASRec over the texts of items, which an adaptor of several experts reads.

Paper: Hou, Mu, Zhao, Li, Ding, Wen, "Towards Universal Sequence Representation Learning for
Recommender Systems", KDD 2022.

Kept: items are frozen vectors of a pretrained encoder; experts, each a parametric whitening
W (x - b), are mixed by a gate with learnt noise in training; states are those of a causal
Transformer; a score is a cosine divided by a temperature, and the loss its softmax over the whole
catalogue, as in the paper's fine-tuning. Items may have a vector of their id, too, added to that of
their text: the paper's transductive setting, without it the inductive one.
Changed: the model is trained on one log from the start, without the paper's contrastive pretraining
on five others. An item has one vector a step on both sides, where the authors' code draws the
gate's noise and the dropout twice. The Transformer is SASRec's of this package.

Shapes: n items, T of the text, X experts, D dimensions. A suffix gives those of a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.sequences.sasrec import Dropout, Encoder, Ranking, SASRec, TextVectors
from recsys.precision import wide
from recsys.ranges import above, at_least, proper_share

LEAST_NOISE = 1e-2  # standard deviation of the gate's noise, at least


@dataclass(frozen=True)
class Experts:
    """Sizes of the adaptor.

    Attributes:
        num_experts: X.
        dropout: of the text's vector before each expert.

    Raises:
        ConfigError: an option is out of its range.
    """

    num_experts: int = 8
    dropout: float = 0.2

    def __post_init__(self) -> None:
        at_least(1, num_experts=self.num_experts)
        proper_share(dropout=self.dropout)


class UniSRec(SASRec):
    """Scores are cosines of states and adapted texts, divided by a temperature.

    Args:
        num_items: n.
        text: how the items' texts become vectors, which are not trained.
        embedding_dim: D, of adapted texts and states.
        experts: sizes of the adaptor.
        encoder: sizes of the Transformer.
        use_id: whether a learned vector of the item is added to that of its text.
        temperature: that cosines are divided by.
        repeats: learn a weight, below 0, that the items of a history get, beyond the paper.
        learning_rate, weight_decay: of AdamW.
        id_weight_decay: of the ids' vectors, where it is another.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self,
        num_items: int,
        *,
        text: TextVectors,
        embedding_dim: int = 64,
        experts: Experts = Experts(),
        encoder: Encoder = Encoder(),
        use_id: bool = False,
        temperature: float = 0.07,
        repeats: bool = False,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        id_weight_decay: float | None = None,
    ) -> None:
        super().__init__(
            num_items,
            embedding_dim=embedding_dim,
            encoder=encoder,
            ranking=Ranking(repeats=repeats),
            text=text,
            use_id=use_id,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            id_weight_decay=id_weight_decay,
        )
        above(0, temperature=temperature)
        self.temperature = temperature
        self.items.from_text = Adaptor(text.dim, embedding_dim, experts)

    def compared(self, vectors: Tensor) -> Tensor:
        """(N, D), of length 1 / sqrt(temperature)."""
        return F.normalize(vectors, dim=1) / self.temperature**0.5


class Adaptor(nn.Module):
    """A mixture of whitening experts (section 2.1.2 and 2.1.3 of the paper).

    Args:
        text_dim: T.
        embedding_dim: D.
        sizes: of the rest.

    >>> Adaptor(3, 2, Experts(num_experts=4)).eval()(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, text_dim: int, embedding_dim: int, sizes: Experts) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(sizes.num_experts, text_dim))
        self.weight = nn.Parameter(torch.empty(sizes.num_experts, text_dim, embedding_dim))
        self.gate = nn.Parameter(torch.zeros(text_dim, sizes.num_experts))
        self.noise = nn.Parameter(torch.zeros(text_dim, sizes.num_experts))
        self.dropout = Dropout(sizes.dropout)
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, text_nT: Tensor) -> Tensor:
        """(n, D)."""
        share_nX = wide(self._gate(text_nT)).softmax(1).to(text_nT.dtype)
        adapted_nD = text_nT.new_zeros(len(text_nT), self.weight.shape[2])
        # An expert at a time: all of them at once would hold X times the catalogue.
        for expert, (shift_T, weight_TD) in enumerate(zip(self.shift, self.weight, strict=True)):
            whitened_nD = (self.dropout(text_nT) - shift_T) @ weight_TD
            adapted_nD = adapted_nD + share_nX[:, expert, None] * whitened_nD
        return adapted_nD

    def _gate(self, text_nT: Tensor) -> Tensor:
        """(n, X), with noise in training (equation 5)."""
        gate_nX = text_nT @ self.gate
        if not self.training:
            return gate_nX
        spread_nX = F.softplus(text_nT @ self.noise) + LEAST_NOISE
        return gate_nX + torch.randn_like(gate_nX) * spread_nX
