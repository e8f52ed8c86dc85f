"""A trained model at rest: weights as safetensors, its config, its vocabulary and its histories.

    model/recsys.json            what `recsys` builds the model from
    model/weights.safetensors
    model/items.parquet          the catalogue in index order, with what is known of each item
    model/users.parquet          user ids in index order
    model/histories.safetensors  everything the log knows of them, for recommendations by user id
    model/manifest.json          the size and SHA-256 of each of these files
    model/calibration.json       what makes its scores probabilities, where it was calibrated

A model may add files for other software (`Scorer.export`). What it is asked, once it has been read,
is in `recsys.scoring.trained_model`.

A folder is data, whoever made it: nothing is pickled, a config builds what `recsys.scoring.trust`
lists, and what the files hold is checked before it is used.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.devices import device_of
from recsys.errors import ConfigError, RunError
from recsys.files import atomic_folder, write_parquet, write_text
from recsys.log.event_log import ITEM, USER
from recsys.log.vocabulary import Vocabulary
from recsys.reading import read_json, read_table, read_tensors, reading
from recsys.renamed import renamed
from recsys.scoring import manifest, trust
from recsys.scoring.calibration import Calibration
from recsys.scoring.kinds import Exported
from recsys.scoring.made_of import config_of
from recsys.scoring.scorer import Scorer
from recsys.scoring.trained_model import SavedModel
from recsys.scoring.weights import loaded
from recsys.tasks.splits import Split
from recsys.timing import timed

logger = logging.getLogger(__name__)

CALIBRATION = "calibration.json"
FILES = (
    "recsys.json",
    "weights.safetensors",
    "items.parquet",
    "users.parquet",
    "histories.safetensors",
)


def save(
    folder: Path,
    model: Scorer,
    split: Split,
    config: dict[str, Any] | None = None,
    *,
    mask_history: bool = False,
    calibration: Calibration | None = None,
) -> None:
    """Write `folder`, the `model` in a run's, whole or not at all.

    Args:
        folder: the model's folder; one that is there is replaced.
        model: fitted.
        split: whose catalogue, users and histories are kept.
        config: from which the model is built again, with `_target_`; None: of its own options.
        mask_history: what `recommend` does by default.
        calibration: of the model, where it was calibrated.

    Raises:
        ConfigError: there is no config, and an option of the model is what none can say.
    """
    config = config_of(model) if config is None else config
    with atomic_folder(folder) as scratch:
        description = {"model": config, "mask_history": mask_history}
        (scratch / "recsys.json").write_text(json.dumps(description, indent=2))
        save_model(model, str(scratch / "weights.safetensors"))  # tied weights once
        write_parquet(scratch / "items.parquet", split.item_table)
        write_parquet(scratch / "users.parquet", split.users.ids.rename(USER).to_frame())
        histories = split.latest.at_first_rank() if split.log.by_rank else split.latest
        save_file(_tensors(histories), scratch / "histories.safetensors")
        if isinstance(model, Exported):
            model.export(scratch)
        manifest.write(scratch)
        if calibration is not None:  # it may be written anew, and is in no manifest
            write_calibration(scratch, calibration)


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write what makes scores probabilities into a saved model's folder."""
    write_text(folder / CALIBRATION, json.dumps(calibration.as_dict(), indent=2))


