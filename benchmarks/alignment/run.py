"""Alignment by what was taken up or not: losses beside one another from the same starts.

    python -m benchmarks.alignment.run complete_journey           results/complete_journey.json
    python -m benchmarks.alignment.run complete_journey_undrawn   from the same starts
    RECSYS_DATA=FOLDER python -m benchmarks.alignment.run ml100k  results/ml100k.json

For each of five seeds a SASRec is trained on what comes first in the log, and is then aligned by
every loss. Each loss has the same budget: on seed 0 some settings of beta and learning rate and
some epochs are tried, and the one with the highest area under the curve within lists is chosen
among those whose recall@10 on the validation is not below the start's; where there is none, the one
with the highest recall@10. The other seeds are trained as chosen. Last, BCO with and without class
weights, three epochs at beta .1 and a learning rate of 3e-4, by epoch. What is done is kept in
`runs/alignment`, and a run that was stopped goes on from there.

Of `complete_journey` the mailers that are feedback and the two settings were chosen in some fifteen
runs that showed test figures beside those of the validation: read its test as explored, not as held
out. `complete_journey_undrawn` is tested on trips that it had not drawn, and what is tried there
was chosen on the validation alone.
With `--part 0/2` and `--part 1/2` two processes share the losses; the record is written without it.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pytorch_lightning import seed_everything
from scipy.stats import ttest_1samp
from torch import Tensor

from benchmarks.record import ROOT, spread, write
from recsys.batch.examples import Part
from recsys.batch.loader import Loader
from recsys.cli.compose import compose
from recsys.evaluation.feedback import feedback_figures, within_auroc
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.evaluation.statistics import holm
from recsys.files import write_parquet, write_text
from recsys.nn.preferences import BCE, BCO, DPO, KTO, SFT, PreferenceLoss, Preferences
from recsys.run import ranking
from recsys.run.config import plain
from recsys.run.log import filtered_log
from recsys.scoring import saved_model, trust
from recsys.scoring.recommender import Progress
from recsys.tasks.feedback import FeedbackTable, feedback_table
from recsys.tasks.phases import PHASES, TEST, VALIDATION
from recsys.tasks.splits import Split, global_time
from recsys.training.alignment import Aligned, examples
from recsys.training.callbacks import epoch_seed

logger = logging.getLogger(__name__)

RESULTS = ROOT / "benchmarks" / "alignment" / "results"
RUNS = ROOT / "runs" / "alignment"
PACKAGES = ["recsys", "torch", "numpy", "polars", "scikit-learn"]
SEEDS = (0, 1, 2, 3, 4)
BATCH = 32
ANCHOR = 0.3
COLLAPSE = {"balanced": BCO(balanced=True), "unbalanced": BCO(balanced=False)}
COLLAPSE_EPOCHS, COLLAPSE_RATE = 3, 3e-4
START = (
    "model=sasrec",
    "model.encoder.max_length=50",
    "model.encoder.num_layers=1",
    "trainer.monitor=recall@10",
    "trainer.max_epochs=20",
    "trainer.evaluate_every=5",
    "trainer.patience=3",
    "trainer.batch_size=64",
    "task.ks=[10]",
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a record is of.

    Attributes:
        start, feedback: options of the starts and of what they are aligned by.
        rows: of its table, by `losses`, beside the start.
        starts: the study whose starts it has; None: its own.
        settings: beta and learning rate, which are tried on seed 0; beta says nothing to SFT.
        epochs: so many are tried.
        chosen_by: the row whose choice is that of all; None: each has its own.
        draws: of lists of a phase, after those that `starts` drew for its test have been left out.
        ranked: the moment from which on a user's first basket is ranked in the test; None: that of
            the feedback.
        collapses: whether BCO is shown by epoch.
    """

    start: tuple[str, ...]
    feedback: tuple[str, ...]
    rows: tuple[str, ...]
    starts: str | None = None
    settings: tuple[tuple[float, float], ...] = ((0.1, 1e-4), (1.0, 3e-4))
    epochs: int = 2
    chosen_by: str | None = None
    draws: Mapping[str, int] | None = None
    ranked: str | None = None
    collapses: bool = True


