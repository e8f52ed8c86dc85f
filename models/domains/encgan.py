"""EncGAN, our reading: one latent space, a bias per manifold, an encoder inverted to generate.

Paper: Kim, Jung, Lee, Zhang, "Encoder-Powered Generative Adversarial Networks", 2019, arXiv
1906.00541. Only the abstract and the introduction could be read, so the objective is ours.

Kept: data lie on several manifolds that do not touch; an encoder models them and is inverted to
generate, so that nothing is generated between them; which manifold a point is on is no part of the
latent vector; one latent space is shared, since all manifolds have the same weights and differ in
the biases of each layer alone; a critic compares what is generated with what is there.
Ours: the map is a stack of affine couplings (Dinh et al., ICLR 2017), whose inverse is exact; it
makes of a point the latent vector z and a residual u, which is 0 on the manifold; the terms are

    reconstruction  of a point, from its z with u = 0
    adversarial     points of each manifold against those of drawn z with u = 0 (Wasserstein)
    biases          their variance over manifolds: what manifolds have in common is left to z;
                    where a manifold lies is free

and z is drawn uniformly from a cube, since a curve that ends has two ends there, too.

Manifolds are domains here, and points the vectors of users in them; what makes a recommender of
them is `DomainVectors`.

Shapes: R rows, M manifolds, D dimensions of a point, Z of the latent vector, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.batch.bounds import check_tensor
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.models.domains._domain_vectors import DomainVectors
from recsys.precision import wide
from recsys.ranges import at_least
from recsys.scoring.kinds import Generative
from recsys.tasks.splits import Split
from recsys.types import Scores


@dataclass(frozen=True)
class Terms:
    """What EncGAN's terms count beside the likelihood of the items.

    Attributes:
        reconstruction, adversarial, biases: as the file says.
        gradient_penalty: of the critic, on slopes above 1.

    Raises:
        ConfigError: one is negative.
    """

    reconstruction: float = 0.1
    adversarial: float = 0.1
    biases: float = 0.01
    gradient_penalty: float = 10.0

    def __post_init__(self) -> None:
        at_least(0, reconstruction=self.reconstruction, adversarial=self.adversarial)
        at_least(0, biases=self.biases, gradient_penalty=self.gradient_penalty)


class EncGAN(DomainVectors, Generative):
    """The vector of a user in any domain, from those in the domains that are known.

    Args:
        num_items: n.
        num_classes: how many values each column of the items takes.
        column: of the items, whose values are the domains.
        embedding_dim: D.
        latent_dim: Z, less than D.
        hidden_dim: H, of the network in a coupling.
        num_layers: couplings.
        dropout: share of a user's items that is dropped in training.
        terms: of the loss.
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: no such column, or an option is out of its range.

    >>> classes = {"shop": 2}
    >>> model = EncGAN(4, num_classes=classes, column="shop", embedding_dim=8, latent_dim=4).eval()
    >>> model.score(BasketBatch.from_lists([[[0], [2]], []], num_items=4)).shape
    torch.Size([2, 4])
    """

    concentration: Tensor

    def __init__(
        self,
        num_items: int,
        *,
        num_classes: Mapping[str, int],
        column: str = "department",
        embedding_dim: int = 64,
        latent_dim: int = 32,
        hidden_dim: int = 64,
        num_layers: int = 4,
        dropout: float = 0.5,
        terms: Terms = Terms(),
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
        self.map = ManifoldMap(
            self.num_domains,
            dim=embedding_dim,
            latent_dim=latent_dim,
            hidden_dim=hidden_dim,
            num_layers=num_layers,
        )
        self.critic = Critic(self.num_domains, dim=embedding_dim, hidden_dim=hidden_dim)
        self.terms = terms
        self.register_buffer("concentration", torch.ones(1))

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("concentration", self.concentration, torch.float32, 1)

    def prepare(self, split: Split) -> Part:
        """Beside the rest, how alike users are in how they divide their events among domains."""
        part = super().prepare(split)
        events = self.events_by_domain(part.history)
        shares = events / events.sum(1, keepdim=True)
        spread = shares.var(0, unbiased=False).sum()
        if spread > 0:  # of a Dirichlet distribution, by its first two moments
            mean = shares.mean(0)
            self.concentration.fill_(((mean * (1 - mean)).sum() / spread - 1).clamp(min=0.01))
        return part

    def encode(self, points: Tensor, domains: Tensor) -> Tensor:
        """(R, Z) of points (R, D); the residual is left out."""
        return self.map(points, domains)[0]

    def decode(self, latents: Tensor, domains: Tensor) -> Tensor:
        """(R, D): the points of the manifolds."""
        return self.map.inverse(latents, domains)

    def draw(self, num_rows: int) -> Tensor:
        """(R, Z): uniform on a cube."""
        return draw(num_rows, self.latent_dim, like=self.items.weight)

    def draw_preferences(self, num_users: int) -> Scores:
        """(B, n): of a drawn latent vector in all domains, by drawn shares of the domains."""
        within = self.within_domains(self.draw(num_users)).exp()
        alpha = self.domain_shares.double() * self.concentration.double() + 1e-3
        shares = torch.distributions.Dirichlet(alpha.cpu()).sample((num_users,)).to(within)
        return within * shares[:, self.domain_of_item]

    def regularise(self, points: Tensor, domains: Tensor) -> Tensor:
        """The three terms."""
        terms = self.terms
        rebuilt = self.decode(self.encode(points, domains), domains)
        total = terms.reconstruction * wide(rebuilt - points).square().mean()
        total = total + terms.biases * self.map.variance_of_biases()
        if terms.adversarial:
            drawn = self.decode(self.draw(len(points)), domains)
            # The critic lowers its loss, the map raises it: a gradient that changes its sign.
            drawn = drawn.detach() * (1 + terms.adversarial) - terms.adversarial * drawn
            total = total + self.critic.loss(
                points.detach(), drawn, domains, gradient_penalty=terms.gradient_penalty
            )
        return total


def draw(num_rows: int, latent_dim: int, *, like: Tensor) -> Tensor:
    """(R, Z) latent vectors, uniform on the cube from -1 to 1, on the device of a tensor."""
    return 2 * torch.rand(num_rows, latent_dim, dtype=like.dtype, device=like.device) - 1


class ManifoldMap(nn.Module):
    """Points of M manifolds to latent vectors and residuals, and exactly back.

    Args:
        num_manifolds: M.
        dim: D.
        latent_dim: Z, less than D.
        hidden_dim: H, of the network in a coupling.
        num_layers: couplings.

    Raises:
        ConfigError: an option is out of its range.

    >>> of_two = ManifoldMap(2, dim=3, latent_dim=1)
    >>> points, manifolds = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])
    >>> latents, residuals = of_two(points, manifolds)
    >>> latents.shape, residuals.shape
    (torch.Size([5, 1]), torch.Size([5, 2]))
    >>> torch.allclose(of_two.inverse(latents, manifolds, residuals), points, atol=1e-4)
    True
    """

    def __init__(
        self,
        num_manifolds: int,
        *,
        dim: int,
        latent_dim: int,
        hidden_dim: int = 64,
        num_layers: int = 4,
    ) -> None:
        super().__init__()
        at_least(1, num_manifolds=num_manifolds, hidden_dim=hidden_dim, num_layers=num_layers)
        at_least(1, latent_dim=latent_dim)
        at_least(latent_dim + 1, embedding_dim=dim)
        self.dim, self.latent_dim = dim, latent_dim
        self.location = BiasPerManifold(num_manifolds, dim)
        self.couplings = nn.ModuleList(
            Coupling(num_manifolds, dim, hidden_dim) for _ in range(num_layers)
        )

    def forward(self, points: Tensor, manifolds: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors (R, Z) and residuals (R, D - Z) of points (R, D) of manifolds (R,)."""
        x = points - self.location(manifolds)
        for coupling in self.couplings:
            x = coupling(x.flip(1), manifolds)  # another half than in the layer before
        return x[:, : self.latent_dim], x[:, self.latent_dim :]

    def inverse(
        self, latents: Tensor, manifolds: Tensor, residuals: Tensor | None = None
    ) -> Tensor:
        """(R, D): the points; without residuals those that lie on the manifolds."""
        if residuals is None:
            residuals = latents.new_zeros(len(latents), self.dim - self.latent_dim)
        x = torch.cat([latents, residuals], dim=1)
        for coupling in reversed(self.couplings):
            assert isinstance(coupling, Coupling)
            x = coupling.inverse(x, manifolds).flip(1)
        return x + self.location(manifolds)

    def variance_of_biases(self) -> Tensor:
        """Over manifolds, a mean over the biases but those of the location."""
        layers = [of for of in self.couplings.modules() if isinstance(of, BiasPerManifold)]
        return torch.stack([of.variance() for of in layers]).mean()


