"""A trained model in use: lists for users, for histories and for words; similar items; vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Self, TypeAlias

import polars as pl
import torch
from rich.progress import track
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.devices import device_of, place_of
from recsys.errors import ConfigError, RecsysError, RunError
from recsys.log.event_log import ITEM, USER
from recsys.log.frames import AnyFrame
from recsys.log.vocabulary import Vocabulary
from recsys.ranges import at_least, integers
from recsys.retrieval.lists import TopK, check_length
from recsys.scoring.calibration import (
    MOST_ITEMS,
    Calibrated,
    Calibration,
    basket_length,
    probabilities_of,
)
from recsys.scoring.completion import Companions, Completing
from recsys.scoring.explanations import NO_PARTS, explainable, largest, named, parts_of_pairs
from recsys.scoring.filters import Filter, Filters, check_known_users, filters, given_items
from recsys.scoring.ids import History, Ids, Unknown, column_of, histories_of, known
from recsys.scoring.kinds import TextEncoder, VectorScorer
from recsys.scoring.lists import rank, table_of_lists
from recsys.scoring.pairs import known_pairs, scores_of_pairs
from recsys.scoring.reranking import Reranking, reranked
from recsys.scoring.scorer import Scorer
from recsys.scoring.similar import similar_items
from recsys.summary import Summarised

Rerank: TypeAlias = Reranking | Sequence[Reranking]
"""One way to rerank, or several, one after the other."""
LISTS_AT_ONCE = 2**16
"""Users whose lists are one frame, where those of all are asked for."""


@dataclass(frozen=True, eq=False, repr=False)
class SavedModel(Summarised):
    """A trained model with what it takes to recommend to users by id and in words.

    Attributes:
        model: ready to score.
        item_table: the catalogue, a row per item index.
        users: ids of the users that the log knows.
        histories: of those users, everything the log holds, in index order, on the CPU.
        mask_history: whether the task leaves out what a user has had.
        calibration: what makes the model's scores probabilities, where it was calibrated.
    """

    model: Scorer
    item_table: pl.DataFrame
    users: Vocabulary
    histories: BasketBatch
    mask_history: bool
    calibration: Calibration | None = field(default=None, kw_only=True)

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
        basket: Filter | None = None,
        unknown: Unknown = "skip",
        rerank: Rerank | None = None,
        probability: bool = False,
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
            basket: what the next basket holds already and lists complete, of a calibrated model:
                item ids, or a table of them by `item_id`, and by `user_id` where they differ.
            unknown: what is done with ids that the log does not hold. "skip" leaves out such
                users, and such items of histories and filters, and warns; "refuse" is an error.
            rerank: how lists are chosen from the model's best items: `MMR`, `AtMost`, `AtLeast`
                or `Boost`, or several in their order; None leaves them as they are.
            probability: whether to say how likely each item is in the next basket, of a calibrated
                model.
            progress: whether to show a bar.

        Returns:
            A row per user and rank: `user_id` (or `history`, the number of the history), `rank`
            from 1, `item_id`, `title` where the log has one, `score`, and `probability` where it
            is wanted. Fewer than k where fewer items are allowed.

        Raises:
            UnknownIdError: the log holds none of the users or items, or not all and they are
                to be refused; or not all items of the basket.
            CatalogueError: k is below 1, or larger than the catalogue.
            ConfigError: not one of the three is given, texts to a model that reads ids alone,
                filters by user for histories, or the model is not calibrated and has to be.
            DataError: a table of items has no `item_id`.
            RunError: the options or weights of the model, which came from files, are not usable.
        """
        if sum(argument is not None for argument in (user_ids, histories, texts)) != 1:
            raise ConfigError("recommend takes user_ids, histories or texts; give one of them")
        integers(k=k)
        check_length(k, len(self.item_table))
        if texts is not None:
            if any(one is not None for one in (allow, deny, basket, rerank)) or probability:
                raise ConfigError(
                    "allow, deny, basket, rerank and probability are for user_ids and histories, "
                    "not for texts"
                )
            return self._recommend_in_words(list(texts), k)
        chosen = filters(self.users, self.items, allow, deny, unknown)
        if histories is None:
            assert user_ids is not None
            keys, batch = self._known_users(user_ids, unknown)
        else:
            check_known_users(chosen)
            batch = histories_of(self.items, histories, unknown)
            keys = pl.Series("history", range(len(batch)))
        model = self.model
        if basket is not None:
            if probability:
                raise ConfigError("probability=True is of whole baskets; ask without basket")
            batch = batch.with_basket(given_items(basket, keys, self.items))
            model = self._completing()
        likely = self._calibrated() if probability else None
        model = self._asked(rerank, model)
        top = self._ranked(model, batch, k, mask_history, chosen, progress=progress)
        lists = table_of_lists(keys, top.items, top.scores, self.item_table)
        if likely is None:
            return lists
        with asking(self.model):
            probabilities, _ = probabilities_of(likely, batch, top.items)
        return _with_probability(lists, top.items, probabilities)

    def next_basket(
        self, user_ids: Ids, *, mask_history: bool | None = None, unknown: Unknown = "skip"
    ) -> pl.DataFrame:
        """The next basket of users of the log, with as many items as it is likely to hold.

        They are those with the highest expected F1: the likeliest, as long as one more adds more
        than it costs.

        Args:
            user_ids, mask_history, unknown: as for `recommend`.

        Returns:
            As `recommend`, with `probability` and the `size` that the basket is expected to have.

        Raises:
            ConfigError: the model is not calibrated.
            UnknownIdError, RunError: as `recommend`.

        >>> split = last_basket(checkerboard())
        >>> model = EASE().fit(split)
        >>> fitted = calibrate(model, split.validation)
        >>> saved = SavedModel(
        ...     model, split.item_table, split.users, split.latest, False, calibration=fitted
        ... )
        >>> basket = saved.next_basket(7)
        >>> len(basket) > 0, 2 < basket["size"][0] < 4
        (True, True)
        """
        likely, most = self._calibrated(), min(MOST_ITEMS, len(self.item_table))
        keys, batch = self._known_users(user_ids, unknown)
        top = self._ranked(self.model, batch, most, mask_history, Filters())
        with asking(self.model):
            probabilities, sizes = probabilities_of(likely, batch, top.items)
        is_beyond = torch.arange(most) >= basket_length(probabilities, sizes)[:, None]
        items = top.items.masked_fill(is_beyond, -1)
        lists = table_of_lists(keys, items, top.scores, self.item_table)
        of_rows = sizes[:, None].expand_as(items)[items >= 0]
        lists = _with_probability(lists, items, probabilities)
        return lists.with_columns(size=pl.Series(of_rows.numpy()))

    def recommend_all(
        self,
        k: int = 10,
        *,
        mask_history: bool | None = None,
        allow: Filter | None = None,
        deny: Filter | None = None,
        unknown: Unknown = "skip",
        rerank: Rerank | None = None,
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
        integers(k=k)
        check_length(k, len(self.item_table))
        integers(users_at_once=users_at_once)
        at_least(1, users_at_once=users_at_once)
        chosen = filters(self.users, self.items, allow, deny, unknown)
        model = self._asked(rerank, self.model)
        for rows in torch.arange(len(self.users)).split(users_at_once):
            keys = self.users.ids[rows.numpy()].rename(USER)
            top = self._ranked(model, self.histories.rows(rows), k, mask_history, chosen)
            yield table_of_lists(keys, top.items, top.scores, self.item_table)

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
        integers(k=k)
        check_length(k, len(self.item_table))
        chosen = filters(self.users, self.items, allow, deny, unknown)
        check_known_users(chosen)
        index, _ = known(self.items, column_of(item_ids), ITEM, "they have no list", unknown)
        with asking(self.model):
            top = similar_items(self.model, index, len(self.item_table), k, chosen.candidates)
        keys = self.item_table[ITEM][index.numpy()].rename("of")
        lists = table_of_lists(keys, top.items, top.scores, self.item_table)
        return lists.rename({ITEM: "similar_id"}).rename({"of": ITEM})

    def score(
        self, pairs: AnyFrame, *, unknown: Unknown = "skip", probability: bool = False
    ) -> pl.DataFrame:
        """The scores of given pairs of a user and an item, those by which lists rank.

        Args:
            pairs: a table with the columns `user_id` and `item_id`.
            unknown: what is done with pairs of which the model does not know the user or the item.
                "skip" gives them no score, and warns; "refuse" is an error.
            probability: whether to say how likely each item is in the user's next basket, of a
                calibrated model.

        Returns:
            The rows as they are, with `score`, and `probability` where it is wanted, behind them;
            columns of these names are replaced.

        Raises:
            DataError: a column is not there.
            UnknownIdError: no user or no item is known, or not all and they are to be refused.
            ConfigError: the model is not calibrated and has to be.
            RunError: as `recommend`.

        >>> split = last_basket(checkerboard())
        >>> model = EASE().fit(split)
        >>> saved = SavedModel(model, split.item_table, split.users, split.latest, False)
        >>> lists = saved.recommend(7, k=2)
        >>> saved.score(lists.drop("score"))["score"].equals(lists["score"])
        True
        """
        then = "they have no score"
        likely = self._calibrated() if probability else None
        table, is_known, users, items = known_pairs(pairs, self.users, self.items, then, unknown)
        with asking(self.model):
            columns = {"score": scores_of_pairs(self.model, self.histories, users, items)}
            if likely is not None:
                logits = scores_of_pairs(likely, self.histories, users, items)
                columns["probability"] = logits.sigmoid()
        numbers = {name: values.numpy() for name, values in columns.items()}
        of_known = pl.DataFrame({"row": is_known.arg_true(), **numbers})
        rows = table.drop(*columns, strict=False).with_row_index("row")
        return rows.join(of_known, on="row", how="left", maintain_order="left").drop("row")

    def explain(
        self, pairs: AnyFrame, *, parts: int | None = 10, unknown: Unknown = "skip"
    ) -> pl.DataFrame:
        """What brought given items to given users: parts that add up to the score.

        Args:
            pairs: a table with the columns `user_id` and `item_id`, such as `recommend` gives.
            parts: so many of each score, the largest without their sign; the others are one more
                row, `others`. None: all.
            unknown: what is done with pairs of which the model does not know the user or the item:
                "skip" leaves them out, and warns; "refuse" is an error.

        Returns:
            A row per part: `user_id`, `item_id`, its `title` where the log has one, `score`, then
            `kind` ("history", "user", "word", "member", "popularity", "others", or "nothing"
            where a score of 0 has no part), `source`: an item of the user's history, a user of the
            training, a word or the name of a model, `source_title`, `part`, and for items of the
            history in how many `events` and when `last` the user had them.

        Raises:
            ConfigError: the model does not say what brings its scores, or parts is below 1.
            DataError, UnknownIdError, RunError: as `score`.

        >>> split = last_basket(checkerboard())
        >>> model = ItemKNN().fit(split)
        >>> saved = SavedModel(model, split.item_table, split.users, split.latest, False)
        >>> parts = saved.explain(saved.recommend(7, k=1), parts=2)
        >>> parts["kind"].to_list(), bool(parts["part"].sum() - parts["score"][0] < 1e-5)
        (['history', 'history', 'others'], True)
        """
        integers(parts=10 if parts is None else parts)
        at_least(1, parts=parts)
        model = explainable(self.model.eval())
        then = "they are not explained"
        table, is_known, users, items = known_pairs(pairs, self.users, self.items, then, unknown)
        titles = ["title"] if "title" in self.item_table.columns else []
        with asking(model):
            scores = scores_of_pairs(model, self.histories, users, items)
            pieces = parts_of_pairs(model, self.histories, users, items, self.item_table)
            shown = table.filter(is_known).select(USER, ITEM)
            shown = shown.with_columns(
                *(self.item_table[name].gather(items.numpy()) for name in titles),
                score=pl.Series(scores.numpy()),
                user=pl.Series(users.numpy()),
                item=pl.Series(items.numpy()),
            )
            whole = largest(pl.concat([NO_PARTS, *pieces]), parts)
        return named(whole, shown, self.users, self.histories, self.item_table)

    def _known_users(self, user_ids: Ids, unknown: Unknown) -> tuple[pl.Series, BasketBatch]:
        """Ids and histories of those of the users that the log knows."""
        rows, _ = known(self.users, column_of(user_ids), USER, "they get no list", unknown)
        return self.users.ids[rows.numpy()].rename(USER), self.histories.rows(rows)

    def _calibrated(self) -> Calibrated:
        """The model with log odds as scores."""
        if self.calibration is None:
            raise ConfigError(
                f"{type(self.model).__name__} is not calibrated, and has scores that are no "
                "probabilities; recsys calibrate RUN, or model.calibrate() in Python"
            )
        return Calibrated(self.model.eval(), self.calibration).eval()

    def _completing(self) -> Completing:
        """The model as it completes baskets, with all that the log knows of what goes together."""
        model = self._calibrated()
        if model.calibration.basket_weight is None:
            raise ConfigError(
                "basket: no validation user of the model's log had two targets, which say how "
                "baskets are completed; train on a log with baskets, task=next_basket"
            )
        return Completing(model, Companions.of(self.histories)).eval()

    def _asked(self, rerank: Rerank | None, model: Scorer) -> Scorer:
        """A model, or one with its lists reranked."""
        rerankings = [rerank] if isinstance(rerank, Reranking) else list(rerank or ())
        if not rerankings:
            return model
        if other := [one for one in rerankings if not isinstance(one, Reranking)]:
            raise ConfigError(f"rerank={other[0]!r:.80}: expected MMR(…), AtMost(…), or a list")
        with asking(model):
            return reranked(model.eval(), rerankings, self.item_table)

    def _ranked(
        self,
        model: Scorer,
        batch: BasketBatch,
        k: int,
        mask_history: bool | None,
        chosen: Filters,
        *,
        progress: bool = False,
    ) -> TopK:
        """The k best for the users of a batch."""
        masked = self.mask_history if mask_history is None else mask_history
        if not isinstance(masked, bool):
            raise ConfigError(f"mask_history={masked!r:.80}: expected True or False")
        none = Ragged(batch.items[:0], torch.zeros(len(batch) + 1, dtype=torch.int64))
        bar = partial(track, description="users", disable=not progress, transient=True)
        with asking(model):
            return rank(
                model,
                Part("users", batch, none),
                k,
                mask_history=masked,
                candidates=chosen.candidates,
                exclude=chosen.excluded if chosen.by_user else None,
                progress=bar,
            )

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
            return table_of_lists(keys, top.items, top.scores, self.item_table)

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


def _with_probability(lists: pl.DataFrame, items: Tensor, probabilities: Tensor) -> pl.DataFrame:
    """Lists of items (U, k) with the probabilities (U, k) of those that are there."""
    return lists.with_columns(probability=pl.Series(probabilities[items >= 0].numpy()))


def _vectors(ids: pl.Series, vectors: Tensor) -> pl.DataFrame:
    return pl.DataFrame([ids, pl.Series("vector", vectors.numpy())])
