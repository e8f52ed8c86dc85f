"""What brought an item to a user, as a table: the parts of a score, the largest first.

Shapes: P pairs of a user and an item.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.devices import place_of
from recsys.errors import ConfigError
from recsys.log.event_log import ITEM
from recsys.log.vocabulary import Vocabulary
from recsys.scoring.kinds import Explainable
from recsys.scoring.parts import Parts
from recsys.scoring.scorer import Scorer

PAIRS_AT_ONCE = 64
"""That are explained at once: each may touch a row of n scores for every event of a history."""
FIRST_DATE = 100_000_000
"""In seconds since 1970, March 1973: what is below it is the place in an order."""
NO_PARTS = pl.DataFrame(
    schema={
        "pair": pl.Int64,
        "kind": pl.String,
        "source": pl.Int64,
        "name": pl.String,
        "part": pl.Float64,
    }
)
EXPLAINED = (
    "popularity, personal_top, decayed_personal, item_knn, markov, ease, text_tfidf, up_cf, "
    "tifuknn and hybrid"
)
"""The models of the zoo that are explained, by name."""


def explainable(model: Scorer) -> Explainable:
    """The model itself.

    Raises:
        ConfigError: it does not say what brings its scores.
    """
    if not isinstance(model, Explainable):
        raise ConfigError(
            f"{type(model).__name__} does not say what brings a score; {EXPLAINED} do"
        )
    return model


@torch.inference_mode()
def parts_of_pairs(
    model: Explainable,
    histories: BasketBatch,
    users: Tensor,
    items: Tensor,
    item_table: pl.DataFrame,
) -> Iterator[pl.DataFrame]:
    """Tables of `pair`, `kind`, `source` (an index), `name` and `part`, some pairs at a time.

    Args:
        model: fitted.
        histories: of all users, in the order of their index.
        users, items: (P,) of each pair.
        item_table: the catalogue.
    """
    for rows in torch.arange(len(users)).split(PAIRS_AT_ONCE):
        batch = histories.rows(users[rows]).to(place_of(model))
        of_batch = items[rows].to(batch.device)
        for parts in _parts(model, batch, of_batch, item_table):
            sources = pl.Series("source", parts.sources.cpu().numpy())
            names = pl.Series(parts.names, dtype=pl.String)
            yield pl.DataFrame(
                {
                    "pair": rows[parts.rows.cpu()].numpy(),
                    "kind": pl.repeat(parts.kind, len(sources), eager=True),
                    "source": sources,
                    "name": names.gather(sources) if len(names) else None,
                    "part": parts.values.cpu().numpy(),
                },
                NO_PARTS.schema,
            )


def _parts(
    model: Explainable, batch: BasketBatch, items: Tensor, item_table: pl.DataFrame
) -> Iterator[Parts]:
    """The model's, but of users of whom it says nothing, who are ranked by popularity."""
    scores = model.score(batch)
    is_silent = scores.amin(1) == scores.amax(1)
    if model.popularity is None or not is_silent.any():
        yield from model.parts(batch, items, item_table)
        return
    speaks = (~is_silent).nonzero()[:, 0]
    for parts in model.parts(batch.rows(speaks), items[speaks], item_table):
        yield Parts(parts.kind, speaks[parts.rows], parts.sources, parts.values, parts.names)
    yield Parts.of_popularity(model.popularity[items].double() * is_silent)


def largest(parts: pl.DataFrame, most: int | None) -> pl.DataFrame:
    """The largest parts of each pair, with or without a sign, and the sum of the others.

    >>> columns = {"pair": 0, "kind": "user", "source": [4, 5, 6], "part": [1.0, -3.0, 0.5]}
    >>> parts = pl.DataFrame(columns)
    >>> largest(parts, 1).select("kind", "source", "part").rows()
    [('user', 5, -3.0), ('others', None, 1.5)]
    """
    in_order = parts.sort("pair", -pl.col("part").abs(), "kind", "source", maintain_order=True)
    if most is None:
        return in_order
    place = pl.int_range(pl.len()).over("pair")
    others = (
        in_order.filter(place >= most)
        .group_by("pair", maintain_order=True)
        .agg(pl.lit("others").alias("kind"), pl.col("part").sum())
    )
    whole = pl.concat([in_order.filter(place < most), others], how="diagonal")
    return whole.sort("pair", maintain_order=True)


def named(
    parts: pl.DataFrame,
    pairs: pl.DataFrame,
    users: Vocabulary,
    histories: BasketBatch,
    item_table: pl.DataFrame,
) -> pl.DataFrame:
    """Parts with their sources by id, and of the user's own items how often and when last.

    A score of 0 without parts has one row, of `nothing`.

    Args:
        parts: as `largest` gives them.
        pairs: a row per pair: `user` and `item`, their indices, and what is shown of it.
        users, histories: of the model.
        item_table: the catalogue.
    """
    shown = pairs.columns
    numbered = pairs.with_row_index("pair").cast({"pair": pl.Int64})
    table = numbered.join(parts, on="pair", how="left", maintain_order="left_right").with_columns(
        pl.col("kind").fill_null("nothing"), pl.col("part").fill_null(0.0)
    )
    titles = ["title"] if "title" in item_table.columns else []
    own = item_table.select(
        source=pl.int_range(pl.len()),
        id=pl.col(ITEM).cast(pl.String),
        **{f"source_{name}": pl.col(name) for name in titles},
    ).with_columns(kind=pl.lit("history"))
    others = pl.DataFrame({"source": pl.int_range(len(users), eager=True)}).with_columns(
        id=users.ids.cast(pl.String), kind=pl.lit("user")
    )
    ids = pl.concat([own, others], how="diagonal")
    table = table.join(ids, on=["kind", "source"], how="left", maintain_order="left")
    asked = torch.from_numpy(pairs["user"].unique().to_numpy().copy())
    table = table.join(
        _had(histories.rows(asked)),
        on=["kind", "user", "source"],
        how="left",
        maintain_order="left",
    )
    return table.select(
        *(name for name in shown if name not in ("user", "item")),
        "kind",
        pl.coalesce("id", "name").alias("source"),
        *(f"source_{name}" for name in titles),
        "part",
        "events",
        "last",
    )


def _had(batch: BasketBatch) -> pl.DataFrame:
    """How often users have had an item, and when last, where their log knows dates."""
    events = pl.DataFrame(
        {
            "user": batch.users[batch.owners()].numpy(),
            "source": batch.items.numpy(),
            "time": batch.times.numpy(),
        }
    )
    date = pl.from_epoch("time").cast(pl.Date)
    return events.group_by("user", "source").agg(
        kind=pl.lit("history"),
        events=pl.len(),
        last=pl.when(pl.col("time") >= FIRST_DATE).then(date).max(),
    )
