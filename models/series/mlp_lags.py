"""MLPLags: a small network from the context and what is known ahead to the whole horizon.

The multi-layer perceptron that Jung et al. (arXiv 2011.10715) hold deep models against, with a
distribution a period in place of a number. The first parameter is linear in the context besides,
and starts as the mean of the weeks in it.

Shapes: B windows, C periods of context, H of the horizon, K numbers known ahead, F parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.batch.series import SeriesTable, Windows
from recsys.models.series._networks import DirectForecaster, SeasonalLinear, SeriesVectors
from recsys.nn.forecast_heads import ForecastHead, StudentTHead
from recsys.ranges import at_least, proper_share
from recsys.scoring.predictor import Steps


class MLPLags(DirectForecaster):
    """Layers of ReLUs.

    Args:
        head: the distribution of a period.
        hidden_dim: of the layers.
        num_layers: hidden ones.
        embedding_dim: of a vector for each series; 0 is none.
        dropout: of the hidden layers.
        steps, num_windows, num_members, num_samples, seed: as in `NetworkForecaster`.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        head: ForecastHead = StudentTHead(),
        hidden_dim: int = 128,
        num_layers: int = 2,
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
        at_least(1, hidden_dim=hidden_dim, num_layers=num_layers)
        at_least(0, embedding_dim=embedding_dim)
        proper_share(dropout=dropout)
        self.hidden_dim, self.num_layers = hidden_dim, num_layers
        self.embedding_dim, self.dropout = embedding_dim, dropout

    def network(self, past: SeriesTable) -> nn.Module:
        return _Network(self, past)


class _Network(nn.Module):
    """From windows to parameters (B, H, F)."""

    def __init__(self, of: MLPLags, past: SeriesTable) -> None:
        super().__init__()
        self.of_series = SeriesVectors(len(past), of.embedding_dim)
        width = past.context + past.horizon * past.known.shape[-1] + self.of_series.width
        layers: list[nn.Module] = []
        for _ in range(of.num_layers):
            layers += [nn.Linear(width, of.hidden_dim), nn.ReLU(), nn.Dropout(of.dropout)]
            width = of.hidden_dim
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(width, past.horizon * of.head.num_parameters)
        back = range(past.context, 0, -1)
        self.linear = SeasonalLinear(back, past.horizon, past.season)
        self.horizon = past.horizon

    def forward(self, windows: Windows) -> Tensor:
        inputs = [windows.scaled, windows.ahead.flatten(1), self.of_series(windows)]
        outputs = self.last(self.layers(torch.cat(inputs, dim=1)))
        first, *others = outputs.view(len(outputs), self.horizon, -1).unbind(-1)
        return torch.stack([first + self.linear(windows.scaled), *others], dim=-1)
