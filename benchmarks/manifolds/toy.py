"""Three curves in the plane that do not touch: who generates between them?

    python -m benchmarks.manifolds.toy             results/toy.json, toy.svg, README.md
    python -m benchmarks.manifolds.toy --seeds 0   measure this alone, write no record

EncGAN's map and critic learn the curves, each a manifold of one latent dimension. One generator of
many times the weights, which is not told of curves, learns them in as many steps of either side,
with the loss that did best for it: with EncGAN's critic it left over half of its samples off. A
sample is off where it lies more than .1 from every curve, far off where it is more than .3. The
shared coordinate: 1,000 latent vectors are generated on each curve, and where they lie along it is
compared between curves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR

from benchmarks.manifolds.report import FOLDER, write_page
from benchmarks.record import spread, write
from recsys.files import write_text
from recsys.models.domains.encgan import Critic, ManifoldMap, draw
from recsys.report import plots

SEEDS = (0, 1, 2, 3, 4)
STEPS, BATCH = 2000, 256
OFF, FAR_OFF = 0.1, 0.3
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

    def beyond(self, distance: float) -> float:
        """The share of samples."""
        return float((self.nearest > distance).float().mean())


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Points (R, 2) that are drawn along the curves, and which curve each is on."""
    while True:
        t = 2 * torch.rand(BATCH) - 1
        which = torch.randint(3, (BATCH,))
        yield torch.stack(curves(t))[which, torch.arange(BATCH)], which


class Generator(nn.Sequential):
    """One network from two latent dimensions to the plane."""

    def __init__(self, hidden_dim: int = 64) -> None:
        hidden = [nn.Linear(2, hidden_dim), nn.SiLU()]
        for _ in range(2):
            hidden += [nn.Linear(hidden_dim, hidden_dim), nn.SiLU()]
        super().__init__(*hidden, nn.Linear(hidden_dim, 2))


class Judge(nn.Sequential):
    """The critic of the one generator, of as many layers as that."""

    def __init__(self, hidden_dim: int = 128) -> None:
        hidden = [nn.Linear(2, hidden_dim), nn.LeakyReLU(0.2)]
        for _ in range(2):
            hidden += [nn.Linear(hidden_dim, hidden_dim), nn.LeakyReLU(0.2)]
        super().__init__(*hidden, nn.Linear(hidden_dim, 1))


Make = Callable[[Tensor], Tensor]
"""Points (R, 2) of drawn latent vectors, on these curves (R,) where a model knows of curves."""


def adam(module: nn.Module, steps: int) -> tuple[Adam, LinearLR]:
    of_module = Adam(module.parameters(), lr=1e-3, betas=(0.0, 0.9))
    return of_module, LinearLR(of_module, 1.0, 0.05, steps)


def encgan(seed: int) -> tuple[nn.Module, Make]:
    """Two steps of the critic, then one of the map."""
    torch.manual_seed(seed)
    of_curves = ManifoldMap(3, dim=2, latent_dim=1, hidden_dim=32, num_layers=6)
    critic = Critic(3, dim=2, hidden_dim=64)

    def make(which: Tensor) -> Tensor:
        return of_curves.inverse(draw(len(which), 1, like=of_curves.location.bias), which)

    (of_critic, _), (of_map, lower) = adam(critic, STEPS), adam(of_curves, STEPS)
    source = batches()
    for _ in range(STEPS):
        for _ in range(2):
            points, which = next(source)
            of_critic.zero_grad()
            critic.loss(points, make(which).detach(), which, gradient_penalty=1.0).backward()
            of_critic.step()
        points, which = next(source)
        rebuilt = of_curves.inverse(of_curves(points, which)[0], which)
        loss = 10 * (rebuilt - points).square().mean() + 0.01 * of_curves.variance_of_biases()
        of_map.zero_grad()
        (loss - critic(make(which), which).mean()).backward()
        of_map.step()
        lower.step()
    return of_curves, make


def one_generator(seed: int) -> tuple[nn.Module, Make]:
    """A step of its critic, then one of its own; the loss of Mescheder et al. (2018)."""
    torch.manual_seed(seed)
    network, judge = Generator(), Judge()

    def make(which: Tensor) -> Tensor:
        return network(draw(len(which), 2, like=network[0].weight))

    (of_judge, lower_judge), (of_network, lower) = adam(judge, 2 * STEPS), adam(network, 2 * STEPS)
    source = batches()
    for _ in range(2 * STEPS):
        points, which = next(source)
        said = judge(points.requires_grad_())
        (slopes,) = torch.autograd.grad(said.sum(), points, create_graph=True)
        drawn = make(which)
        loss = F.softplus(-said).mean() + F.softplus(judge(drawn.detach())).mean()
        of_judge.zero_grad()
        (loss + 0.015 * slopes.square().sum(1).mean()).backward()
        of_judge.step()
        of_network.zero_grad()
        F.softplus(-judge(drawn)).mean().backward()
        of_network.step()
        lower_judge.step()
        lower.step()
    return network, make


ROWS = {"EncGAN": encgan, "one generator": one_generator}


def measure(name: str, seed: int) -> tuple[dict[str, float], Tensor]:
    """Train a row; its figures and 3,000 samples."""
    began = time.process_time()
    made, make = ROWS[name](seed)
    which = torch.arange(9000) % 3
    samples = make(which).detach()
    distances = Distances.of(samples)
    figures = {
        "off": distances.beyond(OFF),
        "far_off": distances.beyond(FAR_OFF),
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
    """The samples of each row over the curves, in colours that need no page around them."""
    panels = {name: points[:900].numpy() for name, points in samples.items()}
    svg = plots.samples("samples over curves", [c.numpy() for c in curves(ALONG)], panels).svg
    for name, colour in plots.COLOURS.items():
        svg = svg.replace(f"var(--{name})", colour)
    return svg


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
        options = {"steps": STEPS, "batch": BATCH, "off": OFF, "far_off": FAR_OFF}
        record = {"seeds": list(SEEDS), **options, "rows": rows}
        write(FOLDER / "results" / "toy.json", record, packages=["recsys", "torch"], seed=0)
        write_text(FOLDER / "toy.svg", picture(samples))
        write_page()


if __name__ == "__main__":
    main()
