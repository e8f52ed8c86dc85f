"""The device that is measured: its name, its clock, its memory, how busy it is."""

from __future__ import annotations

import argparse
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.record import ROOT, write
from recsys.devices import device_of

RESULTS = ROOT / "benchmarks" / "gpu" / "results"
SMALL = ROOT / "runs" / "gpu"
PACKAGES = (
    "recsys", "torch", "pytorch-lightning", "polars", "numpy", "transformers", "faiss-cpu",
    "faiss-gpu",
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda", help="as recsys takes it (default: cuda)")
    parser.add_argument("--small", action="store_true", help="sizes for a trial, not for a record")
    parser.add_argument("--output", type=Path, help="a folder for the records")


def options_of(description: str | None) -> tuple[torch.device, bool, Path]:
    """A part's device, whether it is to be small, and the folder of its record."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    add_options(parser)
    options = parser.parse_args()
    device = device_of(options.device)
    return device, options.small, output_of(options, device)


def output_of(options: argparse.Namespace, device: torch.device) -> Path:
    folder = SMALL if options.small else RESULTS
    return options.output or folder / re.sub(r"\W+", "_", name_of(device)).lower()


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def keep(path: Path, device: torch.device, measured: dict[str, Any]) -> None:
    """Write what is known by now."""
    write(path, {"card": name_of(device), **measured}, packages=PACKAGES, seed=0)


def synchronize(device: torch.device) -> None:
    """Wait for the work that a GPU was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def waited(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The work until it is done."""

    def both() -> None:
        work()
        synchronize(device)

    return both


@contextmanager
def watched(device: torch.device) -> Iterator[dict[str, float | None]]:
    """Peak memory in MiB and mean utilisation in the block; None where nobody can tell."""
    figures: dict[str, float | None] = {"peak_memory_mib": None, "utilisation": None}
    if device.type != "cuda":
        yield figures
        return
    torch.cuda.reset_peak_memory_stats(device)
    over = threading.Event()
    samples: list[int] = []
    sampler = threading.Thread(target=_sample, args=(device, over, samples), daemon=True)
    sampler.start()
    try:
        yield figures
    finally:
        over.set()
        sampler.join()
        figures["peak_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
        figures["utilisation"] = round(fmean(samples) / 100, 3) if samples else None


def _sample(device: torch.device, over: threading.Event, samples: list[int]) -> None:
    """Share of time in which some kernel ran, in percent, as the driver tells it."""
    while not over.wait(0.1):
        try:
            samples.append(torch.cuda.utilization(device))
        except Exception:  # nvidia-ml-py is not there, or the driver tells nothing
            return


def product_flops(device: torch.device, size: int) -> float:
    """FLOP/s of a bfloat16 product of two square matrices of random numbers."""
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    seconds = []
    for _ in range(10):
        synchronize(device)
        started = time.perf_counter()
        torch.mm(left, right)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)
