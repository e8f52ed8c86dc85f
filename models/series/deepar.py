"""DeepAR: a recurrent network that says one period at a time, and is told what it said.

Paper: Salinas et al., "DeepAR: Probabilistic forecasting with autoregressive recurrent networks",
International Journal of Forecasting 2020.

Kept: one network for all series; values in units of their scale, lagged values, what is known of
the period and a vector of the series as inputs; trained on the true values of every period of a
window at once; forecasts are sampled paths. Changed: a GRU for the LSTM; the head is passed in;
windows are drawn alike and not by their scale; the first parameter is linear in the lags besides,
and starts as the mean of those that are whole weeks.

A window's context is read as the lags of its first periods, and then period by period: training is
one call of the GRU a batch, and the paths of all series take a step at once.

Shapes: B windows, E periods read one by one, H of the horizon, L = E + H, J lags, K numbers known
ahead, W inputs, D hidden, F parameters, P paths.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.batch.series import SeriesTable, Windows
from recsys.errors import ConfigError
from recsys.models.series._networks import NetworkForecaster, SeasonalLinear, SeriesVectors
from recsys.nn.forecast_heads import ForecastHead, StudentTHead
from recsys.ranges import at_least, proper_share
from recsys.scoring.predictor import Steps


class DeepAR(NetworkForecaster):
    """A GRU over lagged values.

    Args:
        head: the distribution of a period.
        hidden_dim: D.
        num_layers: of the GRU.
        lags: periods back; those that leave no period of the context are left out.
        embedding_dim: of a vector for each series; 0 is none.
        dropout: before the head, and between layers.
        steps, num_windows, num_members, num_samples, seed: as in `NetworkForecaster`.

    Raises:
        ConfigError: an option is out of its range, or the context is shorter than every lag.
    """

    def __init__(
        self,
        *,
        head: ForecastHead = StudentTHead(),
        hidden_dim: int = 40,
        num_layers: int = 1,
        lags: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 14, 21, 28),
        embedding_dim: int = 8,
        dropout: float = 0.1,
        steps: Steps = Steps(max_epochs=20),
        num_windows: int = 4096,
        num_members: int = 1,
        num_samples: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(
            head=head,
            steps=steps,
            num_windows=num_windows,
            num_members=num_members,
            num_samples=num_samples,
            seed=seed,
        )
        at_least(1, hidden_dim=hidden_dim, num_layers=num_layers)
        at_least(0, embedding_dim=embedding_dim)
        proper_share(dropout=dropout)
        at_least(1, **{f"lags.{place}": lag for place, lag in enumerate(lags)})
        if not lags:
            raise ConfigError("lags=[]: give periods back, from 1 on")
        self.hidden_dim, self.num_layers, self.lags = hidden_dim, num_layers, sorted(set(lags))
        self.embedding_dim, self.dropout = embedding_dim, dropout

    def network(self, past: SeriesTable) -> nn.Module:
        lags = [lag for lag in self.lags if lag < past.context]
        if not lags:
            raise ConfigError(
                f"task.origins.context={past.context} is shorter than every lag of {self.lags}; "
                "give more periods, or lags=[1]"
            )
        return _Network(self, past, lags)

    def loss(self, network: nn.Module, windows: Windows, futures: Tensor) -> Tensor:
        """Of all periods that are read one by one: those of the context teach as well."""
        assert isinstance(network, _Network)
        values = torch.cat([windows.past, futures], dim=1)
        outputs = network.outputs(network.told(values, windows))
        return self.missed(outputs, windows.scale, values[:, network.reach :])

    def samples(self, network: nn.Module, windows: Windows) -> tuple[Tensor, Tensor]:
        assert isinstance(network, _Network)
        number, scale = self.num_samples, windows.scale.repeat_interleave(self.num_samples)
        values = windows.past
        # The context once a series, then every path of it for itself.
        _, state = network.gru(network.told(values, windows).transpose(0, 1))
        state = state.repeat_interleave(number, dim=1)
        values = values.repeat_interleave(number, dim=0)
        known = windows.ahead.repeat_interleave(number, dim=0)
        about = network.of_series(windows).repeat_interleave(number, dim=0)
        for step in range(network.horizon):
            inputs = network.inputs(values, known[:, step], about, scale)
            outputs, state = network.gru(inputs[None], state)
            parameters = network.parameters_of(inputs, outputs[0])
            drawn = self.head.distribution(parameters, scale).sample()
            values = torch.cat([values, drawn[:, None]], dim=1)
        paths = values[:, -network.horizon :].view(len(windows.past), number, -1)
        return paths, paths.mean(1)


class _Network(nn.Module):
    """The recurrent network.

    Attributes:
        reach: the longest lag, before which no period can be said.
    """

    def __init__(self, of: DeepAR, past: SeriesTable, lags: Sequence[int]) -> None:
        super().__init__()
        self.horizon, self.reach, self.lags = past.horizon, max(lags), list(lags)
        self.of_series = SeriesVectors(len(past), of.embedding_dim)
        width = len(lags) + past.known.shape[-1] + self.of_series.width
        drop = of.dropout if of.num_layers > 1 else 0.0
        self.gru = nn.GRU(width, of.hidden_dim, of.num_layers, dropout=drop)
        self.last = nn.Sequential(
            nn.Dropout(of.dropout), nn.Linear(of.hidden_dim, of.head.num_parameters)
        )
        self.linear = SeasonalLinear(lags, 1, past.season)

    def told(self, values: Tensor, windows: Windows) -> Tensor:
        """Inputs (B, L', W) of every period of the values (B, reach + L') that has all its lags."""
        length = values.shape[1] - self.reach
        scaled = values / windows.scale[:, None]
        lagged = [scaled[:, self.reach - lag : self.reach - lag + length] for lag in self.lags]
        known = windows.known[:, self.reach : self.reach + length]
        about = self.of_series(windows)[:, None].expand(-1, length, -1)
        return torch.cat([torch.stack(lagged, dim=-1), known, about], dim=-1)

    def inputs(self, values: Tensor, known: Tensor, about: Tensor, scale: Tensor) -> Tensor:
        """Inputs (B, W) of the period after the values (B, T)."""
        lagged = torch.stack([values[:, -lag] for lag in self.lags], dim=-1)
        return torch.cat([lagged / scale[:, None], known, about], dim=-1)

    def parameters_of(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        """Parameters (..., F) by inputs (..., W), the lags first, and hidden states (..., D)."""
        first, *others = self.last(hidden).unbind(-1)
        linear = self.linear(inputs[..., : len(self.lags)])[..., 0]
        return torch.stack([first + linear, *others], dim=-1)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Parameters (B, L, F) by inputs (B, L, W)."""
        hidden, _ = self.gru(inputs.transpose(0, 1))  # periods first
        return self.parameters_of(inputs, hidden.transpose(0, 1))
