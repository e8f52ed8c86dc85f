"""What `recsys train` says before a training, beside what the training takes.

    RECSYS_DATA=FOLDER python -m benchmarks.speed.estimate [CASE …]

A case is an experiment or a log and a model, of which one epoch is trained on the processor, twice,
in processes of their own: once with the estimate, for its lines and the seconds of the epoch; once
without it, for the growth of the process's memory from before the first step, and the weights, to
its peak. The free pages of what came before are handed back first. LMRec reads, and is asked for,
the first 256 users of a log alone.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything

from benchmarks.record import ROOT, write
from recsys.batch.examples import Part
from recsys.cli.compose import compose
from recsys.run.config import Sizes, plain, sized
from recsys.run.ranking import prepare
from recsys.scoring import saved_model, trust
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split
from recsys.training import estimate, loop
from recsys.training.batches import Epochs

RESULT = ROOT / "benchmarks/speed/results/estimate.json"
CASES = {
    "sasrec/scientific": ["experiment=sasrec/scientific"],
    "sasrec/complete_journey": ["data=complete_journey", "model=sasrec"],
    "lmrec/scientific": ["experiment=lmrec/scientific"],
    "lmrec/complete_journey": ["experiment=lmrec/complete_journey"],
    "gloie/complete_journey": ["experiment=gloie/complete_journey"],
    "gloie/dc": ["experiment=gloie/dc"],
    "ease/ml100k": ["experiment=ease/ml100k"],
    "ease/complete_journey": ["data=complete_journey", "model=ease"],
}
FEW = 256
"""Users of what takes minutes an epoch."""
ONE_EPOCH = ["trainer.max_epochs=1", "trainer.evaluate_every=1", "device=cpu"]
STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Timed(estimate.FirstSteps):
    """Measures the epoch whose length it tells."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self.start = perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Timed.seconds = perf_counter() - self.start


class Watched(Epochs):
    """Notes the memory before the first step."""

    before = 0

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        Watched.before = memory_now()


def memory_now() -> int:
    """Bytes of the process; its peak counts from here."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    REFERENCES.write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    (kibibytes,) = re.findall(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    return 1024 * int(kibibytes)


def one(case: str, *, tells: bool) -> dict[str, Any]:
    """The lines of an estimate and the seconds of the epoch, or the growth of memory."""
    config = compose([*CASES[case], *ONE_EPOCH])
    task = prepare(config)
    config = sized(config, Sizes.of(task.split))
    seed_everything(config.seed, verbose=False)
    model: Any = saved_model.build(plain(config.model))
    training = trust.build(plain(config.trainer))
    if case.startswith("lmrec"):
        vars(model)["prepare"] = partial(_prepared_few, type(model), model)
        vars(task.split)["validation"] = _few(task.split.validation)
    lines: list[str] = []
    vars(loop).update({"FirstSteps": Timed, "Epochs": Watched})
    Watched.before = memory_now()
    loop.fit(model, task.split, training, task.protocol, tell=lines.append if tells else None)
    if tells:
        return {"lines": lines, "train_seconds": round(Timed.seconds, 2)}
    parts = () if isinstance(model, ClosedForm) else (*model.parameters(), *model.buffers())
    weights = sum(part.numel() * part.element_size() for part in parts)
    return {"peak_mib": round((_status("VmHWM") - Watched.before + weights) / 2**20)}


def _prepared_few(kind: type[Recommender], model: Recommender, split: Split) -> Part:
    return _few(kind.prepare(model, split))


def _few(part: Part) -> Part:
    return part.rows(torch.arange(min(FEW, len(part))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[*CASES, []])
    parser.add_argument("--child", choices=("lines", "peak"))
    options = parser.parse_args()
    if options.child:
        print(json.dumps(one(options.cases[0], tells=options.child == "lines")))
        return
    cases = json.loads(RESULT.read_text())["cases"] if RESULT.is_file() else {}
    for case in options.cases or CASES:
        figures: dict[str, Any] = {}
        for child in ("lines", "peak"):
            words = [sys.executable, "-m", "benchmarks.speed.estimate", case, "--child", child]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            figures |= json.loads(done.stdout.splitlines()[-1])
        cases[case] = figures
        print(case, json.dumps(figures, indent=2))
        write(RESULT, {"cases": cases}, packages=["recsys", "torch"], seed=0)


if __name__ == "__main__":
    main()
