"""Items like an item, by what a model has learnt.

Of a model with vectors, those with the largest cosine to the item's vector. Of any other, what it
ranks for a history of that item alone, which is how it knows what goes together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of
from recsys.retrieval.index import ExactIndex
from recsys.retrieval.lists import TopK
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.lists import rank
from recsys.scoring.scorer import Scorer


@torch.inference_mode()
def similar_items(
    model: Scorer, items: Tensor, num_items: int, k: int, candidates: Tensor | None = None
) -> TopK:
    """The k items most like each of some items, which are never among their own.

    Args:
        model: fitted.
        items: (Q,) of the catalogue.
        num_items: n.
        k: 1 .. n.
        candidates: (n,) bool, what may be in a list; None: all.
    """
    if isinstance(model, VectorScorer):
        return _by_cosine(model.eval(), items, k, candidates)
    alone = BasketBatch.from_lists([[[item]] for item in items.tolist()], num_items)
    none = Ragged(items[:0], torch.zeros(len(items) + 1, dtype=torch.int64))
    part = Part("items", alone, none)
    return rank(model, part, k, mask_history=True, candidates=candidates)


def _by_cosine(model: VectorScorer, items: Tensor, k: int, candidates: Tensor | None) -> TopK:
    vectors = F.normalize(model.encode_items().float(), dim=1)
    index = ExactIndex(vectors)
    pieces = items.to(vectors.device).split(model.users_at_once(len(vectors)))
    return TopK.cat((index.search(vectors[p], k, _excluded(p, candidates)) for p in pieces), k)


def _excluded(items: Tensor, candidates: Tensor | None) -> Ragged:
    """For each item itself, and what is no candidate."""
    if candidates is None:
        return Ragged(items, torch.arange(len(items) + 1, device=items.device))
    mask = (~candidates.to(items.device)).repeat(len(items), 1)
    mask[torch.arange(len(items), device=items.device), items] = True
    return Ragged(mask.nonzero()[:, 1], offsets_of(mask.sum(1)))