def read_calibration(folder: Path) -> Calibration | None:
    """What makes scores probabilities, of a saved model's folder; None: it was not calibrated.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / CALIBRATION
    if not path.exists():
        return None
    remedy = "delete it and calibrate the model again"  # which reads the model, and this with it
    with reading(path, remedy=remedy):
        return Calibration.of(read_json(path, remedy=remedy))


def build(config: dict[str, Any]) -> Scorer:
    """A model from its config, which is the user's own.

    Raises:
        ConfigError: it cannot be built, or is a predictor of labels.
    """
    return scorer_of(trust.build(config))


def scorer_of(built: Any) -> Scorer:
    """What a config made, if it ranks a catalogue.

    Raises:
        ConfigError: it does not.
    """
    if not isinstance(built, Scorer):
        raise ConfigError(
            f"{type(built).__name__} ranks no catalogue; what predicts labels needs a task of "
            "label tables, such as task=lapse"
        )
    return built


def load(
    run: str | Path, *, device: str | torch.device = "auto", trusted: Sequence[str] = ()
) -> SavedModel:
    """The model of a run's folder, which may be anybody's: it runs no code of that folder.

    Args:
        run: the folder.
        device: where it is to be asked, as `recsys.devices.device_of` takes it.
        trusted: further packages whose classes the folder's config may build: add your own package
            to load a model that it defines.

    Raises:
        RunError: the folder is not a run's, or its model is incomplete or damaged.
        ConfigError: its config names anything else than a part of a model (`recsys.scoring.trust`)
            or a class of a trusted package, or there is no such device.

    >>> split, run = last_basket(checkerboard(num_items=4)), TemporaryDirectory()
    >>> save(Path(run.name) / "model", EASE().fit(split), split)
    >>> load(run.name, device="cpu").recommend([7], k=2)["item_id"].to_list()
    [3, 1]
    >>> run.cleanup()
    """
    there = device_of(device)
    folder = Path(run) / "model"
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise RunError(f"{run} holds no finished run: there is no model/{missing[0]}")
    with reading(folder, remedy="train the model again"), timed(logger, "read %s", folder):
        manifest.check(folder, *FILES)
        saved = _read(folder, trusted)
    return saved.to(there)


def untrained(run: str | Path, *, trusted: Sequence[str] = ()) -> Scorer:
    """The model of a run's folder as it was before it was trained: its shape, random weights.

    Raises:
        RunError, ConfigError: as `load`.
    """
    folder = Path(run) / "model"
    with reading(folder, remedy="train the model again"):
        return _built(read_json(folder / "recsys.json"), folder, trusted)


def _read(folder: Path, trusted: Sequence[str]) -> SavedModel:
    description = read_json(folder / "recsys.json")
    mask_history = description["mask_history"]
    if not isinstance(mask_history, bool):
        raise TypeError(f"mask_history is {mask_history!r}, neither true nor false")
    item_table, users = _catalogue(folder / "items.parquet"), _users(folder / "users.parquet")
    tensors = read_tensors(folder / "histories.safetensors")
    histories = BasketBatch(**tensors, num_items=len(item_table))
    histories.check(len(users))
    _check_sizes(description["model"], {"num_items": len(item_table), "num_users": len(users)})
    weights = folder / "weights.safetensors"
    model = loaded(lambda: _built(description, folder, trusted), weights, histories)
    calibration = read_calibration(folder)
    return SavedModel(model, item_table, users, histories, mask_history, calibration=calibration)


def _built(description: dict[str, Any], folder: Path, trusted: Sequence[str]) -> Scorer:
    config = renamed(description["model"])
    return scorer_of(trust.build(config, "model", trusted=trusted, folder=folder))


def _check_sizes(config: Any, sizes: dict[str, int]) -> None:
    """See that models were made for the catalogue and the users that are beside them."""
    if isinstance(config, list):
        config = dict(enumerate(config))
    if not isinstance(config, dict):
        return
    for name, value in config.items():
        if name in sizes and value != sizes[name]:
            raise ValueError(f"{name} is {value} in the config, and {sizes[name]} in the tables")
        _check_sizes(value, sizes)


def _catalogue(path: Path) -> pl.DataFrame:
    table = read_table(path, ITEM)
    _check_ids(table[ITEM])
    return table


def _users(path: Path) -> Vocabulary:
    ids = read_table(path, USER)[USER]
    _check_ids(ids)
    return Vocabulary(ids)


def _check_ids(ids: pl.Series) -> None:
    if ids.dtype not in (pl.Int64, pl.String):
        raise ValueError(f"{ids.name} is {ids.dtype}; expected Int64 or String")
    if ids.null_count() or not len(ids) or ids.n_unique() < len(ids):
        raise ValueError(f"{ids.name} has none, nulls, or one twice")


def _tensors(batch: BasketBatch) -> dict[str, Tensor]:
    return {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "num_items"}
