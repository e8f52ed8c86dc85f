"""ConditionalAutoencoder: one encoder and one decoder for all domains, a bias of each per domain.

What EncGAN has to be compared with: the same vectors and the same likelihood (`DomainVectors`), a
map without an inverse, and no other term. As in an autoencoder that is told a condition (Sohn, Lee,
Yan, NeurIPS 2015), without its sampling.

Shapes: R rows, D dimensions of a vector, Z of the latent vector, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.domains._domain_vectors import DomainVectors
from recsys.ranges import at_least


class ConditionalAutoencoder(DomainVectors):
    """A hidden layer on each side; both layers of each have biases of the domain.

    Args:
        num_items: n.
        num_classes: how many values each column of the items takes.
        column: of the items, whose values are the domains.
        embedding_dim: D.
        latent_dim: Z.
        hidden_dim: H.
        dropout: share of a user's items that is dropped in training.
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: no such column, or an option is out of its range.
    """

    def __init__(
        self,
        num_items: int,
        *,
        num_classes: Mapping[str, int],
        column: str = "department",
        embedding_dim: int = 64,
        latent_dim: int = 32,
        hidden_dim: int = 64,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            num_items,
            num_classes=num_classes,
            column=column,
            embedding_dim=embedding_dim,
            latent_dim=latent_dim,
            dropout=dropout,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
        )
        at_least(1, hidden_dim=hidden_dim)
        sizes = (self.num_domains, hidden_dim)
        self.encoder = ConditionalLayers(embedding_dim, latent_dim, *sizes)
        self.decoder = ConditionalLayers(latent_dim, embedding_dim, *sizes)

    def encode(self, points: Tensor, domains: Tensor) -> Tensor:
        return self.encoder(points, domains)

    def decode(self, latents: Tensor, domains: Tensor) -> Tensor:
        return self.decoder(latents, domains)


class ConditionalLayers(nn.Module):
    """Two layers with biases per domain.

    Args:
        num_inputs, num_outputs: dimensions.
        num_domains: d.
        hidden_dim: H.
    """

    def __init__(
        self, num_inputs: int, num_outputs: int, num_domains: int, hidden_dim: int
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_inputs, hidden_dim, bias=False)
        self.hidden_bias = nn.Parameter(torch.zeros(num_domains, hidden_dim))
        self.output = nn.Linear(hidden_dim, num_outputs, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(num_domains, num_outputs))

    def forward(self, x: Tensor, domains: Tensor) -> Tensor:
        """(R, inputs) to (R, outputs)."""
        hidden = torch.tanh(self.hidden(x) + F.embedding(domains, self.hidden_bias))
        return self.output(hidden) + F.embedding(domains, self.output_bias)
