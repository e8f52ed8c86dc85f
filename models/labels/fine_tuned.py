"""FineTuned: a whole network of users trained for one table of labels.

Paper: the Transformers that Shin et al., "One4all User Representation for Recommender Systems in
E-commerce" (ShopperBERT), arXiv 2106.00573, hold their frozen embedding against. It starts from
what a run has learnt, or, as theirs, from random weights in the same shape.

    v = encoder(the last events before the moment),   score = dropout(v) W + b

Shapes: B rows, C candidates, D dimensions.
"""

from __future__ import annotations

from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import ranges
from recsys.devices import place_of
from recsys.nn.losses import softmax_cross_entropy
from recsys.ranges import at_least, proper_share
from recsys.scoring import saved_model
from recsys.scoring.kinds import ProfileEncoder, profile_encoder
from recsys.scoring.predictor import Predictor, Steps
from recsys.tasks.features import check_training
from recsys.tasks.labels import LabelTable
from recsys.tasks.splits import unsplit
from recsys.training.minimise import Minimiser


class FineTuned(Predictor):
    """An encoder of profiles and a linear layer, trained together, in float32 whatever the run's.

    Args:
        run: folder of a run whose model encodes profiles.
        from_scratch: take its shape and its fields alone, and start from random weights.
        max_events: a history's last events are read.
        dropout: of the profile.
        steps: how the two are trained; the rows of some users are held out.
        seed: of weights, batches, dropout and the users held out.

    Raises:
        ConfigError: an option is out of its range.
    """

    encoder: ProfileEncoder
    head: nn.Module

    def __init__(
        self,
        *,
        run: str,
        from_scratch: bool = False,
        max_events: int = 256,
        dropout: float = 0.3,
        steps: Steps = Steps(batch_size=64, max_epochs=10, patience=2),
        seed: int = 0,
    ) -> None:
        at_least(1, max_events=max_events)
        proper_share(dropout=dropout)
        self.run, self.from_scratch, self.max_events = run, from_scratch, max_events
        self.dropout, self.steps, self.seed = dropout, steps, seed

    def fit(self, table: LabelTable, rows: Tensor) -> Self:
        self.refuse_no_rows(table, rows)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.encoder = self._encoder(table)
            dim = self.encoder.encode_profiles(_none(table).to(self.device)).shape[1]
            layers = nn.Dropout(self.dropout), nn.Linear(dim, len(table.candidates))
            self.head = nn.Sequential(*layers).to(self.device)
            self._train(table, rows)
        return self

    @property
    def device(self) -> torch.device:
        """Where the encoder is."""
        return place_of(self.encoder)

    def _train(self, table: LabelTable, rows: Tensor) -> None:
        """Until the loss on the rows held out no longer falls; the best weights are kept."""
        networks = nn.ModuleList([self.encoder, self.head])
        optimiser = torch.optim.AdamW(
            networks.parameters(),
            lr=self.steps.learning_rate,
            weight_decay=self.steps.weight_decay,
        )
        inside = self.steps.some_users(table.user_of(rows))
        loss = partial(self._loss, table, self._histories(table))
        minimiser = Minimiser(self, networks, optimiser, loss, self.steps, gradient_clip=1.0)
        held_out = rows[inside].split(self.steps.batch_size)
        minimiser.until_lowest(rows[~inside], held_out, untrained=False)

    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        histories = self._histories(table)
        with torch.inference_mode():
            scores = [self._scores(histories, part) for part in rows.split(self.steps.batch_size)]
        return torch.cat(scores).cpu()

    def _encoder(self, table: LabelTable) -> ProfileEncoder:
        model = profile_encoder(saved_model.load(self.run).model)
        model.float()  # steps get lost in a half
        check_training(table, model)
        if self.from_scratch:
            fresh = dict(saved_model.untrained(self.run).named_parameters())
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(fresh[name])
        model.read_items(table.known_items)
        return model

    def _histories(self, table: LabelTable) -> tuple[BasketBatch, Tensor, Tensor]:
        """All events, and where each row's lie that are read."""
        starts, ends = table.spans()
        starts = torch.maximum(starts, ends - self.max_events)
        return unsplit(table.log), starts, ends - starts

    def _scores(self, histories: tuple[BasketBatch, Tensor, Tensor], rows: Tensor) -> Tensor:
        """(B, C)."""
        whole, starts, lengths = histories
        events, offsets = ranges(starts[rows], lengths[rows])
        batch = whole.take(events, offsets, torch.full_like(rows, -1)).to(self.device)
        return self.head(self.encoder.encode_profiles(batch))

    def _loss(
        self, table: LabelTable, histories: tuple[BasketBatch, Tensor, Tensor], rows: Tensor
    ) -> Tensor:
        scores = self._scores(histories, rows)
        if not table.ranked:
            labels = table.label_matrix(rows).to(scores)
            return functional.binary_cross_entropy_with_logits(scores, labels)
        scores = scores.masked_fill(~table.allowed(rows).to(scores.device), -torch.inf)
        return softmax_cross_entropy(scores, table.labels.rows(rows).to(scores.device)).mean()


def _none(table: LabelTable) -> BasketBatch:
    """A history without events."""
    return BasketBatch.from_lists([[]], len(table.log.items))
