"""Run experiments over seeds and keep what they reached as records.

    python -m benchmarks.run tifuknn/dc ease/ml100k
    python -m benchmarks.run count_vae/dc --seeds 0 1 2 3 4
    python -m benchmarks.run lmrec/scientific_language --keep
    python -m benchmarks.run lmrec/scientific_states --take runs/a runs/b

A record, `benchmarks/results/<experiment>.json`, holds the test and validation metrics of every
seed, their spread, the composed config, a fingerprint of the log, the time, the memory and the
machine; `<experiment>.parquet` beside it each test user's metrics, mean over seeds, for paired
tests. Both are written after every seed. A seed that they hold already, run with the same config
on the same log, is kept and not run again, unless `--fresh` is given; experiments of label tables
are always run again. An experiment that fails leaves a record of its error. With `--keep` the run's
folder stays, as `runs/<experiment>`, for others to start from; the record is then made anew, as by
`--fresh`. `--take` makes a record of folders in which the experiment was trained elsewhere, one a
seed, such as side by side on several machines. `benchmarks.report` makes tables.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import yaml
from omegaconf import OmegaConf

from benchmarks.record import ROOT, stamp, write
from recsys.cli.compose import compose
from recsys.errors import RunError
from recsys.files import atomic_file, locked
from recsys.renamed import renamed
from recsys.run.config import Sizes, completed, sized
from recsys.run.prediction import compare_tables
from recsys.run.ranking import prepare

RESULTS = ROOT / "benchmarks" / "results"
RUNS = ROOT / "runs"
PACKAGES = ["recsys", "torch", "pytorch-lightning", "polars", "numpy", "scipy", "faiss-cpu"]
SHOWN = ("recall@10", "ndcg@10", "phr@10")
VARIANTS = {"shopperbert/small_without": "pretraining.without"}
"""Experiments of several rows, and the option that tells these apart."""

Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--fresh", action="store_true", help="run the seeds held already, too")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder; runs it afresh")
    parser.add_argument("--take", nargs="+", type=Path, default=[], help="folders of finished runs")
    options = parser.parse_args()
    if options.take and len(options.experiments) > 1:
        parser.error("--take: the folders are those of one experiment; name one")
    if options.keep and len(options.seeds) > 1:
        parser.error("--keep: runs/<experiment> holds one run; give one seed")
    for experiment in options.experiments:
        if options.take:
            runs = take(experiment, options.take)
        else:
            runs = measure(experiment, options.seeds, fresh=options.fresh, keep=options.keep)
        means = spread_over_seeds(runs, "test")
        names = [name for name in SHOWN if name in means] or list(means)
        rounded = {name: round(means[name]["mean"], 4) for name in names}
        print(experiment, rounded or runs[0]["error"], flush=True)


def measure(
    experiment: str, seeds: list[int], *, fresh: bool = False, keep: bool = False
) -> list[Run]:
    """Bring the record and the users' means to hold these seeds; returns all runs they hold.

    Raises:
        RunError: the folder that is to be kept is there already, or another process is at the
            record.
    """
    path = RESULTS / f"{experiment}.json"
    with locked(path.with_suffix(".lock"), f"the record of {experiment}"):
        return _measure(experiment, path, seeds, fresh=fresh, keep=keep)


def _measure(
    experiment: str, path: Path, seeds: list[int], *, fresh: bool, keep: bool
) -> list[Run]:
    users = path.with_suffix(".parquet")
    runs_by_seed = {} if fresh or keep else held(experiment, path, users)
    for seed in seeds:
        if seed in runs_by_seed:
            continue
        with TemporaryDirectory() as scratch:
            folder = new_folder(RUNS / experiment) if keep else Path(scratch)
            new = run(experiment, seed, folder)
            if not any("metrics" in run for run in runs_by_seed.values()):
                users.unlink(missing_ok=True)  # of runs that the record no longer holds
            runs_by_seed[seed] = new
            runs = [runs_by_seed[seed] for seed in sorted(runs_by_seed)]
            # The users last: a seed that they lack is run again, one that they hold is never lost.
            write_record(path, experiment, runs)
            if (folder / "per_user.parquet").exists():
                add_users(users, folder / "per_user.parquet", seed)
    return [runs_by_seed[seed] for seed in sorted(runs_by_seed)]


def take(experiment: str, folders: list[Path]) -> list[Run]:
    """Make the record and the users' means anew, of folders in which the experiment was trained.

    Raises:
        RunError: another process is at the record, or a folder holds a run of another config or
            log, or of a seed that another one holds.
    """
    path = RESULTS / f"{experiment}.json"
    with locked(path.with_suffix(".lock"), f"the record of {experiment}"):
        runs = {_seed(folder): (folder, reached(folder)) for folder in folders}
        plans = planned(experiment, runs)
        for seed, (folder, run) in runs.items():
            if not is_same(plans[seed], run):
                raise RunError(f"{folder} is no run of {experiment} as it is now; train it again")
        if len(runs) < len(folders):
            raise RunError(f"{len(folders)} folders hold {len(runs)} seeds; give one a seed")
        path.with_suffix(".parquet").unlink(missing_ok=True)
        entries = [
            {"seed": seed, **stamp(), **runs[seed][1], "wall_seconds": _seconds(runs[seed][0])}
            for seed in sorted(runs)
        ]
        write_record(path, experiment, entries)
        for seed in sorted(runs):
            add_users(path.with_suffix(".parquet"), runs[seed][0] / "per_user.parquet", seed)
    return entries


def _seed(folder: Path) -> int:
    return int(yaml.safe_load((folder / "config.yaml").read_text("utf-8"))["seed"])


def _seconds(folder: Path) -> float:
    """From the first file of a run to its last."""
    times = [(folder / name).stat().st_mtime for name in ("log.json", "metrics.json")]
    return round(times[1] - times[0], 2)


def new_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise RunError(f"{folder} is there already; move it, or remove it") from None
    return folder


def held(experiment: str, path: Path, users: Path) -> dict[int, Run]:
    """The runs by seed that the users' means are over, as the record has them.

    None if one of them had another config or log than a run would have now: it cannot be taken
    out of the means.
    """
    if not (path.exists() and users.exists()):
        return {}
    seeds = seeds_of(users)
    runs = {run["seed"]: run for run in json.loads(path.read_text())["runs"]}
    plans = planned(experiment, seeds)
    if all(seed in runs and is_same(plans[seed], runs[seed]) for seed in seeds):
        return {seed: runs[seed] for seed in seeds}
    return {}


def is_same(plan: Run, run: Run) -> bool:
    """Whether a run was of this config, wherever it ran, on this log."""
    return plan["log"] == run["log"] and _settings(plan["config"]) == _settings(run["config"])


def _settings(config: str) -> dict[str, Any]:
    settings: dict[str, Any] = renamed(yaml.safe_load(config))
    settings.pop("device", None)
    settings["trainer"].pop("accelerator", None)  # as older records call it
    return settings


def planned(experiment: str, seeds: Iterable[int]) -> dict[int, Run]:
    """What is known of a run before it runs, by seed: its config and its log's fingerprint."""
    composed = compose(overrides(experiment, 0))
    split = prepare(composed).split
    log = split.log.fingerprint
    complete = sized(composed, Sizes.of(split))
    configs = {seed: completed(complete, seed=seed) for seed in seeds}
    return {
        s: {"config": OmegaConf.to_yaml(c, resolve=True), "log": log} for s, c in configs.items()
    }


