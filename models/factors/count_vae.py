"""CountVAE: a variational autoencoder of a user's item counts with an exchangeable likelihood.

Paper: Liang, Krishnan, Hoffman, Jebara, "Variational Autoencoders for Collaborative Filtering",
WWW 2018 (Mult-VAE). The Tweedie likelihood of the decoder is that of GLOIE (arXiv 2109.02074).

Kept: L2-normalised input with dropout, one hidden layer on each side, tanh, the annealed weight of
the KL term, the mean of the posterior at inference.
Changed: the input is the sum of a user's baskets with older ones decayed; the decoder's output
layer and the encoder's input layer are one item table. A user without a history gets what the
decoder makes of an input of zeros, which leans on the items' mean counts.

Shapes: B users, n items, D hidden, Z latent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys import ranks
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError
from recsys.nn.distributions import MultinomialHead, OutputHead
from recsys.nn.embedding import EmbeddingTable
from recsys.nn.losses import kl_standard_normal
from recsys.precision import wide
from recsys.ranges import at_least, decays, proper_share
from recsys.scoring.kinds import Generative, LogProbabilities, Separable, VectorScorer
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split
from recsys.types import ItemVectors, Scores, UserVectors


class CountVAE(VectorScorer, LogProbabilities, Generative, Separable):
    """Encodes a history to a normal distribution and decodes it to expected counts.

    Args:
        num_items: n.
        head: the likelihood of the counts: `TweedieHead`, `MultinomialHead` or `GaussianHead`.
        embedding_dim: D, of the item table and of both hidden layers.
        latent_dim: Z.
        decay: weight of a basket relative to the one after it, in (0, 1].
        dropout: share of the input that is dropped in training.
        kl_weight: largest weight of the KL term.
        kl_steps: training steps over which the weight rises from 0.
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: an option is out of its range.
    """

    uses_every_weight = True

    def __init__(
        self,
        num_items: int,
        *,
        head: OutputHead,
        embedding_dim: int = 256,
        latent_dim: int = 64,
        decay: float = 1.0,
        dropout: float = 0.5,
        kl_weight: float = 0.2,
        kl_steps: int = 1000,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        at_least(1, num_items=num_items, embedding_dim=embedding_dim, latent_dim=latent_dim)
        at_least(1, kl_steps=kl_steps)
        at_least(0, kl_weight=kl_weight)
        decays(decay=decay)
        proper_share(dropout=dropout)
        self.head = head
        self.decay = decay
        self.kl_weight = kl_weight
        self.kl_steps = kl_steps
        self.items = EmbeddingTable(num_items, embedding_dim, std=embedding_dim**-0.5)
        self.item_bias = nn.Parameter(torch.zeros(num_items))
        self.dropout = nn.Dropout(dropout)
        self.input_bias = nn.Parameter(torch.zeros(embedding_dim))
        self.posterior = nn.Linear(embedding_dim, 2 * latent_dim)
        self.decoder = nn.Linear(latent_dim, embedding_dim)

    def prepare(self, split: Split) -> Part:
        """All training baskets are reconstructed; the bias starts at the items' mean counts."""
        history = split.training
        total = torch.zeros(split.num_items).index_add_(0, history.items, self.weights(history))
        with torch.no_grad():
            mean = split.total(total) / split.counts([len(history)])[0]
            self.item_bias.copy_(self.head.initial_bias(mean))
        return Part("train", history, history.ragged)

    def weights(self, history: BasketBatch) -> Tensor:
        """(E,): what each event adds to its item's count; 1 in the last basket."""
        return self.decay ** history.age().float()

    def posterior_of(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, Z) of the latent vector, from counts (B, n)."""
        x = self.dropout(nn.functional.normalize(counts, dim=1)).to(self.items.weight.dtype)
        hidden = torch.tanh(x @ self.items.vectors + self.input_bias)
        mean, log_variance = wide(self.posterior(hidden)).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latent: Tensor) -> UserVectors:
        """(B, D), whose products with the item table, plus the bias, are the logits."""
        return torch.tanh(self.decoder(latent.to(self.decoder.weight.dtype)))

    def loss(self, part: Part, progress: Progress) -> Tensor:
        return ranks.mean(self.reconstruct(part.history, progress)[1])

    def num_terms(self, part: Part) -> int:
        return len(part)

    def reconstruct(self, history: BasketBatch, progress: Progress) -> tuple[UserVectors, Tensor]:
        """A decoded sample (B, D), and the negative evidence lower bound of the counts (B,).

        The KL term is weighed (eq. 7).
        """
        counts = history.sum(self.weights(history))
        mean, log_variance = self.posterior_of(counts)
        noise = ranks.drawn(lambda rows: mean.new_empty(rows, mean.shape[1]).normal_(), len(mean))
        hidden = self.decode(mean + noise * (0.5 * log_variance).exp())
        logits = wide(hidden) @ wide(self.items.vectors).T + self.item_bias
        weight = self.kl_weight * min(1.0, progress.step / self.kl_steps)
        divergence = kl_standard_normal(mean, log_variance)
        return hidden, self.head.loss(logits, counts) + weight * divergence

    def hidden(self, batch: BasketBatch) -> UserVectors:
        """(B, D), the decoded mean of the posterior."""
        mean, _ = self.posterior_of(batch.sum(self.weights(batch)))
        return self.decode(mean)

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        """(B, D + 1): the decoded mean of the posterior, and 1 for the bias."""
        return nn.functional.pad(self.hidden(batch), (0, 1), value=1.0)

    def encode_items(self) -> ItemVectors:
        """(n, D + 1): the item table and the bias."""
        return torch.cat([self.items.vectors, self.item_bias[:, None]], dim=1)

    def score(self, batch: BasketBatch) -> Scores:
        """(B, n) expected counts: the order of the logits, on a scale that can be added up.

        Lists are made, and show, the logits.
        """
        return self.head.mean(wide(self.encode_users(batch)) @ wide(self.encode_items()).T)

    def refuse_no_softmax(self) -> None:
        if not isinstance(self.head, MultinomialHead):
            raise ConfigError(
                f"{type(self.head).__name__} tells counts, not probabilities; train with "
                "head@model.head=multinomial"
            )

    def log_probabilities(self, batch: BasketBatch) -> Scores:
        """(B, n), of the logits of the mean of the posterior."""
        return (wide(self.encode_users(batch)) @ wide(self.encode_items()).T).log_softmax(1)

    def draw_preferences(self, num_users: int) -> Scores:
        """(B, n): the shares of the expected counts of latent vectors from the prior."""
        latents = torch.randn(num_users, self.decoder.in_features, device=self.item_bias.device)
        vectors = nn.functional.pad(self.decode(latents), (0, 1), value=1.0)
        counts = self.head.mean(wide(vectors) @ wide(self.encode_items()).T).clamp(min=0)
        return counts / counts.sum(1, keepdim=True)
