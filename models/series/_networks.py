"""Forecasters with a network: one way to train them, one to average several.

Shapes: S series, B windows of a batch, H periods of the horizon, Q levels, P samples.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from recsys.batch.series import SeriesTable, Windows
from recsys.nn.forecast_heads import ForecastHead
from recsys.ranges import at_least
from recsys.scoring.forecaster import Forecast, Forecaster
from recsys.scoring.predictor import Steps
from recsys.training.minimise import Minimiser

SERIES_AT_ONCE = 256


class NetworkForecaster(Forecaster):
    """Networks whose outputs a head turns into distributions; their forecasts are averaged.

    A network is trained for a fixed number of passes, each over windows drawn anew from all series,
    while the learning rate falls to zero: no window is held out, since the latest are worth most.

    Args:
        head: the distribution.
        steps: how a network is trained; `patience` and `held_out` say nothing here.
        num_windows: windows of a pass.
        num_members: networks.
        num_samples: by which a network's distribution is told.
        seed: of weights, windows and samples.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        head: ForecastHead,
        steps: Steps,
        num_windows: int,
        num_members: int,
        num_samples: int,
        seed: int,
    ) -> None:
        at_least(1, num_windows=num_windows, num_members=num_members, num_samples=num_samples)
        self.head, self.steps, self.num_windows = head, steps, num_windows
        self.num_members, self.num_samples, self.seed = num_members, num_samples, seed
        self.members: list[nn.Module] = []

    @abstractmethod
    def network(self, past: SeriesTable) -> nn.Module:
        """A network with fresh weights for a table's series."""

    @abstractmethod
    def loss(self, network: nn.Module, windows: Windows, futures: Tensor) -> Tensor:
        """The mean negative log-likelihood of what came (B, H) after windows."""

    @abstractmethod
    def samples(self, network: nn.Module, windows: Windows) -> tuple[Tensor, Tensor]:
        """What may come after windows: paths (B, P, H), and their mean (B, H)."""

    def fit(self, past: SeriesTable) -> Self:
        self.head.check(past.values)
        with torch.random.fork_rng():
            self.members = [
                self._trained(past, self.seed * 1000 + number) for number in range(self.num_members)
            ]
        return self

    @torch.inference_mode()
    def forecast(self, past: SeriesTable) -> Forecast:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            forecasts = [self._forecast(member, past) for member in self.members]
        mean = torch.stack([f.mean for f in forecasts]).mean(0)
        quantiles = torch.stack([f.quantiles for f in forecasts]).mean(0)
        if past.is_nonnegative:
            mean, quantiles = mean.clamp_min(0), quantiles.clamp_min(0)
        return Forecast(mean, quantiles)

    def missed(self, outputs: Tensor, scale: Tensor, came: Tensor) -> Tensor:
        """The mean negative log-likelihood of what came (B, L), by outputs (B, L, F)."""
        if not outputs.isfinite().all():  # which distributions would refuse in their words
            return outputs.sum() * torch.nan
        scale = scale[:, None].expand_as(came)
        return -self.head.distribution(outputs, scale).log_prob(came).mean()

    def _forecast(self, network: nn.Module, past: SeriesTable) -> Forecast:
        windows = past.last()
        each = torch.arange(len(past), device=past.values.device).split(SERIES_AT_ONCE)
        parts = [self.samples(network, windows.rows(rows)) for rows in each]
        forecasts = [Forecast.of_paths(paths) for paths, _ in parts]
        return Forecast(
            torch.cat([mean for _, mean in parts]), torch.cat([f.quantiles for f in forecasts])
        )

    def _trained(self, past: SeriesTable, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        network = self.network(past).to(past.values.device)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=self.steps.learning_rate, weight_decay=self.steps.weight_decay
        )

        def loss(rows: Tensor) -> Tensor:
            return self.loss(network, past.windows(rows), past.futures(rows))

        minimiser = Minimiser(self, network, optimiser, loss, self.steps, gradient_clip=10.0)
        for epoch in range(self.steps.max_epochs):
            warm = min(1.0, (epoch + 1) / 3)
            fall = 0.5 * (1 + math.cos(math.pi * epoch / self.steps.max_epochs))
            optimiser.param_groups[0]["lr"] = self.steps.learning_rate * warm * fall
            minimiser.one_pass(self._some_windows(past))
        minimiser.held_out_loss([self._some_windows(past)[: self.steps.batch_size]])
        return network.eval()

    def _some_windows(self, past: SeriesTable) -> Tensor:
        rows = torch.randint(past.num_windows, (min(self.num_windows, past.num_windows),))
        return rows.to(past.values.device)


class DirectForecaster(NetworkForecaster):
    """A network that says the whole horizon at once: outputs (B, H, parameters)."""

    def loss(self, network: nn.Module, windows: Windows, futures: Tensor) -> Tensor:
        return self.missed(network(windows), windows.scale, futures)

    def samples(self, network: nn.Module, windows: Windows) -> tuple[Tensor, Tensor]:
        outputs = network(windows)
        scale = windows.scale[:, None].expand(outputs.shape[:2])
        distribution = self.head.distribution(outputs, scale)
        return distribution.sample((self.num_samples,)).transpose(0, 1), distribution.mean


class SeriesVectors(nn.Module):
    """What is known of the windows' series as such: a vector each, and the size of its scale.

    Args:
        num_series: S.
        dim: of the vectors; 0 is none.
    """

    def __init__(self, num_series: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_series, dim) if dim else None
        self.width = dim + 1
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=0.1)

    def forward(self, windows: Windows) -> Tensor:
        """(B, width)."""
        size = windows.scale.clamp_min(1e-3).log()[:, None] / 5
        return size if self.table is None else torch.cat([size, self.table(windows.series)], dim=1)


class SeasonalLinear(nn.Linear):
    """Linear in the scaled past, and at first the mean of the seasons in it.

    Args:
        back: of each input, how many periods before the first output it lies.
        horizon: outputs.
        season: after how many periods things repeat.
    """

    def __init__(self, back: Sequence[int], horizon: int, season: int) -> None:
        super().__init__(len(back), horizon)
        same = torch.tensor(
            [[(b + ahead) % season == 0 for b in back] for ahead in range(horizon)]
        ).float()
        with torch.no_grad():
            self.weight.copy_(same / same.sum(1, keepdim=True).clamp_min(1))
            self.bias.zero_()