def overrides(experiment: str, seed: int) -> list[str]:
    """Those of a row: `small_without_day` is `small_without` with its option set to `day`."""
    for name, option in VARIANTS.items():
        if experiment.startswith(f"{name}_"):
            value = experiment.removeprefix(f"{name}_")
            return [f"experiment={name}", f"{option}={value}", f"seed={seed}"]
    return [f"experiment={experiment}", f"seed={seed}"]


def run(experiment: str, seed: int, folder: Path) -> Run:
    """One run in a process of its own: metrics, config, wall seconds and peak memory."""
    entry = {"seed": seed, **stamp()}
    command = [sys.executable, "-m", "recsys.cli.main", "train", *overrides(experiment, seed)]
    command += [f"hydra.run.dir={folder}"]
    started = time.perf_counter()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if ended.returncode:
        return {**entry, "error": ended.stderr.strip().splitlines()[-1]}
    return {
        **entry,
        **reached(folder),
        "wall_seconds": round(seconds, 2),
        # The largest of the children so far: an upper bound where several experiments run.
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }


def reached(folder: Path) -> Run:
    """What a finished run's folder says of itself."""
    entry = {
        "metrics": json.loads((folder / "metrics.json").read_text()),
        "intervals": json.loads((folder / "intervals.json").read_text())["test"],
        "config": (folder / "config.yaml").read_text("utf-8"),
        "log": json.loads((folder / "log.json").read_text())["sha256"],
    }
    if not (folder / "tables").is_dir():
        return entry
    others = sorted(path for path in (folder / "baselines").glob("*") if path.is_dir())
    entry["baselines"] = {
        path.name: json.loads((path / "metrics.json").read_text()) for path in others
    }
    entry["paired"] = {path.name: paired(path, folder) for path in others}
    if (folder / "pretraining").is_dir():
        before = folder / "pretraining"
        entry["pretraining"] = json.loads((before / "metrics.json").read_text())
    return entry


