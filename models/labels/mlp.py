"""MLP: a small network from a user's features to the candidates.

Paper: the frozen embedding with an MLP on top of Shin et al., "One4all User Representation for
Recommender Systems in E-commerce" (ShopperBERT), arXiv 2106.00573; here over any features, counts
among them. Changed, for few rows: features are standardised, training stops by rows held out, and
the score is the mean of several networks, each with other rows held out.

    h = layers(x),   score = h W + b                 yes or no: binary cross-entropy per candidate
    score = h W + b + w log(prior + e)               ranked: softmax over the candidates allowed

e is a hundredth of the mean positive prior of the training rows.

Another predictor may be the prior: what is likely before the features say anything. Its weight w is
learnt. With features of the candidates, (C, G), W and b are linear in them, so that what is learnt
of one candidate holds for others like it.

Shapes: B rows, C candidates, F features, G features of a candidate, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.batch.ragged import Ragged
from recsys.devices import device_of, place_of
from recsys.errors import ConfigError
from recsys.nn.losses import softmax_cross_entropy
from recsys.ranges import at_least, proper_share
from recsys.scoring.predictor import FeaturePredictor, Predictor, Steps
from recsys.tasks.as_of import AS_OF
from recsys.tasks.features import CandidateFeature, Feature
from recsys.tasks.labels import LabelTable
from recsys.tasks.tensors import tensor_of
from recsys.training.minimise import Minimiser


class MLP(FeaturePredictor):
    """Networks over standardised features, their scores averaged.

    Args:
        features: of a user as of a moment.
        candidate_features: of the candidates; without any each candidate has a row of W of its own.
        prior: of ranked candidates, a predictor of positive scores.
        hidden_dim: H.
        num_layers: hidden layers; with none the scores are linear in the features.
        dropout: of features and hidden layers.
        steps: how a network is trained; users are held out where all rows have one moment.
        num_members: networks.
        seed: of weights, batches, dropout and the rows held out.

    Raises:
        ConfigError: there are no features; a prior or candidate features where nothing is ranked;
            an option is out of its range.
    """

    def __init__(
        self,
        *,
        features: Sequence[Feature],
        candidate_features: Sequence[CandidateFeature] = (),
        prior: Predictor | None = None,
        hidden_dim: int = 128,
        num_layers: int = 1,
        dropout: float = 0.3,
        steps: Steps = Steps(),
        num_members: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(features=features)
        at_least(1, hidden_dim=hidden_dim, num_members=num_members)
        at_least(0, num_layers=num_layers)
        proper_share(dropout=dropout)
        self.candidate_features, self.prior = list(candidate_features), prior
        self.hidden_dim, self.num_layers, self.dropout = hidden_dim, num_layers, dropout
        self.steps, self.num_members, self.seed = steps, num_members, seed
        self.members: list[nn.Module] = []
        self.shift = self.scale = np.zeros(0)
        self.floor = 0.0

    def fit(self, table: LabelTable, rows: Tensor) -> Self:
        if not table.ranked and (self.prior or self.candidate_features):
            raise ConfigError(
                f"{table.name} ranks no candidates; leave out prior and candidate_features"
            )
        self.refuse_no_rows(table, rows)
        if self.prior is not None:
            scores = self.prior.fit(table, rows).predict(table, rows)
            self.floor = 0.01 * float(scores[scores > 0].mean())
        inputs = self.inputs(table, rows)
        self.shift, self.scale = inputs.mean(0), inputs.std(0) + 1e-6
        data = self._data(table, rows)
        about = self._about_candidates(table)
        with torch.random.fork_rng():
            self.members = [
                self._member(table, data, about, self.seed * 1000 + number)
                for number in range(self.num_members)
            ]
        return self

    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        data = self._data(table, rows).to(place_of(self.members[0]))
        with torch.inference_mode():
            scores = [
                torch.cat([member(part) for part in data.split(1024)]) for member in self.members
            ]
        if table.ranked:
            scores = [score.log_softmax(1) for score in scores]
        return torch.stack(scores).mean(0).cpu()

    def check_leaks(self, table: LabelTable, rows: Tensor, *, sample: int = 32) -> None:
        """As the prior's; `computed` has checked every feature."""
        if self.prior is not None:
            self.prior.check_leaks(table, rows, sample=sample)

    def _data(self, table: LabelTable, rows: Tensor) -> _Data:
        inputs = (self.inputs(table, rows) - self.shift) / self.scale
        prior = None
        if self.prior is not None:
            prior = (self.prior.predict(table, rows).clamp(min=0) + self.floor).log()
        moments = tensor_of(table.rows[AS_OF].rank("dense"))
        return _Data(
            torch.from_numpy(inputs.astype(np.float32)),
            prior,
            table.labels.rows(rows),
            table.excluded.rows(rows),
            table.user_of(rows),
            moments[rows],
        )

    def _about_candidates(self, table: LabelTable) -> Tensor | None:
        if not self.candidate_features:
            return None
        values = np.hstack([feature(table) for feature in self.candidate_features])
        return torch.from_numpy((values - values.mean(0)) / (values.std(0) + 1e-6)).float()

    def _member(self, table: LabelTable, data: _Data, about: Tensor | None, seed: int) -> nn.Module:
        """A network at the epoch with the lowest loss on the rows held out, on the device in use.

        What holds at the next moment shows at the last one: where there are several, its rows are
        held out, and then learnt from as well, for as many epochs as were best. Else users are.
        """
        torch.manual_seed(seed)
        device = device_of()
        several = len(data.moments.unique()) > 1
        inside = (
            data.moments == data.moments.max() if several else self.steps.some_users(data.users)
        )
        data = data.to(device)
        train, held_out = (rows.nonzero()[:, 0].to(device) for rows in (~inside, inside))

        def fresh() -> Minimiser:
            shape = data.inputs.shape[1], len(table.candidates)
            network = _Network(self, *shape, about).to(device)
            return self._minimiser(network, data, ranked=table.ranked)

        minimiser = fresh()
        epochs = minimiser.until_lowest(train, held_out.split(1024), untrained=True)
        if several:
            if epochs + self.steps.patience > self.steps.max_epochs:
                # Not stopped early: a seed's numbers are those after the draws of a pass more.
                minimiser.one_pass(train)
            minimiser = fresh()
            for _ in range(epochs):
                minimiser.one_pass(torch.arange(len(data), device=device))
            minimiser.held_out_loss(held_out.split(1024))  # raises where training has diverged
        return minimiser.network.eval()

    def _minimiser(self, network: _Network, data: _Data, *, ranked: bool) -> Minimiser:
        weights = [p for name, p in network.named_parameters() if name != "prior_weight"]
        optimiser = torch.optim.AdamW(
            [
                {"params": weights, "weight_decay": self.steps.weight_decay},
                # One number that all rows tell of; as slow as the others it would hardly move.
                {"params": [network.prior_weight], "lr": 30 * self.steps.learning_rate},
            ],
            lr=self.steps.learning_rate,
            weight_decay=0.0,
        )

        def loss(rows: Tensor) -> Tensor:
            part = data.take(rows)
            return (_ranking_loss if ranked else _binary_loss)(network(part), part)

        return Minimiser(self, network, optimiser, loss, self.steps)


