"""What there is to work with: versions, devices, threads, folders, and what an extra would add."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import polars as pl

from recsys import __version__
from recsys.cache import cache_folder
from recsys.data.sources.files import data_folder
from recsys.memory import available_memory

PACKAGES = ("torch", "pytorch-lightning", "torch-geometric", "polars", "hydra-core", "numpy")
INDEXES = ("faiss-cpu", "faiss-gpu")


def installation() -> pl.DataFrame:
    """What there is, a row each: `what` and `found`."""
    rows = [*_versions(), *_machine(), *_folders()]
    return pl.DataFrame(rows, schema=["what", "found"], orient="row")


def extras() -> pl.DataFrame:
    """The extras of the package: `extra`, `packages`, and which of them are `missing`."""
    packages: dict[str, list[str]] = {}
    for line in requires("recsys") or ():
        if match := re.match(r"([\w.-]+).*extra == [\"'](\w+)[\"']", line):
            packages.setdefault(match[2], []).append(match[1])
    rows = [
        (extra, ", ".join(names), ", ".join(n for n in names if _version(n) is None))
        for extra, names in sorted(packages.items())
    ]
    return pl.DataFrame(rows, schema=["extra", "packages", "missing"], orient="row")


def _versions() -> Iterator[tuple[str, str]]:
    yield "recsys", __version__
    yield "Python", f"{platform.python_version()} on {platform.system()}, {platform.machine()}"
    for name in PACKAGES:
        yield name, _version(name) or "missing: install recsys again"
    index = next((f"{name} {_version(name)}" for name in INDEXES if _version(name)), None)
    yield "faiss", index or "missing: pip install faiss-cpu"


def _machine() -> Iterator[tuple[str, str]]:
    import torch  # which takes seconds

    from recsys.devices import device_of, devices

    yield "devices", ", ".join(devices())
    yield "device=auto", str(device_of())
    for index in range(torch.cuda.device_count()):
        yield f"cuda:{index}", torch.cuda.get_device_name(index)
    yield "processors", str(os.cpu_count())
    threads = os.environ.get("OMP_NUM_THREADS")
    yield "threads", f"{torch.get_num_threads()}{f' by OMP_NUM_THREADS={threads}' * bool(threads)}"
    yield "free memory", f"{available_memory() / 2**30:.1f} GiB"


def _folders() -> Iterator[tuple[str, str]]:
    folders = {"RECSYS_DATA": data_folder, "RECSYS_CACHE": cache_folder}
    for variable, find in folders.items():
        try:
            path = find()
        except OSError as error:
            yield variable, f"none: {error}"
            continue
        there = "" if path.is_dir() else ", which does not exist"
        yield variable, f"{path}{there}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
