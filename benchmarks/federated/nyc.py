"""The next square kilometre in New York, learnt from 1,083 clients that keep their check-ins.

    python -m benchmarks.federated.nyc                          results/nyc.json, README.md
    python -m benchmarks.federated.nyc --rows fedavg --seeds 1  measure this alone, write no record

Every row is evaluated on the last fifth of each user's check-ins, each step after all before it.
What has been measured lies in runs/federated/nyc, a file per row and seed, and is not done again.
Options of the rows were chosen on the validation steps with seed 0.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import torch

from benchmarks.record import ROOT, spread, write
from recsys.data.sources.checkins import checkins
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.evaluation.statistics import compare, with_holm
from recsys.files import write_parquet, write_text
from recsys.models import NextPlace, OwnChain, Popularity
from recsys.models.sequences import Adjacency, OwnPointer
from recsys.scoring.scorer import Scorer
from recsys.tasks import Split, last_share
from recsys.training import (
    Clients,
    Coin,
    DistanceWeighted,
    FedAdam,
    FedProx,
    GaussianNoise,
    GeometricMedian,
    LocalSteps,
    OnClient,
    Rounds,
    TrainingOptions,
    fit,
    train_federated,
)

RUNS = ROOT / "runs" / "federated" / "nyc"
FOLDER = ROOT / "benchmarks" / "federated"
PACKAGES = ["recsys", "torch", "numpy", "polars"]
PROTOCOL = Protocol(ks=(1, 5, 10))
METRICS = {"Acc@1": "recall@1", "Acc@5": "recall@5", "MRR@10": "mrr@10"}

ROUNDS, EARLY, CLIENTS_A_ROUND = 200, 20, 40
LOCAL = LocalSteps(epochs=2, batch_size=32, max_examples=128, learning_rate=0.1)
ALONE = LocalSteps(epochs=20, batch_size=32, max_examples=None, learning_rate=0.1)
NEAR = Adjacency(share=0.5, km=1.0)
NOISE = GaussianNoise(clip=0.5, multiplier=0.5, delta=1e-4)
COIN = {"midpoint": 2.0, "width": 0.5}
OWN = {"prior": 8.0, "decay": 0.99}
POINTER = {"max_events": 256, "day": 24 * 60.0}  # the log's times are minutes
PERSONAL: dict[str, Any] = {
    "num_rounds": 150,
    "averaged": 75,
    "aggregation": lambda: FedAdam(learning_rate=0.02),
    "local": LocalSteps(epochs=2, batch_size=10, max_examples=128, learning_rate=0.3),
}


@cache
def split() -> Split:
    return last_share(checkins(cell_km=1.0))


def network(seed: int, **options: Any) -> NextPlace:
    torch.manual_seed(seed)
    return NextPlace(split().num_items, learning_rate=3e-3, **options)


def near(seed: int) -> NextPlace:
    return network(seed, adjacency=NEAR)


def with_own(seed: int) -> NextPlace:
    return network(seed, own=OwnPointer(**POINTER))


def counted(model: Any) -> Callable[[int], Scorer]:
    return lambda seed: model.fit(split())


def federated(
    *,
    new: Callable[[int], NextPlace] = network,
    num_rounds: int = ROUNDS,
    averaged: int = 1,
    local: LocalSteps = LOCAL,
    **how: Callable[[], Any],
) -> Callable[[int], Scorer]:
    def train(seed: int) -> Scorer:
        model = new(seed)
        rounds = Rounds(num_rounds, CLIENTS_A_ROUND, seed, averaged)
        made = {name: value() for name, value in how.items()}
        train_federated(model, split(), rounds=rounds, local=local, **made)
        return model

    return train


def alone(seed: int) -> Scorer:
    model = network(seed)
    model.keep_popularity(split())
    return OnClient(model, Clients.of(model, split()), ALONE, seed=seed)


def centralised(new: Callable[[int], NextPlace] = network) -> Callable[[int], Scorer]:
    def train(seed: int) -> Scorer:
        training = TrainingOptions(
            max_epochs=8, patience=2, monitor="mrr@10", device="cpu", seed=seed
        )
        return fit(new(seed), split(), training, PROTOCOL)

    return train


IDEAS: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "FedAvg + adjacency": {"new": near},
    "FedAvg + distance weights": {"aggregation": DistanceWeighted},
    "FedAvg + coin": {"coin": lambda: Coin(**COIN)},
    "all three": {
        "new": near,
        "aggregation": DistanceWeighted,
        "coin": lambda: Coin(**COIN),
    },
}
ROWS: dict[str, Callable[[int], Scorer]] = {
    "popularity": counted(Popularity()),
    "own frequencies": counted(OwnChain(prior=None)),
    "own + last place": counted(OwnChain(prior=OWN["prior"])),
    "own + last place, decayed": counted(OwnChain(**OWN)),
    "local alone": alone,
    **{f"{name}, {EARLY} rounds": federated(num_rounds=EARLY, **i) for name, i in IDEAS.items()},
    **{name: federated(**idea) for name, idea in IDEAS.items()},
    "FedProx": federated(aggregation=FedProx),
    "FedAdam": federated(aggregation=FedAdam),
    "geometric median": federated(aggregation=GeometricMedian),
    "FedAvg + noise": federated(noise=lambda: NOISE),
    "centralised": centralised(),
    "personal + federated": federated(new=with_own, **PERSONAL),
    "personal + centralised": centralised(with_own),
}
PAIRS = [
    ("popularity", "FedAvg"),
    ("local alone", "FedAvg"),
    *(
        (f"FedAvg{when}", f"{name}{when}")
        for when in (f", {EARLY} rounds", "")
        for name in IDEAS
        if name != "FedAvg"
    ),
    *(("FedAvg", name) for name in ("FedProx", "FedAdam", "geometric median")),
    ("FedAvg", "FedAvg + noise"),
    ("FedAvg", "centralised"),
    ("own frequencies", "personal + federated"),
    ("own + last place", "personal + federated"),
    ("own + last place, decayed", "personal + federated"),
    ("personal + federated", "personal + centralised"),
]
WITHOUT_SEED = ("popularity", "own frequencies", "own + last place", "own + last place, decayed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=[])
    parser.add_argument("--report", action="store_true", help="of what has been measured alone")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    for seed in given.seeds:
        for name in () if given.report else given.rows or ROWS:
            measure(name, seed)
    if not given.rows:
        report(given.seeds)


def measure(name: str, seed: int) -> None:
    """Train a row and write what each user's steps reached."""
    place = place_of(name, seed)
    if place.exists():
        return
    RUNS.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    model = ROWS[name](0 if name in WITHOUT_SEED else seed)
    trained = time.process_time()
    result = evaluate(model, split().test, PROTOCOL)
    users = split().users.ids_of(result.per_user["user"]).rename("user_id")
    write_parquet(
        place.with_suffix(".parquet"), result.per_user.drop("user").insert_column(0, users)
    )
    seconds = {"train": trained - began, "evaluate": time.process_time() - trained}
    write_text(place, json.dumps({"cpu_seconds": seconds}))
    print(name, seed, over_steps(result.per_user), seconds, flush=True)


