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
        return {"domains": fmean(_reached(self, self.domains, part, p).mean() for p in places)}


class JudgedSASRec(Judged, SASRec):
    """SASRec that stops by the mean over domains."""


class JudgedCrossDomain(Judged, CrossDomain):
    """CrossDomain that stops by the mean over domains."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["diagnostic", "five_seeds"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="these alone; no record")
    parser.add_argument("--seeds", nargs="+", type=int, help="these alone; no record")
    parser.add_argument("--so-far", action="store_true", help="a record of the finished rows")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    if given.what == "diagnostic":
        measured = {name: diagnostic(name) for name in LOGS}
        write(RESULTS / "item_knn.json", measured, packages=PACKAGES, seed=0)
        return
    rows = [row for row in ROWS if not given.so_far or all(map(partial(is_done, row), SEEDS))]
    for seed in given.seeds or SEEDS:
        for row in given.rows or rows:
            tested(row, seed)
    if given.rows is None and given.seeds is None:
        frames = {row: over_seeds([tested(row, seed) for seed in SEEDS]) for row in rows}
        measured = {"seeds": SEEDS, "users": users_of(frames[ALONE]), "rows": figures(rows)}
        measured |= {"of_mean": of_mean(frames), "by_domain": by_domain(frames)}
        write(RESULTS / "amazon_domains.json", measured, packages=PACKAGES, seed=SEEDS[0])


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


def is_done(row: str, seed: int) -> bool:
    return file_of(row, seed).is_file()


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


def over_seeds(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """A user's mean over seeds."""
    keys = [USER, "domain"]
    return pl.concat(frames).group_by(keys, maintain_order=True).agg(pl.col(METRIC).mean())


def users_of(frame: pl.DataFrame) -> dict[str, int]:
    return {name: len(frame.filter(domain=name)) for name in domains().names}


def figures(done: list[str]) -> dict[str, dict[str, Any]]:
    """Of each row the mean over domains and each domain, by seed."""
    names = domains().names
    rows: dict[str, dict[str, Any]] = {}
    for row in done:
        frames = [tested(row, seed) for seed in SEEDS]
        rows[row] = {"mean": spread(mean_of(frame) for frame in frames)}
        for name in names:
            rows[row][name] = spread(mean_of(frame.filter(domain=name)) for frame in frames)
    return rows


def of_mean(frames: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """The claims on the mean over domains, corrected over all of them."""
    rows = [
        {"against": first, "row": second, **gain_of_mean(frames[first], frames[second], METRIC)}
        for first, second in CLAIMS
        if {first, second} <= frames.keys()
    ]
    p_holm = holm(np.array([row["p_value"] for row in rows]))
    return [row | {"p_holm": float(p)} for row, p in zip(rows, p_holm, strict=True)]


def by_domain(frames: dict[str, pl.DataFrame]) -> dict[str, list[dict[str, Any]]]:
    """Of each row, every domain against the domain alone, corrected over the domains."""
    return {row: _against_alone(frames[ALONE], frames[row]) for row in frames if row != ALONE}


def _against_alone(first: pl.DataFrame, second: pl.DataFrame) -> list[dict[str, Any]]:
    rows = [
        compare(
            first.filter(domain=name).drop("domain"), second.filter(domain=name).drop("domain")
        ).with_columns(domain=pl.lit(name))
        for name in domains().names
    ]
    return with_holm(pl.concat(rows)).drop("metric").to_dicts()


if __name__ == "__main__":
    main()
