"""Ids that somebody gives, as a model knows them: one or many, and some that it does not know."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Literal, TypeAlias

import polars as pl
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, UnknownIdError
from recsys.log.event_log import ITEM
from recsys.log.vocabulary import UNKNOWN, Vocabulary
from recsys.tasks.tensors import tensor_of

Id: TypeAlias = int | str
Ids: TypeAlias = Id | Iterable[Id]
"""One id, or several."""
History: TypeAlias = Iterable[Id] | Iterable[Iterable[Id]]
"""Items, or baskets of items, oldest first."""
Unknown: TypeAlias = Literal["skip", "refuse"]
"""What is done with unknown ids: left out, and said in a warning; or nothing is done at all."""


class UnknownIdWarning(UserWarning):
    """Some of the ids that were given are not known, and what was done without them."""


def column_of(ids: Ids) -> pl.Series:
    """One id or several as a column; where some are text, all are.

    Raises:
        ConfigError: what is no id, such as a list of them within the list.

    >>> column_of("C-00001").to_list()
    ['C-00001']
    >>> column_of([7, "8"]).to_list()
    ['7', '8']
    """
    if isinstance(ids, pl.Series):
        return ids
    given = [ids] if isinstance(ids, str) or not isinstance(ids, Iterable) else list(ids)
    if other := [i for i in given if isinstance(i, Iterable) and not isinstance(i, str)]:
        raise ConfigError(f"{other[0]!r:.80} is no id; give text or integers, [7, 12]")
    as_text = any(isinstance(i, str) for i in given)
    return pl.Series([str(i) for i in given] if as_text else given)


def known(
    vocabulary: Vocabulary,
    ids: pl.Series,
    what: str,
    then: str,
    unknown: Unknown,
    *,
    may_be_none: bool = False,
) -> tuple[Tensor, pl.Series]:
    """The indices (K,) of the ids that a vocabulary knows, and of each id whether it is one.

    Args:
        vocabulary: of a model.
        ids: any.
        what: they are, `user_id` or `item_id`.
        then: what follows for those that are not known, in words.
        unknown: what is done with them.
        may_be_none: whether there is something to do where none is known.

    Raises:
        UnknownIdError: none is known, where one has to be; or one is not and `unknown` is "refuse".
        ConfigError: `unknown` is neither "skip" nor "refuse".
    """
    if unknown not in ("skip", "refuse"):
        raise ConfigError(f"unknown={unknown}; choose among skip, refuse")
    index = vocabulary.index_of(ids)
    is_known = index != UNKNOWN
    strange = ids.filter(~is_known)
    if len(strange):
        there = f"among the {len(vocabulary)} that the model knows"
        if unknown == "refuse" or (len(strange) == len(ids) and not may_be_none):
            raise UnknownIdError(f"{what} {strange[0]!r} is not {there}")
        warnings.warn(
            f"{what}: {len(strange)} of {len(ids)} not {there}, the first {strange[0]!r}; {then}",
            UnknownIdWarning,
            stacklevel=3,
        )
    return tensor_of(index.filter(is_known)), is_known


def histories_of(items: Vocabulary, histories: Iterable[History], unknown: Unknown) -> BasketBatch:
    """The histories of users whom no log knows, given as items' ids.

    Raises:
        UnknownIdError, ConfigError: as `known`; or a history is none.
    """
    if isinstance(histories, str) or not isinstance(histories, Iterable):
        raise ConfigError(f"histories={histories!r:.80}: expected a list of histories, [[7, 12]]")
    baskets = [[_basket(entry) for entry in _history(history)] for history in histories]
    flat = column_of([item for history in baskets for basket in history for item in basket])
    index, is_known = known(items, flat, ITEM, "histories go without them", unknown)
    indices, keep = iter(index.tolist()), iter(is_known)
    indexed = [
        [[next(indices) for _ in basket if next(keep)] for basket in history] for history in baskets
    ]
    return BasketBatch.from_lists(indexed, len(items))


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
