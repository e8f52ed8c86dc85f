"""Pairs of a user and an item, in a table: which of them a model knows, and their scores.

Shapes: P pairs, B users of a batch, n items.
"""

from __future__ import annotations

import polars as pl
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import offsets_of
from recsys.devices import place_of
from recsys.errors import DataError
from recsys.log.event_log import ITEM, USER
from recsys.log.frames import AnyFrame, as_polars
from recsys.log.vocabulary import Vocabulary
from recsys.scoring.ids import Unknown, known
from recsys.scoring.scorer import Scorer
from recsys.tasks.tensors import tensor_of


def known_pairs(
    pairs: AnyFrame, users: Vocabulary, items: Vocabulary, then: str, unknown: Unknown
) -> tuple[pl.DataFrame, pl.Series, Tensor, Tensor]:
    """A table of pairs, whether a model knows each, and the indices (P,) of those that it knows.

    Args:
        pairs: with the columns `user_id` and `item_id`.
        users, items: of the model.
        then: what follows for a pair that is not known, in words.
        unknown: what is done with it: "skip" or "refuse".

    Raises:
        DataError: a column is not there.
        UnknownIdError: no user or no item is known; or one is not and it is to be refused.
    """
    table = as_polars(pairs, "pairs")
    if missing := [name for name in (USER, ITEM) if name not in table.columns]:
        there = ", ".join(table.columns) or "none"
        raise DataError(f"pairs: no column {missing[0]} (there are: {there})")
    _, has_user = known(users, table[USER], f"pairs: {USER}", then, unknown)
    _, has_item = known(items, table[ITEM], f"pairs: {ITEM}", then, unknown)
    is_known = has_user & has_item
    rows = table.filter(is_known)
    index_of = users.index_of(rows[USER]), items.index_of(rows[ITEM])
    return table, is_known, tensor_of(index_of[0]), tensor_of(index_of[1])


@torch.inference_mode()
def scores_of_pairs(model: Scorer, histories: BasketBatch, users: Tensor, items: Tensor) -> Tensor:
    """(P,): the scores by which lists rank the items (P,) for the users (P,), on the CPU.

    Each user is scored once, some users at a time.

    Args:
        model: fitted.
        histories: of all users, in the order of their index.
        users, items: of each pair.
    """
    if not len(users):
        return torch.empty(0)
    model.eval()
    different, owners = users.unique(return_inverse=True)
    order = owners.argsort(stable=True)
    starts = offsets_of(torch.bincount(owners, minlength=len(different)))
    scores = []
    for rows in torch.arange(len(different)).split(model.users_at_once(histories.num_items)):
        batch = histories.rows(different[rows]).to(place_of(model))
        here = order[starts[rows[0]] : starts[rows[-1] + 1]]
        scores.append(model.ranking_scores(batch).cpu()[owners[here] - rows[0], items[here]])
    in_order = torch.cat(scores)
    return torch.empty_like(in_order).index_copy_(0, order, in_order)