class NextBasket(PreferenceLoss):
    """Nothing of the labels: the anchor alone teaches."""

    def forward(self, preferences: Preferences) -> Tensor:
        return preferences.log_probabilities.sum() * 0.0


REFERENCE = "reference, before"
NEXT = "next basket alone"
SFT_ROW = "SFT on what was taken up"


def losses(beta: float) -> dict[str, PreferenceLoss]:
    """By the name of their row."""
    return {
        NEXT: NextBasket(),
        SFT_ROW: SFT(),
        "BCE": BCE(beta=beta, balanced=False),
        "BCO": BCO(beta=beta, balanced=False),
        "BCO, distribution matching": BCO(beta=beta, balanced=False, matching=True),
        "KTO": KTO(beta=beta, balanced=False),
        "DPO, pairs within lists": DPO(beta=beta),
        "class-weighted BCE": BCE(beta=beta),
        "class-weighted BCO": BCO(beta=beta),
    }


ANCHORED = ", anchored"
"""The end of the name of a row whose loss has the next basket beside it."""
LABELS = tuple(row for row in losses(1.0) if row != NEXT)
JOURNEY = ("data=complete_journey_categories",)
MAILERS = ("feedback=mailers", "task.feedback.locations=[D,F,H,L]")
STUDIES = {
    "complete_journey": Study(
        start=JOURNEY,
        feedback=(
            *MAILERS,
            "+task.feedback.max_lists.train=3000",
            "+task.feedback.max_lists.validation=1000",
            "+task.feedback.max_lists.test=3000",
        ),
        rows=LABELS,
    ),
    "complete_journey_undrawn": Study(
        start=JOURNEY,
        feedback=(*MAILERS, "task.feedback.validation=2017-10-23"),
        rows=(
            NEXT,
            SFT_ROW,
            "class-weighted BCO",
            *(row + ANCHORED for row in LABELS if row != SFT_ROW),
        ),
        starts="complete_journey",
        settings=((0.3, 3e-4), (1.0, 3e-4)),
        epochs=1,
        chosen_by="class-weighted BCO" + ANCHORED,
        draws={"test": 6000},
        ranked="2017-12-04",
        collapses=False,
    ),
    "ml100k": Study(
        start=(
            "data=ml100k",
            "task=next_basket_time",
            "task.split.validation_start=1997-12-01",
            "task.split.test_start=1998-02-01",
            "task.filters.min_user_events=0",
        ),
        feedback=(
            "feedback=likes",
            "task.feedback.train=1997-12-01",
            "task.feedback.validation=1998-02-01",
            "task.feedback.test=1998-03-10",
            "+task.feedback.max_lists.train=6000",
        ),
        rows=LABELS,
    ),
}


