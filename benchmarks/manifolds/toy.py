"""Three curves in the plane that do not touch: who generates between them?

    python -m benchmarks.manifolds.toy             results/toy.json, toy.svg, README.md
    python -m benchmarks.manifolds.toy --seeds 0   measure this alone, write no record

EncGAN's map and critic learn the curves, each a manifold of one latent dimension. Two generators of
as many weights or more, which are not told of curves, learn them by the same critic, in as many
steps. A sample is off where it lies more than .1 from every curve. The shared coordinate: 1,000
latent vectors are generated on each curve, and where they lie along it is compared between curves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.manifolds.report import FOLDER, write_page
from benchmarks.record import spread, write
from recsys.models.domains.encgan import Critic, ManifoldMap, draw
from recsys.report import plots

SEEDS = (0, 1, 2, 3, 4)
STEPS, CRITIC_STEPS, BATCH = 1200, 2, 256
OFF = 0.1
HIDDEN, LAYERS = 32, 6
ALONG = torch.linspace(-1, 1, 1001)


def curves(t: Tensor) -> list[Tensor]:
    """The points (T, 2) of each curve at t (T,) from -1 to 1."""
    return [
        torch.stack([t, 1.5 + 0.35 * (3 * t).sin()], dim=1),
        torch.stack([0.9 * t + 0.2, 0.5 * t.square() - 0.2], dim=1),
        torch.stack([t - 0.2, -1.5 + 0.3 * (3 * t + 1).sin()], dim=1),
    ]


@dataclass(frozen=True, eq=False)
class Distances:
    """From samples to curves.

    Attributes:
        nearest: (S,), to the nearest curve.
        place: (S, M), t of the nearest point of each curve.
    """

    nearest: Tensor
    place: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Distances:
        between = torch.stack([torch.cdist(samples, curve) for curve in curves(ALONG)], dim=1)
        lowest = between.min(2)
        return cls(lowest.values.amin(1), ALONG[lowest.indices])

    @property
    def off(self) -> float:
        return float((self.nearest > OFF).float().mean())


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Points (R, 2) that are drawn along the curves, and which curve each is on."""
    while True:
        t = 2 * torch.rand(BATCH) - 1
        which = torch.randint(3, (BATCH,))
        yield torch.stack(curves(t))[which, torch.arange(BATCH)], which


