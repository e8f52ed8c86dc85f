"""Does mixing hurt a domain, and does a model that knows of domains do better?

    python -m benchmarks.transfer.run diagnostic      results/item_knn.json
    RECSYS_DATA=FOLDER python -m benchmarks.transfer.run five_seeds    results/amazon_domains.json

`diagnostic` is `recsys transfer model=item_knn` on both logs. `five_seeds` trains each row of the
table five times on Amazon's five domains. Options were chosen on the validation users of seed 0;
the test users were asked when all was chosen. Models stop early by the mean over domains of
nDCG@10 over the items of the domain, which is also what the test measures. What is done is kept in
`runs/transfer`, a file per row and seed, and a command that was stopped goes on from there;
`--rows` and `--seeds` do a part, without a record.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import polars as pl
import torch
from pytorch_lightning import seed_everything

from benchmarks.record import ROOT, spread, write
from recsys.cli.compose import compose
from recsys.evaluation import gain_of_mean
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.evaluation.statistics import compare, holm, with_holm
from recsys.files import write_parquet
from recsys.log.event_log import USER
from recsys.models import CrossDomain, SASRec
from recsys.models.domains import InverseFrequency, Shapley, TransferGap, Uniform
from recsys.models.sequences import Encoder
from recsys.run import transfer
from recsys.run.config import plain
from recsys.scoring.kinds import Measured
from recsys.scoring.scorer import Scorer
from recsys.tasks.domains import having_targets_in
from recsys.tasks.phases import VALIDATION
from recsys.tasks.splits import Split
from recsys.training import TrainingOptions, fit

logger = logging.getLogger(__name__)

RESULTS = ROOT / "benchmarks" / "transfer" / "results"
RUNS = ROOT / "runs" / "transfer"
PACKAGES = ["recsys", "torch", "numpy", "polars"]
SEEDS = (0, 1, 2, 3, 4)
LOGS = ("amazon_domains", "complete_journey")
METRIC = "ndcg@10"
PROTOCOL = Protocol(ks=(10,))
EPOCHS, PATIENCE, EVALUATE_EVERY = 40, 3, 2
"""Epochs at most; evaluations, every so many epochs, without a better one before a model stops."""
PATIENCE_ALONE = 5
"""Of a domain alone, whose epochs have a fifth of the steps."""
EVERY, HELD_OUT, TEMPERATURE = 25, 256, 0.25
WEIGHTINGS = {
    "CrossDomain, uniform": Uniform(),
    "CrossDomain, inverse frequency": InverseFrequency(),
    "CrossDomain, TransferGap": TransferGap(
        every=EVERY, num_held_out=HELD_OUT, temperature=TEMPERATURE
    ),
    "CrossDomain, Shapley": Shapley(every=EVERY, num_held_out=HELD_OUT, temperature=TEMPERATURE),
}
ALONE, MIXED, UNIFORM = "SASRec, each domain alone", "SASRec, mixed", "CrossDomain, uniform"
ROWS = [ALONE, MIXED, *WEIGHTINGS]
CROSS_DOMAIN = "CrossDomain"


@dataclass(frozen=True)
class Setting:
    """What was chosen for a model on the validation, out of none to two layers and two steps."""

    num_layers: int
    batch_size: int
    learning_rate: float

    def options(self) -> dict[str, Any]:
        """Of a model."""
        encoder = Encoder(num_layers=self.num_layers, num_heads=1, max_length=50, dropout=0.5)
        return {"embedding_dim": 64, "encoder": encoder, "learning_rate": self.learning_rate}

    def training(self, seed: int, *, patience: int, monitor: str) -> TrainingOptions:
        return TrainingOptions(
            max_epochs=EPOCHS,
            batch_size=self.batch_size,
            evaluate_every=EVALUATE_EVERY,
            patience=patience,
            monitor=monitor,
            device="cpu",
            seed=seed,
        )


SETTINGS = {
    ALONE: Setting(num_layers=1, batch_size=64, learning_rate=2e-3),
    MIXED: Setting(num_layers=2, batch_size=64, learning_rate=2e-3),
    CROSS_DOMAIN: Setting(num_layers=1, batch_size=64, learning_rate=2e-3),
}
CLAIMS = [
    (ALONE, MIXED),
    (ALONE, UNIFORM),
    (MIXED, UNIFORM),
    *((UNIFORM, row) for row in WEIGHTINGS if row != UNIFORM),
]


class Judged(Measured):
    """Measures the mean over domains, each among its own items, for the early stopping."""

    measures = ("domains",)
    domains: transfer.Domains

    def measure(self, split: Split, phase: int) -> dict[str, float]:
        part = split.validation if phase == VALIDATION else split.test
        places = range(len(self.domains.names))
        means = [_reached(self, self.domains, part, place).to_numpy().mean() for place in places]
        return {"domains": fmean(means)}


class JudgedSASRec(Judged, SASRec):
    """SASRec that stops by the mean over domains."""


class JudgedCrossDomain(Judged, CrossDomain):
    """CrossDomain that stops by the mean over domains."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["diagnostic", "five_seeds"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="these alone; no record")
    parser.add_argument("--seeds", nargs="+", type=int, help="these alone; no record")
    parser.add_argument("--so-far", action="store_true", help="a record of what is finished")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    if given.what == "diagnostic":
        done = [of for of in LOGS if (RUNS / f"item_knn_{of}" / "gains.parquet").is_file()]
        measured = {name: diagnostic(name) for name in (done if given.so_far else LOGS)}
        write(RESULTS / "item_knn.json", measured, packages=PACKAGES, seed=0)
        return
    if not given.so_far:
        for seed in given.seeds or SEEDS:
            for row in given.rows or ROWS:
                tested(row, seed)
    if given.rows is None and given.seeds is None:
        of_rows: dict[str, Any] = {
            "users": {name: len(newcomers()[name]) for name in domains().names},
            "newcomers": {name: int(newcomers()[name].sum()) for name in domains().names},
            "rows": figures(),
            "of_mean": of_mean(),
            "by_domain": {row: by_domain(row) for row in ROWS if row != ALONE and seeds_of(row)},
            "by_newcomers": by_newcomers(),
        }
        write(RESULTS / "amazon_domains.json", of_rows, packages=PACKAGES, seed=SEEDS[0])


