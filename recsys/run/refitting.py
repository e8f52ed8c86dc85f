"""A model for use: fitted again on the whole log, once its settings have been chosen on a split.

What was held out to choose and to measure is the latest that the log knows, and a model that is to
recommend tomorrow should have learnt from it. A model that is trained takes as many epochs as its
best one came after; nobody is left to stop it earlier, or to measure what it reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pytorch_lightning import seed_everything

from recsys.errors import ConfigError
from recsys.evaluation.ranking import Protocol
from recsys.scoring.kinds import members_of
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions


def refitted(
    build: Callable[[], Scorer],
    split: Split,
    training: TrainingOptions,
    protocol: Protocol,
    epochs: Callable[[], int],
    *,
    folder: Path | None = None,
    progress: bool = False,
) -> Scorer:
    """A model fitted on all events of a split that has nobody to ask (`recsys.tasks.whole`).

    Args:
        build: makes it; after the seed.
        split: all training.
        training: as it was trained on the split whose validation users chose its best epoch.
        protocol: of that training.
        epochs: how many its best epoch came after; asked of a model with a loss.
        folder: for checkpoints, from which it goes on.
        progress: whether to show a bar.

    Raises:
        ConfigError: the model is made of others that are trained.
    """
    seed_everything(training.seed, verbose=False)
    model = build()
    if trained := [name for name, one in members_of(model) if isinstance(one, Recommender)]:
        raise ConfigError(
            f"{type(model).__name__} is made of {trained[0]}, which is trained for as many epochs "
            "as validation users say; fit a model by itself to refit it"
        )
    if isinstance(model, Recommender):
        count = epochs()
        training = replace(training, max_epochs=count, evaluate_every=count)
    return fit(model, split, training, protocol, folder=folder, progress=progress)
