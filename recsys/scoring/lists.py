"""The lists of a model for many users, as many at once as memory allows; and as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys import ranks
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged
from recsys.devices import place_of
from recsys.log.event_log import ITEM
from recsys.retrieval.divided import DividedIndex
from recsys.retrieval.index import ExactIndex, ItemIndex
from recsys.retrieval.lists import TopK
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.scorer import USERS_AT_ONCE, Scorer

BuildIndex = Callable[[Tensor], ItemIndex]


def rank(
    model: Scorer,
    part: Part,
    k: int,
    *,
    mask_history: bool = False,
    candidates: Tensor | None = None,
    exclude: Callable[[BasketBatch], Ragged] | None = None,
    batch_size: int = USERS_AT_ONCE,
    build_index: BuildIndex | None = None,
    progress: Callable[[Loader], Iterable[Part]] = iter,
) -> TopK:
    """The k best items for every user of a part, on the CPU.

    Args:
        model: fitted, on any device.
        part: whose histories are read.
        k: at most the size of the catalogue.
        mask_history: leave out the items of a user's history.
        candidates: (n,) bool, the items that are ranked; None: all.
        exclude: of a batch of B users, B rows of items that are not ranked for one user each.
        batch_size: users at once at most; what they are does not depend on it.
        build_index: makes a retrieval index of item vectors `(n, D)`; by default an exact one.
        progress: wraps the batches, for a progress bar.

    Each rank makes the lists of some batches, which are those of a process alone to the last bit,
    and all get all of them; of a part by rank it makes, and gets, those of its own users. Where
    ranks divide the items' vectors, they search for each other.

    Raises:
        CatalogueError: k is larger than the catalogue.
    """
    was_training = model.training
    model.eval()
    index = None
    if isinstance(model, VectorScorer):  # once, and not with every batch
        with torch.inference_mode():
            index = model.item_index(build_index or ExactIndex, by_rank=True)
    users = min(batch_size, model.users_at_once(part.history.num_items))
    together = isinstance(index, DividedIndex)
    loader = Loader(part.to(place_of(model)), users, by_rank="turns" if together else "batches")
    options: Any = {"mask_history": mask_history, "candidates": candidates, "index": index}

    def top(history: BasketBatch) -> TopK:
        of_users: dict[str, Any] = {} if exclude is None else {"exclude": exclude(history)}
        return model.top_k(history, k, **options, **of_users)

    lists = TopK.cat((top(batch.history) for batch in progress(loader)), k)
    model.train(was_training)
    return lists if part.by_rank else of_all_ranks(lists)


def of_all_ranks(lists: TopK) -> TopK:
    """The lists of all ranks, in their order, on all of them."""
    dtypes = ranks.gathered(lists.scores.dtype)  # a rank may have no list that would tell
    scores = lists.scores.to(reduce(torch.promote_types, dtypes))
    return TopK(ranks.gather(lists.items), ranks.gather(scores))


def table_of_lists(
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
