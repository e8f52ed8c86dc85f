"""What a domain gains where a model is trained on others beside it, user by user.

A frame of results holds `user_id`, `domain`, `training` (one of `TRAININGS`), `beside`, the other
domain of a pair, and metrics. Users of a domain are the same in every training.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recsys.evaluation.statistics import compare, with_holm

ALONE, PAIR, ALL = TRAININGS = ("alone", "pair", "all")
"""On the domain alone, on two domains, on all."""


def gains(per_user: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    """Of every domain, what it reaches in company minus what it reaches alone.

    A row per metric, training but `ALONE`, domain and, of a pair, the other domain: `metric,
    training, domain, beside, users, alone, together, difference, low, high, p_value, p_holm`, as
    `recsys.evaluation.compare` has them. Holm's correction is over the domains, or over all pairs,
    for each metric by itself.

    Args:
        per_user: a frame of results.
        metrics: columns of it.

    >>> users = {"user_id": [1, 2, 3] * 2, "domain": "books", "beside": None}
    >>> users |= {"training": ["alone"] * 3 + ["all"] * 3, "ndcg@1": [0.0, 0.5, 0.2, 0.6, 1.0, 1.0]}
    >>> table = gains(pl.DataFrame(users, schema_overrides={"beside": pl.String}), ["ndcg@1"])
    >>> table.select("domain", "users", pl.col("difference", "p_holm").round(3)).rows()
    [('books', 3, 0.633, 0.019)]
    """
    keys = ["training", "domain", "beside"]
    parts = per_user.partition_by(keys, as_dict=True, maintain_order=True)
    alone = {domain: of for (kind, domain, _), of in parts.items() if kind == ALONE}
    rows = [
        compare(alone[domain], of, names=metrics).select(
            "metric",
            pl.lit(training).alias("training"),
            pl.lit(domain).alias("domain"),
            pl.lit(beside, dtype=pl.String).alias("beside"),
            pl.lit(len(of)).alias("users"),
            pl.col("first").alias("alone"),
            pl.col("second").alias("together"),
            *("difference", "low", "high", "p_value"),
        )
        for (training, domain, beside), of in parts.items()
        if training != ALONE
    ]
    families = pl.concat(rows).partition_by("metric", "training", maintain_order=True)
    return pl.concat(with_holm(family) for family in families)
