"""A trained model at rest: weights as safetensors, its config, its vocabulary and its histories.

    model/recsys.json            what `recsys` builds the model from
    model/weights.safetensors
    model/items.parquet          the catalogue in index order, with what is known of each item
    model/users.parquet          user ids in index order
    model/histories.safetensors  everything the log knows of them, for recommendations by user id
    model/manifest.json          the size and SHA-256 of each of these files

A model may add files for other software (`Scorer.export`).

A folder is data, whoever made it: nothing is pickled, a config builds what `recsys.scoring.trust`
lists, and what the files hold is checked before it is used.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from rich.progress import track
from safetensors.torch import save_file, save_model
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.devices import device_of, place_of
from recsys.errors import ConfigError, RecsysError, RunError
from recsys.files import atomic_folder, write_parquet
from recsys.log.event_log import ITEM, USER
from recsys.log.vocabulary import UNKNOWN, Vocabulary
from recsys.ranges import at_least
from recsys.reading import read_json, read_table, read_tensors, reading
from recsys.renamed import renamed
from recsys.retrieval.lists import TopK, check_length
from recsys.scoring import manifest, trust
from recsys.scoring.filters import Filter, Filters, check_known_users, filters
from recsys.scoring.ids import Id, Ids, Unknown, column_of, known
from recsys.scoring.kinds import Exported, TextEncoder, VectorScorer
from recsys.scoring.lists import rank
from recsys.scoring.made_of import config_of
from recsys.scoring.reranking import MMR
from recsys.scoring.scorer import Scorer
from recsys.scoring.similar import similar_items
from recsys.scoring.weights import loaded
from recsys.summary import Summarised
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of
from recsys.timing import timed

logger = logging.getLogger(__name__)

History = Iterable[Id] | Iterable[Iterable[Id]]
LISTS_AT_ONCE = 2**16
"""Users whose lists are one frame, where those of all are asked for."""
FILES = (
    "recsys.json",
    "weights.safetensors",
    "items.parquet",
    "users.parquet",
    "histories.safetensors",
)


@dataclass(frozen=True, eq=False, repr=False)
class SavedModel(Summarised):
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

    def summary(self) -> dict[str, object]:
        sizes = {"items": len(self.item_table), "users": len(self.users)}
        return {"model": type(self.model).__name__, **sizes, "device": self.device}

    def recommend(
        self,
        user_ids: Ids | None = None,
        *,
        histories: Iterable[History] | None = None,
        texts: Iterable[Sequence[str]] | None = None,
        k: int = 10,
        mask_history: bool | None = None,
        allow: Filter | None = None,
        deny: Filter | None = None,
        unknown: Unknown = "skip",
        rerank: MMR | None = None,
        progress: bool = False,
    ) -> pl.DataFrame:
        """The k best items for users of the log, or for histories that it has never seen.

        Args:
            user_ids: users of the log, one or several, asked with everything that it knows of
                them.
            histories: instead, per user a list of item ids, or a list of baskets of item ids,
                oldest first.
            texts: instead, per user a list of what items are called in words, oldest first; for
                models that read words, and without `allow` and `deny`.
            k: items a user.
            mask_history: leave out what the user has had; by default as in the task. What is
                given in words leaves out nothing.
            allow, deny: item ids that alone are recommended, and that never are; or tables of
                them by `item_id`, and by `user_id` where they differ (`recsys.scoring.filters`).
            unknown: what is done with ids that the log does not hold. "skip" leaves out such
                users, and such items of histories and filters, and warns; "refuse" is an error.
            rerank: how lists are diversified; None leaves them as they are.
            progress: whether to show a bar.

        Returns:
            A row per user and rank: `user_id` (or `history`, the number of the history), `rank`
            from 1, `item_id`, `title` where the log has one, `score`. Fewer than k where fewer
            items are allowed.

        Raises:
            UnknownIdError: the log holds none of the users or items, or not all and they are
                to be refused.
            CatalogueError: k is below 1, or larger than the catalogue.
            ConfigError: not one of the three is given, texts to a model that reads ids alone, or
                filters by user for histories.
            DataError: a table of items has no `item_id`.
            RunError: the options or weights of the model, which came from files, are not usable.
        """
        if sum(argument is not None for argument in (user_ids, histories, texts)) != 1:
            raise ConfigError("recommend takes user_ids, histories or texts; give one of them")
        check_length(k, len(self.item_table))
        if texts is not None:
            if any(one is not None for one in (allow, deny, rerank)):
                raise ConfigError(
                    "allow, deny and rerank are for user_ids and histories, not for texts"
                )
            return self._recommend_in_words(list(texts), k)
        chosen = filters(self.users, self.items, allow, deny, unknown)
        if histories is None:
            assert user_ids is not None
            ids = column_of(user_ids)
            rows, _ = known(self.users, ids, USER, "they get no list", unknown)
            keys, batch = self.users.ids[rows.numpy()].rename(USER), self.histories.rows(rows)
        else:
            check_known_users(chosen)
            batch = self._batch(histories, unknown)
            keys = pl.Series("history", range(len(batch)))
        model = self._asked(rerank)
        return self._lists(model, keys, batch, k, mask_history, chosen, progress=progress)

    def recommend_all(
        self,
        k: int = 10,
        *,
        mask_history: bool | None = None,
        allow: Filter | None = None,
        deny: Filter | None = None,
        unknown: Unknown = "skip",
        rerank: MMR | None = None,
        users_at_once: int = LISTS_AT_ONCE,
    ) -> Iterator[pl.DataFrame]:
        """What `recommend` gives for every user of the log, some users at a time.

        Args:
            k, mask_history, allow, deny, unknown, rerank: as for `recommend`.
            users_at_once: of each frame, which bounds the memory and changes no list.

        >>> split = last_basket(checkerboard())
        >>> model = EASE().fit(split)
        >>> saved = SavedModel(model, split.item_table, split.users, split.latest, False)
        >>> [len(lists) for lists in saved.recommend_all(k=2, users_at_once=40)]
        [80, 40]
        """
        check_length(k, len(self.item_table))
        at_least(1, users_at_once=users_at_once)
        chosen = filters(self.users, self.items, allow, deny, unknown)
        model = self._asked(rerank)
        for rows in torch.arange(len(self.users)).split(users_at_once):
            keys = self.users.ids[rows.numpy()].rename(USER)
            yield self._lists(model, keys, self.histories.rows(rows), k, mask_history, chosen)

    def similar(
        self,
        item_ids: Ids,
        k: int = 10,
        *,
        allow: Filter | None = None,
        deny: Filter | None = None,
        unknown: Unknown = "skip",
    ) -> pl.DataFrame:
        """The k items most like each item, which is never among its own.

        Where the model has vectors, by their cosine; otherwise what it recommends after a history
        of that item alone.

        Args:
            item_ids: of the catalogue, one or several.
            k: items an item.
            allow, deny, unknown: as for `recommend`, for everybody.

        Returns:
            A row per item and rank: `item_id`, `rank` from 1, `similar_id`, its `title` where the
            log has one, `score`.

        Raises:
            UnknownIdError, CatalogueError, ConfigError, DataError, RunError: as `recommend`.
        """
        check_length(k, len(self.item_table))
        chosen = filters(self.users, self.items, allow, deny, unknown)
        check_known_users(chosen)
        index, _ = known(self.items, column_of(item_ids), ITEM, "they have no list", unknown)
        with asking(self.model):
            top = similar_items(self.model, index, len(self.item_table), k, chosen.candidates)
        keys = self.item_table[ITEM][index.numpy()].rename("of")
        lists = recommendations(keys, top.items, top.scores, self.item_table)
        return lists.rename({ITEM: "similar_id"}).rename({"of": ITEM})

    def _asked(self, rerank: MMR | None) -> Scorer:
        """The model, or one with its lists reranked."""
        if rerank is None:
            return self.model
        with asking(self.model):
            return rerank.of(self.model.eval(), self.item_table)

    def _lists(
        self,
        model: Scorer,
        keys: pl.Series,
        batch: BasketBatch,
        k: int,
        mask_history: bool | None,
        chosen: Filters,
        *,
        progress: bool = False,
    ) -> pl.DataFrame:
        """The k best for the users of a batch, who are called by the keys."""
        masked = self.mask_history if mask_history is None else mask_history
        none = Ragged(batch.items[:0], torch.zeros(len(batch) + 1, dtype=torch.int64))
        bar = partial(track, description="users", disable=not progress, transient=True)
        with asking(model):
            top = rank(
                model,
                Part("users", batch, none),
                k,
                mask_history=masked,
                candidates=chosen.candidates,
                exclude=chosen.excluded if chosen.by_user else None,
                progress=bar,
            )
        return recommendations(keys, top.items, top.scores, self.item_table)

    @torch.inference_mode()
    def _recommend_in_words(self, texts: list[Sequence[str]], k: int) -> pl.DataFrame:
        model = self.model.eval()
        if not isinstance(model, TextEncoder):
            raise ConfigError(f"{type(model).__name__} reads no words; give histories of item ids")
        pieces = self._pieces(len(texts))
        with asking(model):
            users = [model.encode_texts([texts[row] for row in rows]) for rows in pieces]
            index = model.item_index()
            top = TopK.cat((index.search(vectors, k) for vectors in users), k)
            keys = pl.Series("history", range(len(texts)))
            return recommendations(keys, top.items, top.scores, self.item_table)

    def known_parts(self, split: Split) -> list[tuple[Part, Part]]:
        """The validation and the test users of a split, and the same as the model knows them.

        In the second part of each pair, user indices and event rows are those of the model's log,
        and -1 where that log has no such user or event.

        Args:
            split: of any log of the model's catalogue.

        Raises:
            ConfigError: the catalogue is another.
        """
        self.check_catalogue(split)
        users = tensor_of(self._index_of(split.users.ids))
        rows = self._rows_of(split, users)
        parts = []
        for part in (split.validation, split.test):
            history = part.history
            index, log_rows = users[history.users], rows[history.log_rows]
            known_history = replace(history, users=index, log_rows=log_rows)
            parts.append((part, replace(part, history=known_history)))
        return parts

    def check_catalogue(self, split: Split) -> None:
        """Refuse a split of another catalogue than the model's.

        Raises:
            ConfigError: it is another.
        """
        _check_same(self.items, split.items)

    def _index_of(self, user_ids: pl.Series) -> pl.Series:
        """As `Vocabulary.index_of`, but text is another id than the number that it spells."""
        if user_ids.dtype == self.users.ids.dtype:
            return self.users.index_of(user_ids)
        return Vocabulary(self.users.ids.cast(pl.String)).index_of(user_ids.cast(pl.String))

    def _rows_of(self, split: Split, users: Tensor) -> Tensor:
        """(events of the split's log,) the row of each in the model's log, -1 without one."""
        model_events = pl.DataFrame(
            {
                "user": self.histories.owners().numpy(),
                "item": self.histories.items.numpy(),
                "time": self.histories.times.numpy(),
                "row": self.histories.log_rows.numpy(),
            }
        )
        index = pl.Series("user", users.numpy()[split.events["user"].to_numpy()])
        events = split.events.select("item", "time", "log_row").with_columns(index)
        same = ["user", "item", "time"]
        nth = pl.int_range(pl.len()).over(same)
        model_events, events = (f.with_columns(nth=nth) for f in (model_events, events))
        matches = events.join(model_events, on=[*same, "nth"])
        rows = np.full(split.log.num_events, -1)
        rows[matches["log_row"].to_numpy()] = matches["row"].to_numpy()
        return torch.from_numpy(rows)

    @torch.inference_mode()
    def vectors(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The items' vectors by `item_id` and the users' by `user_id`, in the column `vector`.

        Users are encoded with everything that the log knows of them. Inner products of the two are
        the model's scores.

        Raises:
            ConfigError: the model ranks without vectors.
        """
        model = self.model.eval()
        if not isinstance(model, VectorScorer):
            raise ConfigError(
                f"{type(model).__name__} ranks without vectors; recsys recommend gives its lists"
            )
        with asking(model):
            users = [
                model.encode_users(self.histories.rows(rows).to(self.device)).float().cpu()
                for rows in self._pieces(len(self.histories))
            ]
            items = model.encode_items().float().cpu()
        return (
            _vectors(self.item_table[ITEM], items),
            _vectors(self.users.ids.rename(USER), torch.cat(users)),
        )

    def _pieces(self, num_users: int) -> Iterable[Tensor]:
        """Rows of users, as many as are to be scored at once."""
        return torch.arange(num_users).split(self.model.users_at_once(len(self.item_table)))

    def _batch(self, histories: Iterable[History], unknown: Unknown) -> BasketBatch:
        baskets = [[_basket(entry) for entry in _history(history)] for history in histories]
        flat = column_of([item for history in baskets for basket in history for item in basket])
        index, is_known = known(self.items, flat, ITEM, "histories go without them", unknown)
        indices, keep = iter(index.tolist()), iter(is_known)
        indexed = [
            [[next(indices) for _ in basket if next(keep)] for basket in history]
            for history in baskets
        ]
        return BasketBatch.from_lists(indexed, len(self.item_table))


@contextmanager
def asking(model: Scorer) -> Iterator[None]:
    """What a model raises that was read from files is one line: its options may be anything.

    Raises:
        RunError: in place of anything that is no `RecsysError`.
    """
    try:
        yield
    except RecsysError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(
            f"{type(model).__name__} cannot be asked ({reason}); if its folder is whole, this is "
            "a fault of ours"
        ) from error


def _check_same(items: Vocabulary, log_items: Vocabulary) -> None:
    """Refuse a log of another catalogue than the model's."""
    if items.ids.equals(log_items.ids):
        return
    if items.ids.dtype != log_items.ids.dtype:
        raise ConfigError(
            f"the items of the log are {log_items.ids.dtype}, as {log_items.ids[0]!r}, and the "
            f"model's {items.ids.dtype}, as {items.ids[0]!r}; evaluate a run on the catalogue that "
            "it was trained on"
        )
    strange, missing = (
        one.ids.filter(other.index_of(one.ids) == UNKNOWN)
        for one, other in ((log_items, items), (items, log_items))
    )
    difference = "the log holds the model's items in another order"
    if len(strange):
        difference = f"the log holds item {strange[0]!r}, which the model does not know"
    elif len(missing):
        difference = f"the model knows item {missing[0]!r}, which the log does not hold"
    raise ConfigError(f"{difference}; evaluate a run on the catalogue that it was trained on")


def _vectors(ids: pl.Series, vectors: Tensor) -> pl.DataFrame:
    return pl.DataFrame([ids, pl.Series("vector", vectors.numpy())])


def _history(history: History) -> History:
    """A list of items or baskets; a text is neither, and would be read letter by letter.

    Raises:
        ConfigError: it is an id by itself.
    """
    if isinstance(history, (str, int)):
        raise ConfigError(
            f"the history {history!r} is an id; a history is a list of ids, [{history!r}], and "
            "histories a list of these"
        )
    if history is None:
        raise ConfigError("a history is None; give a list of ids, [] where nothing is known")
    return history


def _basket(entry: Id | Iterable[Id]) -> list[Id]:
    return list(entry) if isinstance(entry, Iterable) and not isinstance(entry, str) else [entry]


def recommendations(
    keys: pl.Series, items: Tensor, scores: Tensor, item_table: pl.DataFrame
) -> pl.DataFrame:
    """Ranked lists (U, k) as a row per user and rank; places without an item are left out."""
    users, k = items.shape
    frame = pl.DataFrame(
        {
            keys.name: keys[np.repeat(np.arange(users), k)],
            "rank": np.tile(np.arange(1, k + 1), users),
            "index": items.flatten().numpy(),
            "score": scores.flatten().numpy(),
        }
    ).filter(pl.col("index") >= 0)
    columns = [column for column in (ITEM, "title") if column in item_table.columns]
    attributes = item_table.select(columns)[frame["index"]]
    return pl.concat(
        [frame.drop("index", "score"), attributes, frame.select("score")], how="horizontal"
    )


def save(
    folder: Path,
    model: Scorer,
    split: Split,
    config: dict[str, Any] | None = None,
    *,
    mask_history: bool = False,
) -> None:
    """Write `folder`, the `model` in a run's, whole or not at all.

    Args:
        folder: the model's folder; one that is there is replaced.
        model: fitted.
        split: whose catalogue, users and histories are kept.
        config: from which the model is built again, with `_target_`; None: of its own options.
        mask_history: what `recommend` does by default.

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
    return SavedModel(model, item_table, users, histories, mask_history)


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