@dataclass(frozen=True, eq=False)
class _Data:
    """Rows as a network takes them.

    Attributes:
        inputs: (B, F).
        prior: (B, C) logarithms, or None.
        labels, excluded: (B) candidates.
        users: (B,) int64.
        moments: (B,) int64, the number of each row's moment, in order.
    """

    inputs: Tensor
    prior: Tensor | None
    labels: Ragged
    excluded: Ragged
    users: Tensor
    moments: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Tensor) -> _Data:
        """The rows (B',) int64."""
        prior = None if self.prior is None else self.prior[rows]
        labels, excluded = self.labels.rows(rows), self.excluded.rows(rows)
        return _Data(
            self.inputs[rows], prior, labels, excluded, self.users[rows], self.moments[rows]
        )

    def to(self, device: torch.device) -> _Data:
        return _Data(
            self.inputs.to(device),
            None if self.prior is None else self.prior.to(device),
            self.labels.to(device),
            self.excluded.to(device),
            self.users.to(device),
            self.moments.to(device),
        )

    def split(self, size: int) -> list[_Data]:
        every = torch.arange(len(self), device=self.inputs.device)
        return [self.take(rows) for rows in every.split(size)]


class _Network(nn.Module):
    """From features (B, F) to scores (B, C)."""

    about: Tensor | None

    def __init__(self, of: MLP, num_inputs: int, num_candidates: int, about: Tensor | None) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Dropout(of.dropout)]
        width = num_inputs
        for _ in range(of.num_layers):
            layers += [nn.Linear(width, of.hidden_dim), nn.ReLU(), nn.Dropout(of.dropout)]
            width = of.hidden_dim
        self.layers = nn.Sequential(*layers)
        self.register_buffer("about", about)
        if about is None:  # a prior has what would be the candidates' biases, and of the moment
            self.weights = nn.Linear(width, num_candidates, bias=of.prior is None)
        else:
            self.weights = nn.Linear(about.shape[1], width + 1, bias=False)
        nn.init.zeros_(self.weights.weight)  # training starts from the prior
        self.prior_weight = nn.Parameter(torch.ones(()))

    def forward(self, data: _Data) -> Tensor:
        hidden = self.layers(data.inputs)
        if self.about is None:
            scores = self.weights(hidden)
        else:
            scores = functional.pad(hidden, (0, 1), value=1.0) @ self.weights(self.about).T
        return scores if data.prior is None else scores + self.prior_weight * data.prior


def _binary_loss(scores: Tensor, data: _Data) -> Tensor:
    labels = data.labels.dense(scores.shape[1]).to(scores)
    return functional.binary_cross_entropy_with_logits(scores, labels)


def _ranking_loss(scores: Tensor, data: _Data) -> Tensor:
    excluded = data.excluded.dense(scores.shape[1])
    return softmax_cross_entropy(scores.masked_fill(excluded, -torch.inf), data.labels).mean()
