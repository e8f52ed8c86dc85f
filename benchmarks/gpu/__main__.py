"""Check and measure everything on a GPU in under eight minutes; `make gpu` does it.

    python -m benchmarks.gpu                        # the first CUDA device
    python -m benchmarks.gpu --parts retrieval      # one part of it
    python -m benchmarks.gpu --device cpu --small   # the same in small, to try it without a GPU

    tests       the tests marked `gpu`
    families    each model trained on the CPU and on the GPU, and scored on both: equal metrics
    training    epochs of GLOIE, DNNTSP, SASRec, ShopperBERT and LMRec: time, memory, utilisation
    retrieval   exact top-k beside the bare product and FAISS

A part is a process of its own, and is ended when its time is over. It writes its record, in
`benchmarks/gpu/results/<card>/<part>.json`, whenever something is known, so that nothing is lost
with it; small ones go to `runs/gpu/`. The exit code is 1 if a part failed or found a difference.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.card import add_options, name_of, output_of
from benchmarks.record import ROOT
from recsys.devices import device_of
from recsys.errors import ConfigError

SECONDS = {"tests": 110, "families": 130, "training": 170, "retrieval": 50}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--parts", nargs="+", choices=SECONDS, default=list(SECONDS))
    options = parser.parse_args()
    try:
        device = device_of(options.device)
    except ConfigError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    folder = output_of(options, device)
    print(f"{name_of(device)}: records in {folder}", flush=True)
    ended = {part: run(part, options, folder) for part in options.parts}
    for part, how in ended.items():
        print(f"{part}: {how}")
    return int(any(how != "done" for how in ended.values()))


def run(part: str, options: argparse.Namespace, folder: Path) -> str:
    """Run a part in its time; how it ended, in a word or two."""
    print(f"\n{part}, at most {SECONDS[part]} s", flush=True)
    command = [sys.executable, "-m", f"benchmarks.gpu.{part}", "--device", options.device]
    command += ["--output", str(folder), *["--small"] * options.small]
    try:
        process = subprocess.run(command, cwd=ROOT, timeout=SECONDS[part], check=False)
    except subprocess.TimeoutExpired:
        return f"ended after {SECONDS[part]} s; its record holds what was done by then"
    return "failed" if process.returncode else "done"


if __name__ == "__main__":
    sys.exit(main())
