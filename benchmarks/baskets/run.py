"""Probabilities, sizes and completions of next baskets: GLOIE, one setting, and simple rivals.

    RECSYS_DATA=FOLDER python -m benchmarks.baskets.run tafeng     or dc, tms, complete_journey

The model is trained as `experiment=gloie_plus/LOG_any` says, in `runs/baskets/LOG`, where a stopped
command goes on. All models are calibrated on the validation users in the same way and judged on
the test users. A softmax that is not calibrated says how much calibration does. For completion half
of each test user's basket of two items or more is known, drawn with several seeds. Its rivals are
GLOIE without a look at that half, GLOIE with it as the latest basket of the history, item-kNN asked
with the half alone, and what goes together alone. Differences are paired by user, with Holm's
correction over the rows and metrics of a table.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from statistics import mean, pstdev
from typing import Any

import polars as pl
import torch

from benchmarks.record import ROOT, write
from recsys.batch.histories import BasketBatch
from recsys.cli.compose import compose
from recsys.evaluation import Evaluation, Protocol, Reliability, evaluate, reliability
from recsys.evaluation.statistics import PAIRED, paired_t, with_holm
from recsys.models import DecayedPersonal, ItemKNN, Popularity
from recsys.run.calibrating import calibration_of, without_companions
from recsys.run.config import Sizes, plain, sized
from recsys.run.ranking import fitted, prepare
from recsys.scoring import Calibrated, Companions, Completing, Scorer, half_known
from recsys.scoring.calibration import MOST_ITEMS, basket_length, scored
from recsys.scoring.completion import without_last
from recsys.scoring.saved_model import build
from recsys.tasks import Split
from recsys.types import Scores

RESULTS = ROOT / "benchmarks/baskets/results"
SEEDS = 5
OURS, SOFTMAX = "gloie", "softmax"
OF_PROBABILITIES = ("brier", "log_loss", "size_error")
OF_LISTS = ("recall@10", "ndcg@10")


class Softmax(Scorer):
    """Log odds of a softmax's shares times the mean size of a basket: not calibrated."""

    def __init__(self, model: Scorer, size: float) -> None:
        super().__init__()
        self.model = model
        self.size = size

    def score(self, batch: BasketBatch) -> Scores:
        share = self.model.score(batch).double().softmax(1)
        return (self.size * share).clamp(1e-12, 1 - 1e-6).logit()


class Latest(Completing):
    """A model asked as if what is known of the basket was the one before."""

    def score(self, batch: BasketBatch) -> Scores:
        return self.model.score(batch)


class OfHalf(Completing):
    """A model asked with what is known of the basket alone."""

    def score(self, batch: BasketBatch) -> Scores:
        return self.model.model.score(batch.last(1))


class Together(Completing):
    """What goes together with what is known of the basket, and no model."""

    def score(self, batch: BasketBatch) -> Scores:
        return self.companions.evidence(without_last(batch)[1]).to(batch.device)


def main() -> None:
    (name,) = sys.argv[1:]
    config = compose([f"experiment=gloie_plus/{name}_any"])
    task = prepare(config)
    split, config = task.split, sized(config, Sizes.of(task.split))
    model = fitted(config.model, config, task, ROOT / "runs/baskets" / name, print)
    decayed = build(plain(compose([f"experiment=decayed_personal/{name}"]).model))
    assert isinstance(decayed, DecayedPersonal)
    models: dict[str, Scorer] = {
        OURS: model,
        "decayed_personal": decayed.fit(split),
        "popularity": Popularity().fit(split),
    }
    calibrated = {n: Calibrated(m, calibration_of(m, split)).eval() for n, m in models.items()}
    size = calibrated[OURS].calibration.size
    asked: dict[str, Scorer] = {**calibrated, SOFTMAX: Softmax(model, size).eval()}
    results = {name: reliability(one, split.test) for name, one in asked.items()}
    write(
        RESULTS / f"{name}.json",
        {
            "users": len(split.test),
            "validation_users": len(split.validation),
            "items": split.num_items,
            "probabilities": probabilities(results),
            "sizes": sizes(results, size, split),
            "f1": lengths(calibrated[OURS], split),
            "completion": completions(calibrated, split),
        },
        packages=["torch", "polars", "scipy"],
        seed=config.seed,
    )


def probabilities(results: Mapping[str, Reliability]) -> dict[str, Any]:
    """Of each model, and of GLOIE's softmax, how probabilities compare with what came."""
    differences = paired({name: of_users(result) for name, result in results.items()})
    return {
        name: {
            **result.means,
            "intervals": result.intervals(),
            "groups": result.groups.to_dict(as_series=False),
            **differences.get(name, {}),
        }
        for name, result in results.items()
    }


def of_users(result: Reliability) -> pl.DataFrame:
    return result.per_user.select(pl.col("user").alias("user_id"), *OF_PROBABILITIES)


