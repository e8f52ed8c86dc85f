"""TiDE: a dense encoder and decoder over the context and what is known of every period.

Paper: Das et al., "Long-term Forecasting with TiDE: Time-series Dense Encoder", TMLR 2023.

Kept: covariates of each period are projected first; residual blocks encode context, covariates and
what is known of the series; a decoder gives a vector a period, and a block that all periods share
joins it with the covariates of its period; the context passes by all that through a linear layer.
Changed: the last block gives the parameters of a distribution, of which the linear layer shifts the
first; that layer starts as the mean of the weeks in the context.

Shapes: B windows, C periods of context, H of the horizon, K numbers known ahead, D hidden, R of a
period, F parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.batch.series import SeriesTable, Windows
from recsys.models.series._networks import DirectForecaster, SeasonalLinear, SeriesVectors
from recsys.nn.forecast_heads import ForecastHead, StudentTHead
from recsys.ranges import at_least, proper_share
from recsys.scoring.predictor import Steps


class TiDE(DirectForecaster):
    """Residual blocks around a linear model.

    Args:
        head: the distribution of a period.
        hidden_dim: D.
        period_dim: R, of the decoder's vector of a period.
        covariate_dim: of a period's covariates after their projection.
        num_layers: blocks of the encoder, and of the decoder.
        embedding_dim: of a vector for each series; 0 is none.
        dropout: in every block.
        steps, num_windows, num_members, num_samples, seed: as in `NetworkForecaster`.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        head: ForecastHead = StudentTHead(),
        hidden_dim: int = 64,
        period_dim: int = 8,
        covariate_dim: int = 4,
        num_layers: int = 1,
        embedding_dim: int = 8,
        dropout: float = 0.1,
        steps: Steps = Steps(max_epochs=20),
        num_windows: int = 8192,
        num_members: int = 3,
        num_samples: int = 400,
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
        at_least(1, hidden_dim=hidden_dim, period_dim=period_dim, covariate_dim=covariate_dim)
        at_least(1, num_layers=num_layers)
        at_least(0, embedding_dim=embedding_dim)
        proper_share(dropout=dropout)
        self.hidden_dim, self.period_dim, self.num_layers = hidden_dim, period_dim, num_layers
        self.covariate_dim, self.embedding_dim = covariate_dim, embedding_dim
        self.dropout = dropout

    def network(self, past: SeriesTable) -> nn.Module:
        return _Network(self, past)


class _Block(nn.Module):
    """A hidden layer of ReLUs beside a linear one, normalised."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out), nn.Dropout(dropout)
        )
        self.linear = nn.Linear(width, out)
        self.norm = nn.LayerNorm(out)

    def forward(self, inputs: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.hidden(inputs) + self.linear(inputs))
        return normed


class _Network(nn.Module):
    """From windows to parameters (B, H, F)."""

    def __init__(self, of: TiDE, past: SeriesTable) -> None:
        super().__init__()
        self.horizon = past.horizon
        hidden, drop, covariates = of.hidden_dim, of.dropout, of.covariate_dim
        self.of_series = SeriesVectors(len(past), of.embedding_dim)
        self.project = nn.Linear(past.known.shape[-1], covariates)
        width = past.context + past.width * covariates + self.of_series.width
        blocks = [_Block(width, hidden, hidden, drop)]
        blocks += [_Block(hidden, hidden, hidden, drop) for _ in range(2 * of.num_layers - 2)]
        blocks += [_Block(hidden, hidden, past.horizon * of.period_dim, drop)]
        self.blocks = nn.Sequential(*blocks)
        self.period = nn.Sequential(
            nn.Linear(of.period_dim + covariates, hidden),
            nn.ReLU(),
            nn.Linear(hidden, of.head.num_parameters),
        )
        back = range(past.context, 0, -1)
        self.linear = SeasonalLinear(back, past.horizon, past.season)

    def forward(self, windows: Windows) -> Tensor:
        known = self.project(windows.known)
        inputs = [windows.scaled, known.flatten(1), self.of_series(windows)]
        decoded = self.blocks(torch.cat(inputs, dim=1)).view(len(known), self.horizon, -1)
        ahead = known[:, -self.horizon :]
        first, *others = self.period(torch.cat([decoded, ahead], dim=-1)).unbind(-1)
        return torch.stack([first + self.linear(windows.scaled), *others], dim=-1)