class Coupling(nn.Module):
    """Half of the dimensions, scaled and shifted by what a network makes of the other half.

    Its weights are those of all manifolds, its biases those of each.

    Args:
        num_manifolds: M.
        dim: D.
        hidden_dim: H.
    """

    def __init__(self, num_manifolds: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.num_read = dim // 2
        num_changed = dim - self.num_read
        self.hidden = nn.Linear(self.num_read, hidden_dim, bias=False)
        self.hidden_bias = BiasPerManifold(num_manifolds, hidden_dim, std=0.1)
        self.output = nn.Linear(hidden_dim, 2 * num_changed, bias=False)
        self.output_bias = BiasPerManifold(num_manifolds, 2 * num_changed)
        nn.init.normal_(self.output.weight, std=0.01)  # near to the identity

    def forward(self, x: Tensor, manifolds: Tensor) -> Tensor:
        """(R, D) to (R, D)."""
        read, changed = x[:, : self.num_read], x[:, self.num_read :]
        log_scale, shift = self._scale_and_shift(read, manifolds)
        return torch.cat([read, changed * log_scale.exp() + shift], dim=1)

    def inverse(self, x: Tensor, manifolds: Tensor) -> Tensor:
        """(R, D) to (R, D), from which `forward` makes `x`."""
        read, changed = x[:, : self.num_read], x[:, self.num_read :]
        log_scale, shift = self._scale_and_shift(read, manifolds)
        return torch.cat([read, (changed - shift) * (-log_scale).exp()], dim=1)

    def _scale_and_shift(self, read: Tensor, manifolds: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.silu(self.hidden(read) + self.hidden_bias(manifolds))
        log_scale, shift = (self.output(hidden) + self.output_bias(manifolds)).chunk(2, dim=1)
        return torch.tanh(log_scale), shift  # from 1 / e to e


class BiasPerManifold(nn.Module):
    """A bias for each manifold.

    Args:
        num_manifolds: M.
        dim: of the layer.
        std: of what they have in common at the start.
    """

    def __init__(self, num_manifolds: int, dim: int, *, std: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.Parameter((torch.randn(dim) * std).expand(num_manifolds, dim).clone())

    def forward(self, manifolds: Tensor) -> Tensor:
        """(R, dim)."""
        return F.embedding(manifolds, self.bias)

    def variance(self) -> Tensor:
        """Over manifolds, a mean over dimensions."""
        return wide(self.bias).var(0, unbiased=False).mean()


class Critic(nn.Module):
    """Tells points that are there from points that were made, manifold by manifold.

    Args:
        num_manifolds: M.
        dim: D.
        hidden_dim: H.
    """

    def __init__(self, num_manifolds: int, *, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden_dim, bias=False)
        self.hidden_bias = BiasPerManifold(num_manifolds, hidden_dim, std=0.1)
        self.layers = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, 1)
        )

    def forward(self, points: Tensor, manifolds: Tensor) -> Tensor:
        """(R,): higher for those that are there."""
        return wide(self.layers(self.hidden(points) + self.hidden_bias(manifolds)))[:, 0]

    def loss(
        self, points: Tensor, drawn: Tensor, manifolds: Tensor, *, gradient_penalty: float
    ) -> Tensor:
        """Minus the Wasserstein distance, with the penalty of Gulrajani et al. (2017) above 1.

        Args:
            points: (R, D), that are there.
            drawn: (R, D), that were made.
            manifolds: (R,), of both.
            gradient_penalty: its weight.
        """
        distance = (self(points, manifolds) - self(drawn, manifolds)).mean()
        start, end = points.detach(), drawn.detach().to(points.dtype)
        between = torch.lerp(start, end, torch.rand_like(start[:, :1])).requires_grad_()
        (slopes,) = torch.autograd.grad(self(between, manifolds).sum(), between, create_graph=True)
        excess = (wide(slopes).norm(dim=1) - 1).relu().square().mean()
        return gradient_penalty * excess - distance
