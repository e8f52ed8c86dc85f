"""A model for use: fitted again on the whole log, once its settings have been chosen on a split.

What was held out to choose and to measure is the latest that the log knows, and a model that is to
recommend tomorrow should have learnt from it. A model that is trained takes as many epochs as its
best one came after; nobody is left to stop it earlier, or to measure what it reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytorch_lightning import seed_everything

from recsys.checkpoints import read_checkpoint
from recsys.errors import ConfigError, RunError
from recsys.evaluation.ranking import Protocol
from recsys.renamed import renamed
from recsys.report.screen import console
from recsys.run.config import Sizes
from recsys.run.options import check_options
from recsys.scoring import saved_model, trust
from recsys.scoring.kinds import members_of
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split, whole
from recsys.training.callbacks import BEST
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

MOST_EPOCHS = 100_000
"""More are none that somebody has trained."""


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


def refit_run(
    run: Path,
    config: Mapping[str, Any],
    split: Split,
    protocol: Protocol,
    folder: Path,
    trusted: Sequence[str],
) -> Scorer:
    """The model of a run's config, fitted on the whole log and saved in a folder.

    Args:
        run: its folder, which may be anybody's, with the checkpoint of its best epoch.
        config: of the run.
        split: that it was trained on.
        protocol: how it was evaluated.
        folder: for `checkpoints/`, from which an ended process goes on, and `model/`.
        trusted: packages whose classes the config may build.

    Raises:
        ConfigError: the config builds what no folder may, or a model that is not refitted.
        RunError: the run holds no checkpoint of a model that is trained.
    """
    everything = whole(split)
    options = _sized(renamed(dict(config["model"])), everything)
    trust.check(options, "model", trusted)

    def build() -> Scorer:
        return saved_model.scorer_of(trust.build(options, "model", trusted=trusted))

    model = refitted(
        build,
        everything,
        _training(config["trainer"]),
        protocol,
        lambda: _epochs(run),
        folder=folder,
        progress=console.is_terminal,
    )
    masked = protocol.mask_history
    saved_model.save(
        folder / "model",
        model,
        everything,
        options,
        mask_history=masked,
        calibration=saved_model.read_calibration(run / "model"),
    )
    return model


def _sized(options: dict[str, Any], split: Split) -> dict[str, Any]:
    """A model's options with the sizes of the whole log, which may have more classes."""
    return options | {n: value for n, value in vars(Sizes.of(split)).items() if n in options}


def _training(section: Mapping[str, Any]) -> TrainingOptions:
    """Of the config's trainer, which a folder may not make from anything else."""
    trainer = {**section, trust.TARGET: "recsys.training.TrainingOptions"}
    check_options({"trainer": trainer}, {"trainer": TrainingOptions})
    options: TrainingOptions = trust.build(trainer)
    return options


def _epochs(run: Path) -> int:
    """How many epochs the best one of a run came after."""
    if not (run / BEST).is_file():
        raise RunError(f"{run} holds no {BEST}, which says for how many epochs to train")
    epoch = read_checkpoint(run / BEST, whole=False).get("epoch")
    if type(epoch) is not int or not 0 <= epoch < MOST_EPOCHS:
        raise RunError(f"{run / BEST}: its epoch is {epoch!r}, no number of epochs")
    return epoch + 1