class Generator(nn.Module):
    """One network from two latent dimensions to the plane."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        sizes = [2, *[hidden_dim] * 3]
        layers = [
            layer
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
            for layer in (nn.Linear(a, b), nn.SiLU())
        ]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_dim, 2))

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)


Make = Callable[[int, Tensor], Tensor]
"""Points (R, 2) of drawn latent vectors, so many and on these curves."""


def train(made: nn.Module, make: Make, num_manifolds: int, terms: Callable[..., Tensor]) -> None:
    """Some steps of the critic, one of what makes points."""
    critic = Critic(num_manifolds, dim=2, hidden_dim=64)
    of_critic = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    of_made = torch.optim.Adam(made.parameters(), lr=1e-3, betas=(0.0, 0.9))
    lower = torch.optim.lr_scheduler.LinearLR(of_made, 1.0, 0.05, STEPS)
    source = batches()
    for _ in range(STEPS):
        for _ in range(CRITIC_STEPS):
            points, which = next(source)
            which = which % num_manifolds
            drawn = make(BATCH, which).detach()
            of_critic.zero_grad()
            critic.loss(points, drawn, which, gradient_penalty=1.0).backward()
            of_critic.step()
        points, which = next(source)
        which = which % num_manifolds
        of_made.zero_grad()
        (terms(points, which) - critic(make(BATCH, which), which).mean()).backward()
        of_made.step()
        lower.step()


def encgan(seed: int) -> tuple[nn.Module, Make]:
    torch.manual_seed(seed)
    of_curves = ManifoldMap(3, dim=2, latent_dim=1, hidden_dim=HIDDEN, num_layers=LAYERS)

    def make(num_rows: int, which: Tensor) -> Tensor:
        return of_curves.inverse(draw(num_rows, 1, like=of_curves.location.bias), which)

    def terms(points: Tensor, which: Tensor) -> Tensor:
        latents, _ = of_curves(points, which)
        rebuilt = of_curves.inverse(latents, which)
        apart = of_curves.variance_of_biases()
        return 10 * (rebuilt - points).square().mean() + 0.01 * apart

    train(of_curves, make, 3, terms)
    return of_curves, make


def one_map(seed: int) -> tuple[nn.Module, Make]:
    """The same map with one manifold."""
    torch.manual_seed(seed)
    of_all = ManifoldMap(1, dim=2, latent_dim=1, hidden_dim=HIDDEN, num_layers=LAYERS)

    def make(num_rows: int, which: Tensor) -> Tensor:
        latents = draw(num_rows, 1, like=of_all.location.bias)
        return of_all.inverse(latents, torch.zeros_like(which))

    train(of_all, make, 1, lambda points, which: points.new_zeros(()))
    return of_all, make


def generator(seed: int) -> tuple[nn.Module, Make]:
    torch.manual_seed(seed)
    network = Generator(hidden_dim=HIDDEN)

    def make(num_rows: int, which: Tensor) -> Tensor:
        return network(draw(num_rows, 2, like=network.layers[0].weight))

    train(network, make, 1, lambda points, which: points.new_zeros(()))
    return network, make


ROWS = {"EncGAN": encgan, "one generator": generator, "one manifold": one_map}


def measure(name: str, seed: int) -> tuple[dict[str, float], Tensor]:
    """Train a row; its figures and 3,000 samples."""
    began = time.process_time()
    made, make = ROWS[name](seed)
    which = torch.arange(9000) % 3
    samples = make(9000, which).detach()
    distances = Distances.of(samples)
    figures = {
        "off": distances.off,
        "weights": sum(p.numel() for p in made.parameters()),
        "cpu_seconds": time.process_time() - began,
    }
    if name == "EncGAN":
        figures |= shared_coordinate(made)
        figures["off_its_curve"] = off_its_curve(samples, which)
    print(name, seed, figures, flush=True)
    return figures, samples[:3000]


@torch.no_grad()
def shared_coordinate(of_curves: nn.Module) -> dict[str, float]:
    """The lowest rank correlation between two curves of where equal z lies, by its absolute value,
    and whether all curves are run through the same way."""
    latents = torch.linspace(-0.999, 0.999, 1000)[:, None]
    places = []
    for manifold in range(3):
        points = of_curves.inverse(latents, torch.full((1000,), manifold))
        places.append(Distances.of(points).place[:, manifold].numpy())
    ranks = [float(spearmanr(a, b).statistic) for a, b in combinations(places, 2)]
    return {"rank_correlation": min(map(abs, ranks)), "same_way": float(min(ranks) > 0)}


def off_its_curve(samples: Tensor, which: Tensor) -> float:
    """The share of samples that lie more than .1 from the curve that they were made for."""
    of_each = torch.stack([torch.cdist(samples, c).amin(1) for c in curves(ALONG)], dim=1)
    return float((of_each[torch.arange(len(samples)), which] > OFF).float().mean())


def picture(samples: dict[str, Tensor]) -> str:
    """The samples of each row over the curves."""
    with plots.mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(3 * len(samples), 3), layout="constrained")
        for place, (name, points) in enumerate(samples.items()):
            axes = figure.add_subplot(1, len(samples), place + 1)
            for curve in curves(ALONG):
                axes.plot(*curve.T.numpy(), color=plots.COLOURS["line"], linewidth=5, zorder=0)
            x, y = points[:600].T.numpy()
            axes.plot(x, y, "o", color=plots.COLOURS["model"], ms=1.6, mec="none")
            axes.set_xlim(-1.6, 1.6)
            axes.set_ylim(-2.3, 2.3)
            axes.set_aspect("equal")
            axes.axis("off")
            axes.set_title(name, size=9)
        return plots.svg_of(figure, "samples over the curves")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    samples: dict[str, Tensor] = {}
    for name in given.rows:
        measured = [measure(name, seed) for seed in given.seeds]
        samples[name] = measured[0][1]
        rows[name] = {
            figure: spread(figures[figure] for figures, _ in measured) for figure in measured[0][0]
        }
    if tuple(given.seeds) == SEEDS and len(rows) == len(ROWS):
        options = {"steps": STEPS, "critic_steps": CRITIC_STEPS, "batch": BATCH, "off": OFF}
        record = {"seeds": list(SEEDS), **options, "rows": rows}
        write(FOLDER / "results" / "toy.json", record, packages=["recsys", "torch"], seed=0)
        (FOLDER / "toy.svg").write_text(picture(samples))
        write_page()


if __name__ == "__main__":
    main()