def place_of(name: str, seed: int) -> Path:
    """The file that is there once a row has been measured; its users lie beside it."""
    words = name.replace(" ", "_").replace(",", "")
    return RUNS / f"{words}_{0 if name in WITHOUT_SEED else seed}.json"


def read(name: str, seed: int) -> pl.DataFrame:
    return pl.read_parquet(place_of(name, seed).with_suffix(".parquet"), glob=False)


def over_steps(per_user: pl.DataFrame) -> dict[str, float]:
    """Means over all steps, as papers report them; a user counts by its steps."""
    weight = pl.col("num_targets")
    means = [(pl.col(c) * weight).sum() / weight.sum() for c in METRICS.values()]
    return per_user.select(m.alias(n) for n, m in zip(METRICS, means, strict=True)).row(
        0, named=True
    )


def seeds_of(name: str, seeds: list[int]) -> list[int]:
    """Those of the seeds with which a row has been measured."""
    return [seed for seed in seeds if place_of(name, seed).exists()]


def mean_of_seeds(name: str, seeds: list[int]) -> pl.DataFrame:
    """Each user's metrics, the mean over seeds: what is compared, so that users are the sample."""
    frames = pl.concat(read(name, seed) for seed in seeds_of(name, seeds))
    return frames.group_by("user_id").agg(pl.col(METRICS.values()).mean()).sort("user_id")


