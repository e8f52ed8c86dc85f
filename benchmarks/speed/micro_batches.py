"""Steps of LMRec in one and in several micro-batches: memory, and CPU seconds.

    python -m benchmarks.speed.micro_batches

A step forward and back of 128 users of a checkerboard, by a decoder of four layers and 64
dimensions, with 16 rows of the language loss. `tensors_mib` are the most that live at once,
gradients among them, as `recsys train` counts them for its estimate; `peak_mib` is by how much the
process grows. Seconds are taken turn by turn.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.record import ROOT, alternate, ratio, write
from recsys.batch.examples import Part
from recsys.log.words import Template
from recsys.models import LMRec
from recsys.models.language import Decoder, Language, Ranking
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard
from recsys.training.estimate import Made

RESULT = ROOT / "benchmarks/speed/results/micro_batches.json"
NUMBERS = (1, 4, 16)
USERS, REPEATS = 128, 3
STATUS = Path("/proc/self/status")


def step(model: LMRec, batch: Part, number: int) -> None:
    """Forward and back, with the same random numbers each time."""
    model.micro_batches = number
    model.zero_grad()
    torch.manual_seed(0)
    model.loss(batch, Progress(0, 1)).backward()


def memory_of(model: LMRec, batch: Part, number: int) -> dict[str, int]:
    model.zero_grad()
    with Made() as made:
        step(model, batch, number)
    model.zero_grad()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step(model, batch, number)
    return {
        "tensors_mib": round(made.most / 2**20),
        "peak_mib": round((_status("VmHWM") - before) / 2**20),
    }


def _status(name: str) -> int:
    (kibibytes,) = re.findall(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    return 1024 * int(kibibytes)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    split = last_basket(checkerboard(num_users=USERS))
    model = LMRec(
        split.num_items,
        decoder=Decoder(num_layers=4, vocab_size=512),
        template=Template(),
        language=Language(batch_size=16, row_length=64),
        ranking=Ranking(num_negatives=64),
    )
    batch = model.prepare(split)
    model.train()
    memory = {str(number): memory_of(model, batch, number) for number in NUMBERS}
    steps: dict[str, Callable[[], object]] = {
        str(number): partial(step, model, batch, number) for number in NUMBERS
    }
    sides = alternate(steps, repeats=REPEATS)
    ratios = {f"{number}/1": ratio(sides, str(number), "1") for number in NUMBERS[1:]}
    measured = {
        "users": len(batch),
        "events": len(batch.history.items),
        "memory": memory,
        "sides": sides,
        "ratios": ratios,
    }
    write(RESULT, measured, packages=["torch", "transformers"], seed=0)
    for number in NUMBERS:
        print(number, memory[str(number)], sides[str(number)]["cpu"]["median"])


if __name__ == "__main__":
    main()
