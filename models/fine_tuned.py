"""FineTuned: a whole network of users trained for one table of questions.

Paper: the Transformers that Shin et al., "One4all User Representation for Recommender Systems in
E-commerce" (ShopperBERT), arXiv 2106.00573, hold their frozen embedding against. It starts from
what a run has learnt, or, as theirs, from random weights in the same shape.

    v = encoder(the last events before the moment),   score = dropout(v) W + b

Shapes: B rows, C candidates, D dimensions.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys import checkpoint
from recsys.batch import BasketBatch
from recsys.features import check_training
from recsys.module import Scorer
from recsys.predictor import Predictor
from recsys.questions import Questions
from recsys.ragged import ranges
from recsys.splits import unsplit


class FineTuned(Predictor):
    """An encoder of profiles and a linear layer, trained together.

    Training stops by the loss on the rows of some users, which are held out.

    Args:
        run: folder of a run whose model encodes profiles.
        from_scratch: take its shape and its fields alone, and start from random weights.
        max_events: a history's last events are read.
        dropout: of the profile.
        learning_rate, weight_decay: of AdamW.
        batch_size: rows a step.
        max_epochs: at most so many passes over the rows.
        patience: epochs without a lower loss on the rows held out after which training stops.
        held_out: share of the training users that are held out.
        seed: of weights, batches, dropout and the users held out.
    """

    def __init__(
        self,
        *,
        run: str,
        from_scratch: bool = False,
        max_events: int = 256,
        dropout: float = 0.3,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        batch_size: int = 64,
        max_epochs: int = 10,
        patience: int = 2,
        held_out: float = 0.15,
        seed: int = 0,
    ) -> None:
        self.run, self.from_scratch, self.max_events = run, from_scratch, max_events
        self.dropout = dropout
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.batch_size, self.max_epochs, self.patience = batch_size, max_epochs, patience
        self.held_out, self.seed = held_out, seed
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fit(self, questions: Questions, rows: Tensor) -> Self:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self._fit(questions, rows)
        return self

    def _fit(self, questions: Questions, rows: Tensor) -> None:
        self.encoder = self._encoder(questions)
        dim = self.encoder.encode_profiles(_none(questions).to(self.device)).shape[1]
        self.head = nn.Sequential(
            nn.Dropout(self.dropout), nn.Linear(dim, len(questions.candidates))
        )
        self.head.to(self.device)
        networks = nn.ModuleList([self.encoder, self.head])
        users = questions.users.index_of(questions.rows["user_id"]).to_numpy(writable=True)
        user = torch.from_numpy(users)[rows]
        everyone = user.unique()
        some = everyone[
            torch.randperm(len(everyone))[: max(1, round(self.held_out * len(everyone)))]
        ]
        inside = torch.isin(user, some)
        optimiser = torch.optim.AdamW(
            networks.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        histories = self._histories(questions)
        best, since, kept = torch.inf, 0, copy.deepcopy(networks.state_dict())
        for _ in range(self.max_epochs):
            networks.train()
            for part in rows[~inside][torch.randperm(int((~inside).sum()))].split(self.batch_size):
                optimiser.zero_grad()
                self._loss(questions, histories, part).backward()
                nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
                optimiser.step()
            networks.eval()
            with torch.no_grad():
                parts = rows[inside].split(self.batch_size)
                losses = [float(self._loss(questions, histories, p)) * len(p) for p in parts]
            if sum(losses) < best:
                best, since, kept = sum(losses), 0, copy.deepcopy(networks.state_dict())
            else:
                since += 1
            if since == self.patience:
                break
        networks.load_state_dict(kept)
        networks.eval()

    def predict(self, questions: Questions, rows: Tensor) -> Tensor:
        histories = self._histories(questions)
        with torch.inference_mode():
            scores = [self._scores(histories, part) for part in rows.split(self.batch_size)]
        return torch.cat(scores).cpu()

    def _encoder(self, questions: Questions) -> Scorer:
        model = checkpoint.load(self.run).model
        check_training(questions, model)
        if self.from_scratch:
            described = json.loads((Path(self.run) / "model" / "recsys.json").read_text())
            fresh = dict(checkpoint.build(described["model"]).named_parameters())
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(fresh[name])
        model.read_items(questions.log.items)
        return model.to(self.device)

    def _histories(self, questions: Questions) -> tuple[BasketBatch, Tensor, Tensor]:
        """All events, and where each row's lie that are read."""
        starts, ends = questions.spans()
        starts = torch.maximum(starts, ends - self.max_events)
        return unsplit(questions.log), starts, ends - starts

    def _scores(self, histories: tuple[BasketBatch, Tensor, Tensor], rows: Tensor) -> Tensor:
        """(B, C)."""
        whole, starts, lengths = histories
        events, offsets = ranges(starts[rows], lengths[rows])
        batch = whole.take(events, offsets, torch.full_like(rows, -1)).to(self.device)
        return self.head(self.encoder.encode_profiles(batch))

    def _loss(
        self, questions: Questions, histories: tuple[BasketBatch, Tensor, Tensor], rows: Tensor
    ) -> Tensor:
        scores = self._scores(histories, rows)
        labels = questions.labels(rows).to(scores)
        if not questions.ranked:
            return functional.binary_cross_entropy_with_logits(scores, labels)
        excluded = ~questions.allowed(rows).to(scores.device)
        log_share = scores.masked_fill(excluded, -torch.inf).log_softmax(1)
        each = torch.where(labels > 0, log_share, 0).sum(1) / labels.sum(1).clamp(min=1)
        return -each.mean()


def _none(questions: Questions) -> BasketBatch:
    """A history without events."""
    return BasketBatch.from_lists([[]], len(questions.log.items))