def diagnostic(name: str) -> list[dict[str, Any]]:
    """The paired differences of `recsys transfer`, for the metric of the tables."""
    folder = RUNS / f"item_knn_{name}"
    if not (folder / "gains.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        transfer.run(compose([f"data={name}", "model=item_knn"], "transfer"), folder)
    table = pl.read_parquet(folder / "gains.parquet", glob=False)
    return table.filter(metric=METRIC).drop("metric").to_dicts()


@cache
def domains() -> transfer.Domains:
    config = compose(["data=amazon_domains", "model=sasrec"], "transfer")
    return transfer.prepare(config, transfer.Division(**plain(config.transfer)))


def file_of(row: str, seed: int) -> Path:
    return RUNS / "amazon_domains" / f"{row.replace(', ', '_').replace(' ', '_')}_{seed}.parquet"


def seeds_of(*rows: str) -> list[int]:
    """With which all of these rows are finished."""
    return [seed for seed in SEEDS if all(file_of(row, seed).is_file() for row in rows)]


def tested(row: str, seed: int) -> pl.DataFrame:
    """What every test user reached, by domain: `user_id, domain, ndcg@10`."""
    path = file_of(row, seed)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = alone(seed) if row == ALONE else together(row, seed)
        write_parquet(path, frame)
        logger.info("%s, seed %s: %.4f", row, seed, mean_of(frame))
    return pl.read_parquet(path, glob=False)


def alone(seed: int) -> pl.DataFrame:
    """A model of each domain, which knows of no other's events."""
    frames, setting = [], SETTINGS[ALONE]
    training = setting.training(seed, patience=PATIENCE_ALONE, monitor=METRIC)
    for place in range(len(domains().names)):
        part = domains().part([place])
        model = fitted(
            partial(SASRec, part.task.split.num_items, **setting.options()), part, training
        )
        frames.append(asked(model, part, place))
    return pl.concat(frames)


def together(row: str, seed: int) -> pl.DataFrame:
    """One model of all domains."""
    setting = SETTINGS[MIXED if row == MIXED else CROSS_DOMAIN]
    training = setting.training(seed, patience=PATIENCE, monitor="domains")
    model = fitted(partial(mixed, row, **setting.options()), domains(), training)
    return pl.concat(asked(model, domains(), place) for place in range(len(domains().names)))


def mixed(row: str, **options: Any) -> JudgedSASRec | JudgedCrossDomain:
    split = domains().task.split
    model: JudgedSASRec | JudgedCrossDomain
    if row == MIXED:
        model = JudgedSASRec(split.num_items, **options)
    else:
        options |= {"num_classes": split.num_classes, "column": "domain"}
        model = JudgedCrossDomain(split.num_items, weighting=WEIGHTINGS[row], **options)
    model.domains = domains()
    return model


def fitted(build: Callable[[], Scorer], part: transfer.Domains, options: TrainingOptions) -> Scorer:
    seed_everything(options.seed, verbose=False)
    return fit(build(), part.task.split, options, PROTOCOL)


def asked(model: Scorer, part: transfer.Domains, place: int) -> pl.DataFrame:
    """The test users of a domain."""
    split = part.task.split
    test = having_targets_in(split.test, part.of_item == place)
    users = split.users.ids_of(pl.Series(test.history.users.numpy())).rename(USER)
    reached = _reached(model, part, split.test, place)
    return pl.DataFrame([users, reached]).with_columns(domain=pl.lit(part.names[place]))


def _reached(model: Scorer, part: transfer.Domains, of: Any, place: int) -> pl.Series:
    is_theirs = part.of_item == place
    users = having_targets_in(of, is_theirs)
    return evaluate(model, users, PROTOCOL, candidates=is_theirs).per_user[METRIC]


def mean_of(frame: pl.DataFrame) -> float:
    """The mean over domains."""
    return float(frame.group_by("domain").agg(pl.col(METRIC).mean())[METRIC].mean())  # type: ignore[arg-type]


def pair(first: str, second: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two rows, of each user the mean over the seeds that both have."""
    seeds = seeds_of(first, second)
    of_first, of_second = (
        over_seeds([tested(row, seed) for seed in seeds]) for row in (first, second)
    )
    return of_first, of_second


def over_seeds(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """A user's mean over seeds."""
    keys = [USER, "domain"]
    return pl.concat(frames).group_by(keys, maintain_order=True).agg(pl.col(METRIC).mean())


def figures() -> dict[str, dict[str, Any]]:
    """Of each row the mean over domains and each domain, by seed."""
    rows: dict[str, dict[str, Any]] = {}
    for row in filter(seeds_of, ROWS):
        frames = [tested(row, seed) for seed in seeds_of(row)]
        rows[row] = {"mean": spread(mean_of(frame) for frame in frames)}
        for name in domains().names:
            rows[row][name] = spread(mean_of(frame.filter(domain=name)) for frame in frames)
    return rows


def of_mean() -> list[dict[str, Any]]:
    """The claims on the mean over domains, corrected over all of them."""
    rows = [
        {"against": first, "row": second, "seeds": len(seeds_of(first, second))}
        | gain_of_mean(*pair(first, second), metric=METRIC)
        for first, second in CLAIMS
        if seeds_of(first, second)
    ]
    p_holm = holm(np.array([row["p_value"] for row in rows]))
    return [row | {"p_holm": float(p)} for row, p in zip(rows, p_holm, strict=True)]


def by_domain(row: str) -> list[dict[str, Any]]:
    """Every domain against the domain alone, corrected over the domains."""
    alone, together = pair(ALONE, row)
    rows = [
        compare(
            alone.filter(domain=name).drop("domain"), together.filter(domain=name).drop("domain")
        ).with_columns(domain=pl.lit(name))
        for name in domains().names
    ]
    return with_holm(pl.concat(rows)).drop("metric").to_dicts()


@cache
def newcomers() -> dict[str, pl.Series]:
    """By domain: of each test user whether the history holds nothing of it."""
    test, of_item = domains().task.split.test, domains().of_item
    return {
        name: pl.Series((part.where(of_item[part.items] == place).lengths() == 0).numpy())
        for place, name in enumerate(domains().names)
        for part in [having_targets_in(test, of_item == place).history]
    }


def by_newcomers() -> dict[str, dict[str, float]]:
    """Of `UNIFORM` against the domain alone: of its gain, what newcomers and the others add."""
    is_new = pl.concat(newcomers()[name] for name in domains().names)
    first, second = pair(ALONE, UNIFORM)
    both = first.join(second, on=[USER, "domain"], suffix="_second", maintain_order="left")
    both = both.with_columns(is_new=is_new).with_columns(users=pl.len().over("domain"))
    added = {}
    for name, group in (("newcomers", both.filter("is_new")), ("others", both.filter(~is_new))):
        share = pl.lit(1.0) / pl.col("users") / len(domains().names)
        columns = {"alone": METRIC, "together": f"{METRIC}_second"}
        added[name] = group.select(
            (share * pl.col(of)).sum().alias(at) for at, of in columns.items()
        ).row(0, named=True)
    return added


if __name__ == "__main__":
    main()
