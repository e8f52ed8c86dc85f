"""Alignment: a model that was trained on what comes next goes on with what was taken up or not.

Paper: BCO (`recsys.nn.preferences`). What the model held for likely when it started, the reference,
is computed once, and is a column of the labelled items from then on.

Shapes: R rows, B rows of them, E labelled items, n items, D dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, cast

import numpy as np
import polars as pl
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.optim import AdamW

from recsys.batch.examples import Part
from recsys.batch.feedback import LabelledPart, LabelledPrefixes, Labels
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged, offsets_of
from recsys.devices import place_of
from recsys.errors import ConfigError
from recsys.evaluation.feedback import feedback_figures
from recsys.log.event_log import ITEM, TIME
from recsys.nn.preferences import PreferenceLoss, Preferences
from recsys.ranges import above, at_least
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.lists import TopK
from recsys.scoring.kinds import LogProbabilities, Measured, VectorScorer
from recsys.scoring.recommender import Progress, Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.as_of import AS_OF, PHASE
from recsys.tasks.feedback import FeedbackTable
from recsys.tasks.phases import PHASES, TRAIN
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of
from recsys.types import Scores

logger = logging.getLogger(__name__)

PROMPTS = 1024
"""So many histories of each label are read to tell how likely a history's items are taken up."""