@dataclass(frozen=True, eq=False)
class Setting:
    """A study's log with its labels, what is ranked, and how lists are evaluated."""

    name: str
    split: Split
    ranked: dict[int, Part]
    table: FeedbackTable
    protocol: Protocol

    @property
    def study(self) -> Study:
        return STUDIES[self.name]

    @property
    def folder(self) -> Path:
        return RUNS / self.name

    @property
    def rows(self) -> list[str]:
        return [REFERENCE, *self.study.rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=STUDIES)
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2: half of the losses each")
    parser.add_argument("--so-far", action="store_true", help="a record of what is finished")
    given = parser.parse_args()
    name, part = given.name, [int(number) for number in given.part.split("/")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    for seed in SEEDS:
        start_of(name, seed)
    setting = setting_of(name)
    order = [REFERENCE, *reversed(setting.study.rows)]
    for row in [] if given.so_far else order[part[0] :: part[1]]:
        for seed in SEEDS:
            tested(setting, row, seed)
    if part[1] > 1:
        return
    rows = [row for row in setting.rows if not given.so_far or is_finished(setting, row)]
    figures = {row: [tested(setting, row, seed) for seed in SEEDS] for row in rows}
    choosing = [row for row in rows if row != REFERENCE and setting.study.chosen_by in (None, row)]
    chosen = {row: choose(setting, row) for row in choosing}
    shown = COLLAPSE if setting.study.collapses else {}
    collapses = [of for of in shown if not given.so_far or collapse_file(setting, of).is_file()]
    measured = {
        "seeds": SEEDS,
        "labels": counts(setting.table),
        "chosen": chosen,
        "rows": {row: together(of) for row, of in figures.items()},
        "against_reference": compared(setting, rows, REFERENCE),
        "against_next": compared(setting, rows, NEXT) if NEXT in rows else {},
        "collapse": {of: collapse(setting, of) for of in collapses},
    }
    write(RESULTS / f"{name}.json", measured, packages=PACKAGES, seed=SEEDS[0])


def is_finished(setting: Setting, row: str) -> bool:
    folders = [setting.folder / f"{slug(row)}_{seed}" for seed in SEEDS]
    return all((folder / "figures.json").is_file() for folder in folders)


def start_of(name: str, seed: int) -> Path:
    """The folder of the model that everything starts from, trained where it has not been."""
    name = STUDIES[name].starts or name
    folder = RUNS / name / f"start_{seed}"
    if not (folder / "metrics.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["task=next_basket_time"] if name == "complete_journey" else []
        ranking.run(compose([*STUDIES[name].start, *options, *START, f"seed={seed}"]), folder)
    return folder


def setting_of(name: str) -> Setting:
    study = STUDIES[name]
    feedback = feedback_of(name)
    old = compose([*study.start, *START])
    log = filtered_log(plain(old.data), plain(old.task)["filters"])
    table = trust.build(feedback)(log, "feedback")
    if study.starts:
        before = trust.build(feedback_of(study.starts))(log, "drawn")
        table = undrawn(table, before, feedback, study.draws or {})
    split = global_time(log, validation_start=feedback["validation"], test_start=feedback["test"])
    later = split
    if study.ranked:
        later = global_time(log, validation_start=feedback["test"], test_start=study.ranked)
    ranked = {VALIDATION: split.validation, TEST: later.test}
    protocol = Protocol(ks=(10,), mask_history=old.task.mask_history)
    return Setting(name, split, ranked, table, protocol)


def feedback_of(name: str) -> dict[str, Any]:
    """The table of a study's feedback, as a config."""
    study = STUDIES[name]
    of_log = [option for option in study.start if option.startswith("data")]
    config = compose([*of_log, "task=align", f"start={start_of(name, 0)}", *study.feedback])
    return dict(plain(config.task.feedback))


def undrawn(
    table: FeedbackTable, before: FeedbackTable, starts: Mapping[str, Any], draws: Mapping[str, int]
) -> FeedbackTable:
    """The table without the lists that another one drew for its test, as many of them as wanted."""
    lists = ["user_id", "as_of"]
    tested = before.rows.filter(pl.col("phase") == TEST).select(lists)
    rows = table.frame().join(tested, on=lists, how="anti")
    return feedback_table(
        table.log,
        table.name,
        rows.select(*lists, "item_id", "label"),
        validation=starts["validation"],
        test=starts["test"],
        max_lists=draws,
    )


def counts(table: FeedbackTable) -> dict[str, dict[str, float]]:
    of = {}
    for phase, name in enumerate(PHASES):
        labels = table.labels_of(phase)
        share = round(float(labels.double().mean()), 4)
        of[name] = {"lists": len(table.phase(phase)), "labels": len(labels), "share_up": share}
    return of


def aligned(setting: Setting, row: str, beta: float, rate: float, seed: int) -> Aligned:
    """A start, ready to be aligned; its log-probabilities are kept beside it."""
    loss = losses(beta)[SFT_ROW if row == REFERENCE else row.removesuffix(ANCHORED)]
    anchor = ANCHOR if row == NEXT or row.endswith(ANCHORED) else 0.0
    return prepared(setting, loss, anchor, rate, seed)


def prepared(
    setting: Setting, loss: PreferenceLoss, anchor: float, rate: float, seed: int
) -> Aligned:
    folder = start_of(setting.name, seed)
    model = saved_model.load(folder, device="cpu").model
    kept = folder / f"reference_{setting.table.fingerprint[:12]}.parquet"
    reference = None
    if kept.is_file():
        reference = torch.from_numpy(
            pl.read_parquet(kept, glob=False)["reference"].to_numpy().copy()
        )
    seed_everything(seed, verbose=False)
    of = Aligned(
        model, copy.deepcopy(loss), setting.table, learning_rate=rate, anchor=anchor,
        reference=reference, seed=seed,
    )  # fmt: skip
    if reference is None:
        of.reference = of.log_probabilities_of(setting.split)
        write_parquet(kept, pl.DataFrame({"reference": of.reference.numpy()}))
    return of


def epochs(setting: Setting, of: Aligned, seed: int, count: int) -> Iterator[dict[str, float]]:
    """Train; after each epoch its number, and how far the model is."""
    part = of.prepare(setting.split)
    steps = count * -(-len(part) // BATCH)
    optimizer = of.optimizer(steps)
    step = 0
    for epoch in range(count):
        of.train()
        of.on_train_epoch_start()
        for batch in Loader(part, BATCH, shuffle_seed=epoch_seed(seed, epoch)):
            optimizer.zero_grad()
            of.loss(batch, Progress(step, steps)).backward()
            optimizer.step()
            step += 1
        yield {"epoch": epoch + 1, **of.drifted()}


def measured(
    setting: Setting, of: Aligned, phase: int
) -> tuple[dict[str, float], pl.DataFrame, pl.DataFrame]:
    """Figures of a phase, the area under the curve of each list, and the recall of each user."""
    of.eval()
    result = evaluate(of.model, setting.ranked[phase], setting.protocol)
    lists = setting.table.phase(phase)
    rows = examples(setting.table, setting.split).some(lists)
    scores = of.shown_scores(rows).numpy()
    owners = rows.target.owners().numpy()
    up = rows.labels.up.numpy()
    each = within_auroc(scores, up, owners)
    figures = feedback_figures(scores, up, owners)
    figures |= {name: result.means[name] for name in ("recall@10", "ndcg@10")}
    of_lists = pl.DataFrame({"row": lists.numpy(), "within_auroc": each})
    return figures, of_lists, result.per_user.select("user", "recall@10")


def choose(setting: Setting, row: str) -> dict[str, Any]:
    """The setting of a loss, by the validation of seed 0."""
    row = setting.study.chosen_by or row
    path = setting.folder / f"choice_{slug(row)}.json"
    if not path.is_file():
        before = reference_figures(setting, 0, VALIDATION)
        tried: list[dict[str, float]] = []
        for beta, rate in setting.study.settings:
            of = aligned(setting, row, beta, rate, 0)
            for figures in epochs(setting, of, 0, setting.study.epochs):
                figures |= measured(setting, of, VALIDATION)[0]
                tried.append({"beta": beta, "learning_rate": rate, **figures})
                logger.info("%s: %s", row, tried[-1])
        fit = [t for t in tried if t["recall@10"] >= before["recall@10"]]
        best = (
            max(fit, key=lambda t: t["within_auroc"])
            if fit
            else max(tried, key=lambda t: t["recall@10"])
        )
        write_text(path, json.dumps({"chosen": best, "keeps_recall": bool(fit), "tried": tried}))
    return dict(json.loads(path.read_text()))


def reference_figures(setting: Setting, seed: int, phase: int) -> dict[str, float]:
    return measured(setting, aligned(setting, REFERENCE, 1.0, 1e-4, seed), phase)[0]


def tested(setting: Setting, row: str, seed: int) -> dict[str, float]:
    """Figures of the test; what lists and users reached is kept for the paired tests."""
    folder = setting.folder / f"{slug(row)}_{seed}"
    if not (folder / "figures.json").is_file():
        drift: dict[str, float] = {}
        if row == REFERENCE:
            of = aligned(setting, row, 1.0, 1e-4, seed)
        else:
            best = choose(setting, row)["chosen"]
            of = aligned(setting, row, best["beta"], best["learning_rate"], seed)
            for figures in epochs(setting, of, seed, int(best["epoch"])):
                drift = {name: figures[name] for name in ("log_ratio", "shift")}
        test, of_lists, of_users = measured(setting, of, TEST)
        folder.mkdir(parents=True, exist_ok=True)
        write_parquet(folder / "lists.parquet", of_lists)
        write_parquet(folder / "users.parquet", of_users)
        write_text(folder / "figures.json", json.dumps(test | drift))
        logger.info("%s, seed %s: %s", row, seed, test | drift)
    return dict(json.loads((folder / "figures.json").read_text()))


def together(runs: list[dict[str, float]]) -> dict[str, Any]:
    return {name: spread(of[name] for of in runs) for name in runs[0]}


def compared(setting: Setting, every: list[str], base: str) -> dict[str, Any]:
    """Differences from one row by user, means over seeds first, and p after Holm.

    Lists of one user are not independent: their mean is one value.
    """
    users = setting.table.rows["user_id"]
    kinds = {"within_auroc": "lists", "recall@10": "users"}
    rows = [row for row in every if row not in (REFERENCE, base)]
    differences: dict[str, dict[str, Any]] = {}
    for metric, kind in kinds.items():
        of = {row: by_user(setting, row, kind, metric, users) for row in every}
        gains = {row: of[row] - of[base] for row in rows}
        p = [paired(gain) for gain in gains.values()]
        for row, raw, corrected in zip(rows, p, holm(np.array(p)), strict=True):
            difference = {"difference": float(np.nanmean(gains[row])), "p": raw}
            differences.setdefault(row, {})[metric] = difference | {"p_holm": float(corrected)}
    return differences


def by_user(setting: Setting, row: str, kind: str, metric: str, users: pl.Series) -> np.ndarray:
    """A user's mean over lists and seeds."""
    frames = []
    for seed in SEEDS:
        frame = pl.read_parquet(
            setting.folder / f"{slug(row)}_{seed}" / f"{kind}.parquet", glob=False
        )
        if kind == "lists":
            frame = frame.with_columns(user=users[frame["row"].to_numpy()])
        frames.append(frame.select("user", metric).filter(pl.col(metric).is_not_nan()))
    return pl.concat(frames).group_by("user").mean().sort("user")[metric].to_numpy()


def paired(gains: np.ndarray) -> float:
    """Of Student's t-test that the mean gain of users is 0."""
    return float(ttest_1samp(gains, 0.0).pvalue)


def collapse(setting: Setting, of: str) -> list[dict[str, float]]:
    """What becomes of a model by epoch; a warning where it runs away."""
    path = collapse_file(setting, of)
    if not path.is_file():
        runner = prepared(setting, COLLAPSE[of], 0.0, COLLAPSE_RATE, 0)
        by_epoch = [
            figures | measured(setting, runner, VALIDATION)[0]
            for figures in epochs(setting, runner, 0, COLLAPSE_EPOCHS)
        ]
        write_text(path, json.dumps(by_epoch))
    return list(json.loads(path.read_text()))


def collapse_file(setting: Setting, of: str) -> Path:
    return setting.folder / f"collapse_{of}.json"


def slug(row: str) -> str:
    return row.replace(",", "").replace(" ", "_").lower()


if __name__ == "__main__":
    main()
