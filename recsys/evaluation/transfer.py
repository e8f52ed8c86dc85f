"""What a domain gains where a model is trained on others beside it, user by user.

A frame of results holds `user_id`, `domain`, `training` (one of `TRAININGS`), `beside`, the other
domain of a pair, and metrics. Users of a domain are the same in every training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
from scipy import stats

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


def gain_of_mean(first: pl.DataFrame, second: pl.DataFrame, metric: str) -> dict[str, float]:
    """Of the mean over domains, each counting alike, what the second reaches more than the first.

    `first, second, difference, low, high, p_value` as of `recsys.evaluation.compare`. What a user
    adds to the difference, in one domain or in several, is one value: users are independent, and
    domains of one user are not.

    Args:
        first, second: frames of results with a row per user and domain, the same in both.
        metric: a column of them.

    >>> users = {"user_id": [1, 2, 3, 4], "domain": ["books", "books", "toys", "toys"]}
    >>> first = pl.DataFrame({**users, "ndcg@1": [0.0] * 4})
    >>> second = pl.DataFrame({**users, "ndcg@1": [0.2, 0.4, 0.5, 0.7]})
    >>> row = gain_of_mean(first, second, "ndcg@1")
    >>> {name: round(row[name], 3) for name in ("difference", "low", "high", "p_value")}
    {'difference': 0.45, 'low': 0.266, 'high': 0.634, 'p_value': 0.004}
    """
    keys = ["user_id", "domain"]
    both = first.select(*keys, first=metric).join(second.select(*keys, second=metric), on=keys)
    if not len(first) == len(second) == len(both):
        raise ValueError("the two hold other users or domains, or one of them twice")
    both = both.with_columns(difference=pl.col("second") - pl.col("first"))
    means = both.group_by("domain").mean().select("first", "second", "difference").mean()
    of_user = (pl.col("difference") - pl.col("difference").mean().over("domain")) / pl.len().over(
        "domain"
    )
    domains = both["domain"].n_unique()
    added = both.select("user_id", added=of_user / domains).group_by("user_id").sum()["added"]
    count = len(added)
    error = math.sqrt(float((added**2).sum()) * count / (count - 1))
    row = means.row(0, named=True)
    margin = float(stats.t.ppf(0.975, count - 1)) * error
    p_value = float(2 * stats.t.sf(abs(row["difference"] / error), count - 1)) if error else 1.0
    ends = {"low": row["difference"] - margin, "high": row["difference"] + margin}
    return row | ends | {"p_value": p_value}