class Aligned(Measured, Recommender):
    """A model while it is aligned: its own scores, and the loss of labelled items.

    Args:
        model: trained, of probabilities; its weights are changed.
        loss: of the labelled items.
        table: of them.
        learning_rate, weight_decay: of AdamW.
        anchor: what is added to the loss, so many times -log pi of what users did next, the first
            basket from a row's moment on: what the model was trained on holds what it knew.
        drift: nats; once the mean log-ratio of an epoch is further from 0, a line warns that the
            model loses what it knew.
        reference: (E,) of all items of the table, where it has been computed before.
        seed: of the items of other histories, and of the histories that odds are told from.

    Raises:
        ConfigError: the model tells no probabilities, the loss reads what there is not, or an
            option is out of its range.
    """

    measures = ("auroc", "within_auroc")

    def __init__(
        self,
        model: Scorer,
        loss: PreferenceLoss,
        table: FeedbackTable,
        *,
        learning_rate: float = 3e-4,
        weight_decay: float = 0.0,
        anchor: float = 0.0,
        drift: float = 5.0,
        reference: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        above(0, drift=drift)
        at_least(0, anchor=anchor)
        if not isinstance(model, LogProbabilities):
            raise ConfigError(
                f"{type(model).__name__} tells no probabilities of items; align a model that is "
                "trained with a softmax over the catalogue, such as sasrec or lmrec"
            )
        model.refuse_no_softmax()
        if loss.needs_odds and not isinstance(model, VectorScorer):
            raise ConfigError(
                f"loss.matching=true reads vectors of histories, and {type(model).__name__} has "
                "none; set it to false"
            )
        self.model, self.objective = model, loss
        self.table, self.anchor, self.drift, self.seed = table, anchor, drift, seed
        self.reference = reference
        self._parts: dict[int, LabelledPrefixes] = {}
        self._sums = torch.zeros(4)
        self._has_warned = False
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Without dropout, also in training: the reference knew none, and ratios begin at 0."""
        super().train(mode)
        for part in self.model.children():
            part.eval()
        return self

    def prepare(self, split: Split) -> Part:
        """The rows of training, with the reference's log-probabilities."""
        self.train()
        self._check_pairs()
        if self.reference is None:
            self.reference = self.log_probabilities_of(split)
        labels = self.table.labels_of(TRAIN)
        self.objective.start(labels)
        return self.part(split, TRAIN)

    def log_probabilities_of(self, split: Split) -> Tensor:
        """(E,) float32: of every labelled item of the table, as the model is now."""
        return _of_shown(self.model, examples(self.table, split))

    def part(self, split: Split, phase: int) -> LabelledPrefixes:
        """The rows of a phase, as they are trained on."""
        assert self.reference is not None
        whole = examples(self.table, split)
        part = replace(whole, labels=replace(whole.labels, reference=self.reference))
        part = part.some(self.table.phase(phase))
        part = replace(part, name=PHASES[phase])
        if self.objective.needs_mismatched:
            part = self._with_others(part)
        return self._with_odds(part) if self.objective.needs_odds else part

    def loss(self, part: Part, progress: Progress) -> Tensor:
        assert isinstance(part, LabelledPart)
        log_probabilities = self.model.log_probabilities(part.history)
        preferences = self._preferences(part, log_probabilities)
        self._sum_up(preferences)
        loss = self.objective(preferences)
        return loss + self.anchor * _surprise(log_probabilities, part) if self.anchor else loss

    def preferences(self, part: LabelledPart) -> Preferences:
        """Of the labelled items of a batch, in the order of its targets."""
        return self._preferences(part, self.model.log_probabilities(part.history))

    def _preferences(self, part: LabelledPart, log_probabilities: Tensor) -> Preferences:
        """For (B, n) log-probabilities of all items."""
        lists = part.target.owners()
        labels, objective = part.labels, self.objective
        others = log_probabilities[lists, labels.others] if objective.needs_mismatched else None
        return Preferences(
            log_probabilities[lists, part.target.values],
            labels.reference.to(log_probabilities),
            labels.up,
            lists,
            odds=part.odds[lists] if objective.needs_odds else None,
            mismatched=others,
            mismatched_reference=labels.others_reference if objective.needs_mismatched else None,
        )

    def measure(self, split: Split, phase: int) -> dict[str, float]:
        """`auroc` of log pi over all labelled items of a phase, and `within_auroc` of lists."""
        rows = self.table.phase(phase)
        part = examples(self.table, split).some(rows)
        scores = self.shown_scores(part).numpy()
        return feedback_figures(scores, part.labels.up.numpy(), part.target.owners().numpy())

    def shown_scores(self, part: LabelledPrefixes) -> Tensor:
        """(E,) float32 log-probabilities of a part's labelled items, on the CPU."""
        return _of_shown(self.model, part)

    def score(self, batch: BasketBatch) -> Scores:
        return self.model.score(batch)

    def top_k(
        self,
        batch: BasketBatch,
        k: int,
        *,
        mask_history: bool = False,
        candidates: Tensor | None = None,
        exclude: Ragged | None = None,
        index: ItemIndex | None = None,
    ) -> TopK:
        options: Any = {"mask_history": mask_history, "candidates": candidates, "index": index}
        return self.model.top_k(batch, k, exclude=exclude, **options)

    def optimizer(self, num_steps: int) -> Any:
        weights = [p for p in self.model.parameters() if p.requires_grad]
        return AdamW(weights, lr=self.learning_rate, weight_decay=self.weight_decay)

    def training_step(self, part: Part, batch_index: int) -> Tensor:
        """The loss; at an epoch's last batch how far the model is from its reference is logged."""
        loss = super().training_step(part, batch_index)
        if self.trainer.is_last_batch:
            self.log_dict({f"train/{name}": value for name, value in self.drifted().items()})
            self.warn_of_drift(self.trainer.current_epoch)
        return loss

    def on_train_epoch_start(self) -> None:
        self._sums = torch.zeros(4)

    def drifted(self) -> dict[str, float]:
        """Mean log-ratios since the epoch began, of all items and by label, and the shift."""
        ups, num_ups, downs, num_downs = self._sums.tolist()
        return {
            "log_ratio": (ups + downs) / max(num_ups + num_downs, 1),
            "log_ratio_up": ups / max(num_ups, 1),
            "log_ratio_down": downs / max(num_downs, 1),
            "shift": self.objective.shift,
        }

    def _sum_up(self, preferences: Preferences) -> None:
        ratios, up = preferences.log_ratios.detach(), preferences.labels
        sums = [ratios[up].sum(), up.sum(), ratios[~up].sum(), (~up).sum()]
        self._sums = self._sums.to(ratios.device) + torch.stack([v.float() for v in sums])

    def warn_of_drift(self, epoch: int) -> None:
        """Say once that the mean log-ratio since the epoch began is beyond `drift`, if it is."""
        ratio, shift = self.drifted()["log_ratio"], self.objective.shift
        if abs(ratio) <= self.drift or self._has_warned:
            return
        self._has_warned = True
        remedy = "lower task.learning_rate, or raise loss.beta"
        if not self.objective.balanced:
            remedy = f"set task.loss.balanced=true where the loss has it, or {remedy}"
        logger.warning(
            "epoch %s: the mean log-ratio is %.1f nats and the shift %.2f: the model runs away "
            "from its reference, and what it knew of items is lost; %s",
            epoch,
            ratio,
            shift,
            remedy,
        )

    def _check_pairs(self) -> None:
        if not self.objective.needs_pairs:
            return
        labels, lists = self.table.labels, self.table.shown.owners()
        up = torch.zeros(len(self.table)).index_add_(0, lists, labels.float())
        mixed = (up > 0) & (up < self.table.shown.lengths)
        if not mixed[self.table.phase(TRAIN)].any():
            raise ConfigError(
                f"{type(self.objective).__name__} compares items of one list, and no list of "
                f"{self.table.name} has one taken up and one turned down; choose loss=bco"
            )

    def _with_others(self, part: LabelledPrefixes) -> LabelledPrefixes:
        """With an item for each that was shown after another history."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(part.target.values), generator=generator)
        others = part.target.values[order]
        shown = replace(part, target=Ragged(others, part.target.offsets))
        reference = _of_shown(self.model, shown)
        labels = replace(part.labels, others=others, others_reference=reference)
        return replace(part, labels=labels)

    def _with_odds(self, part: LabelledPrefixes) -> LabelledPrefixes:
        assert isinstance(self.model, VectorScorer)
        encode = self.model.encode_users
        vectors = _by_batches(self.model, part, lambda batch: encode(batch.history))
        lists, up = part.target.owners(), part.labels.up
        return replace(part, odds=odds(vectors, lists, up, seed=self.seed))


def odds(
    vectors: Tensor, lists: Tensor, up: Tensor, *, seed: int = 0, prompts: int = PROMPTS
) -> Tensor:
    """(B,) float32: p(up|x) / (1 - p(up|x)) of each history, by a logistic regression.

    Args:
        vectors: (B, D) of the histories.
        lists: (E,) the history of each labelled item.
        up: (E,) bool, the labels.
        seed: of the draw.
        prompts: so many items of each label teach the regression, in which labels weigh alike.
    """
    drawn = []
    for label in (True, False):
        places = tensor_of(pl.Series(up.numpy() == label).arg_true())
        generator = torch.Generator().manual_seed(seed)
        drawn.append(places[torch.randperm(len(places), generator=generator)[:prompts]])
    chosen = torch.cat(drawn)
    regression = LogisticRegression(class_weight="balanced", max_iter=1000)
    regression.fit(vectors[lists[chosen]].numpy(), up[chosen].numpy())
    p = regression.predict_proba(vectors.numpy())[:, 1]
    return torch.from_numpy((p / (1 - p + 1e-8)).astype(np.float32))


def examples(table: FeedbackTable, split: Split) -> LabelledPrefixes:
    """All rows of a table, with the events of the split's users before their moments as histories.

    References and odds are not filled in.

    Args:
        table: of the split's log.
        split: in whose indices items and users are.

    Raises:
        ConfigError: an item of the table is none of the catalogue.
    """
    if (split, "examples") in table.memo:
        return cast(LabelledPrefixes, table.memo[split, "examples"])
    assert table.log is split.log
    history = split.latest
    _, ends = table.spans()
    users = tensor_of(split.users.index_of(table.rows["user_id"]))
    owners = torch.searchsorted(history.users, users).clamp(max=len(history) - 1)
    before = torch.searchsorted(history.log_rows, ends) - history.offsets[owners]
    is_known = history.users[owners] == users
    ends = torch.where(is_known, before.clamp(min=0), 0)
    ids = table.log.items[ITEM][table.shown.values.numpy()]
    items = split.items.index_of(ids)
    if (items < 0).any():
        raise ConfigError(
            f"{table.name}: item {ids.filter(items < 0)[0]!r} is none of the catalogue, the items "
            "with an event in the log; leave its labels out"
        )
    target = Ragged(tensor_of(items), table.shown.offsets)
    nothing = torch.zeros(len(target.values))
    labels = Labels(
        up=table.labels, reference=nothing, others=target.values, others_reference=nothing
    )
    part = LabelledPrefixes(
        "labels", history, target, owners, ends, labels=labels, odds=torch.ones(len(table)),
        following=_following(table, history, owners, ends, is_known),
    )  # fmt: skip
    table.memo[split, "examples"] = part
    return part


def _following(
    table: FeedbackTable, history: BasketBatch, owners: Tensor, ends: Tensor, is_known: Tensor
) -> Ragged:
    """(R) the items of the first basket of each row's user from the row's moment on.

    Empty where there is none, or where it does not end before the first moment that is validated.
    """
    _, begins = history.basket_rows()
    baskets = torch.searchsorted(begins, history.offsets[owners] + ends)
    there = is_known & (begins[baskets] < history.offsets[owners + 1])
    last = history.log_rows[begins[baskets[there] + 1] - 1]
    later = table.rows.filter(pl.col(PHASE) > TRAIN)[AS_OF].min()
    in_time = tensor_of((table.log.events[TIME][last.numpy()] < later).fill_null(True))
    (rows,) = there.nonzero(as_tuple=True)
    lengths = torch.zeros(len(owners), dtype=torch.int64)
    chosen = baskets[rows[in_time]]
    lengths[rows[in_time]] = begins[chosen + 1] - begins[chosen]
    return Ragged(Ragged(history.items, begins).rows(chosen).values, offsets_of(lengths))


def _surprise(log_probabilities: Tensor, part: LabelledPart) -> Tensor:
    """A scalar, the mean of -log pi of what users did next, for (B, n) log-probabilities."""
    following = part.following
    of_items = log_probabilities[following.owners(), following.values]
    return -of_items.sum() / max(len(of_items), 1)


def _of_shown(model: LogProbabilities, part: LabelledPrefixes) -> Tensor:
    """(E,) float32 log-probabilities of the items of a part's targets, on the CPU."""

    def of_shown(batch: LabelledPart) -> Tensor:
        shown = batch.target
        return model.log_probabilities(batch.history)[shown.owners(), shown.values]

    return _by_batches(model, part, of_shown)


def _by_batches(
    model: Scorer, part: LabelledPrefixes, of: Callable[[LabelledPart], Tensor]
) -> Tensor:
    """What a function makes of a part, in evaluation mode, on the CPU."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    batches = Loader(part.to(place_of(model)), model.users_at_once(part.history.num_items))
    with torch.no_grad():
        pieces = [of(cast(LabelledPart, batch)).float().cpu() for batch in batches]
    for module, was_training in modes.items():
        module.training = was_training
    return torch.cat(pieces)
