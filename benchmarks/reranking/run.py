"""What rules for lists cost in accuracy: MMR and rules of a business, TIFUKNN, Complete Journey.

    python -m benchmarks.reranking.run

Each household's first basket of the last four weeks. Two products are alike where they are of one
category; a list's diversity is the share of its ten places that bring a new one. Popularity is the
rival that costs nothing. The rules: at most so many products of a category, a quota of the shop's
own brands, a boost of them, and both kinds together. Differences are from TIFUKNN as it is, paired
by user, with Holm's correction over all rows. The test users are asked of every weight: it is a
curve, and none is chosen by it.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from benchmarks.record import ROOT, write
from recsys.cli.compose import compose
from recsys.evaluation import Evaluation, Protocol, compare, evaluate
from recsys.evaluation.statistics import with_holm
from recsys.models import Popularity
from recsys.run.config import Sizes, plain, sized
from recsys.run.ranking import prepare
from recsys.scoring import MMR, AtLeast, AtMost, Boost, ClosedForm, Scorer
from recsys.scoring.reranking import Reranking, reranked
from recsys.scoring.saved_model import build
from recsys.tasks import Split

RESULTS = ROOT / "benchmarks/reranking/results"
COLUMN = "product_category"
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5)
BRAND = ("brand", "Private")
RULES: dict[str, list[Reranking]] = {
    "at most 1": [AtMost(1, COLUMN)],
    "at most 2": [AtMost(2, COLUMN)],
    "at least 3": [AtLeast(3, *BRAND)],
    "at least 5": [AtLeast(5, *BRAND)],
    "boost 0.05": [Boost(0.05, *BRAND)],
    "boost 0.2": [Boost(0.2, *BRAND)],
    "at least 5, at most 2": [AtLeast(5, *BRAND), AtMost(2, COLUMN)],
}
METRICS = ("recall@10", "ndcg@10")


def main() -> None:
    config = compose(["experiment=tifuknn/complete_journey"])
    split = prepare(config).split
    model = build(plain(sized(config, Sizes.of(split)).model))
    assert isinstance(model, ClosedForm)
    model.fit(split)
    models: dict[str, Scorer] = {"TIFUKNN": model, "Popularity": Popularity().fit(split)}
    for weight in WEIGHTS:
        models[f"TIFUKNN, MMR {weight}"] = MMR(weight, COLUMN).of(model, split.item_table)
    for name, rules in RULES.items():
        models[f"TIFUKNN, {name}"] = reranked(model, rules, split.item_table)
    results = {name: evaluate(m, split.test, Protocol(ks=(10,))) for name, m in models.items()}
    differences = paired(results)
    rows = {
        name: figures(result, split) | differences.get(name, {}) for name, result in results.items()
    }
    write(
        RESULTS / "complete_journey.json",
        {
            "column": COLUMN,
            "brand": BRAND,
            "users": len(split.test),
            "items": split.num_items,
            "models": rows,
        },
        packages=["torch", "polars", "scipy"],
        seed=0,
    )


def figures(result: Evaluation, split: Split) -> dict[str, Any]:
    """Means, how many categories a list has for each of its places, and the share of own brands."""
    categories, (column, brand) = split.item_table[COLUMN], BRAND
    is_own = split.item_table[column] == brand
    users, k = result.top.items.shape
    listed = pl.DataFrame(
        {
            "user": pl.int_range(users, eager=True).repeat_by(k).explode(),
            "item": result.top.items.flatten().numpy(),
        }
    ).filter(pl.col("item") >= 0)
    listed = listed.with_columns(
        category=categories.gather(listed["item"]), is_own=is_own.gather(listed["item"])
    )
    shares = listed.group_by("user").agg(pl.col("category").n_unique() / pl.len())
    means = {name: result.means[name] for name in (*METRICS, "coverage@10")}
    return means | {
        "diversity@10": shares["category"].mean(),
        "own_brands@10": listed["is_own"].mean(),
    }


def paired(results: dict[str, Evaluation]) -> dict[str, dict[str, Any]]:
    """By model and metric the difference from the first, with its p-value."""
    first, *others = results
    tables = [
        compare(results[first], results[name], names=METRICS).with_columns(model=pl.lit(name))
        for name in others
    ]
    rows = with_holm(pl.concat(tables).drop("p_holm")).iter_rows(named=True)
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        kept = {name: row[name] for name in ("difference", "low", "high", "p_value", "p_holm")}
        found.setdefault(row["model"], {})[f"{row['metric']} difference"] = kept
    return found


if __name__ == "__main__":
    main()
