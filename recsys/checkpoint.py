"""A trained model at rest: weights as safetensors, its config, its vocabulary and its histories.

    model/recsys.json            what `recsys` builds the model from
    model/weights.safetensors
    model/items.parquet          the catalogue in index order, with what is known of each item
    model/users.parquet          user ids in index order
    model/histories.safetensors  everything the log knows of them, for recommendations by user id

A model may add files for other software (`Scorer.export`).

Nothing is pickled, and a config builds classes of trusted packages only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from hydra.utils import get_object
from rich.progress import track
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor

from recsys.batch import BasketBatch
from recsys.devices import device_of, place_of
from recsys.errors import ConfigError, RecsysError, RunError, UnknownIdError
from recsys.evaluate import Protocol, rank
from recsys.events import ITEM, USER
from recsys.files import atomic_folder, write_parquet
from recsys.module import Scorer
from recsys.options import create
from recsys.precision import set_precision_as_saved
from recsys.ragged import Ragged
from recsys.retrieval import TopK
from recsys.splits import Part, Split
from recsys.vocab import UNKNOWN, Vocabulary

Id = int | str
History = Iterable[Id] | Iterable[Iterable[Id]]
FILES = (
    "recsys.json",
    "weights.safetensors",
    "items.parquet",
    "users.parquet",
    "histories.safetensors",
)


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained model with what it takes to recommend to users by id and in words.

    Attributes:
        model: ready to score.
        item_table: the catalogue, a row per item index.
        users: ids of the users that the log knows.
        histories: of those users, everything the log holds, in index order, on the CPU.
        mask_history: whether the task leaves out what a user has had.
    """

    model: Scorer
    item_table: pl.DataFrame
    users: Vocabulary
    histories: BasketBatch
    mask_history: bool

    @property
    def items(self) -> Vocabulary:
        return Vocabulary(self.item_table[ITEM])

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return place_of(self.model)

    def to(self, device: str | torch.device) -> Self:
        """Move the model, and return this.

        Raises:
            ConfigError: there is no such device.
        """
        self.model.to(device_of(device))
        return self

    def recommend(
        self,
        user_ids: Iterable[Id] | None = None,
        *,
        histories: Iterable[History] | None = None,
        texts: Iterable[Sequence[str]] | None = None,
        k: int = 10,
        mask_history: bool | None = None,
        progress: bool = False,
    ) -> pl.DataFrame:
        """The k best items for users of the log, or for histories that it has never seen.

        Args:
            user_ids: users of the log, asked with everything that it knows of them.
            histories: instead, per user a list of item ids, or a list of baskets of item ids,
                oldest first.
            texts: instead, per user a list of what items are called in words, oldest first; for
                models that read words.
            k: items a user.
            mask_history: leave out what the user has had; by default as in the task. What is
                given in words leaves out nothing.
            progress: whether to show a bar.

        Returns:
            A row per user and rank: `user_id` (or `history`, the number of the history), `rank`
            from 1, `item_id`, `title` where the log has one, `score`.

        Raises:
            UnknownIdError: a user or item that the log does not hold.
            CatalogueError: k is larger than the catalogue.
            ConfigError: not one of the three is given, or texts to a model that reads ids alone.
        """
        if sum(given is not None for given in (user_ids, histories, texts)) != 1:
            raise ConfigError("recommend takes user_ids, histories or texts; give one of them")
        if texts is not None:
            return self._recommend_in_words(list(texts), k)
        if histories is None:
            assert user_ids is not None
            rows = _indices(self.users, pl.Series(list(user_ids)), "user_id")
            asked = self.users.ids[rows.numpy()].rename(USER)
            batch = self.histories.rows(rows)
        else:
            batch = self._batch(histories)
            asked = pl.Series("history", range(len(batch)))
        masked = self.mask_history if mask_history is None else mask_history
        none = Ragged(batch.items[:0], torch.zeros(len(batch) + 1, dtype=torch.int64))
        bar = partial(track, description="users", disable=not progress, transient=True)
        part = Part("users", batch, none)
        top = rank(self.model, part, k, Protocol(mask_history=masked), progress=bar)
        return recommendations(asked, top.items, top.scores, self.item_table)

    @torch.inference_mode()
    def _recommend_in_words(self, texts: list[Sequence[str]], k: int) -> pl.DataFrame:
        self.model.eval()
        pieces = self._pieces(len(texts))
        users = [self.model.encode_texts([texts[row] for row in rows]) for rows in pieces]
        index = self.model.item_index()
        top = TopK.cat((index.search(vectors, k) for vectors in users), k)
        asked = pl.Series("history", range(len(texts)))
        return recommendations(asked, top.items, top.scores, self.item_table)

    @torch.inference_mode()
    def vectors(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The items' vectors by `item_id` and the users' by `user_id`, in the column `vector`.

        Users are encoded with everything that the log knows of them. Inner products of the two are
        the model's scores.

        Raises:
            ConfigError: the model ranks without vectors.
        """
        if not self.model.has_vectors:
            raise ConfigError(f"{type(self.model).__name__} ranks without vectors; it has none")
        self.model.eval()
        users = [
            self.model.encode_users(self.histories.rows(rows).to(self.device)).float().cpu()
            for rows in self._pieces(len(self.histories))
        ]
        return (
            _vectors(self.item_table[ITEM], self.model.encode_items().float().cpu()),
            _vectors(self.users.ids.rename(USER), torch.cat(users)),
        )

    def _pieces(self, num_users: int) -> Iterable[Tensor]:
        """Rows of users, as many as are to be scored at once."""
        return torch.arange(num_users).split(self.model.users_at_once(len(self.item_table)))

    def _batch(self, histories: Iterable[History]) -> BasketBatch:
        baskets = [[_basket(entry) for entry in history] for history in histories]
        flat = [item for history in baskets for basket in history for item in basket]
        found = iter(_indices(self.items, pl.Series(flat), "item_id").tolist())
        indexed = [[[next(found) for _ in basket] for basket in history] for history in baskets]
        return BasketBatch.from_lists(indexed, len(self.item_table))


def _vectors(ids: pl.Series, vectors: Tensor) -> pl.DataFrame:
    return pl.DataFrame([ids, pl.Series("vector", vectors.numpy())])


def _basket(entry: Id | Iterable[Id]) -> list[Id]:
    return list(entry) if isinstance(entry, Iterable) and not isinstance(entry, str) else [entry]


def recommendations(
    asked: pl.Series, items: Tensor, scores: Tensor, item_table: pl.DataFrame
) -> pl.DataFrame:
    """Ranked lists (U, k) as a row per user and rank; places without an item are left out."""
    users, k = items.shape
    frame = pl.DataFrame(
        {
            asked.name: asked[np.repeat(np.arange(users), k)],
            "rank": np.tile(np.arange(1, k + 1), users),
            "index": items.flatten().numpy(),
            "score": scores.flatten().numpy(),
        }
    ).filter(pl.col("index") >= 0)
    shown = [column for column in (ITEM, "title") if column in item_table.columns]
    chosen = item_table.select(shown)[frame["index"]]
    return pl.concat(
        [frame.drop("index", "score"), chosen, frame.select("score")], how="horizontal"
    )


def save(
    folder: Path, model: Scorer, split: Split, config: dict[str, Any], *, mask_history: bool
) -> None:
    """Write `folder` whole or not at all.

    Args:
        folder: the model's folder; one that is there is replaced.
        model: fitted.
        split: whose catalogue, users and histories are kept.
        config: from which the model is built again, with `_target_`.
        mask_history: what `recommend` does by default.
    """
    with atomic_folder(folder) as scratch:
        described = {"model": config, "mask_history": mask_history}
        (scratch / "recsys.json").write_text(json.dumps(described, indent=2))
        save_model(model, str(scratch / "weights.safetensors"))  # tied weights once
        save_log(scratch, split)
        model.export(scratch)


def save_log(folder: Path, split: Split) -> None:
    """Write the catalogue, the users and their histories to a folder that is there."""
    write_parquet(folder / "items.parquet", split.item_table)
    write_parquet(folder / "users.parquet", split.users.ids.rename(USER).to_frame())
    save_file(_tensors(split.latest), folder / "histories.safetensors")


def build(config: dict[str, Any]) -> Scorer:
    """A model from its config.

    Raises:
        ConfigError: it is a predictor, which answers questions.
    """
    built = create(config)
    if not isinstance(built, Scorer):
        raise ConfigError(
            f"{type(built).__name__} ranks no catalogue; what answers questions needs a task that "
            "asks them, such as task=lapse"
        )
    return built


def load(
    run: str | Path,
    *,
    device: str | torch.device = "auto",
    trusted: Sequence[str] = ("recsys",),
) -> SavedModel:
    """The model of a run's folder.

    Args:
        run: the folder.
        device: where it is to be asked, as `recsys.devices.device_of` takes it.
        trusted: packages whose classes the folder's config may build: add your own package to
            load a model that it defines.

    Raises:
        RunError: the folder is not a run's, or its model is incomplete.
        ConfigError: its config names anything else than a class of a trusted package, or there is
            no such device.
    """
    there = device_of(device)
    folder = Path(run) / "model"
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise RunError(f"{run} holds no finished run: there is no model/{missing[0]}")
    try:
        return _read(folder, trusted).to(there)
    except RecsysError:
        raise
    except Exception as error:  # whatever it is, the files are not what `save` wrote
        reason = str(error).partition("\n")[0]
        raise RunError(f"{folder} is damaged ({reason}); train the model again") from error


def _read(folder: Path, trusted: Sequence[str]) -> SavedModel:
    described = json.loads((folder / "recsys.json").read_text())
    check_targets(described["model"], trusted)
    model = build(described["model"])
    set_precision_as_saved(model, load_file(folder / "weights.safetensors"))
    load_model(model, folder / "weights.safetensors")
    model.eval()
    item_table = pl.read_parquet(folder / "items.parquet", glob=False)
    histories = BasketBatch(
        **load_file(folder / "histories.safetensors"), num_items=len(item_table)
    )
    users = Vocabulary(pl.read_parquet(folder / "users.parquet", glob=False)[USER])
    if model.popularity is None:  # saved before models kept it
        model.popularity = torch.bincount(histories.items, minlength=len(item_table))
    return SavedModel(model, item_table, users, histories, described["mask_history"])


def check_targets(config: Any, trusted: Sequence[str], kinds: tuple[type, ...] = (type,)) -> None:
    """Refuse a config from a folder that could call anything else than it should.

    Args:
        config: of dicts, lists and values.
        trusted: modules and packages whose own definitions may be called.
        kinds: of definitions; classes alone by default.

    Raises:
        ConfigError: a `_target_` that they do not define, or an interpolation, of which it is not
            known before it is too late what it stands for.
    """
    if isinstance(config, dict):
        if "_target_" in config and not _is_defined_in(trusted, config["_target_"], kinds):
            raise ConfigError(
                f"_target_: {config['_target_']} is not defined in {', '.join(trusted)}; if you "
                "trust this folder, name its package in recsys.load(…, trusted=…)"
            )
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            check_targets(value, trusted, kinds)
    elif isinstance(config, str) and "${" in config:
        raise ConfigError(f"{config} is an interpolation; a saved config holds values only")


def _is_defined_in(modules: Sequence[str], target: Any, kinds: tuple[type, ...]) -> bool:
    def below(name: str) -> bool:
        return any(f"{name}.".startswith(f"{module}.") for module in modules)

    if not isinstance(target, str) or not below(target):
        return False
    try:
        found = get_object(target)
    except ImportError:
        return False
    # Where it was defined counts: `recsys.checkpoint.os.system` is none of ours.
    return isinstance(found, kinds) and below(found.__module__)


def _tensors(batch: BasketBatch) -> dict[str, Tensor]:
    return {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "num_items"}


def _indices(vocabulary: Vocabulary, ids: pl.Series, what: str) -> Tensor:
    index = vocabulary.index_of(ids)
    unknown = ids.filter(index == UNKNOWN)
    if len(unknown):
        raise UnknownIdError(
            f"{what} {unknown[0]!r} is not among the {len(vocabulary)} that the model knows"
        )
    return torch.from_numpy(index.to_numpy(writable=True))