def compare_rows(first: str, second: str, seeds: list[int]) -> pl.DataFrame:
    """Of the seeds with which both were measured."""
    frames = (mean_of_seeds(name, seeds) for name in (first, second))
    return compare(*frames).with_columns(first_row=pl.lit(first), second_row=pl.lit(second))


def report(seeds: list[int]) -> None:
    """Write the record and the tables of README.md, of the rows that were measured."""
    frames = {name: mean_of_seeds(name, seeds) for name in ROWS if seeds_of(name, seeds)}
    rows = {
        name: {
            "seeds": 1 if name in WITHOUT_SEED else len(seeds_of(name, seeds)),
            "over_steps": {
                metric: spread(
                    over_steps(read(name, seed))[metric] for seed in seeds_of(name, seeds)
                )
                for metric in METRICS
            },
            "over_users": dict(
                zip(METRICS, frame.select(METRICS.values()).mean().row(0), strict=True)
            ),
        }
        for name, frame in frames.items()
    }
    tests = pl.concat(
        compare_rows(first, second, common)
        for first, second in PAIRS
        if (common := seeds_of(second, seeds_of(first, seeds)))
    )
    tests = with_holm(tests.drop("p_holm"))
    share = CLIENTS_A_ROUND / len(split().users)
    measured = {
        "seeds": seeds,
        "steps": int(read("popularity", 0)["num_targets"].sum()),
        "rounds": ROUNDS,
        "clients_a_round": CLIENTS_A_ROUND,
        "epsilon": NOISE.epsilon(share, ROUNDS),
        "delta": NOISE.delta,
        "rows": rows,
        "tests": tests.to_dicts(),
    }
    write(FOLDER / "results" / "nyc.json", measured, packages=PACKAGES, seed=seeds[0])
    page = FOLDER / "README.md"
    head = page.read_text().partition("<!-- tables -->")[0]
    noise = (
        f"`FedAvg + noise`: epsilon {measured['epsilon']:.1f} at delta {NOISE.delta:g} for who "
        f"sees the weights, changes clipped at {NOISE.clip:g}, noise of {NOISE.multiplier:g} clips."
    )
    write_text(page, f"{head}<!-- tables -->\n\n{_tables(rows, tests)}\n{noise}\n")


def _tables(rows: dict[str, Any], tests: pl.DataFrame) -> str:
    lines = [
        "| | seeds | Acc@1 | Acc@5 | MRR@10 | over users |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [_cell(row["over_steps"][metric]) for metric in METRICS]
        users = " / ".join(f"{row['over_users'][m]:.3f}" for m in METRICS)
        lines.append(f"| {name} | {row['seeds']} | {' | '.join(cells)} | {users} |")
    lines += [
        "",
        "| second | first | metric | difference | 95% interval | p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    words = {column: name for name, column in METRICS.items()}
    for row in tests.iter_rows(named=True):
        lines.append(
            f"| {row['second_row']} | {row['first_row']} | {words[row['metric']]} | "
            f"{row['difference']:+.4f} | {row['low']:+.4f} to {row['high']:+.4f} | "
            f"{row['p_holm']:.2g} |"
        )
    return "\n".join(lines) + "\n"


def _cell(values: dict[str, Any]) -> str:
    """The median over seeds, and from where to where they reach."""
    median, low, high = (f"{values[name]:.3f}" for name in ("median", "min", "max"))
    return median if low == high else f"{median} ({low}-{high})"


if __name__ == "__main__":
    main()