def paired(first: Path, second: Path) -> list[dict[str, Any]]:
    """Differences of two runs of label tables over the folds that both have."""
    try:
        return compare_tables(first, second).to_dicts()
    except RunError:  # none in common
        return []


def write_record(path: Path, experiment: str, runs: list[Run]) -> None:
    seeds = [run["seed"] for run in runs]
    measured: dict[str, Any] = {"experiment": experiment, "seeds": seeds, "runs": runs}
    for part in ("validation", "test"):
        measured[part] = spread_over_seeds(runs, part)
    write(path, measured, packages=PACKAGES, seed=seeds[0])


def add_users(path: Path, per_user: Path, seed: int) -> None:
    """Bring a run's test users into the mean over seeds that `path` holds, whole or not at all.

    A row per user: `user_id` and the metrics of `SHOWN`. The seeds are in the file's metadata.
    """
    mean = pl.read_parquet(per_user, glob=False).filter(part="test").select("user_id", *SHOWN)
    seeds = [seed]
    if path.exists():
        old, seeds = pl.read_parquet(path, glob=False), [*seeds_of(path), seed]
        assert old["user_id"].equals(mean["user_id"])  # the log is the same
        mean = mean.with_columns(old[m] + (mean[m] - old[m]) / len(seeds) for m in SHOWN)
    with atomic_file(path) as scratch:
        mean.cast({pl.Float64: pl.Float32}).write_parquet(scratch, metadata={"seeds": f"{seeds}"})


def seeds_of(users: Path) -> list[int]:
    """Over which a file's means are."""
    return json.loads(pl.read_parquet_metadata(users)["seeds"])


def spread_over_seeds(runs: list[Run], part: str) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (0 for one seed) of every metric, over the runs that ended."""
    # Tables without order in time have no validation.
    metrics = [run["metrics"].get(part, {}) for run in runs if "metrics" in run]
    if not metrics:
        return {}
    return {
        name: {
            "mean": statistics.fmean(m[name] for m in metrics),
            "std": statistics.stdev(m[name] for m in metrics) if len(metrics) > 1 else 0.0,
        }
        for name in metrics[0]
        if all(m[name] is not None for m in metrics)  # no fold has a figure
    }


if __name__ == "__main__":
    main()