def sizes(
    results: Mapping[str, Reliability], mean_size: float, split: Split
) -> dict[str, dict[str, float]]:
    """Mean absolute error, and root of the mean square, of sums of probabilities and of guesses."""
    history, size = split.test.history, split.test.target.lengths.double()
    mean_of_user = history.lengths() / history.num_baskets().clamp(min=1)
    guesses = {
        "mean of all": torch.full_like(size, mean_size),
        "mean of the user": mean_of_user.double(),
        "latest basket": history.last(1).lengths().double(),
    }
    for name, result in results.items():
        if name != SOFTMAX:  # whose sum is the mean of all
            guesses[name] = result.per_user["size"].to_torch()
    errors = {name: guess - size for name, guess in guesses.items()}
    return {
        name: {"absolute": float(e.abs().mean()), "root of square": float(e.square().mean().sqrt())}
        for name, e in errors.items()
    }


def lengths(model: Calibrated, split: Split) -> dict[str, float]:
    """F1 of baskets of the likeliest items, by how their length is chosen; means over users."""
    rows: dict[str, list[torch.Tensor]] = {}
    for batch, logits in scored(model, split.test):
        chances, items = logits.sigmoid().sort(dim=1, descending=True)
        size, history = chances.sum(1), batch.history
        of_user = history.lengths() / history.num_baskets().clamp(min=1)
        hits = batch.target.contains(items, logits.shape[1]).cumsum(1)
        ways = {
            "highest expected F1": basket_length(chances[:, :MOST_ITEMS], size),
            "expected size": size.round().long().clamp(min=1),
            "mean size of the user": of_user.round().long().clamp(min=1),
            "5 items": torch.full((len(size),), 5),
            "10 items": torch.full((len(size),), 10),
        }
        for way, length in ways.items():
            right = hits.gather(1, length[:, None] - 1)[:, 0]
            rows.setdefault(way, []).append(2 * right / (length + batch.target.lengths))
    return {way: float(torch.cat(values).double().mean()) for way, values in rows.items()}


def completions(models: Mapping[str, Calibrated], split: Split) -> dict[str, Any]:
    """Lists of the other half, mean and deviation over seeds of the halves."""
    companions, model = Companions.of(split.training), models[OURS]
    knn = Calibrated(ItemKNN().fit(split), model.calibration)
    personal = models["decayed_personal"]
    asked = {
        OURS: Completing(model, companions),
        "without the half": Completing(without_companions(model), companions),
        "half as the latest basket": Latest(without_companions(model), companions),
        "item_knn of the half": OfHalf(knn, companions),
        "what goes together": Together(model, companions),
        "decayed_personal": Completing(personal, companions),
        "decayed_personal without the half": Completing(without_companions(personal), companions),
    }
    runs: dict[str, list[Evaluation]] = {name: [] for name in asked}
    for seed in range(SEEDS):
        half = half_known(split.test, seed)
        for name, one in asked.items():
            runs[name].append(evaluate(one.eval(), half, Protocol((10,))))
    differences = paired({name: over_seeds(results) for name, results in runs.items()})
    rows = {name: spreads(results) | differences.get(name, {}) for name, results in runs.items()}
    return {"users": len(half), "weight": model.calibration.basket_weight, "rows": rows}


def over_seeds(results: list[Evaluation]) -> pl.DataFrame:
    """Each user's mean over seeds."""
    frames = (r.per_user.select(pl.col("user").alias("user_id"), *OF_LISTS) for r in results)
    return pl.concat(frames).group_by("user_id").mean().sort("user_id")


def spreads(results: list[Evaluation]) -> dict[str, Any]:
    values = {name: [result.means[name] for result in results] for name in OF_LISTS}
    return {n: {"mean": mean(of), "deviation": pstdev(of)} for n, of in values.items()}


def paired(frames: dict[str, pl.DataFrame]) -> dict[str, dict[str, Any]]:
    """By row and metric how far the first is from it, with its p-value."""
    first, *others = frames
    names = [name for name in frames[first].columns if name != "user_id"]
    tests = []
    for other in others:
        both = frames[other].join(frames[first], on="user_id", suffix="_first")
        pairs = [(name, both[name], both[f"{name}_first"]) for name in names]
        rows = [paired_t(*pair) for pair in pairs if not pair[1].equals(pair[2], check_names=False)]
        tests.append(pl.DataFrame(rows, schema=PAIRED).with_columns(row=pl.lit(other)))
    whole = with_holm(pl.concat(tests))
    table: dict[str, dict[str, Any]] = {}
    for row in whole.iter_rows(named=True):
        figures = {n: row[n] for n in ("difference", "low", "high", "p_value", "p_holm")}
        table.setdefault(row["row"], {})[f"{row['metric']} difference"] = figures
    return table


if __name__ == "__main__":
    main()
